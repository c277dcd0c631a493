"""The scale-free residual of a metric, its value and its variations: everything that needs metrics alone.

With ν = n d, ḡ = Σ tr g / ν and a reference Gref,

    R_n = g_n/ḡ - Gref_n        P/μ = ½ Σ ‖R_n‖²
    A_n = ∂(P/μ)/∂g_n = (R_n - (κ/ν) I)/ḡ        κ = Σ R:(g/ḡ) = Σ ‖R‖² + Σ R:Gref

P(c g) = P(g): only the shape of the metric counts, not its scale.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import widened
from pullback.penalties.errors import DegenerateMetricError, ReferenceScaleWarning
from pullback.validation import check_choice, check_finite, check_tensor


@dataclass(frozen=True, eq=False)
class Gauge:
    """A metric at n points against its reference.

    Attributes:
        metric: g, (n, d, d).
        mean: ḡ, a scalar.
        residual: R, (n, d, d).
        square: Σ ‖R‖².
        projection: κ = Σ R:(g/ḡ).
    """

    metric: Float[Tensor, "n d d"]
    mean: Float[Tensor, ""]
    residual: Float[Tensor, "n d d"]
    square: Float[Tensor, ""]
    projection: Float[Tensor, ""]

    @property
    def count(self) -> int:
        """ν = n d."""
        return self.metric.shape[0] * self.metric.shape[1]

    @property
    def sensitivity(self) -> Float[Tensor, "n d d"]:
        """A = ∂(P/μ)/∂g, (n, d, d)."""
        return minus_identity(self.residual, self.projection / self.count) / self.mean


def minus_identity(matrices: Float[Tensor, "*n d d"], scale: Tensor | float) -> Float[Tensor, "*n d d"]:
    """matrices - scale · I, batched."""
    eye = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    return matrices - scale * eye


def traces(g: Float[Tensor, "n d d"]) -> Float[Tensor, " n"]:
    """tr g a point, (n,)."""
    return g.diagonal(dim1=-2, dim2=-1).sum(-1)


def gauge(
    metric: Float[Tensor, "n d d"],
    reference: Float[Tensor, "*n d d"] | None,
    mean: Float[Tensor, ""] | None = None,
) -> Gauge:
    """Residual of a metric; ``mean`` is ḡ where it comes from more points than these.

    Raises:
        DegenerateMetricError: ḡ = 0.
    """
    g = widened(metric)
    if mean is None:
        mean = g.diagonal(dim1=-2, dim2=-1).mean()
    check_mean(mean)
    if reference is None:
        residual = minus_identity(g, mean) / mean
        square = residual.square().sum()
        return Gauge(g, mean, residual, square, square + residual.diagonal(dim1=-2, dim2=-1).sum())
    wanted = reference.to(g)
    residual = g / mean - wanted
    square = residual.square().sum()
    return Gauge(g, mean, residual, square, square + (residual * wanted).sum())


def euclidean_shape(g: Float[Tensor, "n d d"]) -> tuple[float, float, Float[Tensor, "n d d"]]:
    """ḡ, P/μ and A for the Euclidean reference as numbers, outside of any graph; ``g`` is used up.

    With dev = g - ḡ I the residual is dev/ḡ and A = dev/ḡ² - Σ‖dev‖²/(ν ḡ³) I.
    """
    diagonal = g.diagonal(dim1=-2, dim2=-1)
    count = diagonal.numel()
    mean = float(diagonal.sum()) / count
    diagonal.sub_(mean)
    flat = g.view(-1)
    spread = float(torch.dot(flat, flat))
    if mean == 0:
        return mean, 0.0, g
    g.mul_(1 / mean**2)
    diagonal.sub_(spread / (count * mean**3))
    return mean, spread / (2 * mean**2), g


def residual_square(
    g: Float[Tensor, "n d d"], wanted: Float[Tensor, "*n d d"] | None
) -> tuple[Float[Tensor, ""], Float[Tensor, "n d d"], float]:
    """Σ ‖R‖², half its slope times ḡ, which is R - (κ/ν) I, and ḡ, outside of any graph; ``g`` is used up.

    Without a reference κ = Σ ‖R‖².

    Raises:
        DegenerateMetricError: ḡ = 0.
    """
    diagonal = g.diagonal(dim1=1, dim2=2)
    count = diagonal.numel()
    mean = float(diagonal.sum()) / count if count else 1.0
    check_mean(mean)
    g.div_(mean)
    if wanted is None:
        diagonal.sub_(1)
    else:
        g.sub_(wanted)
    flat = g.reshape(-1)
    square = torch.dot(flat, flat)
    projection = square if wanted is None else square + (g * wanted).sum()
    diagonal.sub_(projection, alpha=1 / max(count, 1))
    return square, g, mean


def check_mean(mean: Tensor | float) -> None:
    """Raise unless the mean of the metric is a positive number."""
    if float(mean.detach() if isinstance(mean, Tensor) else mean) == 0:
        raise DegenerateMetricError(
            "all decoder Jacobians vanish, so the metric has no scale; reinitialise the decoder, or pass "
            "degenerate='zero'"
        )


def changed_residual(at: Gauge, change: Float[Tensor, "n d d"]) -> Float[Tensor, "n d d"]:
    """δR for a change δg of the metric."""
    scaled = change / at.mean
    mean = traces(scaled).sum() / at.count
    return scaled - (at.metric / at.mean) * mean


def changed_sensitivity(at: Gauge, change: Float[Tensor, "n d d"]) -> Float[Tensor, "n d d"]:
    """δA for a change δg of the metric."""
    scaled, unit = change / at.mean, at.metric / at.mean
    mean = traces(scaled).sum() / at.count
    residual = scaled - unit * mean
    projection = (residual * unit + at.residual * scaled).sum()
    inner = residual - at.residual * mean
    return minus_identity(inner, (projection - 2 * at.projection * mean) / at.count) / at.mean


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
    check_tensor("reference", reference)
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
    reference = (widened(reference) + widened(reference).mT) / 2
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
