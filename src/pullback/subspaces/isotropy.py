"""Whether the free dimensions are all used alike."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import widened
from pullback.subspaces.bases import complement
from pullback.subspaces.projection import Projection, project

FEWEST_ROWS = 3
NULL = 1e-12
"""Squared relative singular value below which it carries no gradient."""


def isotropy_loss(
    Z: Float[Tensor, "b d"],
    W: Mapping[str, Tensor],
    *,
    n_dir: int | None = None,
    unbiased: bool = True,
) -> Float[Tensor, ""]:
    """How far the covariance of the free dimensions is from a multiple of the identity.

    With N an orthonormal basis of what is orthogonal to all subspaces and C = Nᵀ cov(Z) N, (f, f),

        f ‖C‖²/(tr C)² - 1,

    f over the participation ratio less 1: 0 for white codes, 1 where half of the dimensions are dead, f - 1
    where all but one are. No spectrum is computed.

    Args:
        Z: codes, (B, D), B >= 3.
        W: name -> orthonormal rows (k, D); rows that several share count once.
        n_dir: the mean of (s_i/mean s - 1)² over so many of the largest singular values of the free codes
            instead, 1 <= n_dir <= min(f, B - 1).
        unbiased: puts unbiased estimates of ‖C‖² and (tr C)² for Gaussian codes in their places; the plain
            form is about f/(B - 1) too large. Its value can be slightly negative.
    Returns: a scalar in the dtype of Z (float32 for half precision).
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; no free dimensions, or free ones
            in which no code varies.
    Example:
        >>> import torch
        >>> z = torch.randn(4000, 5, generator=torch.Generator().manual_seed(0))
        >>> W = {"a": torch.eye(5)[:1]}
        >>> bool(isotropy_loss(z, W).abs() < 0.01)
        True
        >>> dead = z * torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])
        >>> round(isotropy_loss(dead, W).item(), 1)
        1.0
    """
    return isotropy(project(Z, W), n_dir=n_dir, unbiased=unbiased)


def isotropy(
    projection: Projection,
    *,
    n_dir: int | None = None,
    unbiased: bool = True,
    basis: Float[Tensor, "d f"] | None = None,
) -> Tensor:
    """`isotropy_loss` of checked arguments; ``basis`` is N where it is known."""
    B = projection.rows
    if B < FEWEST_ROWS:
        raise ValueError(f"Z: isotropy needs at least {FEWEST_ROWS} rows, got {B}")
    N = complement(projection.stack) if basis is None else basis
    f = N.shape[1]
    if f == 0:
        raise ValueError("W: expected free dimensions for isotropy, got no free dimensions")
    free = projection.codes @ N
    if n_dir is not None:
        return _spectral(free, n_dir)
    if f == 1:
        return (free[:1] * 0).sum()
    _check_varies(free.square().sum())
    return participation(free, unbiased=unbiased)


def participation(free: Float[Tensor, "b f"], *, unbiased: bool = True) -> Float[Tensor, ""]:
    """f ‖C‖²/(tr C)² - 1 of centred codes, or its unbiased form; NaN where none varies."""
    B, f = free.shape
    gram = free.mT @ free if f <= B else free @ free.mT
    # scalars alone are widened: b - a²/ν cancels
    trace = widened(gram.diagonal()).sum()
    nu = B - 1
    # relative to the trace, so that no scale of the codes overflows
    ratio = widened(gram / trace.to(gram)).square().sum()
    if not unbiased:
        return (f * ratio - 1).to(free.dtype)
    above = f * nu * (ratio - 1 / nu)
    below = (nu + 1) - 2 * ratio
    return (above / below - 1).to(free.dtype)


def _spectral(free: Tensor, n_dir: int) -> Tensor:
    B, f = free.shape
    most = min(f, B - 1)
    if isinstance(n_dir, bool) or not isinstance(n_dir, int) or not 1 <= n_dir <= most:
        raise ValueError(f"n_dir: expected a whole number from 1 to min(f, B - 1) = {most}, got {n_dir!r}")
    wide = widened(free)
    gram = wide.mT @ wide if f <= B else wide @ wide.mT
    values = torch.linalg.eigvalsh(gram).flip(0)[:n_dir]
    _check_varies(values[0])
    alive = values > NULL * values[0]
    sizes = torch.where(alive, torch.where(alive, values, 1.0).sqrt(), 0.0)
    return (sizes / sizes.mean() - 1).square().mean().to(free.dtype)


def _check_varies(size: Tensor) -> None:
    if not bool(size.detach() > 0):
        raise ValueError(
            "Z: expected codes that vary in the free dimensions, got a single value in all of them"
        )
