"""Linear decoders from the coordinates of a subspace to its quantity."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import widened
from pullback.subspaces.arguments import check_bases, check_names
from pullback.subspaces.moments import Moments, Rows
from pullback.subspaces.ridge import Criterion, fit_ridge
from pullback.subspaces.sources import Data, as_source
from pullback.validation import check_choice, check_positive

NULL = 1e-12
"""Relative eigenvalue below which a direction of a least-squares problem has no data."""


def fit_decoders(
    W: Mapping[str, Tensor],
    Z: Data,
    pooled: Mapping[str, Tensor] | None = None,
    *,
    ridge: Literal["loo", "gcv"] | float | int = "loo",
) -> dict[str, Tensor]:
    """Decoders A of known subspaces: the prediction is (z - z̄) Wᵀ A + ȳ.

        A = (W S_zz Wᵀ + μ I)⁻¹ W S_zy

    Args:
        W: name -> orthonormal rows (k, D).
        Z: codes (B, D), `SufficientStatistics`, or a list of them.
        pooled: name -> (B, m) quantities; None with statistics.
        ridge: "loo" chooses μ by leaving each row out, "gcv" from moments alone (statistics always take it);
            a number is μ relative to the mean variance of the coordinates, and 0 is least squares of least
            norm.
    Returns: name -> (k, m).
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; names that differ.
    Example:
        >>> import torch
        >>> z = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> fit_decoders({"mass": torch.eye(3).double()[:1]}, z, {"mass": 2 * z[:, 0]}, ridge=0.0)["mass"]
        tensor([[2.]], dtype=torch.float64)
    """
    if isinstance(ridge, str):
        check_choice("ridge", ridge, ("loo", "gcv"))
    else:
        check_positive("ridge", ridge, zero=True)
    source = as_source(Z, pooled)
    if source.rows is None and ridge == "loo":
        ridge = "gcv"
    first = next(iter(source.moments.values()))
    bases = check_bases(W, len(first.z_mean))
    check_names("W", bases, source.moments, "the quantities")
    found = {}
    for q, basis in bases.items():
        rows = None if source.rows is None else source.rows[q]
        one = torch.ones_like(source.moments[q].yy)
        A, _ = fit_decoder(widened(basis), source.moments[q], one, ridge, rows)
        found[q] = A.to(source.dtype)
    return found


def fit_decoder(
    W: Float[Tensor, "*q k d"],
    moments: Moments,
    scale: Float[Tensor, "*q m"],
    ridge: Criterion | float | int,
    rows: Rows | None,
) -> tuple[Float[Tensor, "*q k m"], Float[Tensor, "*q"]]:
    """The decoder of a subspace, in the quantity's units, and its μ; or of several side by side."""
    *batch, k, _ = W.shape
    if k == 0:
        return W.new_zeros(*batch, 0, scale.shape[-1]), W.new_zeros(batch)
    inside = moments.projected(W)
    if ridge == 0:
        return _least_norm(inside), W.new_zeros(batch)
    found = fit_ridge(inside, scale, ridge, rows=None if rows is None else rows.projected(W))
    return found.coefficients / torch.where(scale > 0, scale, 1).unsqueeze(-2), found.strength


def _least_norm(moments: Moments) -> Tensor:
    """Least squares of least norm from moments."""
    values, vectors = torch.linalg.eigh(moments.zz)
    seen = values > NULL * values[..., -1:]
    inverse = torch.where(seen, 1 / torch.where(seen, values, 1), 0)
    return (vectors * inverse.unsqueeze(-2)) @ (vectors.mT @ moments.zy)
