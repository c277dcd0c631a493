"""Many Markov chains at once: propose, accept or reject in log space, remember, judge."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullback.dynamics.adaptation import DualAveraging, acceptance_probability
from pullback.dynamics.history import History, verdict
from pullback.validation import check_points, check_positive, check_whole

Progress = Callable[[int, int], Any]

DIVERGED = 1000.0
"""An energy error from which on the integration is lost and not merely coarse."""


@dataclass(frozen=True, eq=False)
class Chains:
    """Where chains ended, and what is known of the way.

    Attributes:
        z: final points, (n, d).
        log_density: ln π at ``z`` up to a constant, (n,).
        acceptance: share of proposals accepted after the warm-up, of every chain (n,).
        divergences: proposals rejected because the integration failed, of every chain (n,).
        reversibility_error: largest distance by which the way back missed, of every chain (n,); None where
            nobody asked.
        step_size: ε of every chain, (n,).
        mean: of the history of all chains, (d,).
        variance: of the history of all chains, (d,).
        effective_sample_size: independent draws that the history is worth, (d,); None of fewer than 4 draws.
        r_hat: split R̂, (d,); None of fewer than 4 draws.
        draws: the history itself, (steps, n, d), if it was asked for.
        converged: whether nothing speaks against the sample.
        message: what does, and what to try.
    """

    z: Float[Tensor, "n d"]
    log_density: Float[Tensor, " n"]
    acceptance: Float[Tensor, " n"]
    divergences: Int[Tensor, " n"]
    reversibility_error: Float[Tensor, " n"] | None
    step_size: Float[Tensor, " n"]
    mean: Float[Tensor, " d"]
    variance: Float[Tensor, " d"]
    effective_sample_size: Float[Tensor, " d"] | None
    r_hat: Float[Tensor, " d"] | None
    converged: bool
    message: str
    draws: Float[Tensor, "steps n d"] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class State:
    """Chains between two transitions: points, potential and its gradient."""

    z: Float[Tensor, "n d"]
    value: Float[Tensor, " n"]
    gradient: Float[Tensor, "n d"]

    def where(self, chosen: Bool[Tensor, " n"], other: "State") -> "State":
        """This state where ``chosen``, the other elsewhere."""
        rows = chosen.unsqueeze(1)
        return State(
            torch.where(rows, self.z, other.z),
            torch.where(chosen, self.value, other.value),
            torch.where(rows, self.gradient, other.gradient),
        )


@dataclass(frozen=True, eq=False)
class Proposal:
    """Where a transition leads.

    Attributes:
        state: the new points.
        change: H_1 - H_0.
        failed: no proposal was found: counted among the divergences.
        inside: whether it lies in the support; None where there is none.
        reversibility_error: by how much the way back missed, if asked for.
    """

    state: State
    change: Float[Tensor, " n"]
    failed: Bool[Tensor, " n"] | None = None
    inside: Bool[Tensor, " n"] | None = None
    reversibility_error: Float[Tensor, " n"] | None = None


@runtime_checkable
class Kernel(Protocol):
    """How chains move."""

    def start(self, z: Tensor) -> State:
        """The state at first points."""
        ...

    def propose(self, state: State, noise: Tensor, step: Tensor) -> Proposal:
        """A proposal from standard normal numbers (n, d), with steps (n, 1)."""
        ...


def random_numbers(like: Tensor | None, generator: torch.Generator | None) -> torch.Generator:
    """The generator that was given, or a fresh one with a fixed seed, so that results repeat."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator, got {type(generator).__name__}")
    device = torch.device("cpu") if like is None else like.device
    return torch.Generator(device=device).manual_seed(0) if generator is None else generator


class GeneratorNoise:
    """The random numbers of a transition: normal (n, d), uniform for acceptance and step size (n,) each."""

    def __init__(self, like: Tensor, generator: torch.Generator | None):
        self._like, self._generator = like, random_numbers(like, generator)

    def __call__(self) -> tuple[Tensor, Tensor, Tensor]:
        n, options = len(self._like), {"dtype": self._like.dtype, "device": self._like.device}
        normal = torch.empty(self._like.shape, **options).normal_(generator=self._generator)
        accept, step = torch.empty(2, n, **options).uniform_(generator=self._generator)
        return normal, accept, step


