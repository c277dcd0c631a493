"""A step size for every chain, found while it warms up."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Hoffman, Gelman 2014: how strongly, how late and how quickly forgetting the averages act.
GAIN, DELAY, FORGET = 0.05, 10.0, 0.75


class DualAveraging:
    """Nesterov's dual averaging of ln ε towards an acceptance probability δ, a chain at a time.

    ln ε_t = μ - √t/γ H_t with H_t the weighted mean of δ - α_s, shrunk towards μ = ln 10 ε_0; the step size
    in the end is exp of the mean of ln ε with weights t^-κ.

    Hoffman, Gelman 2014, "The No-U-Turn sampler", section 3.2.

    Args:
        step_size: ε_0 of every chain.
        target: δ.
    """

    def __init__(self, step_size: Float[Tensor, " n"], *, target: float):
        self.target, self.count = target, 0
        self.step_size = step_size
        self._shrink = (10 * step_size).log()
        self._error, self._mean = torch.zeros_like(step_size), torch.zeros_like(step_size)

    def update(self, probability: Float[Tensor, " n"]) -> None:
        """Take account of the acceptance probabilities of one transition."""
        self.count += 1
        weight = 1 / (self.count + DELAY)
        self._error = (1 - weight) * self._error + weight * (self.target - probability)
        log_step = self._shrink - self.count**0.5 / GAIN * self._error
        forget = self.count**-FORGET
        self._mean = forget * log_step + (1 - forget) * self._mean
        self.step_size = log_step.exp()

    def final(self) -> Float[Tensor, " n"]:
        """The step size to go on with."""
        return self._mean.exp() if self.count else self.step_size


def acceptance_probability(change: Float[Tensor, " n"], allowed: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
    """min(1, exp(H_0 - H_1)), 0 where a proposal is not allowed."""
    return torch.where(allowed, (-change).clamp_max(0).exp(), 0.0)
