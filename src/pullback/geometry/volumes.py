"""How much a latent space is magnified, and the volume of a part of it."""

import logging
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullback.draws import source_of
from pullback.metrics import as_metric
from pullback.validation import check_choice, check_points, check_whole

logger = logging.getLogger(__name__)

CHUNK_POINTS = 2**14
GRID_POINTS = 200
MOST_GRID_POINTS = 2**26
RANDOM_POINTS = 10_000


def magnification(metric: Any, z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """log √det g(z) in nats: by how much the decoder enlarges a small volume around z.

    For a pullback metric this is Σ ln|diag R| of the QR factorisation of the Jacobian; the determinant of JᵀJ
    would lose half of the digits.

    Args:
        metric: any object with ``tensor``.
        z: points, (n, d).
    Returns: (n,); -inf where the decoder's Jacobian has not full rank and NaN where it is not finite (both
        logged). Differentiable.
    Raises:
        ValueError: a metric known by its tensor alone is not positive definite at a point.
    Example:
        >>> import torch
        >>> from pullback.geometry.reference import PoincareDisk
        >>> magnification(PoincareDisk(), torch.zeros(1, 2))
        tensor([1.3863])
    """
    known = as_metric(metric)
    check_points("z", z, known.dim)
    logdet = torch.cat([known.logdet(part) for part in z.split(CHUNK_POINTS)])
    lost = torch.isnan(logdet)
    if bool(lost.any()):
        logger.warning(
            "the metric is not finite at %d points, first at row %d", lost.sum(), lost.nonzero()[0]
        )
    return logdet / 2


@dataclass(frozen=True)
class Volume:
    """∫ √det g dz over a box.

    Attributes:
        log: natural logarithm of the volume, which may be too large for a number.
        error: estimated relative error: change from half the resolution (grid) or standard error (Monte
            Carlo).
        points: evaluations.
        method: "grid" or "montecarlo".
    """

    log: float
    error: float
    points: int
    method: str

    @property
    def value(self) -> float:
        """The volume; infinite where its logarithm is above 709."""
        return math.exp(self.log) if self.log < 709 else math.inf


def volume(
    metric: Any,
    box: Float[Tensor, "d 2"],
    *,
    method: Literal["grid", "montecarlo"] = "grid",
    n: int | None = None,
    generator: torch.Generator | None = None,
) -> Volume:
    """Riemannian volume of a box of latent coordinates, ∫ √det g dz.

    Args:
        metric: any object with ``tensor``.
        box: lower and upper bound of every coordinate, (d, 2).
        method: "grid" (mid-points; exact to rounding for a periodic box) or "montecarlo" (uniform draws).
        n: points an axis of the grid, even (200), or draws (10 000).
        generator: source of the draws; None is a fresh one with a fixed seed, so that results repeat.
    Returns: `Volume`, with an estimate of its relative error; zero where the decoder's rank is below d
        everywhere.
    Raises:
        ValueError: a box of another shape or without interior, an odd or too small ``n``, a grid of more than
            67 million points, or a metric that is not finite in a part of the box.
    Example:
        >>> import math, torch
        >>> from pullback.geometry.reference import Torus
        >>> from pullback.metrics import PullbackMetric
        >>> box = torch.tensor([[0.0, 2 * math.pi], [0.0, 2 * math.pi]], dtype=torch.float64)
        >>> seen = volume(PullbackMetric(Torus().embedding), box, n=32)
        >>> abs(seen.value / Torus().area - 1) < 1e-12
        True
    """
    known = as_metric(metric)
    check_choice("method", method, ("grid", "montecarlo"))
    check_points("box", box)
    d = box.shape[0] if known.dim is None else known.dim
    if tuple(box.shape) != (d, 2):
        raise ValueError(f"box: expected ({d}, 2) lower and upper bounds, got {tuple(box.shape)}")
    if not bool((box[:, 1] > box[:, 0]).all()):
        raise ValueError("box: expected every upper bound above its lower bound")
    n = n if n is not None else (GRID_POINTS if method == "grid" else RANDOM_POINTS)
    check_whole("n", n, minimum=2)
    size = float((box[:, 1] - box[:, 0]).log().sum())
    with torch.no_grad():
        if method == "grid":
            return _grid_volume(known, box, n, size)
        return _random_volume(known, box, n, size, generator)


def _grid_volume(metric: Any, box: Tensor, n: int, size: float) -> Volume:
    """Mid-point rule; the estimate at half the resolution needs points of its own."""
    if n % 2:
        raise ValueError(f"n: expected an even number of points an axis, got {n}")
    if n ** len(box) > MOST_GRID_POINTS:
        raise ValueError(
            f"n: expected a grid of at most {MOST_GRID_POINTS} points, got {n} to the power of {len(box)}; "
            "use method='montecarlo' or a smaller n"
        )
    fine, coarse = (_log_mean(metric, box, count) + size for count in (n, n // 2))
    error = abs(math.expm1(coarse - fine)) if fine > -math.inf else 0.0
    return Volume(fine, error, n ** len(box) + (n // 2) ** len(box), "grid")


def _log_mean(metric: Any, box: Tensor, n: int) -> float:
    """Logarithm of the mean of √det g over the mid-points of n^d cells, chunk by chunk."""
    d, total = len(box), -math.inf
    axes = [
        low + (torch.arange(n, dtype=box.dtype, device=box.device) + 0.5) * (high - low) / n
        for low, high in box
    ]
    for first in range(0, n**d, CHUNK_POINTS):
        numbers = torch.arange(first, min(first + CHUNK_POINTS, n**d), device=box.device)
        digits = [numbers // n**axis % n for axis in range(d)]
        z = torch.stack([axes[axis][digit] for axis, digit in enumerate(digits)], dim=1)
        part = float(torch.logsumexp(_finite_logs(metric, z), 0))
        total = float(np.logaddexp(total, part))
    return total - d * math.log(n)


def _finite_logs(metric: Any, z: Tensor) -> Tensor:
    """`magnification` in double precision, where it is a number."""
    logs = magnification(metric, z).double()
    lost = torch.isnan(logs) | (logs == math.inf)
    if bool(lost.any()):
        at = [round(x, 4) for x in z[int(lost.nonzero()[0])].tolist()]
        raise ValueError(
            f"metric: expected a finite tensor in the box, got none at z = {at}; shrink the box or check the "
            "decoder"
        )
    return logs


def _random_volume(
    metric: Any, box: Tensor, n: int, size: float, generator: torch.Generator | None
) -> Volume:
    source = source_of(generator, box.device)
    u = torch.rand(n, len(box), generator=source, dtype=box.dtype, device=box.device)
    logs = _finite_logs(metric, box[:, 0] + u * (box[:, 1] - box[:, 0]))
    top = logs.max()
    if float(top) == -math.inf:
        return Volume(-math.inf, 0.0, n, "montecarlo")
    density = torch.exp(logs - top)
    mean = density.mean()
    error = float(density.std() / mean) / math.sqrt(n)
    return Volume(float(top + mean.log()) + size, error, n, "montecarlo")
