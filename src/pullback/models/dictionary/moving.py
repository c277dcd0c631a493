"""Long steps along a chart: `retract` cuts them, a walk does not."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from pullback.charts.spheres import frame
from pullback.typing import Chart


def moved(chart: Chart, t: Float[Tensor, "n c"], step: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
    """The point that a step of any length leads to: great circles on spheres, steps of the chart elsewhere.

    Args:
        chart: of the points.
        t: coordinates, (n, c).
        step: along the tangents, (n, d).
    Example:
        >>> import math, torch
        >>> from pullback import charts
        >>> moved(charts.circle(), torch.tensor([[1.0]]), torch.tensor([[math.pi]]))
        tensor([[4.1416]])
    """
    if chart.name == "sphere":
        tangent = (step.unsqueeze(1) @ frame(t)).squeeze(1)
        length = tangent.norm(dim=1, keepdim=True)
        direction = tangent / torch.where(length > 0, length, 1.0)
        return normalize(length.cos() * t + length.sin() * direction, dim=1)
    if chart.d == 0 or not len(t):
        return t
    pieces = max(1, math.ceil(float(step.abs().max()) / chart.step))
    for _ in range(pieces):
        t = chart.retract(t, step / pieces)
    return t
