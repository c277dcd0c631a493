"""A short training with the gauge makes the map isometric at little cost, and one without does not."""

import math

import pytest
import torch
from sklearn.datasets import load_digits, make_swiss_roll
from torch import Tensor, nn

from pullback.penalties import IsometryPenalty

STEPS, BATCH, HIDDEN, STRENGTH = 1500, 128, 64, 0.1


def chain(a: int, b: int, generator: torch.Generator) -> nn.Sequential:
    """Two hidden layers of softplus units."""
    layers = [nn.Linear(*sizes) for sizes in ((a, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, b))]
    with torch.no_grad():
        for layer in layers:
            bound = 1 / math.sqrt(layer.in_features)
            for parameter in layer.parameters():
                parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)
    return nn.Sequential(layers[0], nn.Softplus(), layers[1], nn.Softplus(), layers[2])


def trained(X: Tensor, test: Tensor, strength: float) -> tuple[float, float]:
    """Deviation from isometry and unexplained share of the variance, of held-out rows."""
    draw = torch.Generator().manual_seed(0)
    encoder, decoder = chain(X.shape[1], 2, draw), chain(2, X.shape[1], draw)
    penalty = IsometryPenalty(reduction="mean")
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        x = X[torch.randint(len(X), (BATCH,), generator=draw)]
        z = encoder(x)
        loss = (decoder(z) - x).square().mean()
        if strength:
            ramp = min(1.0, 2 * step / STEPS)
            loss = loss + strength * ramp * penalty.penalize(decoder, z)  # 2 P/(μ n d) for d = 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        slower.step()
    with torch.no_grad():
        z = encoder(test)
        deviation = float(penalty.penalize(decoder, z))
        lost = float((decoder(z) - test).square().sum() / (test - X.mean(0)).square().sum())
    return deviation, lost


def split(X: Tensor) -> tuple[Tensor, Tensor]:
    """Globally standardised rows: four fifths to train, one fifth to test."""
    X = ((X - X.mean()) / X.std())[torch.randperm(len(X), generator=torch.Generator().manual_seed(1))]
    return X[len(X) // 5 :], X[: len(X) // 5]


@pytest.mark.slow
def test_digits() -> None:
    X, test = split(torch.tensor(load_digits().data, dtype=torch.float32))
    plain, lost = trained(X, test, 0.0)
    found, price = trained(X, test, STRENGTH)
    assert found <= 0.10
    assert found <= plain / 15
    assert price <= 1.06 * lost


@pytest.mark.slow
def test_swiss_roll() -> None:
    X, test = split(torch.tensor(make_swiss_roll(2000, noise=0.05, random_state=0)[0], dtype=torch.float32))
    plain, _ = trained(X, test, 0.0)
    assert trained(X, test, STRENGTH)[0] <= plain / 3
