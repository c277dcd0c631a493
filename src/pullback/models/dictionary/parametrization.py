"""Raw numbers that any optimiser may move freely, and the coordinates that they stand for."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize, softplus

from pullback.charts.isometries import TURN
from pullback.typing import Chart

INNERMOST = 1 - 1e-6


def raw_width(chart: Chart) -> int:
    """How many raw numbers a point takes: two an angle, else as many as are stored."""
    return 2 * chart.d if chart.name in ("circle", "torus") else chart.c


def coords_of(chart: Chart, raw: Float[Tensor, "n r"]) -> Float[Tensor, "n c"]:
    """Angles of pairs (cos, sin), tanh on intervals and planes, unit vectors on spheres; differentiable."""
    if chart.name in ("circle", "torus"):
        pairs = raw.unflatten(1, (chart.d, 2))
        return torch.atan2(pairs[..., 1], pairs[..., 0]).remainder(TURN)
    if chart.name in ("interval", "plane"):
        return torch.tanh(raw)
    return normalize(raw, dim=1) if chart.name == "sphere" else raw


def raw_of(chart: Chart, t: Float[Tensor, "n c"]) -> Float[Tensor, "n r"]:
    """Raw numbers of coordinates; ends of intervals are moved in by 1e-6."""
    if chart.name in ("circle", "torus"):
        return torch.stack([t.cos(), t.sin()], 2).flatten(1)
    if chart.name in ("interval", "plane"):
        return torch.atanh(t.clamp(-INNERMOST, INNERMOST))
    return t.clone()


def weight_of(raw: Tensor) -> Tensor:
    """softplus: weights > 0."""
    return softplus(raw)


def raw_weight(weight: Tensor) -> Tensor:
    """The number whose softplus is a weight > 0."""
    return weight + torch.log(-torch.expm1(-weight.clamp_min(1e-12)))
