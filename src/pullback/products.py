"""Products of the columns of tall matrices, such as Jacobians, whose adjoints are formed as rows.

A batched product with d columns calls its kernel for p rows of d numbers; one with d rows of length p takes
down to a tenth of its time.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.graph import transforms_active

FEW = 16
"""Weights a point up to which whole rows are added instead of multiplying matrices."""


def gram(A: Float[Tensor, "*n p d"]) -> Float[Tensor, "*n d d"]:
    """AᵀA of tall matrices, such as Jacobians; differentiable to any order.

    Its adjoint is one product, A (S + Sᵀ), where autograd takes two and adds them, and it is formed as d rows
    of length p: a product with d columns takes up to ten times as long.

    Example:
        >>> import torch
        >>> gram(torch.tensor([[3.0, 0.0], [4.0, 1.0]]))
        tensor([[25.,  4.],
                [ 4.,  1.]])
    """
    return A.mT @ A if _plain(A) else _Gram.apply(A)  # type: ignore[return-value]


def column_products(A: Float[Tensor, "*n p d"], B: Float[Tensor, "*n p e"]) -> Float[Tensor, "*n d e"]:
    """AᵀB of tall matrices, differentiable to any order; both adjoints are formed as rows of length p.

    Example:
        >>> import torch
        >>> column_products(torch.ones(3, 1), torch.eye(3))
        tensor([[1., 1., 1.]])
    """
    if A is B:
        return gram(A)
    return A.mT @ B if _plain(A, B) else _ColumnProducts.apply(A, B)  # type: ignore[return-value]


def row_products(A: Float[Tensor, "d n p"], B: Float[Tensor, "e n p"]) -> Float[Tensor, "n d e"]:
    """<A_a, B_b> of each point, from rows of all points: `column_products` in the order that jets keep.

    Example:
        >>> import torch
        >>> row_products(torch.ones(1, 1, 3), torch.tensor([[[1.0, 2.0, 3.0]]]))
        tensor([[[6.]]])
    """
    columns = A.permute(1, 2, 0)
    return column_products(columns, columns if B is A else B.permute(1, 2, 0))


def _plain(*tensors: Tensor) -> bool:
    """Whether nothing is recorded, or what records it needs the operations themselves."""
    recorded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return not recorded or transforms_active(*tensors)


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, A: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(A)
        return A.mT @ A

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        (A,) = ctx.saved_tensors
        return _combined(g + g.mT, A)


class _ColumnProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, A: Tensor, B: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(A, B)
        return A.mT @ B

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        A, B = ctx.saved_tensors
        to_A = _combined(g, B) if ctx.needs_input_grad[0] else None
        to_B = _combined(g.mT, A) if ctx.needs_input_grad[1] else None
        return to_A, to_B


def _combined(weights: Float[Tensor, "*n d e"], A: Float[Tensor, "*n p e"]) -> Float[Tensor, "*n p d"]:
    """Σ_b weights_ab A_b, columns again; in the order of the rows of A where those are kept apart."""
    weights = weights.to(A.dtype)  # autocast makes the product of other precision than its factors
    if A.ndim == 3 and A.permute(2, 0, 1).is_contiguous():
        return mixed_rows(weights, A.permute(2, 0, 1)).permute(1, 2, 0)
    return (weights @ A.mT).mT


def mixed_rows(weights: Float[Tensor, "n d e"], rows: Float[Tensor, "*m e n p"]) -> Float[Tensor, "*m d n p"]:
    """Σ_b weights_ab rows_b at each point: where there are few rows by whole rows, with nothing to copy.

    Example:
        >>> import torch
        >>> mixed_rows(torch.tensor([[[2.0, 1.0]]]), torch.ones(2, 1, 3))
        tensor([[[3., 3., 3.]]])
    """
    if weights.shape[1] * weights.shape[2] > FEW:
        return torch.matmul(weights, rows.transpose(-3, -2)).transpose(-3, -2).contiguous()
    # contiguous, since a product takes the order of its factors
    columns = weights.permute(2, 1, 0).contiguous().unsqueeze(-1).unbind()
    parts = rows.unsqueeze(-4).unbind(-3)
    result = columns[0] * parts[0]
    for column, part in zip(columns[1:], parts[1:], strict=True):
        result.addcmul_(column, part)
    return result
