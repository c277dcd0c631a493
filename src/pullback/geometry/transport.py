"""Parallel transport of vectors along curves."""

import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullback.geometry.connections import Connection, Polar, Turns, connection_of
from pullback.geometry.curve import check_curves
from pullback.geometry.energy import Curves
from pullback.geometry.geodesics import Geodesic
from pullback.geometry.ladder import pole_ladder
from pullback.geometry.route import Points
from pullback.geometry.spline import smooth_through, spline_through
from pullback.metrics import BaseMetric, as_metric, checked_tensor
from pullback.validation import check_choice, check_finite, check_points, check_positive, check_whole

logger = logging.getLogger(__name__)

METHODS = ("auto", "embedding", "tensor", "pole_ladder")
TOL = {torch.float64: 1e-10}
TOL_LOW = 1e-5
MOST_DOUBLINGS = 8
# Numbers that the turns of a chunk of curves take, on their own nodes and on each halved mesh.
CHUNK_NUMBERS = 2**20


@dataclass(frozen=True)
class Transport:
    """Vectors carried along curves, with the checks that say how far to trust each.

    Attributes:
        vectors: at the parameters ``t`` of every curve, (m, T, d), the first the given one.
        t: 0 to 1: the nodes of the curves; for the pole ladder its rungs.
        norm_error: largest relative change of |v|_g on the way.
        angle_error: by how much the transport turned, in radians, when the steps were last halved; what error
            is left is smaller. For the pole ladder: change of the last vector, relative to its length.
        converged: ``angle_error`` <= tol.
        steps: steps of the finest mesh.
        method: "embedding", "tensor" or "pole_ladder".
        message: what failed and what to change, or "all vectors converged".
    """

    vectors: Float[Tensor, "m T d"]
    t: Float[Tensor, " T"]
    norm_error: Float[Tensor, " m"]
    angle_error: Float[Tensor, " m"]
    converged: Bool[Tensor, " m"]
    steps: Int[Tensor, " m"]
    method: str
    message: str

    def __len__(self) -> int:
        return len(self.vectors)


