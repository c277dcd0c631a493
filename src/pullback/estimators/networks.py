"""The networks of a model: the user's own, copied, or the default ones for tables and for images."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pullback.models.blocks import MLP, Activation, ConvDecoder, ConvEncoder, make_activation
from pullback.models.likelihoods import Categorical
from pullback.models.metric_network import MetricNetwork

SMALLEST_CONVOLVED = 16
"""Pixels a side from which images get convolutions; below, an MLP sees as much in a tenth of the time."""


@dataclass(frozen=True)
class NetworkOptions:
    """Shape of the default networks."""

    hidden: Sequence[int]
    activation: Activation
    normalization: Any
    image_shape: tuple[int, int, int] | None

    @property
    def convolved(self) -> tuple[int, int, int] | None:
        """Shape of the images that convolutions read, or None where an MLP reads rows."""
        shape = self.image_shape
        return None if shape is None or min(shape[1:]) < SMALLEST_CONVOLVED else shape

    def styles(self) -> dict[str, Any]:
        return {"activation": self.activation, "normalization": self.normalization}


def read_widths(name: str, widths: Any) -> tuple[int, ...]:
    """Widths of hidden layers; ``TypeError`` for one number or a string."""
    if isinstance(widths, str) or not isinstance(widths, Iterable):
        raise TypeError(f"{name}: expected the widths of the hidden layers, (128, 128), got {widths!r}")
    return tuple(widths)


def own_copy(name: str, module: Any) -> nn.Module:
    """A deep copy, so that training never changes what the user handed in."""
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"{name}: expected a torch.nn.Module or None, got {module!r} of type {type(module).__name__}"
        )
    return copy.deepcopy(module)


def make_encoder(
    options: NetworkOptions, n_features: int, width: int, *, generator: torch.Generator
) -> nn.Module:
    """Default encoder from ``n_features`` to ``width`` numbers: convolutions for images, else an MLP."""
    shape = options.convolved
    if shape is None:
        return MLP(n_features, width, hidden=options.hidden, generator=generator, **options.styles())
    hidden = options.hidden[-1:]
    return ConvEncoder(shape, width, hidden=hidden, generator=generator, **options.styles())


def make_decoder(
    options: NetworkOptions,
    latent_dim: int,
    likelihood: Any,
    n_features: int,
    *,
    generator: torch.Generator,
) -> nn.Module:
    """Default decoder from latent points to what the likelihood asks for."""
    width = likelihood.n_params(n_features)
    # Classes are the last axis of a flat row and channels the first: categories are painted by an MLP.
    image_shape = options.convolved
    if image_shape is None or isinstance(likelihood, Categorical):
        return MLP(latent_dim, width, hidden=options.hidden, generator=generator, **options.styles())
    channels, *size = image_shape
    shape = (channels * (width // n_features), *size)
    return ConvDecoder(latent_dim, shape, hidden=options.hidden[-1:], generator=generator, **options.styles())


def make_metric_network(
    options: NetworkOptions,
    n_features: int,
    latent_dim: int,
    hidden: Sequence[int],
    *,
    generator: torch.Generator,
) -> nn.Module:
    """Network from data to factors of a learned metric: convolutions for images, else an MLP with ReLU."""
    shape = options.convolved
    if shape is None or not hidden:
        return MetricNetwork(n_features, latent_dim, hidden, init="identity", generator=generator)
    width = hidden[-1]
    convolutions = ConvEncoder(shape, width, hidden=(), generator=generator, **options.styles())
    trunk = nn.Sequential(convolutions, make_activation(options.activation))
    return MetricNetwork(width, latent_dim, trunk=trunk, init="identity", generator=generator)
