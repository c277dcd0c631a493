"""The exponential map: where free motion with a given velocity arrives after unit time."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullback.geometry.kinks import warn_of_straight_rays
from pullback.geometry.motion import Journey, follow, motion_of, travel
from pullback.geometry.route import Points
from pullback.metrics import BaseMetric, as_metric, checked_tensor
from pullback.validation import check_pair, check_positive, check_whole

logger = logging.getLogger(__name__)

DEFAULT_TOL = {torch.float64: 1e-8}
LOW_PRECISION_TOL = 1e-4
MAX_STEPS = 4096


@dataclass(frozen=True)
class Exponential:
    """Ends of geodesics with given starts, with the checks that say how far to trust each.

    Attributes:
        point: exp_z v, or the last finite point of a geodesic that leaves the domain of the metric, (m, d).
        velocity: dz/dt there, (m, d): v, carried along.
        drift: |g(v, v)(1)/g(v, v)(0) - 1|, zero for an exact solution.
        error: change of ``point`` when all steps were halved, relative to |v|_g; what error is left is far
            smaller. Infinite where time 1 was not reached.
        converged: ``error`` <= tol and ``drift`` <= 10 tol.
        steps: Runge-Kutta steps of order 8; 0 where v = 0.
        message: what failed and what to change, or "all motions converged".
    """

    point: Float[Tensor, "m d"]
    velocity: Float[Tensor, "m d"]
    drift: Float[Tensor, " m"]
    error: Float[Tensor, " m"]
    converged: Bool[Tensor, " m"]
    steps: Int[Tensor, " m"]
    message: str

    def __len__(self) -> int:
        return len(self.point)


def exponential_map(
    metric: Any,
    z: Tensor,
    v: Tensor,
    *,
    tol: float | int | None = None,
    full: bool = False,
    max_steps: int = MAX_STEPS,
    chunk_size: int | None = None,
) -> Tensor | Exponential:
    """exp_z v: the point that the geodesic with start ``z`` and velocity ``v`` reaches at time 1.

    Solves v̇^c = -Γ^c_ab v^a v^b, all rows together, by Runge-Kutta steps of order 8; each row has steps of
    its own length, and they are halved until the end point is still. With an embedding F the acceleration is
    -R⁻¹Qᵀ H[v, v], J = QR, from one directional jet; without, it is taken from g and its first derivative; a
    metric that knows ``hamiltonian_force`` in closed form is moved in Hamiltonian form.

    Args:
        metric: any object with ``tensor``.
        z: starting points, (m, d), or one point (d,) for every velocity.
        v: velocities dz/dt in latent coordinates, (m, d), or one (d,) for every point.
        tol: largest change of the end point by halving the steps, relative to |v|_g; None is 1e-8 in float64
            and 1e-4 in float32.
        full: return an `Exponential` with diagnostics instead of the points.
        max_steps: most attempts at a step, before they are halved.
        chunk_size: rows at a time; None bounds the memory.

    Returns:
        (m, d), or `Exponential`. Differentiable with respect to ``z``, ``v`` and the metric's parameters: the
        accepted steps are taken once more with a graph, so the gradient is that of the numerical solution
        (exact to ``tol``), and memory grows with twelve evaluations a step. Under ``torch.no_grad()``, or if
        nothing requires a gradient, there is no such pass. Rows that left the domain carry no gradient.
        Without ``full`` a warning is logged where a motion did not converge.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, a metric that is not positive
            definite at a starting point. A geodesic that leaves the domain of the metric is no error: its
            last finite point is returned with ``converged=False`` (`Exponential.message` says more).

    Warns:
        PiecewiseLinearWarning: a decoder that is linear piece by piece has no second derivative; its
            geodesics come out straight in the chart, and ``drift`` shows it.

    Example:
        >>> import torch
        >>> from pullback.geometry.reference import PoincareDisk
        >>> v = torch.tensor([[0.5, 0.0], [0.0, 1.0]], dtype=torch.float64)
        >>> exponential_map(PoincareDisk(), torch.zeros(2, dtype=torch.float64), v)
        tensor([[0.4621, 0.0000],
                [0.0000, 0.7616]], dtype=torch.float64)
    """
    known = as_metric(metric)
    z, v = check_pair(("z", "v"), z, v, known.dim)
    tol = default_tol(z) if tol is None else tol
    check_positive("tol", tol)
    check_whole("max_steps", max_steps)
    if chunk_size is not None:
        check_whole("chunk_size", chunk_size)
    with torch.no_grad():
        checked_tensor(known, z)
        motion = motion_of(known)
        warn_of_straight_rays(known)
        journey = travel(motion, z.detach(), v.detach(), tol=tol, max_steps=max_steps, size=chunk_size)
    point, velocity = z.detach() + journey.moved, journey.velocity
    if torch.is_grad_enabled():
        point, velocity = _attached(known, z, v, point, journey)
    good, message = journey.good(tol), _message(journey, tol)
    if full:
        return Exponential(point, velocity, journey.drift, journey.error, good, journey.steps, message)
    if not bool(good.all()):
        logger.warning(message)
    return point


def default_tol(z: Tensor) -> float:
    """1e-8 in double precision, 1e-4 below."""
    return DEFAULT_TOL.get(z.dtype, LOW_PRECISION_TOL)


def _attached(
    metric: BaseMetric, z: Points, v: Points, point: Points, journey: Journey
) -> tuple[Points, Points]:
    """The same points and velocities with their graph, from the steps that were accepted."""
    motion, velocity = motion_of(metric, trainable=True), journey.velocity
    if len(z) == 0 or not any(x.requires_grad for x in (z, v, *motion.rates(z[:1], v[:1]))):
        return point, velocity
    rows = (journey.time == 1).nonzero().squeeze(1)
    start, speed, pace = z[rows], v[rows], journey.replay(rows)
    moved, w = follow(motion, start, motion.companion(start, speed), pace)
    end = start + moved
    final = motion.velocity(end, w)
    # The values stay those of the result: a compact embedding rounds differently.
    point = point.index_add(0, rows, end - end.detach())
    return point, velocity.index_add(0, rows, final - final.detach())


def _message(journey: Journey, tol: float) -> str:
    """Which tests failed, for how many motions, and what to do."""
    bad = ~journey.good(tol)
    late = journey.time < 1
    parts = []
    for rows, hint in (
        (journey.stuck, "left the domain of the metric, the first at t = {:.3g}: shorten v"),
        (late & ~journey.stuck, "ran out of steps, the first at t = {:.3g}: raise max_steps or shorten v"),
    ):
        if bool(rows.any()):
            parts.append(f"{int(rows.sum())} " + hint.format(float(journey.time[rows].min())))
    rough = bad & ~late
    if bool(rough.any()):
        error, drift = float(journey.error[rough].max()), float(journey.drift[rough].max())
        parts.append(
            f"{int(rough.sum())} by accuracy (error {error:.2g}, drift {drift:.2g}, tol {tol:g}): raise tol, "
            "shorten v, or take a smooth decoder"
        )
    if not parts:
        return "all motions converged"
    return f"{int(bad.sum())} of {len(bad)} motions not converged: " + "; ".join(parts)
