"""The cost of a training step with the gauge, times that of a plain step.

Both sides take turns in one process on one thread; process CPU time of whole steps: forward, backward,
clipping, Adam. Asked: at most 1.5 with the gauge on a quarter of the rows, 2.2 on all.
"""

import time
from collections.abc import Iterator
from statistics import median

import pytest
import torch
from benchmarks.timing import table

import pullback as pb
from pullback.models import MLP, Autoencoder, Gaussian
from pullback.training.objective import Objective

P, D, ROWS, STEPS, ROUNDS = 784, 2, 128, 40, 25


class Training:
    """A model under training on one batch of noise."""

    def __init__(self, hidden: int, share: float | None):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            encoder, decoder = MLP(P, D, hidden=(hidden, hidden)), MLP(D, P, hidden=(hidden, hidden))
            self.x = torch.randn(ROWS, P)
        penalties = []
        if share is not None:
            penalties = [pb.penalties.IsometryPenalty(1.0, latents=pb.LatentSampling("both", rows=share))]
        self.objective = Objective(Autoencoder(encoder, decoder, Gaussian()), penalties=penalties)
        self.parameters = list(self.objective.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=1e-3, fused=True)
        self.count = 0

    def steps(self, number: int) -> float:
        """CPU seconds a step."""
        began = time.process_time()
        for _ in range(number):
            self.objective(self.x, None, self.count).total.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 100.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.count += 1
        return (time.process_time() - began) / number


@pytest.fixture(scope="module")
def lines() -> Iterator[list[str]]:
    yield from table(f"\n{'two hidden layers of':22s}{'plain, ms':>10s}{'all rows':>10s}{'a quarter':>10s}")


@pytest.mark.parametrize("hidden", [64, 128, 256])
def test_step(lines: list[str], hidden: int) -> None:
    sides = [Training(hidden, share) for share in (None, 1.0, 0.25)]
    for side in sides:
        side.steps(10)
    rounds = [[side.steps(STEPS) for side in sides] for _ in range(ROUNDS)]
    plain, every, quarter = (median(r[k] for r in rounds) for k in range(3))
    ratios = [median(r[k] / r[0] for r in rounds) for k in (1, 2)]
    lines.append(f"{hidden:<22d}{1e3 * plain:10.2f}{ratios[0]:10.2f}{ratios[1]:10.2f}")
    assert 0 < quarter < every
