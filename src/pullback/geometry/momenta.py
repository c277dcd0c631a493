"""End velocities of geodesics, extrapolated from two meshes.

The discrete momenta are off by O(1/n²), n the intervals of the mesh; those of the mesh and of every second
node of it give v_2n + (v_2n - v_n)/3, which is off by O(1/n⁴).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullback.geometry.energy import Curves
from pullback.geometry.geodesics import NODE_BUDGET, Geodesic
from pullback.geometry.newton import Descent, advance, begin, correct
from pullback.geometry.route import Points, Route
from pullback.metrics import BaseMetric

SETTLED = 1e-6
SETTLING_STEPS = 20
SETTLING_DAMPING = 1e-6
# A covector at an end of a geodesic is as long as the curve; up to this part its length may differ.
NORM_TOL = 1e-2
# Below this part the quadrature of the length may be to blame.
TRIFLE = 1e-3


def settled(route: Route, points: Curves) -> Descent:
    """The discrete geodesics next to curves that are nearly so, and one Newton step beyond `SETTLED`."""
    with torch.no_grad():
        problem = route.energy(points[:, 0], points[:, -1])
        descent = begin(problem, points, damping=SETTLING_DAMPING)
        # A curve between equal points rests already, though its relative residual is 0/0.
        descent.residual.masked_fill_(descent.energy == 0, 0)
        advance(descent, tol=SETTLED, steps=SETTLING_STEPS)
        correct(descent, tol=SETTLED)
        return descent


def by_mesh(path: Geodesic, *, moving: bool = True) -> Iterator[tuple[Tensor, Curves]]:
    """Rows of the pairs and their curves on the final mesh: those of one mesh together, so many at a time.

    Args:
        moving: leave out pairs of equal points.
    """
    wanted = path.length > 0 if moving else torch.ones_like(path.converged)
    for nodes in path.mesh.unique().tolist():
        rows = ((path.mesh == nodes) & wanted).nonzero().squeeze(1)
        for part in rows.split(max(1, NODE_BUDGET // nodes)):
            if len(part):
                yield part, torch.stack([path.finest[row] for row in part.tolist()])


@dataclass(frozen=True)
class Halving:
    """What geodesics on a mesh and on every second node of it say together.

    Attributes:
        coarse: the geodesics on every second node.
        momenta: covectors g ż at the starts and at the ends, extrapolated where that can be trusted.
        trusted: extrapolation brings the lengths of both covectors nearer to that of the curve. It does not
            where a curve bends between the nodes of the coarser mesh.
        error: largest relative difference that is left between those lengths.
    """

    coarse: Curves
    momenta: Float[Tensor, "2 m d"]
    trusted: Bool[Tensor, " m"]
    error: Float[Tensor, " m"]


def halved(metric: BaseMetric, route: Route, points: Curves, length: Float[Tensor, " m"]) -> Halving:
    """Halve the mesh of geodesics between different points."""
    with torch.no_grad():
        # The embedding's own descent has already ended with such a step.
        fine = points if route.measures_residual else settled(route, points).points
        coarse = settled(route, points[:, ::2]).points
        momenta = torch.stack(route.momenta(fine))
        better = momenta + (momenta - torch.stack(route.momenta(coarse))) / 3
        g = torch.stack([metric.tensor(points[:, end]) for end in (0, -1)])
        plain, error = (_norm_error(g, covector, length) for covector in (momenta, better))
        trusted = error <= plain.clamp_min(TRIFLE)
        return Halving(
            coarse,
            torch.where(trusted[:, None], better, momenta),
            trusted,
            torch.where(trusted, error, plain),
        )


def _norm_error(
    g: Float[Tensor, "2 m d d"], covector: Float[Tensor, "2 m d"], length: Float[Tensor, " m"]
) -> Float[Tensor, " m"]:
    """By how much the lengths of covectors at either end differ from those of the curves."""
    square = (covector * torch.linalg.solve_ex(g, covector.unsqueeze(-1))[0].squeeze(-1)).sum(-1)
    return (square.sqrt() / length - 1).abs().amax(0)


def end_momenta(metric: BaseMetric, route: Route, path: Geodesic) -> tuple[Points, Points]:
    """Momenta g ż at both ends of geodesics, as in `Halving`; zero for pairs of equal points.

    Returns: covectors (m, d).
    """
    ends = torch.zeros_like(torch.stack([path.velocity_start, path.velocity_end]))
    for rows, curves in by_mesh(path):
        ends[:, rows] = halved(metric, route, curves, path.length[rows]).momenta
    return ends[0], ends[1]
