"""Products of many thin matrices, (n, p, d) with d small, on the quickest operation at hand.

A batched product calls its kernel once a point, which for d = 2 costs more than the arithmetic; columns as
strided vectors cost one call in all. Results are equal to rounding.
"""

import torch
from jaxtyping import Float
from torch import Tensor

MANY = 2**13
"""Entries from which strided columns make up for their calls."""
LARGE = 2**20
"""Entries from which rows are worked on in blocks that stay in the cache."""
BLOCK = 32


def _quick(*tensors: Tensor) -> bool:
    """Whether to leave the batched product: on a CPU, outside of any graph."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    return all(tensor.device.type == "cpu" for tensor in tensors) and not torch.compiler.is_compiling()


def _by_features(H: Tensor) -> bool:
    """Whether features lie next to each other, as `pullback.jets` leaves them."""
    return H.stride(1) == 1 and H.shape[1] > 1


def gram(M: Float[Tensor, "n p d"]) -> Float[Tensor, "n d d"]:
    """MᵀM a point: (n, r, d) -> (n, d, d)."""
    if M.shape[-1] != 2 or M.numel() < MANY or not _quick(M):
        return M.mT @ M
    a, b = M.unbind(-1)
    result = M.new_empty(M.shape[0], 4)
    torch.linalg.vecdot(a, a, out=result[:, 0])
    torch.linalg.vecdot(a, b, out=result[:, 1])
    torch.linalg.vecdot(b, b, out=result[:, 3])
    result[:, 2] = result[:, 1]
    return result.view(-1, 2, 2)


def times(M: Float[Tensor, "n p d"], S: Float[Tensor, "n d d"]) -> Float[Tensor, "n p d"]:
    """M S a point, S symmetric: (n, p, d), (n, d, d) -> (n, p, d)."""
    if M.shape[-1] != 2 or M.numel() < MANY or not _quick(M, S):
        return (S @ M.mT).mT  # rows of length p: a product with d columns takes up to seven times as long
    result = torch.empty_like(M)
    a, b = M.unbind(-1)
    for k, column in enumerate(result.unbind(-1)):
        torch.mul(a, S[:, 0, k].unsqueeze(1), out=column)
        column.addcmul_(b, S[:, 1, k].unsqueeze(1))
    return result


def contract(G: Float[Tensor, "n p d"], H: Float[Tensor, "n p d d"]) -> Float[Tensor, "n d"]:
    """Σ_ia G_ia H_iac a point: (n, p, d), (n, p, d, d) -> (n, d)."""
    n, p, d = G.shape
    if d > 1 and _by_features(H) and _quick(G, H):
        rows, columns = G.permute(2, 0, 1).contiguous(), H.permute(3, 2, 0, 1)
        dots = [sum(map(torch.linalg.vecdot, rows, column), start=G.new_zeros(n)) for column in columns]
        return torch.stack(dots, dim=1)
    if d == 2 and G.numel() >= MANY and _quick(G, H):
        flat, columns = G.reshape(n, p * d), H.reshape(n, p * d, d).unbind(-1)
        return torch.stack([torch.linalg.vecdot(flat, column) for column in columns], dim=1)
    return torch.bmm(G.reshape(n, 1, p * d), H.reshape(n, p * d, d)).view(n, d)


def times_and_contract(
    M: Float[Tensor, "n p d"], S: Float[Tensor, "n d d"], H: Float[Tensor, "n p d d"]
) -> tuple[Float[Tensor, "n p d"], Float[Tensor, "n d"]]:
    """G = M S and Σ_ia G_ia H_iac, G read back from the cache where it is large."""
    n, p, d = M.shape
    if d < 6 or M.numel() < LARGE or not _quick(M, S, H) or not H.is_contiguous():
        G = times(M, S)
        return G, contract(G, H)
    G, out = M.new_empty(n, p, d), M.new_empty(n, 1, d)
    for m, s, g, h, o in zip(*(tensor.split(BLOCK) for tensor in (M, S, G, H, out)), strict=True):
        torch.bmm(m, s, out=g)
        torch.bmm(g.view(-1, 1, p * d), h.view(-1, p * d, d), out=o)
    return G, out.view(n, d)
