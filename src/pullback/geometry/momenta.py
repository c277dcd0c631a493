"""End velocities of geodesics, extrapolated from two meshes.

The discrete momenta are off by O(1/n²), n the intervals of the mesh; those of the mesh and of every second
node of it give (4 v_2n - v_n)/3, which is off by O(1/n⁴).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from pullback.geometry.energy import Curves
from pullback.geometry.geodesics import NODE_BUDGET, Geodesic
from pullback.geometry.newton import advance, begin, correct
from pullback.geometry.route import Points, Route

SETTLED = 1e-6
SETTLING_STEPS = 20
SETTLING_DAMPING = 1e-6


def settled(route: Route, points: Curves) -> Curves:
    """The discrete geodesics next to curves that are nearly so, and one Newton step beyond `SETTLED`."""
    with torch.no_grad():
        problem = route.energy(points[:, 0], points[:, -1])
        descent = begin(problem, points, damping=SETTLING_DAMPING)
        advance(descent, tol=SETTLED, steps=SETTLING_STEPS)
        correct(descent, tol=SETTLED)
        return descent.points


def by_mesh(path: Geodesic) -> Iterator[tuple[Tensor, Curves]]:
    """Rows of the pairs that move, and their curves on the final mesh: those of one mesh together."""
    for nodes in path.mesh.unique().tolist():
        rows = ((path.mesh == nodes) & (path.length > 0)).nonzero().squeeze(1)
        for part in rows.split(max(1, NODE_BUDGET // nodes)):
            if len(part):
                yield part, torch.stack([path.finest[row] for row in part.tolist()])


def end_momenta(route: Route, path: Geodesic) -> tuple[Points, Points]:
    """Extrapolated momenta g ż at both ends of geodesics; zero for pairs of equal points.

    Returns: covectors (m, d).
    """
    first = torch.zeros_like(path.velocity_start)
    last = torch.zeros_like(first)
    for rows, curves in by_mesh(path):
        # The embedding's own descent has already ended with such a step.
        points = curves if route.measures_residual else settled(route, curves)
        fine, coarse = route.momenta(points), route.momenta(settled(route, points[:, ::2]))
        first[rows] = (4 * fine[0] - coarse[0]) / 3
        last[rows] = (4 * fine[1] - coarse[1]) / 3
    return first, last
