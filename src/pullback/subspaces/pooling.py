"""Fields averaged over a coarser grid."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from pullback.subspaces.arguments import HALF
from pullback.validation import check_choice, check_tensor, check_whole

Mode = Literal["avg", "max"]
MODES = ("avg", "max")
SpatialDims = Literal["auto"] | int
MOST = 3
_POOL = {
    ("avg", 1): functional.adaptive_avg_pool1d,
    ("avg", 2): functional.adaptive_avg_pool2d,
    ("avg", 3): functional.adaptive_avg_pool3d,
    ("max", 1): functional.adaptive_max_pool1d,
    ("max", 2): functional.adaptive_max_pool2d,
    ("max", 3): functional.adaptive_max_pool3d,
}


def pool(
    x: Tensor, n_bins: int | tuple[int, ...], mode: Mode = "avg", *, spatial_dims: SpatialDims = "auto"
) -> Tensor:
    """Mean or maximum of a field over n windows on every spatial axis; window i of H is ⌊iH/n⌋ to ⌈(i+1)H/n⌉.

    Args:
        x: (B,), returned as (B, 1); (B, S), a signal; (B, C, S), (B, C, H, W) or (B, C, D, H, W), each
            channel by itself. Whole numbers and bool become the default floating dtype.
        n_bins: for all axes, or one for each. An axis that is shorter stays as it is.
        mode: "avg" or "max".
        spatial_dims: how many of the last axes are spatial, where that is not as above: 2 reads (B, H, W), 0
            leaves a vector of components alone.
    Returns: the same with shorter spatial axes.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value.
    Example:
        >>> import torch
        >>> pool(torch.tensor([[1.0, 2.0, 3.0, 6.0]]), 2)
        tensor([[1.5000, 4.5000]])
        >>> pool(torch.tensor([1.0, 2.0]), 8)
        tensor([[1.],
                [2.]])
    """
    check_choice("mode", mode, MODES)
    field = as_field(x)
    axes = spatial_axes(field, spatial_dims)
    bins = checked_bins(n_bins, axes)
    if field.ndim == 1:
        return field.unsqueeze(1)
    if axes == 0 or field.numel() == 0:
        return field
    shape = field.shape[field.ndim - axes :]
    target = tuple(min(n, size) for n, size in zip(bins, shape, strict=True))
    if target == tuple(shape):
        return field
    # channels and whatever else stands before the spatial axes are rows of their own
    alone = field.reshape(-1, 1, *shape)
    wide = alone.float() if alone.dtype in HALF and not alone.is_cuda else alone
    pooled = _POOL[mode, axes](wide, target).to(field.dtype)
    return pooled.reshape(*field.shape[: field.ndim - axes], *target)


def as_field(x: object, name: str = "x") -> Tensor:
    """A field (B, ...) in floating point."""
    field = check_tensor(name, x)
    if field.ndim == 0:
        raise ValueError(f"{name}: expected (B, ...), got a scalar")
    if field.is_complex():
        raise TypeError(f"{name}: expected real numbers, got {field.dtype}")
    return field if field.is_floating_point() else field.to(torch.get_default_dtype())


def spatial_axes(x: Tensor, spatial_dims: SpatialDims) -> int:
    """How many of the last axes are spatial."""
    if spatial_dims == "auto":
        if x.ndim > MOST + 2:
            raise ValueError(f"x: expected at most {MOST + 2} axes, got {x.ndim}; give spatial_dims")
        return {1: 0, 2: 1}.get(x.ndim, x.ndim - 2)
    if isinstance(spatial_dims, bool) or not isinstance(spatial_dims, int) or not 0 <= spatial_dims <= MOST:
        raise ValueError(
            f"spatial_dims: expected 'auto' or a whole number from 0 to {MOST}, got {spatial_dims!r}"
        )
    if spatial_dims > x.ndim - 1:
        raise ValueError(
            f"spatial_dims: expected at most {x.ndim - 1} for {tuple(x.shape)}, got {spatial_dims}"
        )
    return spatial_dims


def checked_bins(n_bins: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    """Bins for every spatial axis."""
    if isinstance(n_bins, tuple | list):
        for n in n_bins:
            check_whole("n_bins", n)
        if len(n_bins) != axes:
            raise ValueError(
                f"n_bins: expected {axes} numbers, one for each spatial axis, got {tuple(n_bins)}"
            )
        return tuple(int(n) for n in n_bins)
    check_whole("n_bins", n_bins)
    return (int(n_bins),) * axes