def parallel_transport(
    metric: Any,
    path: Geodesic | Tensor,
    v: Tensor,
    *,
    method: Literal["auto", "embedding", "tensor", "pole_ladder"] = "auto",
    tol: float | int | None = None,
    full: bool = False,
    chunk_size: int | None = None,
) -> Tensor | Transport:
    """Vectors at the starts of curves, carried to their ends without turning: v̇^c + Γ^c_ab ż^a v^b = 0.

    A not-a-knot spline of degree 7 joins the nodes. In orthonormal frames the transport over a short piece is
    a rotation: with an embedding, J_k = E_k R_k, the orthogonal polar factor of E_{k+1}ᵀE_k; with a tensor
    alone, the exponential of the connection form. Their products keep norms and angles to rounding. The
    pieces are halved, and the results extrapolated in the even powers of their length, until they are still.

    Args:
        metric: any object with ``tensor``.
        path: a `Geodesic`, or any curves through equally spaced nodes, (m, N, d) or one (N, d).
        v: vectors dz/dt at the starts, (m, d), or one (d,) for all curves; many vectors may share one curve.
        method: "auto" takes the embedding where there is one; "pole_ladder" is an independent check along a
            `Geodesic` by exponentials and logarithms alone, slow and of second order in a rung (8 at most).
        tol: largest turn by the last halving, in radians; None is 1e-10 in float64 and 1e-5 in float32. For
            the pole ladder, None is 1e-2.
        full: return a `Transport` with the vectors at all nodes and diagnostics.
        chunk_size: most curves at a time; memory is bounded in any case.

    Returns:
        (m, d) at the ends, or `Transport`; detached, no gradient. Without ``full`` a warning is logged where
        a vector did not converge.

    Raises:
        ValueError: a curve with one point, a vector of another shape than the curve's start, a metric that is
            not positive definite at a node, a pole ladder along curves that are no `Geodesic`.

    Example:
        >>> import math, torch
        >>> from pullback.geometry.reference import Sphere
        >>> from pullback.metrics import PullbackMetric
        >>> angle = torch.linspace(0, 2 * math.pi, 129, dtype=torch.float64)
        >>> radius = math.tan(0.5)  # the circle of latitude one radian from a pole
        >>> circle = radius * torch.stack([angle.cos(), angle.sin()], dim=1)
        >>> v = torch.tensor([1.0, 0.0], dtype=torch.float64)
        >>> w = parallel_transport(PullbackMetric(Sphere().embedding), circle, v)[0]
        >>> turned = math.atan2(w[1], w[0]) % (2 * math.pi)
        >>> round(turned, 4), round(2 * math.pi * (1 - math.cos(1)), 4)
        (2.8884, 2.8884)
    """
    known = as_metric(metric)
    check_choice("method", method, METHODS)
    curves, v = _checked(known, path, v)
    if tol is not None:
        check_positive("tol", tol)
    if chunk_size is not None:
        check_whole("chunk_size", chunk_size)
    with torch.no_grad():
        _, nodes, d = curves.shape
        g = torch.cat([checked_tensor(known, z) for z in curves.flatten(0, 1).split(2**14)])
        g = g.unflatten(0, curves.shape[:2])
        if method == "pole_ladder":
            result = _by_ladder(known, path, v, g, 1e-2 if tol is None else float(tol))
        else:
            connection = connection_of(known, method)
            if method == "embedding" and not isinstance(connection, Polar):
                raise ValueError("method: 'embedding' needs a metric with an embedding; use 'tensor'")
            size = chunk_size or max(1, CHUNK_NUMBERS // (nodes * d * d))
            limit = TOL.get(curves.dtype, TOL_LOW) if tol is None else float(tol)
            result = _by_turns(connection, curves, v, g, limit, size)
    if full:
        return result
    if not bool(result.converged.all()):
        logger.warning(result.message)
    return result.vectors[:, -1]


def _checked(metric: BaseMetric, path: Any, v: Any) -> tuple[Curves, Points]:
    """Curves and one vector each."""
    points = path.points if isinstance(path, Geodesic) else path
    curves = check_curves("path", points, metric.dim).detach()
    if isinstance(v, Tensor) and v.ndim == 1:
        v = v.expand(len(curves), -1)
    v = check_points("v", v, finite=False).detach()
    if len(curves) == 1:
        curves = curves.expand(len(v), -1, -1)
    if v.shape != curves[:, 0].shape:
        raise ValueError(
            f"v: expected {tuple(curves[:, 0].shape)} like the path's start, got {tuple(v.shape)}"
        )
    if v.dtype != curves.dtype:
        raise ValueError(f"v: expected {curves.dtype} like the path, got {v.dtype}")
    check_finite("v", v)
    return curves, v


def _norms(g: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("...a,...ab,...b->...", v, g, v).clamp_min(0).sqrt()


def _norm_error(g: Float[Tensor, "m T d d"], vectors: Float[Tensor, "m T d"]) -> Float[Tensor, " m"]:
    """Largest relative change of the norm; 0 for a vector of norm 0."""
    norms = _norms(g, vectors)
    first = norms[:, :1]
    return torch.where(first > 0, norms / torch.where(first > 0, first, 1) - 1, 0).abs().amax(1)


def _by_turns(
    connection: Connection, curves: Curves, v: Points, g: Tensor, tol: float, size: int
) -> Transport:
    """Transport by the products of small rotations."""
    m, nodes = curves.shape[:2]
    vectors = torch.empty_like(curves)
    angle = torch.full_like(v[:, 0], torch.inf)
    steps = torch.full((m,), nodes - 1, dtype=torch.long, device=v.device)
    for rows in torch.arange(m, device=v.device).split(size) if m else ():
        frames = connection.frames(curves[rows].flatten(0, 1)).unflatten(0, (len(rows), nodes))
        turned, angle[rows], doublings = _settled(connection, curves[rows], tol)
        steps[rows] = (nodes - 1) * 2**doublings
        start = frames[:, 0] @ v[rows].unsqueeze(-1)
        carried = turned @ start.unsqueeze(1)
        vectors[rows] = torch.linalg.solve_triangular(frames, carried, upper=True).squeeze(-1)
    vectors[:, 0] = v
    method = "embedding" if isinstance(connection, Polar) else "tensor"
    good = angle <= tol
    t = torch.linspace(0, 1, nodes, dtype=v.dtype, device=v.device)
    message = _message(good, angle, tol, "give the path more nodes, or raise tol")
    return Transport(vectors, t, _norm_error(g, vectors), angle, good, steps, method, message)


def _settled(
    connection: Connection, curves: Curves, tol: float
) -> tuple[Turns, Float[Tensor, " m"], Int[Tensor, " m"]]:
    """Rotations from the start to every node, their last changes, and how often pieces were halved.

    Romberg's scheme: both connections are symmetric in time, so their errors go in even powers of the step.
    """
    best = _rotations(connection, curves, 1)
    angle = torch.full_like(curves[:, 0, 0], torch.inf)
    doublings = torch.zeros(len(curves), dtype=torch.long, device=curves.device)
    active = torch.arange(len(curves), device=curves.device)
    row = [best]
    for level in range(1, MOST_DOUBLINGS + 1):
        finer = [_rotations(connection, curves[active], 2**level)]
        for j, coarse in enumerate(row):
            finer.append(finer[j] + (finer[j] - coarse) / (2 ** (connection.order + 2 * j) - 1))
        # A rotation by δ in one plane differs from the identity by √2 δ.
        change = (finer[-1] - row[-1]).flatten(2).norm(dim=2).amax(1) / 2**0.5
        known = torch.isfinite(change)
        at = active[known]
        best[at], angle[at], doublings[at] = finer[-1][known], change[known], level
        going = known & (change > tol)
        active, row = active[going], [part[going] for part in finer]
        if len(active) == 0:
            break
    return _orthogonal(best), angle, doublings


def _rotations(connection: Connection, curves: Curves, parts: int) -> Turns:
    """Rotations from the start to every node, by intervals cut into ``parts``: so many curves at a time."""
    intervals = curves.shape[1] - 1
    size = max(1, CHUNK_NUMBERS // (intervals * parts * connection.numbers(curves[:, 0])))
    return torch.cat(
        [_products(connection.turns(smooth_through(part), parts), intervals) for part in curves.split(size)]
    )


def _products(turns: Turns, intervals: int) -> Float[Tensor, "m N d d"]:
    """The rotations from the start to every node of the curve itself."""
    parts = turns.unflatten(1, (intervals, -1))
    while parts.shape[2] > 1:
        parts = parts[:, :, 1::2] @ parts[:, :, ::2]
    d = turns.shape[-1]
    total = [torch.eye(d, dtype=turns.dtype, device=turns.device).expand(len(turns), d, d)]
    for k in range(intervals):
        total.append(parts[:, k, 0] @ total[-1])
    return torch.stack(total, dim=1)


def _orthogonal(x: Turns) -> Turns:
    """The nearest rotations to what extrapolation has made of rotations, two Newton steps away at most."""
    for _ in range(3):
        x = x @ (3 * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device) - x.mT @ x) / 2
    return x


def _by_ladder(metric: BaseMetric, path: Any, v: Points, g: Tensor, tol: float) -> Transport:
    """Transport by the pole ladder, with half as many rungs as check."""
    if not isinstance(path, Geodesic):
        raise ValueError("path: the pole ladder follows geodesics alone: expected a Geodesic, got a Tensor")
    curve = spline_through(path.points.expand(len(v), -1, -1))
    intervals = curve.points.shape[1] - 1
    rungs = max(k for k in (8, 6, 4, 2) if intervals % k == 0)
    vectors, well = pole_ladder(metric, curve, v, rungs)
    coarse, sound = pole_ladder(metric, curve, v, rungs // 2)
    g = g[:, :: intervals // rungs]
    size = _norms(g[:, -1], vectors[:, -1])
    change = _norms(g[:, -1], vectors[:, -1] - coarse[:, -1])
    angle = torch.where(size > 0, change / torch.where(size > 0, size, 1), 0)
    good = (angle <= tol) & well & sound
    t = torch.linspace(0, 1, rungs + 1, dtype=v.dtype, device=v.device)
    steps = torch.full((len(v),), rungs, dtype=torch.long, device=v.device)
    hint = "the ladder's rungs are too long, or its exponentials fail: use method='auto'"
    message = _message(good, angle, tol, hint)
    return Transport(vectors, t, _norm_error(g, vectors), angle, good, steps, "pole_ladder", message)


def _message(good: Tensor, angle: Tensor, tol: float, hint: str) -> str:
    if bool(good.all()):
        return "all vectors converged"
    worst = float(angle[~good].max())
    failed = f"{int((~good).sum())} of {len(good)} vectors not converged"
    return f"{failed} (angle_error {worst:.2g}, tol {tol:g}): {hint}"
