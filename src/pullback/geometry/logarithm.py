"""The logarithm map: the velocity with which a geodesic leaves for another point."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullback.geometry.exponential import default_tol
from pullback.geometry.geodesics import Geodesic, geodesic
from pullback.geometry.kinks import warn_of_straight_rays
from pullback.geometry.momenta import NORM_TOL, end_momenta
from pullback.geometry.motion import Journey, Motion, follow, motion_of, travel
from pullback.geometry.route import Points, route_of
from pullback.metrics import BaseMetric, as_metric
from pullback.validation import check_pair

logger = logging.getLogger(__name__)

# How exactly exp must hit the other point after refinement, relative to the distance.
REFINED_TOL = {torch.float64: 1e-9}
REFINED_TOL_LOW = 1e-4
SHOTS = 12
# A step that has been halved so often meets rounding: the end moves by more than exp can tell.
LEAST_SHARE = 1 / 16
MOST_STEPS = 1024


@dataclass(frozen=True)
class Logarithm:
    """Velocities from points to points, with the checks that say how far to trust each.

    Attributes:
        vector: log_a b, dz/dt at ``a`` in latent coordinates, (m, d); |vector|_g is the distance.
        path: the geodesics.
        norm_error: | |vector|_g / path.length - 1|.
        miss: |exp_a(vector) - b|_g / path.length, measured by shooting; NaN without ``refine``.
        converged: with ``refine``, ``miss`` within tolerance; else ``path`` converged, ``norm_error`` <= .01.
        message: what failed and what to change, or "all vectors converged".
    """

    vector: Float[Tensor, "m d"]
    path: Geodesic
    norm_error: Float[Tensor, " m"]
    miss: Float[Tensor, " m"]
    converged: Bool[Tensor, " m"]
    message: str

    def __len__(self) -> int:
        return len(self.vector)


def logarithm_map(
    metric: Any, a: Tensor, b: Tensor, *, refine: bool = False, full: bool = False, **options: Any
) -> Tensor | Logarithm:
    """log_a b: the velocity at ``a`` of the geodesic that is at ``b`` after unit time.

    The discrete momentum n J_0ᵀ(F_1 - F_0) of a geodesic with n intervals is off by O(1/n²); with that on
    every second node it is extrapolated, (4 v_2n - v_n)/3. With ``refine``, Newton's method on
    exp_a(v) = b takes it to the accuracy of the exponential map.

    Args:
        metric: any object with ``tensor``.
        a, b: points, (m, d), or one point (d,) for all pairs.
        refine: shoot until exp_a(v) hits b to 1e-9 of the distance (float32: 1e-4); one to three shots.
        full: return a `Logarithm` with the path and diagnostics instead of the vectors.
        **options: as for `geodesic`, e.g. ``nodes``, ``starts``, ``data``, ``chunk_size``.

    Returns:
        (m, d), zero where a = b and NaN where no curve was found, or `Logarithm`. Differentiable with respect
        to ``a``, ``b`` and the metric's parameters by the implicit function theorem for exp_a(v) = b: one
        shot with a graph, nothing goes through the solver. Under ``torch.no_grad()`` there is no such shot.
        Rows whose shot leaves the domain of the metric, or ends at a conjugate point, where exp has no
        inverse, carry no gradient; a warning is logged, and also, without ``full``, where a vector did not
        converge.

    Raises:
        TypeError, ValueError: as for `geodesic`.

    Warns:
        PiecewiseLinearWarning: ``refine`` with a decoder that is linear piece by piece.

    Gotchas:
        On a decoder with folds, where the end moves a thousand times as far as the vector, a vector that is
        right to 1e-4 misses: `Logarithm.norm_error` is the check of the vector, ``miss`` that of the map.
        Beyond the first conjugate point there are several logarithms; this is the one of the geodesic that
        the starts lead to.

    Example:
        >>> import torch
        >>> from pullback.geometry.reference import PoincareDisk
        >>> a = torch.zeros(2, dtype=torch.float64)
        >>> b = torch.tensor([[0.4621171573, 0.0]], dtype=torch.float64)
        >>> logarithm_map(PoincareDisk(), a, b, refine=True).round(decimals=6)
        tensor([[0.5000, 0.0000]], dtype=torch.float64)
    """
    known = as_metric(metric)
    a, b = check_pair(("a", "b"), a, b, known.dim)
    path = geodesic(known, a, b, **options)
    with torch.no_grad():
        start, end, motion = a.detach(), b.detach(), motion_of(known)
        vector = _extrapolated(known, path, start)
        vector[~torch.isfinite(path.length)] = torch.nan
        miss = torch.full_like(path.length, torch.nan)
        if refine:
            warn_of_straight_rays(known)
            vector, miss = _refined(motion, start, end, vector, path)
        square = motion.squared_norm(start, vector) if len(start) else path.length
        away = path.length > 0
        norm_error = torch.where(away, (square.sqrt() / torch.where(away, path.length, 1) - 1).abs(), 0)
    if torch.is_grad_enabled():
        vector = _attached(known, a, b, vector)
    good = path.converged & (norm_error <= NORM_TOL)
    converged = miss <= refined_tol(start) if refine else good
    message = _message(converged, miss, norm_error, path)
    if full:
        return Logarithm(vector, path, norm_error, miss, converged, message)
    if not bool(converged.all()):
        logger.warning(message)
    return vector


def refined_tol(z: Tensor) -> float:
    """The largest miss of a refined logarithm."""
    return REFINED_TOL.get(z.dtype, REFINED_TOL_LOW)


def _extrapolated(metric: BaseMetric, path: Geodesic, start: Points) -> Points:
    """g⁻¹ of the extrapolated momenta."""
    if len(start) == 0:
        return start.clone()
    momentum = end_momenta(metric, route_of(metric), path)[0]
    return torch.linalg.solve(metric.tensor(start), momentum.unsqueeze(-1)).squeeze(-1)


def _refined(
    motion: Motion, start: Points, end: Points, vector: Points, path: Geodesic
) -> tuple[Points, Float[Tensor, " m"]]:
    """Newton's method on exp_a(v) = b: vectors and their relative misses.

    The derivative of exp is taken by differences along the accepted steps of the shot. A step that does not
    come closer is halved.
    """
    tol = refined_tol(start)
    best = vector.clone()
    miss = torch.where(path.length > 0, torch.inf, 0.0).to(start)
    step, share = torch.zeros_like(start), torch.ones_like(miss)
    for _ in range(SHOTS):
        rows = ((miss > tol) & (share >= LEAST_SHARE)).nonzero().squeeze(1)
        if len(rows) == 0:
            break
        z, length = start[rows], path.length[rows]
        trial = best[rows] + share[rows, None] * step[rows]
        shot = travel(motion, z, trial, tol=tol, max_steps=MOST_STEPS)
        gap = end[rows] - z - shot.moved
        seen = motion.squared_norm(end[rows], gap).sqrt() / length
        seen = torch.where((shot.time == 1) & ~torch.isnan(seen), seen, torch.inf)
        closer = seen < miss[rows]
        share[rows] = torch.where(closer, 1, share[rows] / 2)
        best[rows] = torch.where(closer.unsqueeze(1), trial, best[rows])
        miss[rows] = torch.where(closer, seen, miss[rows])
        near = (closer & (seen > tol)).nonzero().squeeze(1)
        at = rows[near]
        slope = _slope(motion, z[near], trial[near], shot, near)
        solved, info = torch.linalg.solve_ex(slope, gap[near].unsqueeze(-1))
        step[at] = torch.where((info == 0).unsqueeze(1), solved.squeeze(-1), 0).nan_to_num(0, 0, 0)
    return best, miss


def _slope(motion: Motion, z: Points, v: Points, shot: Journey, rows: Tensor) -> Float[Tensor, "n d d"]:
    """∂exp_z(v)/∂v by differences of the numerical solution with the steps that ``shot`` took."""
    n, d = z.shape
    size = torch.finfo(z.dtype).eps ** 0.5 * v.norm(dim=1, keepdim=True)
    moved = torch.empty(d, n, d, dtype=z.dtype, device=z.device)
    pace = shot.pace[:, rows]
    for part in torch.arange(n, device=z.device).split(max(1, motion.rows(z) // d) if n else 1):
        at = z[part].repeat(d, 1)
        shift = torch.eye(d, dtype=z.dtype, device=z.device)[:, None] * size[part]
        aside = (v[part] + shift).flatten(0, 1)
        ends = follow(motion, at, motion.companion(at, aside), pace[:, part].repeat(1, d))[0]
        moved[:, part] = (ends.unflatten(0, (d, -1)) - shot.moved[rows][part]) / size[part]
    return moved.permute(1, 2, 0)


def _attached(metric: BaseMetric, a: Points, b: Points, vector: Points) -> Points:
    """The same vectors with their graph: exp_a(v) = b gives dv = (∂exp/∂v)⁻¹(db - ∂exp/∂a da - ...)."""
    motion = motion_of(metric, trainable=True)
    if len(a) == 0 or not any(x.requires_grad for x in (a, b, *motion.rates(a[:1], vector[:1]))):
        return vector
    with torch.no_grad():
        shot = travel(motion_of(metric), a.detach(), vector, tol=default_tol(a), max_steps=MOST_STEPS)
    rows = (shot.time == 1).nonzero().squeeze(1)
    speed, start, pace = vector[rows].clone().requires_grad_(), a[rows], shot.replay(rows)
    end = start + follow(motion, start, motion.companion(start, speed), pace)[0]
    slope = torch.stack(
        [torch.autograd.grad(column.sum(), speed, retain_graph=True)[0] for column in end.unbind(1)], dim=1
    )
    factors, pivots, info = torch.linalg.lu_factor_ex(slope)
    firm = ((info == 0) & torch.isfinite(factors).all(-1).all(-1)).nonzero().squeeze(1)
    if len(firm) < len(a):
        logger.warning("%d of %d vectors carry no gradient: exp has none there", len(a) - len(firm), len(a))
    miss = (b[rows] - end)[firm].unsqueeze(-1)
    change = torch.linalg.lu_solve(factors[firm], pivots[firm], miss).squeeze(-1)
    return vector.index_add(0, rows[firm], change - change.detach())


def _message(converged: Tensor, miss: Tensor, norm_error: Tensor, path: Geodesic) -> str:
    """What failed and what to do."""
    if bool(converged.all()):
        return "all vectors converged"
    failed = int((~converged).sum())
    parts = [f"{failed} of {len(converged)} vectors not converged"]
    far = ~converged & ~torch.isnan(miss)
    if bool(far.any()):
        parts.append(
            f"exp misses by up to {float(miss[far].max()):.2g} of the distance: raise nodes; the end may "
            "move too much with the vector, or lie beyond a conjugate point"
        )
    long = ~converged & torch.isnan(miss) & (norm_error > NORM_TOL)
    if bool(long.any()):
        worst = float(norm_error[long].max())
        parts.append(f"the length is off by up to {worst:.2g}: raise nodes, or set refine=True")
    if not bool(path.converged.all()):
        parts.append(path.message)
    return "; ".join(parts)
