"""The metric that the gauge compares with."""

import warnings
from typing import Literal

import torch
from torch import Tensor

from pullback.penalties.errors import ReferenceScaleWarning
from pullback.penalties.spectral import wide
from pullback.validation import check_choice, check_finite


def check_reference(reference: Tensor | None, scale: Literal["as_given", "normalize"]) -> Tensor | None:
    """A reference (d, d) or (n, d, d), symmetric; divided by its mean trace a dimension for "normalize".

    Raises:
        ValueError: another shape, not symmetric, not finite, or a mean trace that is not positive.
    Warns:
        ReferenceScaleWarning: "as_given" and a mean trace τ̄ ≠ 1, with the smallest penalty that is left.
    """
    check_choice("reference_scale", scale, ("as_given", "normalize"))
    if reference is None:
        return None
    if reference.ndim not in (2, 3) or reference.shape[-1] != reference.shape[-2]:
        raise ValueError(f"reference: expected (d, d) or (n, d, d), got {tuple(reference.shape)}")
    check_finite("reference", reference)
    size = float(reference.abs().max()) if reference.numel() else 0.0
    gap = float((reference - reference.mT).abs().max()) if reference.numel() else 0.0
    if gap > 1e-6 * size:
        raise ValueError(
            f"reference: expected symmetric matrices, got entries that differ by {gap:.3g} from their "
            "mirror; pass (G + G.mT) / 2"
        )
    reference = (wide(reference) + wide(reference).mT) / 2
    trace = float(reference.diagonal(dim1=-2, dim2=-1).mean())
    if scale == "normalize":
        if not trace > 0:
            raise ValueError(f"reference: expected a positive mean trace to normalize by, got {trace:.3g}")
        return reference / trace
    if abs(trace - 1) > 1e-6:
        warnings.warn(
            f"reference: mean trace {trace:.4g} a dimension, expected 1: no metric matches it exactly, and "
            f"the penalty stays at least {(1 - trace) ** 2 / 2:.3g} · weight a row and dimension; pass "
            "reference_scale='normalize'",
            ReferenceScaleWarning,
            stacklevel=3,
        )
    return reference


def reference_rows(reference: Tensor | None, n: int, d: int) -> Tensor | None:
    """The reference, checked against the shape (n, d, d) of a metric."""
    if reference is not None and tuple(reference.shape) not in ((d, d), (n, d, d)):
        raise ValueError(
            f"reference: expected ({d}, {d}) or ({n}, {d}, {d}) for this metric, got {tuple(reference.shape)}"
        )
    return reference


def eye_like(reference: Tensor | None, g: Tensor) -> Tensor:
    """The reference as a tensor like the metric, the identity for None."""
    if reference is not None:
        return reference.to(g)
    return torch.eye(g.shape[-1], dtype=g.dtype, device=g.device)
