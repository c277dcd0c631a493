"""What is remembered of chains, and the judgement on it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.dynamics.diagnostics import FEWEST_DRAWS, drift, effective_sample_size, split_r_hat

HISTORY_NUMBERS = 2**24
"""Numbers of past draws that are kept for the diagnostics; beyond, of the first chains or of some steps."""
DIVERGENT_SHARE = 0.01
DRIFT = 0.1
FEWEST_INDEPENDENT = 50
"""Effective draws below which nothing is known."""


class History:
    """Past points of chains: moments of all of them, draws for the diagnostics within bounded memory."""

    def __init__(self, start: Float[Tensor, "n d"], steps: int, keep: bool):
        n, d = start.shape
        self._every = 1 if keep else max(1, math.ceil(steps * d / HISTORY_NUMBERS))
        rows = math.ceil(steps / self._every)
        tracked = n if keep else min(n, max(1, HISTORY_NUMBERS // (rows * d)))
        self._share = n / tracked
        self.draws = start.new_empty(rows, tracked, d)
        self._origin = start.double().mean(0)
        self._sum, self._squares = torch.zeros_like(self._origin), torch.zeros_like(self._origin)
        self._count = self._added = 0

    def add(self, z: Float[Tensor, "n d"]) -> None:
        """Remember the points after one transition."""
        if self._added % self._every == 0:
            self.draws[self._added // self._every] = z[: self.draws.shape[1]]
        self._added += 1
        apart = z.double() - self._origin
        self._sum += apart.sum(0)
        self._squares += apart.square().sum(0)
        self._count += len(z)

    def moments(self) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        """(mean, variance)."""
        mean = self._sum / self._count
        variance = (self._squares / self._count - mean.square()).clamp_min(0)
        return (self._origin + mean).to(self.draws.dtype), variance.to(self.draws.dtype)

    def diagnostics(self) -> tuple[Tensor | None, Tensor | None]:
        """(effective sample size of all chains, split R̂), or None where the draws are too few."""
        if len(self.draws) < FEWEST_DRAWS:
            return None, None
        return self._share * effective_sample_size(self.draws), split_r_hat(self.draws)


def r_hat_limit(draws: int) -> float:
    """The R̂ up to which chains of so many draws count as mixed: 1.01, or what short chains show anyway.

    Chains whose draws are correlated over τ transitions have R̂² of about 1 + (τ - 1)/n over halves of n
    draws, however well they mix. τ up to about ten is granted: the end of a chain has long forgotten its
    start then.
    """
    return max(1.01, math.sqrt(1 + 10 / max(1, draws // 2)))


def verdict(
    acceptance: Tensor, divergent: Tensor, draws: Tensor, ess: Tensor | None, r_hat: Tensor | None
) -> tuple[bool, str]:
    """Whether the chains can be trusted, and why not."""
    stuck, share = int((acceptance == 0).sum()), float(divergent.double().mean())
    if stuck:
        return False, f"{stuck} of {len(acceptance)} chains never moved; reduce step_size or add warmup"
    if share > DIVERGENT_SHARE:
        return False, f"{share:.1%} of the proposals diverged; reduce step_size or raise target_acceptance"
    if ess is None or r_hat is None:
        return False, f"fewer than {FEWEST_DRAWS} draws a chain cannot be judged; raise n_steps"
    worst, limit = int(r_hat.argmax()), r_hat_limit(len(draws))
    largest, smallest = float(r_hat[worst]), float(ess.min())
    if not largest <= limit:
        return False, (
            f"R-hat is {largest:.3g} in coordinate {worst}, above {limit:.3g}: the chains have not mixed; "
            "raise n_steps or n_leapfrog"
        )
    moving = drift(draws)
    if float(moving.max()) > DRIFT:
        return False, (
            f"mean or variance in coordinate {int(moving.argmax())} change by {float(moving.max()):.0%} "
            "between the halves of the history; raise n_steps or jitter, or add warmup"
        )
    if smallest < FEWEST_INDEPENDENT:
        return False, f"the draws are worth only {smallest:.0f} independent ones; raise n_steps"
    return True, (
        f"R-hat at most {largest:.3g}, effective sample size at least {smallest:.0f}, "
        f"acceptance {float(acceptance.mean()):.2f}"
    )
