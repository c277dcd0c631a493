"""Encoders by name: piecewise-linear networks from rows to an embedding, and a register of more."""

import itertools
import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.models.blocks import ConvEncoder, Residual
from pullback.validation import check_whole

InputDims = int | tuple[int, ...]
EncoderFactory = Callable[..., nn.Module]

_REGISTRY: dict[str, EncoderFactory] = {}


def register_encoder(name: str) -> Callable[[EncoderFactory], EncoderFactory]:
    """Decorator that makes an encoder known by a name.

    The factory, a class or function, takes (input_dims, n_components, **options) and returns a module from
    rows to (n, n_components); ``input_dims`` is the number of features, or (channels, height, width) of
    images.

    Args:
        name: not taken by another factory.
    Raises:
        TypeError: a name that is no text, or a factory that cannot be called.
        ValueError: the name is taken.
    Example:
        >>> from torch import nn
        >>> @register_encoder("flat")
        ... def flat(input_dims, n_components):
        ...     return nn.Linear(input_dims, n_components)
        >>> create_encoder("flat", 3, 2)
        Linear(in_features=3, out_features=2, bias=True)
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"name: expected a text, got {name!r}; write @register_encoder('name')")

    def register(factory: EncoderFactory) -> EncoderFactory:
        if not callable(factory):
            raise TypeError(f"factory: expected a class or function, got {factory!r}")
        if _REGISTRY.get(name, factory) is not factory:
            raise ValueError(f"name: {name!r} is taken by {_REGISTRY[name]!r}; choose another")
        _REGISTRY[name] = factory
        return factory

    return register


def view_registry() -> Mapping[str, EncoderFactory]:
    """The known factories by name; read only.

    Example:
        >>> "default" in view_registry()
        True
    """
    return MappingProxyType(_REGISTRY)


def create_encoder(
    name: str,
    input_dims: InputDims,
    n_components: int,
    *,
    generator: torch.Generator | None = None,
    **encoder_kwargs: Any,
) -> nn.Module:
    """An encoder of a registered kind, its weights drawn from ``generator`` alone.

    Args:
        name: one of `view_registry`.
        input_dims: features of a row, or (channels, height, width).
        n_components: width of the embedding, d.
        generator: source of the initial weights; PyTorch's own generator is used for them and put back. None
            draws from that one as any module does.
        **encoder_kwargs: options of the factory.
    Raises:
        ValueError: an unknown name, or widths that are not positive.
        TypeError: options that the factory does not take, or a factory that makes no module.
    Example:
        >>> create_encoder("default", 5, 2, hidden_size=4, n_hidden_layers=1)
        Sequential(
          (0): Linear(in_features=5, out_features=4, bias=True)
          (1): PReLU(num_parameters=1)
          (2): Linear(in_features=4, out_features=2, bias=True)
        )
    """
    if name not in _REGISTRY:
        known = ", ".join(map(repr, sorted(_REGISTRY)))
        raise ValueError(f"encoder_name: expected one of {known}, got {name!r}; see register_encoder")
    for width in input_dims if isinstance(input_dims, tuple) else (input_dims,):
        check_whole("input_dims", width)
    check_whole("n_components", n_components)
    if generator is None:
        encoder = _REGISTRY[name](input_dims, n_components, **encoder_kwargs)
    else:
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            encoder = _REGISTRY[name](input_dims, n_components, **encoder_kwargs)
    if not isinstance(encoder, nn.Module):
        raise TypeError(
            f"encoder {name!r}: expected the factory to make a module, got {type(encoder).__name__}"
        )
    return encoder


class ScaleLayerNorm(nn.Module):
    """γ (x - mean) / √(var + 1e-12): a layer normalisation that adds nothing, with the biased variance.

    A network of such layers and others without bias maps c x to the same point for every c > 0.

    Args:
        width: features of a row.
    Example:
        >>> import torch
        >>> ScaleLayerNorm(2)(torch.tensor([[1.0, 3.0]])).tolist()
        [[-1.0, 1.0]]
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-12, bias=False)

    def jet_layers(self) -> list[nn.Module]:
        """The modules that `forward` applies, in order."""
        return [self.norm]

    def forward(self, x: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
        return self.norm(x)


def _stages(
    input_dims: InputDims,
    n_components: int,
    *,
    hidden_size: int = 128,
    n_hidden_layers: int = 3,
    dropout_rate: float = 0.0,
    norm: Callable[[int], nn.Module] | None = None,
    bias: bool = True,
) -> nn.Sequential:
    """[linear, PReLU, norm unless it is the last, dropout] again and again, and a linear layer."""
    _check_sizes(hidden_size, n_hidden_layers, dropout_rate)
    widths = [_flat(input_dims), *[hidden_size] * n_hidden_layers]
    layers: list[nn.Module] = [nn.Flatten()] if isinstance(input_dims, tuple) else []
    for depth, (before, after) in enumerate(itertools.pairwise(widths), start=1):
        layers += [nn.Linear(before, after, bias=bias), nn.PReLU()]
        if norm is not None and depth < n_hidden_layers:
            layers.append(norm(after))
        if dropout_rate > 0:
            layers.append(nn.Dropout(dropout_rate))
    return nn.Sequential(*layers, nn.Linear(widths[-1], n_components, bias=bias))


# Linear layers with PReLU: exactly piecewise linear, and the length of a row counts.
register_encoder("default")(_stages)
# Batch normalisation behind all hidden layers but the last: still piecewise linear in use.
register_encoder("batchnorm")(partial(_stages, norm=nn.BatchNorm1d))
# Sees the direction of a row and not its length; for comparison.
register_encoder("glassbox")(partial(_stages, norm=ScaleLayerNorm, bias=False))


@register_encoder("residual")
def _residual(
    input_dims: InputDims,
    n_components: int,
    *,
    hidden_size: int = 128,
    n_blocks: int = 2,
    dropout_rate: float = 0.0,
) -> nn.Module:
    """A linear layer, blocks x + W₂ PReLU(W₁ x), and a linear layer; no normalisation."""
    _check_sizes(hidden_size, n_blocks, dropout_rate)
    layers: list[nn.Module] = [nn.Flatten()] if isinstance(input_dims, tuple) else []
    layers += [nn.Linear(_flat(input_dims), hidden_size), nn.PReLU()]
    for _ in range(n_blocks):
        block: list[nn.Module] = [nn.Linear(hidden_size, hidden_size), nn.PReLU()]
        if dropout_rate > 0:
            block.append(nn.Dropout(dropout_rate))
        layers += [Residual(nn.Sequential(*block, nn.Linear(hidden_size, hidden_size))), nn.PReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden_size, n_components))


@register_encoder("conv")
def _conv(
    input_dims: InputDims,
    n_components: int,
    *,
    channels: tuple[int, ...] = (64, 64),
    hidden: tuple[int, ...] = (512, 512),
) -> nn.Module:
    """3 x 3 convolutions of stride 2 with PReLU, and fully connected layers; images come as flat rows."""
    if not isinstance(input_dims, tuple) or len(input_dims) != 3:
        raise ValueError(f"input_dims: expected (channels, height, width) for 'conv', got {input_dims!r}")
    return ConvEncoder(input_dims, n_components, channels=channels, hidden=hidden, activation=nn.PReLU)


def _flat(input_dims: InputDims) -> int:
    return math.prod(input_dims) if isinstance(input_dims, tuple) else input_dims


def _check_sizes(hidden_size: int, depth: int, dropout_rate: float) -> None:
    check_whole("hidden_size", hidden_size)
    check_whole("n_hidden_layers", depth, minimum=0)
    if not 0 <= dropout_rate < 1:
        raise ValueError(f"dropout_rate: expected a probability in [0, 1), got {dropout_rate}")
