"""How fine a grid, how many directions and how many latent dimensions quantities need."""

import logging
from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import widened
from pullback.subspaces.arguments import check_mapping, check_rows_finite, check_size
from pullback.subspaces.pooling import Mode, SpatialDims, as_field, pool, spatial_axes
from pullback.subspaces.rank import Method, k_per_q, shares_by_name
from pullback.validation import check_whole

logger = logging.getLogger(__name__)
BIN_THRESHOLD = 0.95


def minimal_latent_dim(
    k: int | Mapping[str, int],
    *,
    Q: int | None = None,
    free_frac: float | int = 0.30,
    num_heads: int | None = None,
) -> int:
    """The smallest D of which a share is left free beside all subspaces: ⌈Σ k/(1 - free_frac)⌉, in whole
    numbers.

    Args:
        k: directions by name, or for each of Q quantities.
        Q: how many quantities, where k is one number.
        free_frac: in [0, 1), read as the decimal fraction that it prints as.
        num_heads: D becomes the next multiple of it.
    Raises:
        TypeError, ValueError: an argument of the wrong kind or value.
    Example:
        >>> minimal_latent_dim({"mass": 1, "centre": 2, "gradient": 11})
        20
        >>> minimal_latent_dim(18, Q=2, free_frac=0.55)
        80
    """
    if isinstance(k, Mapping):
        total = sum(check_size(f"k[{q!r}]", size) for q, size in check_mapping("k", k, of="numbers").items())
    else:
        if Q is None:
            raise ValueError(f"Q: expected the number of quantities where k is one number, k={k!r}, got None")
        total = check_size("k", k) * check_size("Q", Q)
    if isinstance(free_frac, bool) or not isinstance(free_frac, float | int) or not 0 <= free_frac < 1:
        raise ValueError(f"free_frac: expected a number in [0, 1), got {free_frac!r}")
    used = 1 - Fraction(str(free_frac))
    dim = -(-total * used.denominator // used.numerator)
    if num_heads is not None:
        heads = check_size("num_heads", num_heads)
        dim = -(-dim // heads) * heads
    return dim


def optimal_bins(
    targets: Mapping[str, Tensor],
    max_bins: int = 16,
    variance_threshold: float | int | Mapping[str, float | int] = BIN_THRESHOLD,
    *,
    default_threshold: float | int | None = None,
    per_quantity: bool = False,
    spatial_dims: SpatialDims = "auto",
    strict: bool = False,
) -> dict[str, int] | int:
    """The coarsest grid, the same on every spatial axis, whose averages keep a share of a field's variance.

        captured(n) = ‖P⁺ P Y_c‖²/‖Y_c‖²

    with P averaging over n windows on every axis and P⁺ its pseudo-inverse. It need not grow with n, so that
    every n is tried: a checkerboard of 16 cells a side keeps nothing below n = 16.

    Args:
        targets: name -> field, see `pool`.
        max_bins: finest grid.
        variance_threshold: share in (0, 1], one for all or name -> share.
        default_threshold: for names that a dict leaves out; None is .95.
        per_quantity: True returns name -> n, False the largest.
        spatial_dims: see `pool`.
        strict: whether a share that no grid reaches is an error; otherwise it takes max_bins and logs a
            warning.
    Returns: n, or name -> n; 1 for numbers, vectors of components and constants.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; unknown names.
    Example:
        >>> import torch
        >>> height = torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
        >>> optimal_bins({"wave": height * torch.linspace(0, 6.28, 32).sin()}, 16, 0.8)
        5
    """
    check_whole("max_bins", max_bins)
    names = list(check_mapping("targets", targets))
    shares = shares_by_name("variance_threshold", variance_threshold, default_threshold, names, BIN_THRESHOLD)
    found = {q: _bins(q, targets[q], max_bins, shares[q], spatial_dims, strict) for q in names}
    return found if per_quantity else max(found.values())


def solve_dims(
    Y: Mapping[str, Tensor],
    max_bins: int = 16,
    bin_thresholds: float | int | Mapping[str, float | int] = BIN_THRESHOLD,
    k_thresholds: float | int | Mapping[str, float | int] | None = 0.90,
    *,
    bin_default_threshold: float | int | None = None,
    k_default_threshold: float | int | None = None,
    pooling_mode: Mode = "avg",
    pool_per_quantity: bool = False,
    k_per_quantity: bool = False,
    spatial_dims: SpatialDims = "auto",
    method: Method | None = None,
) -> dict[str, tuple[int, int]]:
    """`optimal_bins`, then `pool`, then `k_per_q`: grid and number of directions for every quantity.

    Args:
        Y: name -> field, see `pool`.
        max_bins, bin_thresholds, bin_default_threshold: see `optimal_bins`.
        k_thresholds, k_default_threshold, method: see `k_per_q`; a method other than "variance" takes None.
        pooling_mode: "avg" or "max".
        pool_per_quantity, k_per_quantity: False gives all quantities the largest of their numbers, k at most
            the columns that a quantity has.
        spatial_dims: see `pool`.
    Returns: name -> (n, k).
    Example:
        >>> import torch
        >>> field = torch.randn(60, 1, 1, generator=torch.Generator().manual_seed(0)) * torch.ones(8, 8)
        >>> solve_dims({"flat": field.unsqueeze(1)}, 8, 0.95, 0.9)
        {'flat': (1, 1)}
    """
    bins = optimal_bins(
        Y,
        max_bins,
        bin_thresholds,
        default_threshold=bin_default_threshold,
        per_quantity=True,
        spatial_dims=spatial_dims,
    )
    assert isinstance(bins, dict)
    if not pool_per_quantity:
        bins = dict.fromkeys(bins, max(bins.values()))
    pooled = {q: pool(y, bins[q], pooling_mode, spatial_dims=spatial_dims).flatten(1) for q, y in Y.items()}
    sizes = k_per_q(pooled, k_thresholds, method=method, default_threshold=k_default_threshold)
    assert isinstance(sizes, dict)
    if not k_per_quantity:
        sizes = dict.fromkeys(sizes, max(sizes.values()))
    return {q: (bins[q], min(sizes[q], pooled[q].shape[1])) for q in Y}


def captured(field: Float[Tensor, "..."], n: int, axes: int) -> float:
    """Share of the variance of centred fields that averages over n windows on each of the last axes keep."""
    kept = field
    for axis in range(field.ndim - axes, field.ndim):
        size = field.shape[axis]
        if n < size:
            kept = (kept.movedim(axis, -1) @ _kept_by_windows(size, n, field)).movedim(-1, axis)
    return float(kept.square().sum() / field.square().sum())


def _kept_by_windows(size: int, n: int, like: Tensor) -> Float[Tensor, "h h"]:
    """P⁺ P, the projector on what windows see."""
    starts = torch.arange(n) * size // n
    ends = -(-(torch.arange(n) + 1) * size // n)
    cells = torch.arange(size)
    P = ((cells >= starts.unsqueeze(1)) & (cells < ends.unsqueeze(1))).to(torch.float64)
    P = P / P.sum(1, keepdim=True)
    return (torch.linalg.pinv(P) @ P).to(like)


def _bins(
    name: str, target: Tensor, max_bins: int, share: float | int, spatial_dims: SpatialDims, strict: bool
) -> int:
    field = as_field(target, f"targets[{name!r}]")
    if field.numel() == 0:
        raise ValueError(f"targets[{name!r}]: expected values, got shape {tuple(field.shape)}")
    check_rows_finite(f"targets[{name!r}]", field)
    axes = spatial_axes(field, spatial_dims)
    wide = widened(field)
    centred = wide - wide.mean(0)
    rounding = 8 * torch.finfo(field.dtype).eps * float(wide.abs().max())
    longest = max(field.shape[field.ndim - axes :], default=1)
    if axes == 0 or longest == 1 or float(centred.square().mean()) <= rounding**2:
        return 1
    curve = []
    for n in range(1, max_bins + 1):
        # a grid as fine as the field keeps all of it
        curve.append(captured(centred, n, axes) if n < longest else 1.0)
        if curve[-1] >= share:
            return n
    _not_reached(name, share, curve, strict)
    return max_bins


def _not_reached(name: str, share: float | int, curve: Sequence[float], strict: bool) -> None:
    best = max(curve)
    if strict:
        shown = ", ".join(f"{n}: {value:.3f}" for n, value in enumerate(curve, 1))
        raise ValueError(
            f"max_bins: no grid up to {len(curve)} keeps {share:g} of the variance of {name!r}; "
            f"kept by n: {shown}"
        )
    logger.warning(
        "%r keeps %.3f of its variance at most up to n = %d, less than %g", name, best, len(curve), share
    )
