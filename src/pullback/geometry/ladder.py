"""The pole ladder: parallel transport along geodesics from exponentials and logarithms alone."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullback.geometry.exponential import Exponential, exponential_map
from pullback.geometry.logarithm import Logarithm, logarithm_map
from pullback.geometry.route import Points
from pullback.geometry.spline import Spline
from pullback.metrics import BaseMetric

# A rung is short: few nodes and a straight start do, and shooting would gain nothing.
SHORT = {"nodes": 17, "starts": "line"}


def pole_ladder(
    metric: BaseMetric, curve: Spline, v: Points, rungs: int
) -> tuple[Float[Tensor, "m T d"], Bool[Tensor, " m"]]:
    """Vectors at the ends of all rungs, and whether everything on the way converged.

    With m the middle of a rung from p to p': q = exp_p(v), q' = exp_m(-log_m q), v' = -log_p'(q'). The points
    q are taken as far away as a rung is long, then the vectors scaled back.

    Lorenzi and Pennec 2014, "Efficient parallel transport of deformations in time series of images: from
    Schild's to pole ladder"; exact in symmetric spaces (Pennec 2018), else of second order in a rung.

    Args:
        curve: geodesics.
        v: vectors at their starts, (m, d).
    """
    t = torch.linspace(0, 1, 2 * rungs + 1, dtype=v.dtype, device=v.device).expand(len(v), -1)
    nodes, first = curve.at(t), curve.velocity(t[:, :1])[:, 0]
    g = metric.tensor(nodes[:, 0])
    length, size = (torch.einsum("na,nab,nb->n", x, g, x).clamp_min(0).sqrt() for x in (first, v))
    # A path that stands still, or a vector of length 0, needs no scale.
    scale = torch.where((size > 0) & (length > 0), length / rungs / torch.where(size > 0, size, 1), 1)
    carried, vectors, well = v * scale[:, None], [v], torch.ones_like(scale, dtype=torch.bool)
    for k in range(0, 2 * rungs, 2):
        low, middle, high = nodes[:, k], nodes[:, k + 1], nodes[:, k + 2]
        out = _shot(metric, low, carried)
        across = _aim(metric, middle, out.point)
        back = _shot(metric, middle, -across.vector)
        last = _aim(metric, high, back.point)
        well = well & out.converged & across.converged & back.converged & last.converged
        carried = -last.vector
        vectors.append(carried / scale[:, None])
    return torch.stack(vectors, dim=1), well


def _shot(metric: BaseMetric, z: Points, v: Points) -> Exponential:
    result = exponential_map(metric, z, v, full=True)
    assert isinstance(result, Exponential)
    return result


def _aim(metric: BaseMetric, a: Points, b: Points) -> Logarithm:
    result = logarithm_map(metric, a, b, full=True, **SHORT)
    assert isinstance(result, Logarithm)
    return result
