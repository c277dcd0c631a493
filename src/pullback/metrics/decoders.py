"""What a metric has to know of a decoder: outputs as rows, their number, and whether its rows are apart."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.parametrize import type_before_parametrizations

from pullback.jets import Product, Residual, Stack
from pullback.jets.checks import check_map
from pullback.jets.rules import LEAVES, Elementwise, Piecewise
from pullback.jets.taylor import layers_of
from pullback.metrics.compact import leaves
from pullback.typing import Map


def as_rows(y: Tensor) -> Tensor:
    """Outputs of several axes flattened to (n, p)."""
    return y if y.ndim <= 2 else y.flatten(1)


def with_rows(decoder: Map) -> Map:
    """The decoder, its output flattened to (n, p) unless it is so already."""
    if not isinstance(decoder, nn.Module):
        return lambda z: as_rows(decoder(z))
    return decoder if _returns_rows(decoder) else nn.Sequential(decoder, nn.Flatten())


def _returns_rows(decoder: nn.Module) -> bool:
    """Whether the last layers say that the output is (n, p); a linear layer is taken to work on rows."""
    for layer in reversed(layers_of(decoder)):
        kind = _kind(layer.module)
        if kind is nn.Linear or (
            isinstance(layer.module, nn.Flatten) and (layer.module.start_dim, layer.module.end_dim) == (1, -1)
        ):
            return True
        if kind is nn.Unflatten or kind not in (*LEAVES, Residual, Product, Stack):
            return False
    return True


def _kind(module: Map) -> type:
    return type_before_parametrizations(module) if isinstance(module, nn.Module) else type(module)


def input_width(decoder: Map) -> int | None:
    """d, where the first layer tells it."""
    if not isinstance(decoder, nn.Module):
        return None
    first = next((leaf for leaf in leaves(decoder) if type(leaf) is not nn.Identity), None)
    return first.in_features if first is not None and _kind(first) is nn.Linear else None  # type: ignore[return-value]


def output_width(decoder: Map) -> int | None:
    """p, where the last layers tell it."""
    if not isinstance(decoder, nn.Module):
        return None
    for layer in reversed(layers_of(decoder)):
        if _kind(layer.module) is nn.Linear:
            return layer.module.out_features  # type: ignore[union-attr]
        if not isinstance(layer.rule, Elementwise | Piecewise):
            break
    return None


def width_at(f: Map, z: Tensor) -> int:
    """p, by evaluating the first of the points."""
    return as_rows(f(check_map(f, z[:1]))).shape[1]


def coupled_layers(f: Map) -> list[nn.Module]:
    """Layers that couple or randomise rows in train mode."""
    if not isinstance(f, nn.Module):
        return []
    return [
        layer
        for layer in f.modules()
        if isinstance(layer, _BatchNorm) or (isinstance(layer, _DropoutNd) and layer.p > 0)
    ]


def check_eval(name: str, coupled: Sequence[nn.Module]) -> None:
    """Raise ``ValueError`` if one of the `coupled_layers` is in train mode."""
    if any(layer.training for layer in coupled):
        raise ValueError(f"{name} is in train mode; call {name}.eval()")
