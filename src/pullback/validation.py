"""Checks of arguments at the public boundary: each names the argument, what was expected and what came."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise ``ValueError`` naming the valid options unless ``value`` is one of them."""
    options = list(choices)
    if value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, options))}, got {value!r}")


def check_positive(name: str, value: float | int | Tensor, *, zero: bool = False) -> None:
    """Raise ``ValueError`` unless every entry is finite and positive (or zero where ``zero`` allows it)."""
    # a plain number would become float32, beyond whose range it is still finite
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected a number, got {value!r}") from error
    bad = ~((tensor >= 0) if zero else (tensor > 0)) | ~torch.isfinite(tensor)
    if bad.any():
        wanted = "a finite number >= 0" if zero else "a finite number > 0"
        if tensor.ndim == 0:
            raise ValueError(f"{name}: expected {wanted}, got {value}")
        first = tuple(int(i) for i in bad.nonzero()[0])
        raise ValueError(f"{name}: expected {wanted} everywhere, got {tensor[first].item()} at index {first}")


def check_number(name: str, value: object) -> None:
    """Raise ``TypeError`` unless ``value`` is one number."""
    if isinstance(value, bool) or not hasattr(value, "__float__") or hasattr(value, "__len__"):
        raise TypeError(f"{name}: expected a number, got {value!r}")


def check_whole(name: str, value: object, *, minimum: int = 1) -> None:
    """Raise unless ``value`` is a whole number of at least ``minimum`` (``TypeError`` for another kind)."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected a whole number, got {value!r} of type {type(value).__name__}")
    if int(value) < minimum:  # type: ignore[call-overload]
        raise ValueError(f"{name}: expected a whole number >= {minimum}, got {value}")


def check_tensor(name: str, value: object) -> Tensor:
    """Return ``value`` if it is a tensor; raise ``TypeError`` if not."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}; use torch.as_tensor")
    return value


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise ``ValueError`` naming the first row with NaN or infinity."""
    # what is not finite makes the sum so: one pass settles nearly every case
    if tensor.is_floating_point() and bool(torch.isfinite(tensor.sum())):
        return
    finite = torch.isfinite(tensor)
    if not bool(finite.all()):
        first = tuple(int(i) for i in (~finite).nonzero()[0])
        where = f"row {first[0]}" + (f", column {first[1]}" if len(first) > 1 else "")
        raise ValueError(f"{name}: expected finite numbers, got {tensor[first].item()} at {where}")


def check_points(name: str, z: object, dim: int | None = None, *, finite: bool = True) -> Tensor:
    """Return ``z`` if it is a floating-point tensor ``(n, d)``; raise ``TypeError``/``ValueError`` if not."""
    if not isinstance(z, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(z).__name__}; use torch.as_tensor(...)")
    if z.ndim != 2 or not z.is_floating_point():
        kind = str(z.dtype).removeprefix("torch.")
        raise ValueError(f"{name}: expected (n, d) floating point, got shape {tuple(z.shape)} {kind}")
    if dim is not None and z.shape[1] != dim:
        raise ValueError(f"{name}: expected (n, {dim}), got {tuple(z.shape)}")
    if finite:
        check_finite(name, z)
    return z


def check_pair(names: tuple[str, str], a: object, b: object, dim: int | None = None) -> tuple[Tensor, Tensor]:
    """Both arguments as finite ``(m, d)`` of one shape and dtype; one point ``(d,)`` serves every row."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.ndim == 1:
            a = a.expand(len(b) if b.ndim == 2 else 1, -1)
        if b.ndim == 1:
            b = b.expand(len(a), -1)
    first, second = check_points(names[0], a, dim, finite=False), check_points(names[1], b, finite=False)
    if first.shape != second.shape:
        raise ValueError(
            f"{names[1]}: expected {tuple(first.shape)} like {names[0]}, got {tuple(second.shape)}"
        )
    if first.dtype != second.dtype:
        raise ValueError(f"{names[1]}: expected {first.dtype} like {names[0]}, got {second.dtype}")
    check_finite(names[0], first)
    check_finite(names[1], second)
    return first, second


def check_shape(name: str, tensor: Tensor, expected: Sequence[int], hint: str = "") -> None:
    """Raise ``ValueError`` with both shapes unless ``tensor`` has the ``expected`` one."""
    if tuple(tensor.shape) != tuple(expected):
        tail = f"; {hint}" if hint else ""
        raise ValueError(f"{name}: expected shape {tuple(expected)}, got {tuple(tensor.shape)}{tail}")
