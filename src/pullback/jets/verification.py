"""Does an affine map give back what the network gives? Checks that use the network's own forward pass."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
PROBES = 32
HOMOGENEITY_POINTS = 64
HOMOGENEITY_TOLERANCE = 1e-4


class AttributionWarning(UserWarning):
    """An affine map does not give back the network, or is not its derivative."""


class HomogeneityWarning(UserWarning):
    """The network ignores the magnitude of its input."""


@dataclass(frozen=True)
class JacobianVerification:
    """How well A x + offset gives back f(x).

    Attributes:
        z_range, reconstruction_range: smallest and largest entry of f(x) and of A x + offset.
        max_error, mean_error: largest and mean absolute difference.
        relative_error: largest difference over (largest |f| + 1e-8).
        pointwise_error: largest |f_i - (Σ_j A_ij x_j + offset_i)| / (Σ_j |A_ij x_j| + |offset_i|).
        tolerance: bound on ``pointwise_error``.
        passed: whether it holds.
        derivative_error: median relative difference between A v and a central difference of f along random
            directions v; None where A is not meant to be the derivative.
    """

    z_range: tuple[float, float]
    reconstruction_range: tuple[float, float]
    max_error: float
    mean_error: float
    relative_error: float
    pointwise_error: float = 0.0
    tolerance: float = 0.0
    passed: bool = True
    derivative_error: float | None = None


@dataclass
class Residuals:
    """Running extremes of the check, chunk by chunk."""

    low: float = float("inf")
    high: float = -float("inf")
    rebuilt_low: float = float("inf")
    rebuilt_high: float = -float("inf")
    largest: float = 0.0
    total: float = 0.0
    entries: int = 0
    pointwise: float = 0.0

    def add(self, value: Tensor, linear: Tensor, offset: Tensor, x: Tensor) -> Tensor:
        """Compare value (n, d) with linear (n, d, p) x + offset: relative residual of each point, (n,)."""
        column = x.unsqueeze(-1)
        rebuilt = torch.bmm(linear, column).squeeze(-1) + offset
        scale = torch.bmm(linear.abs(), column.abs()).squeeze(-1) + offset.abs()
        return self.compare(value, rebuilt, scale)

    def compare(self, value: Tensor, rebuilt: Tensor, scale: Tensor) -> Tensor:
        """Compare value (n, d) with what was rebuilt, relative to ``scale``: (n,)."""
        if value.numel() == 0:
            return value.new_zeros(value.shape[0])
        difference = (value - rebuilt).abs()
        relative = (difference / (scale + torch.finfo(value.dtype).tiny)).amax(1)
        values = torch.stack([value.amin(), value.amax(), rebuilt.amin(), rebuilt.amax()]).tolist()
        self.low, self.high = min(self.low, values[0]), max(self.high, values[1])
        self.rebuilt_low = min(self.rebuilt_low, values[2])
        self.rebuilt_high = max(self.rebuilt_high, values[3])
        errors = torch.stack([difference.amax(), difference.sum(), relative.amax()]).tolist()
        self.largest = max(self.largest, errors[0])
        self.total += errors[1]
        self.entries += difference.numel()
        # a NaN must not pass: max() would drop it
        self.pointwise = max(self.pointwise, errors[2]) if errors[2] == errors[2] else float("inf")
        return relative

    def result(
        self, dtype: torch.dtype, derivative_error: float | None, tolerance: float | None = None
    ) -> JacobianVerification:
        tolerance = TOLERANCE.get(dtype, 1e-2) if tolerance is None else tolerance
        if self.entries == 0:
            zero = (0.0, 0.0)
            return JacobianVerification(
                zero, zero, 0.0, 0.0, 0.0, tolerance=tolerance, derivative_error=derivative_error
            )
        largest = max(abs(self.low), abs(self.high))
        return JacobianVerification(
            z_range=(self.low, self.high),
            reconstruction_range=(self.rebuilt_low, self.rebuilt_high),
            max_error=self.largest,
            mean_error=self.total / self.entries,
            relative_error=self.largest / (largest + 1e-8),
            pointwise_error=self.pointwise,
            tolerance=tolerance,
            passed=self.pointwise <= tolerance,
            derivative_error=derivative_error,
        )


def derivative_tolerance(dtype: torch.dtype) -> float:
    """Bound on the median error of central differences of a net with kinks."""
    return 1e-3 if dtype == torch.float64 else 5e-2


@torch.no_grad()
def derivative_error(f: Callable[[Tensor], Tensor], x: Tensor, linear: Tensor) -> float | None:
    """Median over up to 32 points of |A v - central difference| / |central difference|, v random."""
    x, linear = x[:PROBES], linear[:PROBES]
    if x.shape[0] == 0:
        return None
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
    v = v / v.norm(dim=1, keepdim=True)
    scale = torch.sqrt((x * x).mean(1, keepdim=True)) + torch.finfo(x.dtype).eps
    step = torch.finfo(x.dtype).eps ** (1 / 3) * scale
    difference = (f(x + step * v) - f(x - step * v)) / (2 * step)
    error = (torch.bmm(linear, v.unsqueeze(-1)).squeeze(-1) - difference).norm(dim=1)
    size = difference.norm(dim=1)
    floor = size.max() * torch.finfo(x.dtype).eps ** (1 / 3) + torch.finfo(x.dtype).tiny
    return (error / size.clamp_min(floor.item())).median().item()


@torch.no_grad()
def homogeneity(f: Callable[[Tensor], Tensor], x: Tensor) -> int | None:
    """The k of {0, 1} with f(c x) = c^k f(x) for c = 1/2, 2, 5, on up to 64 points, or None."""
    powers = [0, 1]
    # most nets fail on a few points already
    for some in (x[:8], x[:HOMOGENEITY_POINTS]):
        powers = _powers(f, some, powers)
    return None if len(powers) != 1 else powers[0]


def _powers(f: Callable[[Tensor], Tensor], x: Tensor, powers: list[int]) -> list[int]:
    """Those of the powers that the points do not refute."""
    value = f(x) if powers and x.shape[0] else x
    if not powers or value.numel() == 0 or not value.abs().max() > 0:
        return powers
    for c in (5.0, 2.0, 0.5):
        moved = f(c * x)
        powers = [k for k in powers if _change(moved, c**k * value) <= HOMOGENEITY_TOLERANCE]
        if not powers:
            break
    return powers


def _change(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()
