"""Networks for encoders and decoders: flat rows in, flat rows out, and their layers open to jets.

Weights are drawn from the generator that is handed in, so that a model is reproducible without touching the
global random state. Any other ``nn.Module`` may take the place of these networks.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.jets.modules import Product, Residual, Sine
from pullback.validation import check_choice, check_whole

__all__ = ["MLP", "ConvDecoder", "ConvEncoder", "Product", "Residual", "Sine", "make_activation"]

Normalization = Literal["none", "batch", "magnitude"]
ImageShape = Sequence[int]
Activation = str | type[nn.Module] | Callable[[], nn.Module]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "mish": nn.Mish,
    "sigmoid": nn.Sigmoid,
    "softsign": nn.Softsign,
    "sine": lambda: Sine(1.0),
    "identity": nn.Identity,
}


def make_activation(name: Activation) -> nn.Module:
    """A fresh activation module.

    Args:
        name: one of `ACTIVATIONS`, or a class or function without arguments that makes the module.
    Raises:
        ValueError: an unknown name; the message lists the known ones.
        TypeError: a module where something that makes modules is needed.
    Example:
        >>> make_activation("tanh")
        Tanh()
    """
    if isinstance(name, str):
        check_choice("activation", name, ACTIVATIONS)
        return ACTIVATIONS[name]()
    if isinstance(name, nn.Module) or not callable(name):
        raise TypeError(
            f"activation: expected a name or a class such as nn.GELU, got {name!r}; "
            "one module cannot serve several layers, pass a function that makes it"
        )
    return name()


def _layer(
    kind: type[nn.Module], *sizes: int, generator: torch.Generator | None, **options: Any
) -> nn.Module:
    """A linear or convolutional layer with PyTorch's own distribution of weights, from ``generator``."""
    layer: Any = nn.utils.skip_init(kind, *sizes, **options)
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    if layer.bias is not None:
        fan_in = layer.weight[0].numel()
        bound = 1 / math.sqrt(max(fan_in, 1))
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


def _dense_stage(
    sizes: tuple[int, int],
    *,
    activation: Activation,
    normalization: Normalization,
    dropout: float,
    generator: torch.Generator | None,
) -> list[nn.Module]:
    """Linear, normalisation, activation, dropout."""
    stage: list[nn.Module] = [_layer(nn.Linear, *sizes, generator=generator)]
    if normalization == "batch":
        stage.append(nn.BatchNorm1d(sizes[1]))
    elif normalization == "magnitude":
        # y = x / sqrt(mean x² + 1) compresses long rows and never divides the length out
        stage.append(nn.RMSNorm(sizes[1], eps=1.0))
    stage.append(make_activation(activation))
    if dropout > 0:
        stage.append(nn.Dropout(dropout))
    return stage


def _check_network(in_features: int, out_features: int, hidden: Sequence[int], dropout: float) -> None:
    check_whole("in_features", in_features)
    check_whole("out_features", out_features)
    for width in hidden:
        check_whole("hidden", width)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: expected a probability in [0, 1), got {dropout}")


