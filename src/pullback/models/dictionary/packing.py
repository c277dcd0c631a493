"""Trees of plain values, tensors and known frozen dataclasses as JSON and named tensors, and back."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from pullback.io import FormatError


class Packer:
    """Takes values apart; tensors that occur twice are kept once.

    Args:
        known: classes by name that may occur.
    Example:
        >>> packer = Packer({})
        >>> plain = packer.pack((1.5, torch.zeros(2)))
        >>> unpack(plain, packer.tensors, {})
        (1.5, tensor([0., 0.]))
    """

    def __init__(self, known: Mapping[str, type]):
        self._names = {cls: name for name, cls in known.items()}
        self._places: dict[int, str] = {}
        self.tensors: dict[str, Tensor] = {}

    def pack(self, value: Any) -> Any:
        """A value as JSON; its tensors go to ``tensors``.

        Raises:
            TypeError: a class that is not known.
        """
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, tuple):
            return [self.pack(item) for item in value]
        if isinstance(value, Tensor):
            return self._tensor(value)
        name = self._names.get(type(value))
        if name is None or not is_dataclass(value):
            raise TypeError(
                f"checkpoint_dir: expected charts of pullback.charts, got {type(value).__name__}, which no "
                "file can hold; fit without checkpoint_dir"
            )
        return {"class": name, **{f.name: self.pack(getattr(value, f.name)) for f in fields(value)}}

    def _tensor(self, value: Tensor) -> dict[str, Any]:
        place = self._places.get(id(value))
        if place is None:
            place = self._places[id(value)] = str(len(self.tensors))
            self.tensors[place] = value
        # products round differently for transposed memory, and a fit must go on with the same bits
        order = sorted(range(value.ndim), key=lambda axis: -value.stride(axis))
        return {"tensor": place, "order": order}


def unpack(
    plain: Any, tensors: Mapping[str, Tensor], known: Mapping[str, type], device: torch.device | None = None
) -> Any:
    """The value that `Packer` took apart.

    Args:
        plain: of `Packer.pack`.
        tensors: of the packer.
        known: classes by name.
        device: where tensors go; None leaves them.
    Raises:
        FormatError: a class or a tensor that is not known.
    """
    made: dict[tuple[str, ...], Tensor] = {}

    def tensor(place: str, order: list[int]) -> Tensor:
        key = (place, *map(str, order))
        if key not in made:
            back = [order.index(axis) for axis in range(len(order))]
            made[key] = tensors[place].to(device).permute(order).contiguous().permute(back)
        return made[key]

    def value(of: Any) -> Any:
        if isinstance(of, list):
            return tuple(value(item) for item in of)
        if not isinstance(of, dict):
            return of
        if "tensor" in of:
            return tensor(of["tensor"], of["order"])
        return known[of["class"]](**{name: value(item) for name, item in of.items() if name != "class"})

    try:
        return value(plain)
    except (KeyError, TypeError) as error:
        raise FormatError(f"expected parts of a fit, got {error!r}; from a newer pullback?") from error
