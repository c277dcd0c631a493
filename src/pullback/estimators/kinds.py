"""Quantities of three kinds as columns of numbers and back: numbers, categories, positions on a circle."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from torch import Tensor

from pullback.io import FormatError

NAMED = 8
"""Categories that an error lists."""


@runtime_checkable
class Kind(Protocol):
    """How one quantity becomes columns; NaN stands for what is missing."""

    @property
    def width(self) -> int:
        """Number of columns."""
        ...

    def columns(self, name: str, values: Any) -> Float64[np.ndarray, "n m"]:
        """Columns of ``(n, ...)`` values; one value alone is one row."""
        ...

    def values(self, columns: Float[np.ndarray, "n m"]) -> np.ndarray:
        """Values ``(n, ...)`` that predicted columns mean."""
        ...

    def config(self) -> dict[str, Any]:
        """Plain values that make it again."""
        ...


@dataclass(frozen=True)
class Numbers:
    """One or more numbers a row, as they are.

    Attributes:
        shape: of the value of a row.
    """

    shape: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        return int(np.prod(self.shape, dtype=int))

    def columns(self, name: str, values: Any) -> Float64[np.ndarray, "n m"]:
        array = as_numbers(name, values)
        if array.ndim == 0 or array.shape == self.shape:
            array = array[None]
        if array.shape[1:] != self.shape and array.size != len(array) * self.width:
            wanted = ", ".join(("n", *map(str, self.shape)))
            raise ValueError(f"{name}: expected shape ({wanted}), got {array.shape}")
        columns = array.reshape(len(array), self.width)
        if np.isinf(columns).any():
            raise ValueError(f"{name}: expected finite numbers, or NaN where one is missing, got infinity")
        return columns

    def values(self, columns: Float[np.ndarray, "n m"]) -> np.ndarray:
        return columns.reshape(len(columns), *self.shape)

    def config(self) -> dict[str, Any]:
        return {"kind": "number", "shape": list(self.shape)}


@dataclass(frozen=True)
class Categories:
    """One of several categories a row: a column of 0 and 1 for each but the last.

    Attributes:
        names: in order.
    """

    names: tuple[Any, ...]

    @property
    def width(self) -> int:
        return len(self.names) - 1

    def columns(self, name: str, values: Any) -> Float64[np.ndarray, "n m"]:
        array = np.atleast_1d(as_objects(name, values))
        missing = np.asarray(pd.isna(array), dtype=bool)
        place = {category: i for i, category in enumerate(self.names)}
        unknown = [value for value in array[~missing] if value not in place]
        if unknown:
            known = ", ".join(map(repr, self.names[:NAMED])) + (", ..." if len(self.names) > NAMED else "")
            raise ValueError(f"{name}: expected one of {known}, got {unknown[0]!r}")
        columns = np.full((len(array), len(self.names)), np.nan)
        columns[~missing] = np.eye(len(self.names))[[place[value] for value in array[~missing]]]
        return columns[:, :-1]

    def values(self, columns: Float[np.ndarray, "n m"]) -> np.ndarray:
        last = 1 - columns.sum(1, keepdims=True)
        names = np.asarray(self.names, dtype=object if isinstance(self.names[0], str) else None)
        return names[np.concatenate([columns, last], axis=1).argmax(1)]

    def config(self) -> dict[str, Any]:
        return {"kind": "categorical", "names": list(self.names)}


@dataclass(frozen=True)
class Cycle:
    """A position on a circle, such as a month: cosine and sine.

    Attributes:
        period: value that means the same as 0.
    """

    period: float
    width = 2

    def columns(self, name: str, values: Any) -> Float64[np.ndarray, "n m"]:
        array = np.atleast_1d(as_numbers(name, values))
        if array.size != len(array):
            raise ValueError(f"{name}: expected one number a row on a circle, got shape {array.shape}")
        angle = 2 * np.pi * array.reshape(-1) / self.period
        if np.isinf(angle).any():
            raise ValueError(f"{name}: expected finite numbers, or NaN where one is missing, got infinity")
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def values(self, columns: Float[np.ndarray, "n m"]) -> np.ndarray:
        angle = np.arctan2(columns[:, 1], columns[:, 0])
        return (angle / (2 * np.pi) % 1) * self.period

    def config(self) -> dict[str, Any]:
        return {"kind": "circular", "period": self.period}


def kind_of(name: str, values: Any, *, categorical: bool = False, period: float | int | None = None) -> Kind:
    """The kind of ``(n, ...)`` values: on a circle where there is a period, categories where they are text or
    truth values or where it is said, else numbers."""
    if period is not None:
        return Cycle(float(period))
    array = as_objects(name, values)
    if not categorical and not _is_category(array) and array.dtype.kind != "b":
        return Numbers(as_numbers(name, array).shape[1:])
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one category a row, got shape {array.shape}")
    present = array[~np.asarray(pd.isna(array), dtype=bool)]
    try:
        found = sorted(set(present.tolist()))
    except TypeError:
        found = sorted(set(present.tolist()), key=str)
    if len(found) < 2:
        raise ValueError(
            f"{name}: expected two or more categories, got {found}: quantity {name!r} is constant"
        )
    return Categories(tuple(found))


def rebuilt(config: Mapping[str, Any]) -> Kind:
    """The kind that ``config`` described."""
    kind = config.get("kind")
    if kind == "number":
        return Numbers(tuple(int(size) for size in config["shape"]))
    if kind == "categorical":
        return Categories(tuple(config["names"]))
    if kind == "circular":
        return Cycle(float(config["period"]))
    raise FormatError(
        f"partition: unknown kind of quantity {kind!r}; the file may come from a newer pullback"
    )


def as_objects(name: str, values: Any) -> np.ndarray:
    """Values as an array of whatever they are."""
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    array = np.asarray(values)
    if array.dtype.kind in "mMcV":
        raise TypeError(f"{name}: expected numbers or categories, got {array.dtype}")
    return array


def as_numbers(name: str, values: Any) -> np.ndarray:
    """Values as float64; None is missing."""
    array = as_objects(name, values)
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected numbers, got {array.dtype}; {error}") from error


def _is_category(array: np.ndarray) -> bool:
    if array.dtype.kind in "US":
        return True
    if array.dtype.kind != "O":
        return False
    present = [value for value in array.flat if not _missing(value)]
    if present and all(isinstance(value, bool | np.bool_) for value in present):
        return True
    return any(not isinstance(value, int | float | np.number) for value in present)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)
