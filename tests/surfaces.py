"""Manifolds of closed form with pairs of points well inside the injectivity radius of each other."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pullback.geometry import reference as R
from pullback.metrics import PullbackMetric


@dataclass(frozen=True)
class Surface:
    """A metric and points ``a``, ``b`` (m, d) that one shortest geodesic joins."""

    metric: Any
    a: Tensor
    b: Tensor


class Disk(R.PoincareDisk):
    """The hyperbolic disk with the derivatives of its tensor written out, which is quick."""

    def derivative(self, z: Tensor) -> Tensor:
        slope = 16 * z * (1 - z.square().sum(-1, keepdim=True)) ** -3
        return torch.eye(2, dtype=z.dtype)[:, :, None] * slope[:, None, None]

    def second_derivative(self, z: Tensor) -> Tensor:
        gap = (1 - z.square().sum(-1))[:, None, None]
        eye = torch.eye(2, dtype=z.dtype)
        bend = 16 * eye / gap**3 + 96 * z[:, :, None] * z[:, None, :] / gap**4
        return eye[:, :, None, None] * bend[:, None, None]


def _box(low: tuple[float, ...], high: tuple[float, ...], m: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    a, b = (torch.tensor(x, dtype=torch.float64) for x in (low, high))
    z = a + (b - a) * torch.rand(2 * m, len(low), generator=generator, dtype=torch.float64)
    return z[:m], z[m:]


# The catenoid by its arc length u: ρ = √(1 + u²), h = asinh u.
_REVOLUTION = R.SurfaceOfRevolution(lambda u: torch.sqrt(1 + u * u), lambda u: torch.asinh(u))

SURFACES = {
    "sphere": Surface(PullbackMetric(R.Sphere().embedding), *_box((-0.7, -0.7), (0.7, 0.7))),
    "ellipsoid": Surface(PullbackMetric(R.Ellipsoid().embedding), *_box((-0.5, -0.5), (0.5, 0.5))),
    "torus": Surface(PullbackMetric(R.Torus().embedding), *_box((0.0, -1.0), (0.9, 1.0))),
    "disk": Surface(Disk(), *_box((-0.5, -0.5), (0.5, 0.5))),
    "cylinder": Surface(PullbackMetric(R.Cylinder().embedding), *_box((-1.2, -1.0), (1.2, 1.0))),
    "revolution": Surface(PullbackMetric(_REVOLUTION.embedding), *_box((-1.0, -0.8), (1.0, 0.8))),
    "roll": Surface(PullbackMetric(R.SwissRoll().embedding), *_box((1.5, -1.0), (3.5, 1.0))),
}


def rows(m: int, d: int = 2, size: float = 0.5, seed: int = 1) -> Tensor:
    """Random points or vectors."""
    return size * torch.randn(m, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def torn(z: Tensor) -> Tensor:
    """The tensor of a plane that a strip without metric parts."""
    wall = torch.where(z[:, 0].abs() < 0.3, torch.nan, 1.0).to(z)
    return torch.eye(z.shape[1], dtype=z.dtype) * wall[:, None, None]


def tanh_network(d: int = 2, p: int = 8, *, scale: float = 1.0) -> nn.Sequential:
    """A smooth decoder in float64, the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(d, 12), nn.Tanh(), nn.Linear(12, p)).double()
        net[0].weight.data *= scale
    return net.requires_grad_(False)
