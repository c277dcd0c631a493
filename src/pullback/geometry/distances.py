"""Geodesic distance, differentiable with respect to both points and the metric's parameters."""

import logging
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.geometry.energy import Curves
from pullback.geometry.geodesics import geodesic
from pullback.geometry.momenta import NORM_TOL, by_mesh, halved
from pullback.geometry.route import Points, Route, route_of
from pullback.metrics import as_metric

logger = logging.getLogger(__name__)


def distance(metric: Any, a: Tensor, b: Tensor, **options: Any) -> Float[Tensor, " m"]:
    """Length of the geodesics from ``a`` to ``b``.

    The derivative does not go through the solver. At an optimum the interior nodes contribute nothing
    (envelope theorem), so ∂d = ∂E_n/(2d) with the nodes held fixed; for the end points this is
    ∂d/∂b = g(b) v_b/|v_b| and ∂d/∂a = -g(a) v_a/|v_a|. E_n alone is off by O(1/n²), so the values on the mesh
    and on every second node of it are extrapolated, (4 ∂E_2n - ∂E_n)/3, where that brings the covectors at
    the ends nearer to the length 1 that they must have.

    Args:
        metric: any object with ``tensor``.
        a, b: points, (m, d); a single point (d,) is used for every pair.
        **options: as for `geodesic`.

    Returns:
        (m,). Second derivatives are not offered. A warning is logged where a curve did not converge (its
        gradient belongs to that curve), and where the covector at an end has a length more than .01 off.

    When to use:
        Inside ``torch.no_grad()`` where no gradient is wanted; that saves the second mesh.

    Gotchas:
        `Geodesic.gap` bounds the error of the length, not that of its gradient: on a decoder that bends
        sharply at an end, the covector there may be off by a multiple of ``gap_tol``: raise ``nodes``.

    Example:
        >>> import torch
        >>> from pullback.geometry.reference import PoincareDisk
        >>> b = torch.tensor([[0.5, 0.0]], dtype=torch.float64, requires_grad=True)
        >>> d = distance(PoincareDisk(), torch.zeros(1, 2, dtype=torch.float64), b)
        >>> d.backward()
        >>> round(d.item(), 6), [round(x, 5) for x in b.grad[0].tolist()]
        (1.098612, [2.66667, 0.0])
    """
    path = geodesic(metric, a, b, **options)
    if not bool(path.converged.all()):
        logger.warning(path.message)
    if not torch.is_grad_enabled():
        return path.length
    known = as_metric(metric)
    live, fixed = route_of(known, trainable=True), route_of(known)
    length, error = path.length, torch.zeros_like(path.length)
    start, end = (point.expand_as(path.velocity_start) for point in (a, b))
    for rows, points in by_mesh(path):
        energy = _discrete_energy(live, points, start[rows], end[rows])
        if not energy.requires_grad:
            return path.length
        both = halved(known, fixed, points, path.length[rows])
        at, error[rows] = both.trusted.nonzero().squeeze(1), both.error
        if len(at):
            coarse = _discrete_energy(live, both.coarse[at], start[rows[at]], end[rows[at]])
            energy = energy.index_add(0, at, (energy[at] - coarse) / 3)
        value = energy / (2 * path.length[rows])
        length = length.index_add(0, rows, value - value.detach())
    rough = ~(error <= NORM_TOL)
    if bool(rough.any()):
        count, worst = int(rough.sum()), float(error.max())
        logger.warning("%d of %d gradients are off by up to %.2g: raise nodes", count, len(path), worst)
    return length


def _discrete_energy(route: Route, points: Curves, start: Points, end: Points) -> Float[Tensor, " m"]:
    """E_n with the interior nodes held fixed."""
    return route.discrete_energy(torch.cat([start.unsqueeze(1), points[:, 1:-1], end.unsqueeze(1)], dim=1))
