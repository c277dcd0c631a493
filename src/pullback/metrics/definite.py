"""Positive definite tensors: the Cholesky factor, the inverse, and the message where there is none."""

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.graph import transforms_active


def cholesky(g: Float[Tensor, "*n d d"], *, name: str = "tensor(z)") -> Float[Tensor, "*n d d"]:
    """Lower Cholesky factor L, g = L Lᵀ; a failure is tried once more in float64.

    Under a function transform a failure is NaN.

    Raises:
        ValueError: not positive definite, naming the first row and its smallest eigenvalue.
    """
    factor, info = torch.linalg.cholesky_ex(g)
    if transforms_active(g):  # the numbers cannot be looked at
        return torch.where((info != 0)[..., None, None], torch.nan, factor)
    if not bool(info.any()):
        return factor
    factor, info = torch.linalg.cholesky_ex(g.double())
    if not bool(info.any()):
        return factor.to(g)
    row = int(info.flatten().nonzero()[0])
    raise ValueError(not_positive(name, row, g.reshape(-1, *g.shape[-2:])[row]))


def not_positive(name: str, row: int, g: Tensor) -> str:
    """The message for a tensor that is no metric."""
    if not bool(torch.isfinite(g).all()):
        return f"{name} is not finite at row {row}; check the decoder and the scale of z"
    smallest = float(torch.linalg.eigvalsh(g.detach().double())[0])
    return (
        f"{name} is not positive definite at row {row} (smallest eigenvalue {smallest:.3g}); "
        "raise regularization or check the decoder"
    )


def inverse_of_root(L: Float[Tensor, "n d d"]) -> Float[Tensor, "n d d"]:
    """(L Lᵀ)⁻¹ = L⁻ᵀL⁻¹ for a lower triangular L."""
    # Not torch.cholesky_inverse, whose derivative in forward mode is wrong.
    eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device).expand_as(L)
    half = torch.linalg.solve_triangular(L, eye, upper=False)
    return half.mT @ half
