"""Putting data into units that a network trains well in, and back.

A scaling is two vectors, so that it is stored as tensors and its volume change enters a log-density exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, clone
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from torch import Tensor

from pullback.inputs import Table
from pullback.validation import check_choice

SCALES = ("global", "standard", "minmax", "maxabs", "center", "none")
CHUNK_VALUES = 2**22
"""Numbers that are made dense at once: 32 MiB in float64."""


@dataclass(frozen=True)
class Scaling:
    """An affine change of units, feature by feature: ``(x - offset) / scale``."""

    offset: Float[Tensor, " p"]
    scale: Float[Tensor, " p"]

    @property
    def dtype(self) -> torch.dtype:
        """Precision."""
        return self.offset.dtype

    def apply(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        """Data units to the units of the network."""
        return (x - self.offset) / self.scale

    def undo(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        """Units of the network to data units."""
        return x * self.scale + self.offset

    def log_volume(self) -> float:
        """Σ log scale: what a log-density in the network's units loses when it is stated in data units."""
        return float(self.scale.double().log().sum())

    def to(self, dtype: torch.dtype) -> "Scaling":
        return Scaling(self.offset.to(dtype), self.scale.to(dtype))


def chunk_slices(n: int, width: int, *, most: int | None = None) -> Iterator[slice]:
    """Slices that cover ``n`` rows of ``width`` numbers, each of bounded size and of ``most`` rows."""
    size = max(1, CHUNK_VALUES // max(width, 1))
    size = size if most is None else min(size, most)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def fit_scaling(scale: object, table: Table, index: np.ndarray) -> Scaling:
    """The scaling of some rows of a table (the training rows).

    Args:
        scale: "global" centres each feature and divides all by one number, the root mean square of what is
            left, so that distances keep their proportions; "standard" gives each feature mean 0 and
            variance 1, "minmax" the range [0, 1], "maxabs" the largest absolute value 1; "center" subtracts
            the mean; "none" leaves all as it is. Or an unfitted StandardScaler, MinMaxScaler, MaxAbsScaler
            or RobustScaler of scikit-learn. A constant feature is not divided.
        table: the data.
        index: ``(m,)`` rows to use.

    Returns:
        The scaling, in the table's precision.

    Raises:
        ValueError: an unknown name.
        TypeError: an object of another kind.

    Example:
        >>> from pullback.inputs import read_input
        >>> scaling = fit_scaling("minmax", read_input([[1.0, 5.0], [3.0, 5.0]]), np.arange(2))
        >>> scaling.apply(torch.tensor([[2.0, 6.0]], dtype=torch.float64)).tolist()
        [[0.5, 1.0]]
    """
    if not isinstance(scale, str):
        return _from_transformer(scale, table, index)
    check_choice("scale", scale, SCALES)
    zeros, ones = torch.zeros(table.n_features, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    if scale == "none":
        offset, width = zeros, ones
    elif scale in ("minmax", "maxabs"):
        low, high = _extremes(table, index)
        offset, width = (low, high - low) if scale == "minmax" else (zeros, torch.maximum(-low, high))
    else:
        offset, variance = _moments(table, index)
        # Rounding gives a constant feature a spread of this order; divided by it, nothing becomes noise.
        floor = torch.finfo(torch.float64).eps * len(index) * offset.abs()
        spread = torch.where(variance.sqrt() > floor, variance.sqrt(), 0.0)
        width = {"standard": spread, "global": spread.square().mean().sqrt(), "center": ones}[scale]
    if not (bool(torch.isfinite(width).all()) and bool(torch.isfinite(offset).all())):
        raise ValueError(f"X: expected numbers whose squares are finite for scale={scale!r}, got larger ones")
    width = torch.where(width > 0, width, 1.0).expand(table.n_features).clone()
    return Scaling(offset, width).to(table.dtype)


def feature_mean(table: Table, index: np.ndarray) -> Float[np.ndarray, " p"]:
    """Mean of each feature over some rows, in the table's precision."""
    total = sum((rows.sum(dim=0) for rows in _chunks(table, index)), torch.zeros(()))
    return (total / len(index)).to(table.dtype).numpy()


def _chunks(table: Table, index: np.ndarray) -> Iterator[Tensor]:
    return (table.rows(index[part]).double() for part in chunk_slices(len(index), table.n_features))


def _extremes(table: Table, index: np.ndarray) -> tuple[Tensor, Tensor]:
    pairs = [torch.stack(torch.aminmax(rows, dim=0)) for rows in _chunks(table, index)]
    whole = torch.stack(pairs)
    return whole[:, 0].amin(dim=0), whole[:, 1].amax(dim=0)


def _moments(table: Table, index: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and variance in two passes: a difference of large moments would lose the small one."""
    mean = sum((rows.sum(dim=0) for rows in _chunks(table, index)), torch.zeros(())) / len(index)
    squares = sum(((rows - mean).square().sum(dim=0) for rows in _chunks(table, index)), torch.zeros(()))
    return mean, squares / len(index)


def _from_transformer(transformer: Any, table: Table, index: np.ndarray) -> Scaling:
    if not isinstance(transformer, StandardScaler | MinMaxScaler | MaxAbsScaler | RobustScaler):
        raise TypeError(
            f"scale: expected one of {', '.join(map(repr, SCALES))} or one of scikit-learn's "
            f"{', '.join(_TRANSFORMERS)}, got {transformer!r}; other transformers go before it in a Pipeline"
        )
    if getattr(transformer, "clip", False):
        raise ValueError("scale: expected a scaler that can be undone, got clip=True; use clip=False")
    own: Any = clone(cast(BaseEstimator, transformer))
    fitted: Any = own.fit(table.values[index])
    if isinstance(fitted, MinMaxScaler):
        offset, width = -fitted.min_ / fitted.scale_, 1 / fitted.scale_
    else:
        name, centred = _CENTRES.get(type(fitted).__name__, ("", ""))
        offset = getattr(fitted, name) if name and getattr(fitted, centred) else 0.0
        width = 1.0 if fitted.scale_ is None else fitted.scale_
    whole = [np.broadcast_to(part, table.n_features).astype(np.float64) for part in (offset, width)]
    return Scaling(*map(torch.from_numpy, whole)).to(table.dtype)


def describe_transformer(scale: Any) -> dict[str, Any] | None:
    """A scikit-learn scaler as plain settings, or None if ``scale`` is not one."""
    for name, kind in _TRANSFORMERS.items():
        if type(scale) is kind:
            return {"scaler": name, "options": scale.get_params()}
    return None


def build_transformer(name: str, options: dict[str, Any]) -> BaseEstimator:
    """The scikit-learn scaler of stored settings; JSON has turned its tuples into lists."""
    check_choice("scaler", name, _TRANSFORMERS)
    return _TRANSFORMERS[name](**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})


_CENTRES = {"StandardScaler": ("mean_", "with_mean"), "RobustScaler": ("center_", "with_centering")}
_TRANSFORMERS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler)
}
