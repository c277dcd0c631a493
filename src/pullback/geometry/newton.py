"""Damped Newton iteration on the discrete energy of many curves at once, each under its own control."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullback.geometry.energy import CurveEnergy, Curves, System
from pullback.geometry.tridiagonal import solve_block_tridiagonal

DAMPING_LEAST = 1e-6
# Part of the damping that counts all directions alike. Stiffness alone lets a curve go far, beyond any
# second-order model, in directions that the metric hardly sees: with 2 of 32 latent dimensions in use, 2 of
# 12 curves converged instead of 9.
ISOTROPIC = 1e-3
DAMPING_AFTER_REJECTION = 1e-1
DAMPING_HOPELESS = 1e8
# Energy changes below this many roundings of E are noise: such a step is accepted on its prediction alone.
NOISE_ROUNDINGS = 450


@dataclass
class Descent:
    """A batch of curves on its way down; `advance` moves it on in place.

    Attributes:
        problem: energy of these curves.
        points: the curves; a step is only taken if the energy does not rise.
        energy: E of `points`; infinite where the curve left the domain of the metric from the beginning.
        system: the second-order model there.
        residual: dimensionless Euler-Lagrange residual, see `euler_lagrange`.
        damping, growth: λ of the next step, and its factor should that step be rejected.
        isotropic: part of the damping that counts all directions alike.
        iterations: steps tried.
    """

    problem: CurveEnergy
    points: Curves
    energy: Float[Tensor, " m"]
    system: System
    residual: Float[Tensor, " m"]
    damping: Float[Tensor, " m"]
    growth: Float[Tensor, " m"]
    iterations: Int[Tensor, " m"]
    isotropic: float

    def rows(self, index: Tensor) -> "Descent":
        """The curves ``index`` of the batch."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {name: part[index] for name, part in parts.items() if isinstance(part, Tensor)}
        return replace(self, problem=self.problem.rows(index), system=self.system.rows(index), **tensors)

    def put(self, index: Tensor, other: "Descent") -> None:
        """Write the curves of ``other`` into the rows ``index``."""
        for field in fields(self):
            part, new = getattr(self, field.name), getattr(other, field.name)
            if isinstance(part, Tensor):
                part[index] = new
        self.system.put(index, other.system)


def euler_lagrange(system: System, energy: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """max_k n² √(y_kᵀ g⁻¹ y_k) / √E: zero at a geodesic of the discrete problem, free of units and chart."""
    y = system.gradient.unsqueeze(-1)
    n = system.gradient.shape[1] + 1
    solved, info = torch.linalg.solve_ex(system.metric, y)
    square = (y * solved).sum((2, 3)).clamp_min(0).masked_fill(info != 0, torch.inf)
    return (n**2 * square.amax(1).sqrt() / energy.sqrt()).nan_to_num(nan=torch.inf)


def _usable(energy: Tensor, system: System) -> Bool[Tensor, " m"]:
    sums = system.gradient.sum((1, 2)) + system.diagonal.sum((1, 2, 3)) + system.upper.sum((1, 2, 3))
    return torch.isfinite(energy + sums)


def begin(
    problem: CurveEnergy, points: Curves, *, damping: float | int, isotropic: float = ISOTROPIC
) -> Descent:
    """The state before the first step; curves that the metric does not reach are given up at once."""
    energy, system = problem.model(points)
    usable = _usable(energy, system)
    return Descent(
        problem,
        points.clone(),
        energy.masked_fill(~usable, torch.inf),
        system,
        euler_lagrange(system, energy).masked_fill(~usable, torch.inf),
        torch.where(usable, torch.full_like(energy, damping), DAMPING_HOPELESS),
        torch.full_like(energy, 2.0),
        torch.zeros(len(points), dtype=torch.long, device=points.device),
        isotropic,
    )


def advance(descent: Descent, *, tol: float | int, steps: int) -> None:
    """Up to ``steps`` Newton steps of every curve whose residual is above ``tol`` and that is not given up.

    A step solves (H + λS) s = -y for all curves together: y and H gradient and Hessian of E/(2n), S the
    stiffness matrix, which weighs a displacement by the energy that it costs (a weight by size alone would
    hold back the long waves, which a curve needs to get anywhere), and a small multiple of tr(g)/d. λ follows
    the ratio of actual to predicted decrease of each curve (Nielsen 1999, "Damping parameter in Marquardt's
    method").
    """
    for _ in range(steps):
        moving = ((descent.residual > tol) & (descent.damping < DAMPING_HOPELESS)).nonzero().squeeze(1)
        if len(moving) == 0:
            return
        if len(moving) == len(descent.points):
            _step(descent)
        else:
            part = descent.rows(moving)
            _step(part)
            descent.put(moving, part)


def correct(descent: Descent, *, tol: float | int) -> None:
    """One more Newton step, from the model at hand, of the curves whose residual is at most ``tol``.

    There the iteration converges quadratically: the step doubles the digits, and nothing needs evaluating.
    """
    near = (descent.residual <= tol).nonzero().squeeze(1)
    if len(near) == 0:
        return
    system = descent.system.rows(near)
    step = solve_block_tridiagonal(system.diagonal, system.upper, -system.gradient)
    step = torch.where(torch.isfinite(step).all(-1).all(-1)[:, None, None], step, 0)
    descent.points[near, 1:-1] += step


def _step(state: Descent) -> None:
    """One damped Newton step of every curve."""
    system, points, damping = state.system, state.points, state.damping
    n, factor = points.shape[1] - 1, damping[:, None, None, None]
    evenly = state.isotropic * system.metric.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
    step = solve_block_tridiagonal(
        system.diagonal + factor * (2 * system.metric + torch.diag_embed(evenly.expand_as(system.gradient))),
        system.upper + factor * system.coupling,
        -system.gradient,
    )
    damped = damping[:, None, None] * (system.stiffness_times(step) + evenly * step)
    predicted = ((damped - system.gradient) * step).sum((1, 2)) / 2
    trial = points.clone()
    trial[:, 1:-1] += step
    energy, model = state.problem.model(trial)
    change = state.energy - energy
    ratio = change / (2 * n * predicted)
    noise = NOISE_ROUNDINGS * torch.finfo(points.dtype).eps * state.energy
    accept = (predicted > 0) & ((ratio > 1e-4) | (change.abs() <= noise)) & _usable(energy, model)
    shrunk = (damping * (1 - (2 * ratio - 1) ** 3).clamp_min(0.1)).clamp_min(DAMPING_LEAST)
    grown = (damping * state.growth).clamp_min(DAMPING_AFTER_REJECTION)
    residual = torch.where(accept, euler_lagrange(model, energy), state.residual)
    # No energy to gain and no residual either: the rounding floor of this precision.
    floor = accept & (change.abs() <= noise) & (residual > state.residual / 2)
    state.damping = torch.where(floor, DAMPING_HOPELESS, torch.where(accept, shrunk, grown))
    state.growth = torch.where(accept, 2.0, 2 * state.growth)
    state.points = torch.where(accept[:, None, None], trial, points)
    state.energy = torch.where(accept, energy, state.energy)
    state.system = system.updated(accept, model)
    state.residual = residual
    state.iterations = state.iterations + 1
