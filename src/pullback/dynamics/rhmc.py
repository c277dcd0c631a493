"""Riemannian manifold Hamiltonian Monte Carlo: the momentum has the metric as its covariance."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.dynamics.chains import Chains, GeneratorNoise, Progress, Proposal, State, check_run, run_chains
from pullback.dynamics.hmc import checked_start
from pullback.dynamics.leapfrog import step_from
from pullback.dynamics.place import Motion, Place, make_motion
from pullback.validation import check_positive, check_whole

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-6}
IRREVERSIBLE = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Where the way back misses by more, max_a |difference| / (1 + |value|), a proposal is rejected."""


class RiemannianKernel:
    """Converged generalised leapfrog steps of H = U(z) - log N(ρ; 0, G(z))."""

    def __init__(
        self,
        motion: Motion,
        *,
        n_leapfrog: int,
        tolerance: float,
        max_iterations: int,
        check_reversibility: bool,
    ):
        self.motion, self.n_leapfrog, self.back = motion, n_leapfrog, check_reversibility
        self._options: Any = {"tolerance": tolerance, "max_iterations": max_iterations}
        self._beside: Place | None = None

    def start(self, z: Float[Tensor, "n d"]) -> State:
        """The state at first points."""
        self._beside = self.motion.at(z)
        bad = ~torch.isfinite(self._beside.local.logdet)
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise ValueError(f"metric: expected a positive definite tensor at start, got none at row {row}")
        return State(z, *checked_start(self.motion.potential, z))

    def propose(self, state: State, noise: Float[Tensor, "n d"], step: Float[Tensor, "n 1"]) -> Proposal:
        """So many steps from a momentum drawn from N(0, G(z)), and the way back if asked for."""
        first = self.motion.at(state.z, self._beside)
        rho = first.local.momentum(noise)
        last, turned, failed = self._path(first, rho, step)
        here = last.potential
        change = here.value + last.kinetic(turned) - state.value - first.kinetic(rho)
        error: Tensor | None = None
        if self.back:
            origin, back, lost = self._path(last, -turned, torch.where(failed.unsqueeze(1), 0, step))
            error = torch.maximum(missed(origin.z, state.z), missed(-back, rho))
            error = torch.where(failed, 0, error.nan_to_num(nan=torch.inf))
            failed = failed | lost | (error > IRREVERSIBLE.get(state.z.dtype, 1e-6))
        return Proposal(State(last.z, here.value, here.gradient), change, failed, None, error)

    def _path(self, place: Place, rho: Tensor, step: Tensor) -> tuple[Place, Tensor, Tensor]:
        """Place and momentum in the end, and where a fixed point was not found."""
        failed = torch.zeros_like(rho[:, 0], dtype=torch.bool)
        for _ in range(self.n_leapfrog):
            moved = step_from(place, rho, step_size=step, **self._options)
            failed = failed | ~moved.converged
            # What is lost stays where it is, so that the others need not wait for its iterations.
            step = torch.where(failed.unsqueeze(1), 0, step)
            place, rho = moved.carry, moved.rho
        return place, rho, failed


def missed(found: Float[Tensor, "n d"], wanted: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """max_a |found - wanted| / (1 + |wanted|)."""
    return ((found - wanted).abs() / (1 + wanted.abs())).amax(1)


def sample_rhmc(
    potential: Any,
    metric: Any,
    start: Float[Tensor, "n d"],
    *,
    n_steps: int,
    step_size: float | int,
    n_leapfrog: int = 10,
    tolerance: float | int | None = None,
    max_iterations: int = 50,
    check_reversibility: bool = False,
    warmup: int = 0,
    target_acceptance: float | int = 0.8,
    jitter: float | int = 0.3,
    generator: torch.Generator | None = None,
    keep_draws: bool = False,
    progress: Progress | None = None,
) -> Chains:
    """Sample π ∝ exp(-U) by Hamiltonian Monte Carlo on a Riemannian manifold, a chain from each point.

    Every transition draws ρ ~ N(0, G(z)), takes ``n_leapfrog`` steps of `generalized_leapfrog`, whose fixed
    points are iterated until they converge, and accepts where ln u < H_0 - H_1 with
    H = U(z) + ½ log det G(z) + ½ ρᵀ G⁻¹(z) ρ. A proposal whose fixed points are not found is rejected and
    counted as a divergence. The target is π whatever the metric, which only says how chains move.

    Girolami and Calderhead 2011, "Riemann manifold Langevin and Hamiltonian Monte Carlo methods".

    Args:
        potential: a function z -> U ``(n,)``, or a `Potential`.
        metric: any metric.
        start: first points, (n, d).
        n_steps, step_size, n_leapfrog, warmup, target_acceptance, jitter, generator, keep_draws, progress: as
            for `sample_hmc`.
        tolerance: of the fixed points; 1e-10 in float64 and 1e-6 in float32 if not given.
        max_iterations: of each fixed point.
        check_reversibility: go back from every proposal, and reject those from which the way back misses the
            origin by more than 1e-6 (1e-3 in float32) relative to 1 + |value|; the largest miss is reported.
    Returns:
        `Chains`.
    Raises:
        ValueError: options out of range, or a potential or metric that is not finite at the start.
    Example:
        >>> import torch, pullback as pb
        >>> c, L = torch.zeros(1, 2), torch.eye(2)[None]
        >>> metric = pb.CentroidMetric(c, L, temperature=1.5, regularization=0.5)
        >>> U, start = (lambda z: z.square().sum(1) / 2), torch.zeros(100, 2)
        >>> chains = sample_rhmc(U, metric, start, n_steps=10, step_size=0.3, n_leapfrog=8)
        >>> bool(chains.acceptance.mean() > 0.9)
        True

    When to use: on posteriors and targets weighted by a prior. Where the metric is I/λ a momentum is as
    long as 1/√λ but moves a point by √λ only, so that chains hardly move far from the centroids; for the
    volume itself see `volume_sampler`.
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
    check_whole("max_iterations", max_iterations)
    if tolerance is not None:
        check_positive("tolerance", tolerance)
    motion = make_motion(metric, potential)
    if motion.metric.dim not in (None, z.shape[1]):
        raise ValueError(f"start: expected (n, {motion.metric.dim}) like metric, got {tuple(z.shape)}")
    kernel = RiemannianKernel(
        motion,
        n_leapfrog=int(n_leapfrog),
        tolerance=TOLERANCES.get(z.dtype, 1e-6) if tolerance is None else float(tolerance),
        max_iterations=int(max_iterations),
        check_reversibility=bool(check_reversibility),
    )
    return run_chains(
        kernel,
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