class MLP(nn.Module):
    """A fully connected network ``(n, in_features) -> (n, out_features)``.

    Args:
        in_features, out_features: widths of the rows.
        hidden: widths of the hidden layers; ``()`` gives one linear map.
        activation: a name (see `make_activation`) or a class of modules.
        normalization: "none", "batch" (`nn.BatchNorm1d`), or "magnitude": x / sqrt(mean x² + 1), which tames
            rows of very different length and keeps their order.
        dropout: probability of dropping a hidden unit in training.
        generator: source of the initial weights; None is PyTorch's default generator.
    Example:
        >>> import torch
        >>> MLP(3, 2, hidden=(8,))(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden: Sequence[int] = (128, 128),
        activation: Activation = "softplus",
        normalization: Normalization = "none",
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        _check_network(in_features, out_features, hidden, dropout)
        check_choice("normalization", normalization, ("none", "batch", "magnitude"))
        self.in_features, self.out_features = in_features, out_features
        widths = [in_features, *hidden]
        layers: list[nn.Module] = []
        for sizes in itertools.pairwise(widths):
            layers += _dense_stage(
                sizes,
                activation=activation,
                normalization=normalization,
                dropout=dropout,
                generator=generator,
            )
        layers.append(_layer(nn.Linear, widths[-1], out_features, generator=generator))
        self.layers = nn.Sequential(*layers)

    def jet_layers(self) -> list[nn.Module]:
        """The modules that `forward` applies, in order."""
        return list(self.layers)

    def forward(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n q"]:
        return self.layers(x)


def _image_sizes(image_shape: ImageShape, channels: Sequence[int]) -> list[tuple[int, int, int]]:
    """Shapes (c, h, w) from the image to the smallest map; a stage halves height and width, rounded up."""
    if len(image_shape) != 3:
        raise ValueError(f"image_shape: expected (channels, height, width), got {tuple(image_shape)}")
    for size in image_shape:
        check_whole("image_shape", size)
    for width in channels:
        check_whole("channels", width)
    if not channels:
        raise ValueError("channels: expected at least one width, got none; use MLP without convolutions")
    depth, height, breadth = image_shape
    sizes = [(depth, height, breadth)]
    for width in channels:
        _, height, breadth = sizes[-1]
        sizes.append((width, (height + 1) // 2, (breadth + 1) // 2))
    return sizes


def _after_convolution(width: int, activation: Activation, normalization: str) -> list[nn.Module]:
    norm: list[nn.Module] = [nn.BatchNorm2d(width)] if normalization == "batch" else []
    return [*norm, make_activation(activation)]


class ConvEncoder(nn.Module):
    """A convolutional network on images that come as flat rows: ``(n, c·h·w) -> (n, out_features)``.

    Args:
        image_shape: (channels, height, width), of any size.
        out_features: width of the output rows.
        channels: widths of the convolutions; each has kernel 3 and stride 2.
        hidden: widths of the fully connected layers behind them.
        activation: as in `MLP`.
        normalization: "none" or "batch".
        generator: source of the initial weights.
    Example:
        >>> import torch
        >>> ConvEncoder((1, 5, 7), 4)(torch.zeros(2, 35)).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        image_shape: ImageShape,
        out_features: int,
        *,
        channels: Sequence[int] = (32, 64),
        hidden: Sequence[int] = (128,),
        activation: Activation = "softplus",
        normalization: Normalization = "none",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        check_choice("normalization", normalization, ("none", "batch"))
        sizes = _image_sizes(image_shape, channels)
        layers: list[nn.Module] = [nn.Unflatten(1, sizes[0])]
        for before, after in itertools.pairwise(sizes):
            conv = _layer(
                nn.Conv2d, before[0], after[0], kernel_size=3, stride=2, padding=1, generator=generator
            )
            layers += [conv, *_after_convolution(after[0], activation, normalization)]
        head = MLP(
            math.prod(sizes[-1]),
            out_features,
            hidden=hidden,
            activation=activation,
            normalization=normalization,
            generator=generator,
        )
        self.layers = nn.Sequential(*layers, nn.Flatten(), *head.layers)
        self.in_features, self.out_features = math.prod(sizes[0]), out_features

    def jet_layers(self) -> list[nn.Module]:
        """The modules that `forward` applies, in order."""
        return list(self.layers)

    def forward(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n q"]:
        return self.layers(x)


class ConvDecoder(nn.Module):
    """A convolutional network that paints images as flat rows: ``(n, in_features) -> (n, c·h·w)``.

    Args:
        in_features: width of the input rows.
        image_shape: (channels, height, width) of the output, of any size. Where a likelihood asks for two
            numbers a pixel, ask for twice the channels: the first half of a row is then the first number.
        channels: widths of the stages, in the order of the encoder that mirrors this decoder.
        hidden: widths of the fully connected layers before them.
        activation: as in `MLP`.
        normalization: "none" or "batch".
        generator: source of the initial weights.
    Example:
        >>> import torch
        >>> ConvDecoder(2, (1, 5, 7))(torch.zeros(3, 2)).shape
        torch.Size([3, 35])
    """

    def __init__(
        self,
        in_features: int,
        image_shape: ImageShape,
        *,
        channels: Sequence[int] = (32, 64),
        hidden: Sequence[int] = (128,),
        activation: Activation = "softplus",
        normalization: Normalization = "none",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        check_choice("normalization", normalization, ("none", "batch"))
        sizes = _image_sizes(image_shape, channels)
        head = MLP(
            in_features,
            math.prod(sizes[-1]),
            hidden=hidden,
            activation=activation,
            normalization=normalization,
            generator=generator,
        )
        layers: list[nn.Module] = [*head.layers, make_activation(activation), nn.Unflatten(1, sizes[-1])]
        widths = [*reversed(channels), channels[0]]
        for stage, after in enumerate(reversed(sizes[:-1])):
            # a stage of stride 2 makes 2 h - 1 rows of h; the even sizes need one more
            padding = tuple(1 - size % 2 for size in after[1:])
            conv = _layer(
                nn.ConvTranspose2d,
                widths[stage],
                widths[stage + 1],
                kernel_size=3,
                stride=2,
                padding=1,
                output_padding=padding,
                generator=generator,
            )
            layers += [conv, *_after_convolution(widths[stage + 1], activation, normalization)]
        last = _layer(nn.Conv2d, channels[0], sizes[0][0], kernel_size=3, padding=1, generator=generator)
        self.layers = nn.Sequential(*layers, last, nn.Flatten())
        self.in_features, self.out_features = in_features, math.prod(sizes[0])

    def jet_layers(self) -> list[nn.Module]:
        """The modules that `forward` applies, in order."""
        return list(self.layers)

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n p"]:
        return self.layers(z)
