"""The certificate of any curve: whether it is a geodesic, and whether its mesh sees all of it."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullback.geometry.curve import check_curves
from pullback.geometry.energy import Curves
from pullback.geometry.geodesics import Geodesic
from pullback.geometry.newton import begin
from pullback.geometry.route import Route, route_of
from pullback.geometry.solver import mesh_gap
from pullback.metrics import as_metric
from pullback.validation import check_positive

CHUNK_NODES = 2**15
LEAST_NODES = 5


@dataclass(frozen=True)
class Certificate:
    """What `geodesic` checks of its own curves, measured on given ones.

    Attributes:
        length, energy: L and E of the splines through the nodes.
        residual: Euler-Lagrange residual of the discrete problem on these nodes (see `Geodesic`); infinite
            where the curve leaves the domain of the metric.
        gap: (E_2n - E_n)/E_2n, the part of the energy between the nodes.
        defect: estimate of the discretisation error, NaN without an embedding.
        converged: ``residual`` <= tol and ``gap`` <= gap_tol.
        message: which test failed for how many curves, or "all curves are geodesics".
    """

    length: Float[Tensor, " m"]
    energy: Float[Tensor, " m"]
    residual: Float[Tensor, " m"]
    gap: Float[Tensor, " m"]
    defect: Float[Tensor, " m"]
    converged: Bool[Tensor, " m"]
    message: str

    def __len__(self) -> int:
        return len(self.length)


def certify(
    metric: Any,
    path: Geodesic | Float[Tensor, "*m N d"],
    *,
    tol: float | int | None = None,
    gap_tol: float | int = 1e-2,
) -> Certificate:
    """Whether curves are geodesics of a metric: the tests of `geodesic`, for curves from anywhere.

    A curve passes if no small move of its nodes, which stand at equal times, changes its energy (residual),
    and if the energy on twice the mesh is the same (gap). A curve that was found on a finer mesh and thinned
    out afterwards is off the geodesic of its own nodes by O(1/n²), and ``residual`` says so.

    Args:
        metric: any object with ``tensor``.
        path: a `Geodesic` (taken on its finest mesh), or nodes (m, N, d) with N >= 5, or one curve (N, d).
        tol: bound on the residual; None is 1e-6 in float64 and 1e-2 in float32.
        gap_tol: bound on the gap.
    Returns: `Certificate`.
    Raises:
        TypeError, ValueError: no curves, fewer than five nodes, or numbers that are not finite.
    Example:
        >>> import torch
        >>> from pullback.metrics import EuclideanMetric
        >>> t = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
        >>> line = torch.cat([t, 2 * t], dim=1)
        >>> certify(EuclideanMetric(2), torch.stack([line, line**2])).converged
        tensor([ True, False])
    """
    known = as_metric(metric)
    check_positive("gap_tol", gap_tol)
    if tol is not None:
        check_positive("tol", tol)
    given = isinstance(path, Geodesic)
    curves = list(path.finest) if given else list(check_curves("path", path, known.dim))
    if given and curves and known.dim not in (None, curves[0].shape[1]):
        raise ValueError(f"path: expected curves in {known.dim} dimensions, got {curves[0].shape[1]}")
    like = path.points if given else path
    tol = tol if tol is not None else 1e-2 if like.dtype == torch.float32 else 1e-6
    short = next((curve for curve in curves if len(curve) < LEAST_NODES), None)
    if short is not None:
        raise ValueError(f"path: expected at least {LEAST_NODES} nodes a curve, got {len(short)}")
    measured = like.new_zeros(5, len(curves))
    with torch.no_grad():
        route = route_of(known)
        for nodes in sorted({len(curve) for curve in curves}):
            rows = [k for k, curve in enumerate(curves) if len(curve) == nodes]
            size = max(1, CHUNK_NODES // nodes)
            for part in (rows[k : k + size] for k in range(0, len(rows), size)):
                measured[:, part] = _measured(route, torch.stack([curves[k] for k in part]))
    length, energy, residual, gap, defect = measured
    sharp, seen = residual <= tol, gap <= gap_tol
    message = _message(residual, gap, sharp, seen, float(tol), float(gap_tol))
    return Certificate(length, energy, residual, gap, defect, sharp & seen, message)


def _measured(route: Route, points: Curves) -> Tensor:
    """Length, energy, residual, gap and defect, one row each; a curve that rests is a geodesic."""
    state = begin(route.energy(points[:, 0], points[:, -1]), points, damping=1.0)
    seen = route.inspect(points)
    length, energy = seen.speeds.length(), seen.speeds.energy()
    residual, discrete = state.residual, state.energy
    if route.measures_residual and points.dtype == torch.float64:  # second differences without cancellation
        lost = ~torch.isfinite(state.energy)
        residual = seen.residual.nan_to_num(nan=torch.inf).masked_fill(lost, torch.inf)
        discrete = seen.energy.masked_fill(lost, torch.inf)
    gap = mesh_gap(discrete, seen).masked_fill(~torch.isfinite(discrete), torch.inf)
    rests = (points == points[:, :1]).flatten(1).all(1) & (energy == 0)
    residual, gap, defect = (
        x.masked_fill(rests, 0) for x in (residual, gap, seen.bend / length.masked_fill(rests, 1))
    )
    return torch.stack([length, energy, residual, gap, defect])


def _message(residual: Tensor, gap: Tensor, sharp: Tensor, seen: Tensor, tol: float, gap_tol: float) -> str:
    parts = []
    if not bool(sharp.all()):
        worst = float(residual[~sharp].max())
        parts.append(f"{int((~sharp).sum())} by residual (largest {worst:.2g} > tol {tol:g})")
    if not bool(seen.all()):
        worst = float(gap[~seen].max())
        parts.append(f"{int((~seen).sum())} by gap (largest {worst:.2g} > gap_tol {gap_tol:g})")
    if not parts:
        return "all curves are geodesics"
    return f"{int((~(sharp & seen)).sum())} of {len(sharp)} curves are no geodesics: " + "; ".join(parts)
