"""Functions of data whose values become named quantities."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pullback.subspaces.arguments import check_names
from pullback.subspaces.pooling import MODES, Mode, SpatialDims, pool
from pullback.validation import check_choice, check_whole

Quantities = Callable[..., dict[str, Tensor]]
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def compute_Q(*fns: Callable[..., Tensor], **named: Callable[..., Tensor]) -> Quantities:
    """One function of keyword arguments that returns all quantities by name.

    Each function gets the arguments that its signature names, one with ``**kwargs`` all of them. A keyword
    here names a quantity, otherwise the function's own name does.

    Args:
        fns, named: functions that return a tensor with the batch first.
    Returns: a function ``(**kwargs) -> {name: tensor}``.
    Raises:
        TypeError: no function; from the result, an argument that is missing or a value that is no tensor.
        ValueError: two quantities of one name; from the result, batches of different length.
    Example:
        >>> import torch
        >>> def mass(x):
        ...     return x.sum(1)
        >>> quantities = compute_Q(mass, largest=lambda x, scale: scale * x.amax(1))
        >>> quantities(x=torch.ones(2, 3), scale=2.0)
        {'mass': tensor([3., 3.]), 'largest': tensor([2., 2.])}
    """
    functions = _by_name(fns, named)
    wanted = {name: _parameters(function) for name, function in functions.items()}

    def quantities(**kwargs: Any) -> dict[str, Tensor]:
        found = {
            name: function(**_chosen(name, wanted[name], kwargs)) for name, function in functions.items()
        }
        return _checked(found)

    return quantities


def input_to_quantity(
    n_bins: int | tuple[int, ...] | Mapping[str, int | tuple[int, ...]],
    mode: Mode,
    *fns: Callable[..., Tensor],
    spatial_dims: SpatialDims = "auto",
    **named: Callable[..., Tensor],
) -> Quantities:
    """`compute_Q`, then `pool`.

    Args:
        n_bins: for all quantities, or by name; see `pool`.
        mode: "avg" or "max".
        fns, named: see `compute_Q`.
        spatial_dims: see `pool`.
    Returns: a function ``(**kwargs) -> {name: tensor}``.
    Example:
        >>> import torch
        >>> quantities = input_to_quantity(2, "avg", signal=lambda x: x)
        >>> quantities(x=torch.arange(4.0).unsqueeze(0))
        {'signal': tensor([[0.5000, 2.5000]])}
    """
    check_choice("mode", mode, MODES)
    names = _by_name(fns, named)
    if isinstance(n_bins, Mapping):
        check_names("n_bins", n_bins, names, "the functions")
        bins = dict(n_bins)
    else:
        bins = dict.fromkeys(names, n_bins)
    compute = compute_Q(*fns, **named)

    def quantities(**kwargs: Any) -> dict[str, Tensor]:
        found = compute(**kwargs)
        return {
            name: pool(value, bins[name], mode, spatial_dims=spatial_dims) for name, value in found.items()
        }

    return quantities


def ensure_dim(
    func: Callable[..., Any] | None = None, *, dims: int, targets: Sequence[str] | None = None
) -> Callable[..., Any]:
    """Decorator: tensors get axes of length 1 after the batch until they have ``dims``.

    Args:
        func: what is decorated.
        dims: how many axes.
        targets: arguments that are changed, however they are passed; None is all tensors.
    Raises:
        TypeError, ValueError: an argument of the wrong kind or value; a name that ``func`` does not have;
            from the result, more axes than ``dims``.
    Example:
        >>> import torch
        >>> @ensure_dim(dims=4)
        ... def shape(x):
        ...     return tuple(x.shape)
        >>> shape(torch.ones(2, 5))
        (2, 1, 1, 5)
    """
    check_whole("dims", dims)

    def widen(name: str, value: Tensor) -> Tensor:
        if value.ndim > dims:
            raise ValueError(f"{name}: expected at most {dims} axes, got {tuple(value.shape)}")
        return value.reshape(*value.shape[:1], *(1,) * (dims - value.ndim), *value.shape[1:])

    return _decorated(func, targets, widen)


def to_device(
    func: Callable[..., Any] | None = None,
    *,
    device: str | torch.device = "cpu",
    targets: Sequence[str] | None = None,
) -> Callable[..., Any]:
    """Decorator: tensors are moved to a device first.

    Args:
        func: what is decorated.
        device: where to.
        targets: arguments that are moved, however they are passed; None is all tensors.
    Raises:
        TypeError, ValueError: an argument of the wrong kind or value; a name that ``func`` does not have.
    Example:
        >>> import torch
        >>> @to_device(device="cpu", targets=["x"])
        ... def total(x):
        ...     return x.sum()
        >>> total(torch.ones(3))
        tensor(3.)
    """
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device: expected a device of torch, got {device!r}") from error
    return _decorated(func, targets, lambda _, value: value.to(place))


def _decorated(
    func: Callable[..., Any] | None, targets: Sequence[str] | None, change: Callable[[str, Tensor], Tensor]
) -> Callable[..., Any]:
    """A decorator that changes tensors among the arguments, used bare or with options."""
    if func is None:
        return lambda function: _decorated(function, targets, change)
    if not callable(func):
        raise TypeError(f"func: expected a function, got {type(func).__name__}")
    signature = inspect.signature(func)
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    unknown = [name for name in targets or () if name not in kinds]
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds.values():
        known = ", ".join(map(repr, kinds))
        raise ValueError(f"targets: expected some of {known}, got {unknown[0]!r}")

    def changed(name: str, value: Any) -> Any:
        wanted = isinstance(value, Tensor) and (targets is None or name in targets)
        return change(name, value) if wanted else value

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if kinds[name] is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {key: changed(key, item) for key, item in value.items()}
            elif kinds[name] is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(changed(name, item) for item in value)
            else:
                bound.arguments[name] = changed(name, value)
        return func(*bound.args, **bound.kwargs)

    return wrapped


def _by_name(
    fns: Sequence[Callable[..., Tensor]], named: Mapping[str, Callable[..., Tensor]]
) -> dict[str, Callable[..., Tensor]]:
    found: dict[str, Callable[..., Tensor]] = {}
    pairs = [(getattr(function, "__name__", type(function).__name__), function) for function in fns]
    for name, function in (*pairs, *named.items()):
        if not callable(function):
            raise TypeError(f"{name}: expected a function, got {type(function).__name__}")
        if name in found:
            raise ValueError(f"fns: expected one function a name, got two named {name!r}; use name=function")
        found[name] = function
    if not found:
        raise TypeError("fns: expected at least one function, got none")
    return found


def _parameters(function: Callable[..., Tensor]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def _chosen(name: str, parameters: list[inspect.Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a function names, or all if it takes any."""
    known = [parameter for parameter in parameters if parameter.kind not in _VARIABLE]
    missing = [p.name for p in known if p.default is inspect.Parameter.empty and p.name not in given]
    if missing:
        listed = ", ".join(map(repr, given)) or "none"
        raise TypeError(f"{name}: expected the argument {missing[0]!r}, got {listed}")
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return dict(given)
    return {parameter.name: given[parameter.name] for parameter in known if parameter.name in given}


def _checked(found: dict[str, Tensor]) -> dict[str, Tensor]:
    rows: dict[str, int] = {}
    for name, value in found.items():
        if not isinstance(value, Tensor) or value.ndim == 0:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{name}: expected a tensor with the batch first, got {got}")
        rows[name] = len(value)
    first = next(iter(rows))
    for name, number in rows.items():
        if number != rows[first]:
            raise ValueError(f"{name}: {number} rows, {first} has {rows[first]}")
    return found
