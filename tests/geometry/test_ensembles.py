"""How much an ensemble of decoders steadies distances from one training to the next."""

import itertools
import logging
import math

import pytest
import torch
from torch import nn

from pullback.data import load
from pullback.geometry import DistanceStability, distance_stability
from pullback.metrics import EnsembleMetric, PullbackMetric

logger = logging.getLogger(__name__)

TRAININGS, MEMBERS, PAIRS = 5, 10, 40


class Bank(nn.Module):
    """Several tanh networks of one shape, trained side by side."""

    def __init__(self, count: int, widths: tuple[int, ...], generator: torch.Generator):
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for a, b in itertools.pairwise(widths):
            for numbers, shape in ((self.weights, (count, a, b)), (self.biases, (count, 1, b))):
                draws = 2 * torch.rand(shape, generator=generator) - 1
                numbers.append(nn.Parameter(draws / math.sqrt(a)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(count, n, a) to (count, n, b)."""
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, torch.tanh(x) if k else x, weight)
        return x

    def member(self, number: int) -> nn.Sequential:
        """One of the networks, in float64."""
        layers: list[nn.Module] = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            layer = nn.Linear(*weight.shape[1:], dtype=torch.float64).requires_grad_(False)
            layer.weight.copy_(weight[number].T)
            layer.bias.copy_(bias[number, 0])
            layers += [layer, nn.Tanh()]
        return nn.Sequential(*layers[:-1])


def posterior(encoder: Bank, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return encoder(x.unsqueeze(0))[0].chunk(2, dim=1)


def train(
    encoder: Bank,
    decoders: Bank,
    x: torch.Tensor,
    generator: torch.Generator,
    *,
    epochs: int,
    joint: bool,
) -> None:
    """A VAE of unit noise with one encoder; each decoder has its own order of rows and noise."""
    count = len(decoders.weights[0])
    live = [*decoders.parameters(), *(encoder.parameters() if joint else ())]
    optimizer = torch.optim.Adam(live, lr=1e-3 if joint else 2e-3, fused=True)
    with torch.no_grad():
        fixed = posterior(encoder, x)
    for _ in range(epochs):
        orders = torch.stack([torch.randperm(len(x), generator=generator) for _ in range(count)])
        for rows in orders.split(128, dim=1):
            if joint:
                parts = [part.unflatten(0, rows.shape) for part in posterior(encoder, x[rows.flatten()])]
            else:
                parts = [part[rows] for part in fixed]
            mean, log_scale = parts
            z = mean + log_scale.exp() * torch.randn(mean.shape, generator=generator)
            loss = (decoders(z) - x[rows]).square().sum((1, 2)).sum() / rows.shape[1]
            if joint:
                excess = mean.square() + (2 * log_scale).exp() - 1 - 2 * log_scale
                loss = loss + excess.sum() / (2 * rows.shape[1])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


def variation(members: list[list[nn.Sequential]], codes: list[torch.Tensor], count: int) -> DistanceStability:
    """Of distances between the same rows under the first ``count`` members of every training."""
    rows = torch.randint(len(codes[0]), (PAIRS, 2), generator=torch.Generator().manual_seed(1))
    metrics = [PullbackMetric(own[0]) if count == 1 else EnsembleMetric(own[:count]) for own in members]
    starts, ends = ([z[rows[:, side]] for z in codes] for side in (0, 1))
    return distance_stability(metrics, starts, ends, data=codes)


@pytest.mark.slow
@pytest.mark.data("mnist_5k")
@pytest.mark.parametrize("whole", [False, True], ids=["decoders trained again", "all trained again"])
def test_ten_decoders_steady_distances(whole: bool) -> None:
    """Acceptance 17: at most half the coefficient of variation, where the decoders are what is trained again.

    What the encoder makes different, an ensemble of decoders cannot average.
    """
    pixels = torch.tensor(load("mnist_5k").X / 255, dtype=torch.float32)
    x = pixels[torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))]
    d = 2
    members, codes = [], []
    for training in range(TRAININGS):
        generator = torch.Generator().manual_seed(100 + training)
        if whole or training == 0:
            encoder = Bank(1, (784, 64, 64, 2 * d), generator)
            train(encoder, Bank(1, (d, 64, 64, 784), generator), x[:4000], generator, epochs=20, joint=True)
        decoders = Bank(MEMBERS, (d, 64, 64, 784), generator)
        train(encoder, decoders, x[:4000], generator, epochs=10, joint=False)
        members.append([decoders.member(k) for k in range(MEMBERS)])
        with torch.no_grad():
            codes.append(posterior(encoder, x[4000:])[0].double())
    single, ensemble = variation(members, codes, 1), variation(members, codes, MEMBERS)
    assert ensemble.converged.double().mean() > 0.98
    ratio = ensemble.variation / single.variation
    logger.info("variation: single %.4f, ensemble %.4f", single.variation, ensemble.variation)
    if whole:
        assert single.variation > 0.05
        assert ratio < 1.1
    else:
        assert ratio <= 0.5
