"""Bases of subspaces: signs, stacks, complements, and making several orthogonal to each other."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import widened
from pullback.subspaces.arguments import check_bases
from pullback.validation import check_choice

DEPENDENT = 1e-6
"""Singular value of a stack of orthonormal bases below which directions count as shared."""


def oriented(W: Float[Tensor, "*q k d"]) -> Float[Tensor, "*q k d"]:
    """The same basis with the entry of largest modulus of every row positive, so that runs print alike."""
    if W.shape[-2] == 0:
        return W
    largest = W.gather(-1, W.abs().argmax(-1, keepdim=True))
    return torch.where(largest < 0, -W, W)


def complement(stack: Float[Tensor, "k d"]) -> Float[Tensor, "d f"]:
    """Orthonormal columns N that are orthogonal to all rows, by their rank: rows that coincide count once.

    If the rows carry gradients so does N, in the gauge N - W⁺ W N, whose value is N: exact to first order for
    all that depends on the span alone.
    """
    fixed = stack.detach()
    k = len(fixed)
    N, R = torch.linalg.qr(fixed.mT, mode="complete")
    # where rows are independent, as R tells, the last columns of a complete QR are the complement
    if k <= len(R) and bool(R.diagonal().abs().amin() > 1e-2):
        N = N[:, k:]
    else:
        _, sizes, right = torch.linalg.svd(widened(fixed), full_matrices=True)
        N = right[int((sizes > DEPENDENT).sum()) :].mT.to(fixed)
    if not stack.requires_grad:
        return N
    inverse = torch.linalg.pinv(widened(fixed), atol=DEPENDENT).to(fixed)
    return N - inverse @ (stack @ N)


def orthogonalize(
    W: Mapping[str, Tensor], *, method: Literal["polar", "ordered"] = "polar"
) -> dict[str, Tensor]:
    """Bases of several quantities made orthogonal to each other; refit decoders afterwards.

    "polar" takes U Xᵀ of the stack U S Xᵀ, the nearest orthonormal stack, whatever the order of the names,
    and turns with the rows of every block. "ordered" is Gram-Schmidt from the first name on, which keeps its
    span.

    Args:
        W: name -> orthonormal rows (k, D), Σ k <= D.
        method: "polar" or "ordered".
    Returns: name -> (k, D), all rows orthonormal.
    Raises:
        ValueError: more rows than dimensions; quantities that share a direction.
    Example:
        >>> import torch
        >>> W = {"a": torch.tensor([[1.0, 0.0, 0.0]]), "b": torch.tensor([[0.6, 0.8, 0.0]])}
        >>> orthogonalize(W, method="ordered")["b"].abs()
        tensor([[0., 1., 0.]])
    """
    check_choice("method", method, ("polar", "ordered"))
    bases = check_bases(W, None)
    widths = {basis.shape[1] for basis in bases.values()}
    if len(widths) > 1:
        raise ValueError(f"W: expected bases of one latent space, got widths {sorted(widths)}")
    stack = widened(torch.cat(list(bases.values())))
    total, dim = stack.shape
    if total > dim:
        raise ValueError(f"W: expected Σ k <= D, got sum of sizes {total} > latent_dim {dim}")
    left, sizes, right = torch.linalg.svd(stack, full_matrices=False)
    if not sizes[-1] >= DEPENDENT:
        raise ValueError(_shared(bases))
    if method == "polar":
        result = left @ right
    else:
        Q, R = torch.linalg.qr(stack.mT)
        result = (Q * R.diagonal().sign()).mT
    parts = result.split([len(basis) for basis in bases.values()])
    return {q: part.to(basis.dtype) for (q, basis), part in zip(bases.items(), parts, strict=True)}


def _shared(bases: dict[str, Tensor]) -> str:
    """Which two of the bases are nearest to each other."""
    names = list(bases)
    worst = max(
        (
            (float(torch.linalg.svdvals(widened(bases[a]) @ widened(bases[b]).mT)[0]), a, b)
            for i, a in enumerate(names)
            for b in names[i + 1 :]
        ),
        default=(1.0, names[0], names[0]),
    )
    return (
        f"W: expected independent directions, but quantities {worst[1]}, {worst[2]} share a direction: "
        f"cos = {worst[0]:.6f}; lower k"
    )
