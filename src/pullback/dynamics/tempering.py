"""Tempered Hamiltonian flows: a few steps of an integrator while the momentum cools.

Caterini, Doucet and Sejdinovic 2018, "Hamiltonian variational auto-encoder"; Chadebec, Mantoux and
Allassonnière 2020, "Geometry-aware Hamiltonian variational auto-encoder".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullback.draws import source_of
from pullback.dynamics.fixed_point import LARGEST_INCREMENT, increment
from pullback.dynamics.leapfrog import (
    Backprop,
    LeapfrogStep,
    StepSize,
    check_options,
    check_step_size,
    step_from,
)
from pullback.dynamics.place import Method, MomentumLogPrior, make_motion
from pullback.validation import check_points, check_whole

Beta = float | int | Tensor
Tempering = Callable[[Any, int, int], Any]


def quadratic_tempering(beta0: Beta, k: int, n_steps: int) -> Beta:
    """β_k with 1/√β_k = (1 - 1/√β_0)(k/K)² + 1/√β_0: from β_0 up to β_K = 1.

    Args:
        beta0: inverse temperature at the start, in (0, 1].
        k: step.
        n_steps: K.
    Example:
        >>> [round(quadratic_tempering(0.09, k, 3) ** 0.5, 6) for k in range(4)]
        [0.3, 0.325301, 0.435484, 1.0]
    """
    _check_step(beta0, k, n_steps)
    if k == 0:
        return beta0
    hot = beta0**-0.5
    return ((1 - hot) * (k / n_steps) ** 2 + hot) ** -2


def null_tempering(beta0: Beta, k: int, n_steps: int) -> Beta:
    """β_k = β_0 at every step.

    Example:
        >>> null_tempering(0.3, 2, 3)
        0.3
    """
    _check_step(beta0, k, n_steps)
    return beta0


def _check_step(beta0: Beta, k: int, n_steps: int) -> None:
    if not 0 <= k <= n_steps:
        raise ValueError(f"k: expected a step from 0 to n_steps={n_steps}, got {k}")
    if not isinstance(beta0, Tensor) and not beta0 > 0:
        raise ValueError(f"beta0: expected an inverse temperature > 0, got {beta0}")


@dataclass(frozen=True)
class FlowInfo:
    """How well the steps of a flow were solved.

    Attributes:
        steps: the steps.
        displacement: mean of |z_final - z_init|.
        gradient: how H was differentiated.
        backprop: "exact" or "truncated".
    """

    steps: tuple[LeapfrogStep, ...]
    displacement: Tensor
    gradient: str
    backprop: str
    tolerance: float | None

    @property
    def iterations(self) -> Int[Tensor, " n"]:
        """Iterations of the fixed points, the most of any step."""
        return torch.stack([step.iterations for step in self.steps]).amax(0)

    def _increments(self, name: str) -> Tensor:
        points = [getattr(step, name) for step in self.steps]
        if points[0] is None:
            return torch.zeros_like(self.steps[0].z[:, 0].detach())
        new = torch.stack([point.value.detach() for point in points])
        return increment(new, torch.stack([point.previous for point in points])).amax(0)

    @cached_property
    def momentum_residual(self) -> Float[Tensor, " n"]:
        """Largest last increment, max_a |new - old| / (1 + |new|), of the fixed points of the momentum."""
        return self._increments("momentum_point")

    @cached_property
    def residual(self) -> Float[Tensor, " n"]:
        """Largest last increment of the fixed points of momentum and position."""
        return torch.maximum(self.momentum_residual, self._increments("position_point"))

    @property
    def converged(self) -> Bool[Tensor, " n"]:
        """Finite, with a residual within the tolerance (1e-3 where none was given)."""
        limit = LARGEST_INCREMENT if self.tolerance is None else self.tolerance
        return (self.residual <= limit) & torch.isfinite(self.steps[-1].z.detach()).all(1)


@dataclass(frozen=True)
class Flow:
    """A tempered flow from z_0 and ρ_0 to z_K and ρ_K.

    Attributes:
        z_init, rho_init, z_final, rho_final: its ends, (n, d).
        noise: the standard normal γ of ρ_0 = C⁻ᵀ γ / √β_0, (n, d).
        inverse_init, inverse_final: G⁻¹ at the ends, (n, d, d).
        logdet_init, logdet_final: log det G at the ends, (n,).
        beta0, beta_final: inverse temperatures at the ends.
        decoder_output, log_likelihood: at z_final, for the potential of a model; else None.
        info: iterations, residuals, convergence.
    """

    z_init: Float[Tensor, "n d"]
    rho_init: Float[Tensor, "n d"]
    z_final: Float[Tensor, "n d"]
    rho_final: Float[Tensor, "n d"]
    noise: Float[Tensor, "n d"]
    inverse_init: Float[Tensor, "n d d"]
    inverse_final: Float[Tensor, "n d d"]
    logdet_init: Float[Tensor, " n"]
    logdet_final: Float[Tensor, " n"]
    beta0: Beta
    beta_final: Beta
    decoder_output: Tensor | None
    log_likelihood: Float[Tensor, " n"] | None
    info: FlowInfo


def schedule(tempering: Tempering, beta0: Beta, n_steps: int) -> list[Beta]:
    """β_0 .. β_K of a schedule, checked."""
    check_whole("n_steps", n_steps)
    if not callable(tempering):
        raise TypeError(f"tempering: expected a function (beta0, k, K), got {tempering!r}")
    start = float(beta0.detach()) if isinstance(beta0, Tensor) else float(beta0)
    if not 0 < start <= 1:
        raise ValueError(f"beta0: expected an inverse temperature in (0, 1], got {start}")
    betas = [tempering(beta0, k, n_steps) for k in range(n_steps + 1)]
    values = [float(b.detach()) if isinstance(b, Tensor) else float(b) for b in betas]
    if abs(values[0] - start) > 1e-6 * start:
        raise ValueError(f"tempering: expected schedule(beta0, 0, K) = beta0 = {start:g}, got {values[0]:g}")
    if not all(0 < value < math.inf for value in values):
        raise ValueError(f"tempering: expected positive inverse temperatures, got {values}")
    return betas


def tempered_flow(
    z0: Float[Tensor, "n d"],
    metric: Any,
    *,
    potential: Any,
    step_size: StepSize,
    n_steps: int = 3,
    beta0: Beta = 0.3,
    tempering: Tempering = quadratic_tempering,
    noise: Float[Tensor, "n d"] | None = None,
    generator: torch.Generator | None = None,
    fixed_point_steps: int = 3,
    tolerance: float | None = None,
    gradient: Method = "closed",
    backprop: Backprop = "exact",
    momentum_logprior: MomentumLogPrior | None = None,
) -> Flow:
    """K leapfrog steps from z_0 with ρ_0 = C⁻ᵀ γ / √β_0, each followed by ρ <- ρ √(β_{k-1}/β_k).

    The momentum is reparameterised: gradients reach z_0, metric and potential through it. The Jacobian
    determinant of the flow is (β_0/β_K)^{d/2} where the fixed points have converged.

    Args:
        z0: positions.
        metric: any metric; on the flat one the steps are explicit.
        potential: a function z -> U ``(n,)``, or a `Potential`.
        step_size: ε, a number, ``(d,)`` or ``(n, 1)``.
        n_steps: K.
        beta0: inverse temperature at the start, in (0, 1].
        tempering: (beta0, k, K) -> β_k, with β_0 at k = 0.
        noise: γ; drawn from ``generator`` if not given.
        fixed_point_steps, tolerance, gradient, backprop, momentum_logprior: see `generalized_leapfrog`.
    Raises:
        ValueError: shapes that do not fit, or options out of range.
    Example:
        >>> import torch, pullback as pb
        >>> z, U = torch.ones(1, 2), lambda z: z.square().sum(1) / 2
        >>> flow = tempered_flow(z, pb.EuclideanMetric(2), potential=U, step_size=0.1, noise=0 * z)
        >>> flow.z_final.shape, float(flow.beta_final)
        (torch.Size([1, 2]), 1.0)
    """
    check_points("z0", z0, finite=False)
    check_options(fixed_point_steps, tolerance, backprop, name="fixed_point_steps")
    check_step_size(step_size, z0)
    betas = schedule(tempering, beta0, n_steps)
    if noise is None:
        noise = torch.empty_like(z0).normal_(generator=source_of(generator, z0.device))
    elif noise.shape != z0.shape:
        raise ValueError(f"noise: expected {tuple(z0.shape)} like z0, got {tuple(noise.shape)}")
    motion = make_motion(metric, potential, gradient=gradient, momentum_logprior=momentum_logprior)
    first = place = motion.at(z0)
    start = rho = place.local.momentum(noise) * beta0**-0.5
    steps = []
    for before, after in pairwise(betas):
        step = step_from(
            place,
            rho,
            step_size=step_size,
            max_iterations=fixed_point_steps,
            tolerance=tolerance,
            backprop=backprop,
        )
        steps.append(step)
        place, rho = step.carry, step.rho * (before / after) ** 0.5
    moved = (place.z.detach() - z0.detach()).square().sum(1).sqrt().mean()
    return Flow(
        z_init=z0,
        rho_init=start,
        z_final=place.z,
        rho_final=rho,
        noise=noise,
        inverse_init=first.local.inverse,
        inverse_final=place.local.inverse,
        logdet_init=first.local.logdet,
        logdet_final=place.local.logdet,
        beta0=beta0,
        beta_final=betas[-1],
        decoder_output=place.potential.output,
        log_likelihood=place.potential.log_likelihood,
        info=FlowInfo(tuple(steps), moved, motion.name, backprop, tolerance),
    )
