"""Checks of what the plotting functions are given."""

import operator
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
