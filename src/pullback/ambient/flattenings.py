"""Flattening maps: phi with W(y) = (d phi)ᵀ(d phi), as modules that go behind a decoder."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ScaleFlattening(nn.Module):
    """phi(y) = base^power · y, one positive factor a feature.

    The power is taken in the precision of the data, not in that of the base.
    """

    base: Tensor

    def __init__(self, base: Tensor, power: float = 1.0):
        super().__init__()
        self.register_buffer("base", base)
        self.power = power

    @property
    def scale(self) -> Tensor:
        """The factors."""
        return self.base**self.power

    def forward(self, y: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        return y * self.base.to(y) ** self.power


class BernoulliFlattening(nn.Module):
    """phi(η) = 2 atan(e^{η/2}) of a logit, in the form that overflows on neither side."""

    def forward(self, y: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        low = 2 * torch.atan(torch.exp(y.clamp(max=0) / 2))
        high = math.pi - 2 * torch.atan(torch.exp(-y.clamp(min=0) / 2))
        return torch.where(y > 0, high, low)


class PoissonFlattening(nn.Module):
    """phi(η) = 2 e^{η/2} of a log rate."""

    def forward(self, y: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        return 2 * torch.exp(y / 2)


class NegativeBinomialFlattening(nn.Module):
    """phi(η) = 2 √θ asinh(e^{(η - ln θ)/2}) of a log mean, θ the inverse dispersion."""

    dispersion: Tensor

    def __init__(self, dispersion: Tensor):
        super().__init__()
        self.register_buffer("dispersion", dispersion)

    def forward(self, y: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        theta = self.dispersion.to(y)
        u = (y - torch.log(theta)) / 2
        low = torch.asinh(torch.exp(u.clamp(max=0)))
        tail = u.clamp(min=0)
        high = tail + torch.log1p(torch.sqrt(1 + torch.exp(-2 * tail)))
        return 2 * torch.sqrt(theta) * torch.where(u > 0, high, low)


class CategoricalFlattening(nn.Module):
    """phi(η) = 2 √count · exp(½ log_softmax η) of logits: a point of the sphere of radius 2 √count."""

    def __init__(self, count: float | int):
        super().__init__()
        self.count = count

    def forward(self, y: Float[Tensor, "n *groups k"]) -> Float[Tensor, "n *groups k"]:
        return 2 * math.sqrt(self.count) * torch.exp(torch.log_softmax(y, dim=-1) / 2)
