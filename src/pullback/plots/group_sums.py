"""Mean contributions over groups of rows, and what holds two groups apart: sums that add up.

Means of contributions add up as the contributions do: Σ_j C̄_ij + ō_i = v̄_i over any rows. So does the
difference of two groups, and its part along the unit vector u between the centroids: Σ_j c_j + u·Δō = |Δv̄|.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from pullback.attribution import Attribution

DEGENERATE = 1e-12


@dataclass(frozen=True, eq=False)
class Sums:
    """Signed parts, and what they should add up to.

    Attributes:
        parts: (k, p) one row a sum.
        offset: (k,) what no feature accounts for.
        total: (k,) what parts and offset add up to where the check holds.
    """

    parts: Float[np.ndarray, "k p"]
    offset: Float[np.ndarray, " k"]
    total: Float[np.ndarray, " k"]

    @property
    def residual(self) -> Float[np.ndarray, " k"]:
        """``total`` less the sum of ``parts`` and ``offset``."""
        return self.total - self.parts.sum(-1) - self.offset


def check_attribution(attribution: Any, reductions: tuple[str | None, ...]) -> Attribution:
    """Return an attribution with at least one row, one of the reductions and no NaN, or raise."""
    if not isinstance(attribution, Attribution):
        raise TypeError(
            f"attribution: expected an Attribution of pb.explain, got {type(attribution).__name__}"
        )
    if attribution.reduction not in reductions:
        known = " or ".join(repr(name) for name in reductions)
        raise ValueError(f"attribution: expected reduction={known}, got {attribution.reduction!r}")
    if attribution.values.numel() == 0:
        shape = tuple(attribution.values.shape)
        raise ValueError(f"attribution: expected at least one row and feature, got values of shape {shape}")
    if not bool(torch.isfinite(attribution.values).all()):
        raise ValueError("attribution: expected finite contributions, got NaN or infinity")
    return attribution


def mean_over(attribution: Attribution, rows: Bool[np.ndarray, " n"] | None = None) -> Sums:
    """Mean contributions to each output over some rows; None: all."""
    values = attribution.values
    n, d, p = values.shape
    kept = np.ones(n, dtype=bool) if rows is None else rows
    weights = torch.as_tensor(kept / kept.sum()).to(values)
    # A product with weights: no copy of the chosen rows.
    parts = (weights @ values.detach().reshape(n, d * p)).reshape(d, p)
    offset, total = (weights @ part.detach() for part in (attribution.offset, attribution.value))
    return Sums(*(part.cpu().double().numpy() for part in (parts, offset, total)))


def apart(a: Sums, b: Sums) -> Sums:
    """Contributions to the distance between the centroids of two groups, one sum.

    All are zero where the centroids coincide, since then the distance has no direction.
    """
    difference = a.total - b.total
    distance = float(np.linalg.norm(difference))
    scale = float(max(np.abs(a.total).max(), np.abs(b.total).max()))
    unit = difference / distance if distance > DEGENERATE * scale else np.zeros_like(difference)
    return Sums(
        (unit @ (a.parts - b.parts))[None],
        (unit @ (a.offset - b.offset))[None],
        np.array([unit @ difference]),
    )
