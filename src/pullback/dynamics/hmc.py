"""Hamiltonian Monte Carlo with a flat momentum."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.dynamics.chains import Chains, GeneratorNoise, Progress, Proposal, State, check_run, run_chains
from pullback.dynamics.potential import Potential, as_potential


class FlatKernel:
    """Leapfrog steps of H = U(z) + ½|ρ|², ρ ~ N(0, I).

    Args:
        inside: whether points lie in the support, which is asked of proposals alone.
    """

    def __init__(
        self, potential: Potential, *, n_leapfrog: int, inside: Callable[[Tensor], Tensor] | None = None
    ):
        self.potential, self.n_leapfrog, self.inside = potential, n_leapfrog, inside

    def start(self, z: Float[Tensor, "n d"]) -> State:
        """The state at first points."""
        return State(z, *checked_start(self.potential, z))

    def propose(self, state: State, noise: Float[Tensor, "n d"], step: Float[Tensor, "n 1"]) -> Proposal:
        """So many leapfrog steps; the half kicks between two of them are one kick."""
        z, momentum = state.z, noise - step / 2 * state.gradient
        value = state.value
        quick = getattr(self.potential, "gradient", None)
        slope = quick or self._slope
        lost = torch.zeros_like(value, dtype=torch.bool)
        for k in range(self.n_leapfrog):
            z = torch.addcmul(z, step, momentum)
            # One number tells whether to look at all of them; what is lost must reach no decoder. A potential
            # that gives the gradient alone bears such points, and only where the path ends is looked at.
            looks = quick is None or k + 1 == self.n_leapfrog
            if looks and not math.isfinite(z.sum().item()):
                lost = lost | ~torch.isfinite(z).all(1)
                z = torch.where(lost.unsqueeze(1), state.z, z)
            if k + 1 < self.n_leapfrog:
                momentum = torch.addcmul(momentum, step, slope(z), value=-1)
        value, gradient = self.potential.value_and_gradient(z)
        momentum = torch.addcmul(momentum, step, gradient, value=-0.5)
        change = value - state.value + (momentum.square().sum(1) - noise.square().sum(1)) / 2
        inside = None if self.inside is None else self.inside(z)
        return Proposal(State(z, value, gradient), change, lost, inside)

    def _slope(self, z: Tensor) -> Tensor:
        return self.potential.value_and_gradient(z)[1]


def checked_start(potential: Potential, z: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
    """U and its gradient at first points; ``ValueError`` where one is not finite."""
    value, gradient = potential.value_and_gradient(z)
    if value.shape != z.shape[:1] or gradient.shape != z.shape:
        raise ValueError(
            f"potential: expected ({len(z)},) and {tuple(z.shape)} for z {tuple(z.shape)}, "
            f"got {tuple(value.shape)} and {tuple(gradient.shape)}"
        )
    bad = ~(torch.isfinite(value) & torch.isfinite(gradient).all(1))
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(f"potential: expected finite numbers at start, got {float(value[row])} at row {row}")
    return value, gradient


def sample_hmc(
    potential: Any,
    start: Float[Tensor, "n d"],
    *,
    n_steps: int,
    step_size: float | int,
    n_leapfrog: int = 10,
    warmup: int = 0,
    target_acceptance: float | int = 0.8,
    jitter: float | int = 0.3,
    generator: torch.Generator | None = None,
    keep_draws: bool = False,
    progress: Progress | None = None,
) -> Chains:
    """Sample π ∝ exp(-U) by Hamiltonian Monte Carlo, a chain from each starting point.

    Every transition draws ρ ~ N(0, I), takes ``n_leapfrog`` leapfrog steps of H = U(z) + ½|ρ|² and accepts
    where ln u < H_0 - H_1. All steps of a transition have the size ε (1 + jitter v) with v uniform in
    [-1, 1]: at a fixed size a path near half a period throws chains from side to side, and they do not mix.

    Neal 2011, "MCMC using Hamiltonian dynamics".

    Args:
        potential: a function z -> U ``(n,)``, or a `Potential`.
        start: first points, (n, d).
        n_steps: transitions after the warm-up.
        step_size: ε; with a warm-up only where the search begins.
        n_leapfrog: leapfrog steps a transition.
        warmup: transitions that find a step size for every chain by dual averaging; none of them is kept.
        target_acceptance: what the warm-up aims at.
        jitter: in [0, 1).
        generator: of the random numbers; a fresh one with a fixed seed if not given.
        keep_draws: whether the result holds all draws.
        progress: called with the number of transitions done and their total.
    Returns:
        `Chains`.
    Raises:
        ValueError: options out of range, or a potential that is not finite at the start.
    Example:
        >>> import torch
        >>> U = lambda z: z.square().sum(1) / 2
        >>> chains = sample_hmc(U, torch.zeros(100, 2), n_steps=50, step_size=0.3)
        >>> chains.converged, bool((chains.variance - 1).abs().max() < 0.1)
        (True, True)
    """
    z = check_run(
        start,
        n_steps=n_steps,
        n_leapfrog=n_leapfrog,
        step_size=step_size,
        warmup=warmup,
        target_acceptance=target_acceptance,
        jitter=jitter,
        generator=generator,
        progress=progress,
    )
    return run_chains(
        FlatKernel(as_potential(potential), n_leapfrog=int(n_leapfrog)),
        z,
        n_steps=int(n_steps),
        step_size=float(step_size),
        noise=GeneratorNoise(z, generator),
        warmup=int(warmup),
        target_acceptance=float(target_acceptance),
        jitter=float(jitter),
        keep_draws=keep_draws,
        progress=progress,
    )