@torch.no_grad()
def run_chains(
    kernel: Kernel,
    start: Float[Tensor, "n d"],
    *,
    n_steps: int,
    step_size: float,
    noise: Callable[[], tuple[Tensor, Tensor, Tensor]],
    warmup: int = 0,
    discard: int = 0,
    target_acceptance: float = 0.8,
    jitter: float = 0.3,
    keep_draws: bool = False,
    progress: Progress | None = None,
) -> Chains:
    """``warmup`` transitions that find the step size, then ``n_steps`` with it.

    A proposal is accepted if ln u < H_0 - H_1, and never where it is not finite. What happens to a chain
    depends on its own random numbers only.

    Args:
        discard: transitions after the warm-up that do not enter the history.
        jitter: a transition's steps are ε (1 + jitter v), v uniform in [-1, 1].
    """
    state, n = kernel.start(start), len(start)
    base = torch.full_like(state.value, step_size)
    adaptation = DualAveraging(base, target=target_acceptance)
    record = History(start, n_steps - discard, keep_draws)
    accepted, diverged = (torch.zeros(n, dtype=torch.long, device=start.device) for _ in range(2))
    worst: Tensor | None = None
    for k in range(warmup + n_steps):
        warm = k < warmup
        normal, uniform, spread = noise()
        step = (adaptation.step_size if warm else base) * (1 + jitter * (2 * spread - 1))
        proposal = kernel.propose(state, normal, step.unsqueeze(1))
        # A NaN compares as false.
        sound = proposal.change < DIVERGED
        if proposal.failed is not None:
            sound = sound & ~proposal.failed
        allowed = sound if proposal.inside is None else sound & proposal.inside
        accept = allowed & (uniform.log() < -proposal.change)
        state = proposal.state.where(accept, state)
        if warm:
            adaptation.update(acceptance_probability(proposal.change, allowed))
            base = adaptation.final() if k + 1 == warmup else base
        else:
            accepted += accept
            diverged += ~sound
            error = proposal.reversibility_error
            if error is not None:
                worst = error if worst is None else torch.maximum(worst, error)
            if k - warmup >= discard:
                record.add(state.z)
        if progress is not None:
            progress(k + 1, warmup + n_steps)
    acceptance = accepted.to(start.dtype) / n_steps
    ess, r_hat = record.diagnostics()
    converged, message = verdict(acceptance, diverged / n_steps, record.draws, ess, r_hat)
    mean, variance = record.moments()
    return Chains(
        z=state.z,
        log_density=-state.value,
        acceptance=acceptance,
        divergences=diverged,
        reversibility_error=worst,
        step_size=base,
        mean=mean,
        variance=variance,
        effective_sample_size=ess,
        r_hat=r_hat,
        converged=converged,
        message=message,
        draws=record.draws if keep_draws else None,
    )


def check_run(
    start: Any,
    *,
    n_steps: Any,
    n_leapfrog: Any,
    step_size: Any,
    warmup: Any,
    target_acceptance: Any,
    jitter: Any,
    generator: Any,
    progress: Any,
) -> Float[Tensor, "n d"]:
    """Detached starting points; errors for what no sampler can work with."""
    z = check_points("start", start)
    if len(z) == 0 or z.shape[1] == 0:
        raise ValueError(f"start: expected at least one point and one dimension, got {tuple(z.shape)}")
    check_whole("n_steps", n_steps)
    check_whole("n_leapfrog", n_leapfrog)
    check_whole("warmup", warmup, minimum=0)
    check_positive("step_size", check_number("step_size", step_size))
    if not 0 < check_number("target_acceptance", target_acceptance) < 1:
        raise ValueError(f"target_acceptance: expected a number between 0 and 1, got {target_acceptance}")
    if not 0 <= check_number("jitter", jitter) < 1:
        raise ValueError(f"jitter: expected a share in [0, 1), got {jitter}")
    random_numbers(z, generator)
    if progress is not None and not callable(progress):
        raise TypeError(f"progress: expected a function (done, total), got {type(progress).__name__}")
    return z.detach()


def check_number(name: str, value: Any) -> float:
    """The value as a number; ``TypeError`` for another kind."""
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        raise TypeError(f"{name}: expected a number, got {value!r} of type {type(value).__name__}")
    if isinstance(value, Tensor) and value.ndim > 0:
        raise ValueError(f"{name}: expected one number, got shape {tuple(value.shape)}")
    return float(value)
