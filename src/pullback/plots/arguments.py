"""Checks of what the plotting functions are given."""

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def check_array(name: str, value: Any, ndim: int, shape: str) -> np.ndarray:
    """Return ``value`` as a floating-point array with ``ndim`` axes and no NaN, or raise ``ValueError``."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.ndim != ndim or array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected numbers of shape {shape}, got shape {array.shape} {array.dtype}")
    if 0 in array.shape:
        raise ValueError(f"{name}: expected at least one number, got shape {array.shape}")
    array = array if array.dtype.kind == "f" else array.astype(np.float64)
    finite = np.isfinite(array)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(f"{name}: expected finite numbers, got {array[first]} at row {first[0]}")
    return array


def check_labels(labels: Any, n: int, name: str = "labels") -> np.ndarray:
    """Return the labels as an array ``(n,)``, or raise ``ValueError`` naming both lengths."""
    array = np.asarray(labels)
    if array.ndim != 1 or len(array) != n:
        raise ValueError(f"{name}: expected one label for each of the {n} rows, got shape {array.shape}")
    return array


def check_dims(dims: Any, d: int, *, name: str = "codes", argument: str = "dims") -> tuple[int, int] | None:
    """Return two different coordinates of d, or None, or raise ``ValueError``."""
    if d < 2:
        raise ValueError(
            f"{name}: expected at least 2 latent dimensions, got {d}; magnification_map shows a metric of one"
        )
    if dims is None:
        return None
    chosen = [operator.index(i) for i in dims]
    if len(chosen) != 2 or chosen[0] == chosen[1] or not all(0 <= i < d for i in chosen):
        raise ValueError(f"{argument}: expected two different numbers from 0 to {d - 1}, got {tuple(chosen)}")
    return chosen[0], chosen[1]


def check_image_shape(image_shape: Any, p: int) -> tuple[int, int, int]:
    """Return ``(channels, height, width)`` if its product is ``p``; ``(height, width)`` means one channel."""
    shape = tuple(int(side) for side in image_shape)
    shape = (1, *shape) if len(shape) == 2 else shape
    if len(shape) != 3 or int(np.prod(shape)) != p:
        raise ValueError(
            f"image_shape: expected (channels, height, width) with product {p}, got {tuple(image_shape)}"
        )
    return shape[0], shape[1], shape[2]


def check_table(name: str, values: Any, shape: tuple[int, int]) -> np.ndarray:
    """Return numbers of a shape, NaN among them or not, or raise ``ValueError``."""
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if array.shape != shape or array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected numbers {shape}, got {array.shape} {array.dtype}")
    return array


def check_columns(hover_data: Any, n: int) -> dict[str, np.ndarray]:
    """Return columns ``(n,)`` by name; none for None."""
    if hover_data is None:
        return {}
    if not (isinstance(hover_data, Mapping) or hasattr(hover_data, "columns")):
        raise TypeError(f"hover_data: expected a DataFrame or a mapping, got {type(hover_data).__name__}")
    names = list(hover_data)  # of a DataFrame, too, the names of its columns
    columns = {str(name): np.asarray(hover_data[name]) for name in names}
    for name, column in columns.items():
        if column.shape != (n,):
            raise ValueError(f"hover_data: expected columns of {n} rows, got {column.shape} for {name!r}")
    return columns


def check_pictures(images: Any, n: int) -> np.ndarray:
    """Return pictures as 8-bit ``(n, h, w, 3)``; the largest of other numbers is black."""
    array = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images)
    if array.ndim not in (3, 4) or len(array) != n or array.shape[3:] not in ((), (1,), (3,)):
        raise ValueError(f"hover_images: expected ({n}, h, w) or ({n}, h, w, 3), got {array.shape}")
    if array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        array = np.round(255 * (1 - (array - low) / max(high - low, 1e-12))).astype(np.uint8)
    array = array[..., None] if array.ndim == 3 else array
    return np.broadcast_to(array, (*array.shape[:3], 3)) if array.shape[3] == 1 else array
