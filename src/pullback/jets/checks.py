"""Checks of what a jet is asked for, at the public boundary."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pullback.jets.taylor import Layer, supported, survey
from pullback.validation import check_points

_RANDOM = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
_COUPLING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_order(order: Any, lowest: int = 0) -> None:
    """Raise ``ValueError`` unless the order is one of ``lowest`` .. 3."""
    options = range(lowest, 4)
    if isinstance(order, bool) or not hasattr(order, "__index__") or order not in options:
        listed = ", ".join(map(str, options[:-1]))
        raise ValueError(f"order: expected {listed} or 3, got {order}")


def check_lowest(lowest: Any, order: int) -> None:
    """Raise ``ValueError`` unless the lowest order is one of 0 .. ``order``."""
    if isinstance(lowest, bool) or not hasattr(lowest, "__index__") or not 0 <= lowest <= order:
        raise ValueError(f"lowest: expected a whole number from 0 to order={order}, got {lowest!r}")


def check_map(f: Any, x: Any) -> Tensor:
    """Return the points if ``f`` may be differentiated there; raise otherwise."""
    if not callable(f):
        raise TypeError(f"f: expected a module or a function (n, d) -> (n, p), got {type(f).__name__}")
    x = check_points("x", x, finite=False)
    if x.shape[1] == 0:
        raise ValueError(f"x: expected points (n, d) of one variable or more, got shape {tuple(x.shape)}")
    if isinstance(f, nn.Module):
        check_mode(f)
        check_dtype(f, x)
    return x


def _modules(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """What ``named_modules`` gives, a shared module once a place, at a third of the time."""
    yield path, module
    for name, child in module._modules.items():
        if child is not None:
            yield from _modules(child, f"{path}.{name}" if path else name)


def check_mode(f: nn.Module, call: str = "f.eval()") -> None:
    """Raise ``ValueError`` if a layer in train mode couples or randomises rows."""
    for path, module in _modules(f):
        type_ = type(module)
        if not module.training and type_ not in _COUPLING:
            continue
        random = type_ in _RANDOM and module.training and float(module.p) > 0  # type: ignore[arg-type]
        random = random or (type_ is nn.RReLU and module.training)
        if type_ in _COUPLING and module.running_mean is None:
            raise ValueError(
                f"module {path or '(itself)'} ({type_.__name__}) couples rows: it keeps no running "
                "statistics; build it with track_running_stats=True"
            )
        if random or (type_ in _COUPLING and module.training):
            raise ValueError(
                f"module {path or '(itself)'} ({type_.__name__}) couples or randomises rows in train mode; "
                f"call {call}"
            )


def check_dtype(f: nn.Module, x: Tensor) -> None:
    """Raise ``TypeError`` unless all floating parameters and buffers have the points' dtype."""
    for _, module in _modules(f):
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            # A number joins a tensor's precision, whatever its own.
            if (
                tensor is None
                or tensor.ndim == 0
                or not tensor.is_floating_point()
                or tensor.dtype == x.dtype
            ):
                continue
            cast = {torch.float64: "double", torch.float32: "float", torch.float16: "half"}
            to, back = cast.get(x.dtype, f"to({x.dtype})"), cast.get(tensor.dtype, f"to({tensor.dtype})")
            to, back = (name if name.endswith(")") else f"{name}()" for name in (to, back))
            raise TypeError(
                f"x is {kind(x.dtype)} but f has {kind(tensor.dtype)} parameters; call f.{to} or x.{back}"
            )


def check_known(layers: list[Layer]) -> None:
    """Raise ``TypeError`` naming the first layer without a rule."""
    for layer in survey(layers):
        if layer.rule is None:
            name = type(layer.module).__name__
            raise TypeError(
                f"module {layer.path or '(itself)'} ({name}) has no jet rule; supported: "
                f"{', '.join(supported())}; add one with register_jet_rule, or pass fallback='module'"
            )


def check_output(value: Tensor, x: Tensor) -> None:
    """Raise ``ValueError`` with both shapes unless the map gave one row of features a point."""
    if value.ndim != 2 or value.shape[0] != x.shape[0]:
        raise ValueError(
            f"f: expected (n, p) with n={x.shape[0]} from x of shape {tuple(x.shape)}, got "
            f"{tuple(value.shape)}; for image decoders append nn.Flatten()"
        )


def unknown(layers: list[Layer]) -> list[Layer]:
    """Steps without a rule."""
    return [layer for layer in survey(layers) if layer.rule is None]
