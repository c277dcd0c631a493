"""Linear decoders from the coordinates of a subspace to its quantity."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import widened
from pullback.subspaces.arguments import check_bases, check_names
from pullback.subspaces.moments import Moments, stacked
from pullback.subspaces.ridge import Criterion, fit_ridge
from pullback.subspaces.sources import Data, Source, as_source
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
    scales = {q: torch.ones_like(source.moments[q].yy) for q in bases}
    found = solve_decoders(source, {q: widened(basis) for q, basis in bases.items()}, scales, ridge)
    return {q: A.to(source.dtype) for q, (A, _) in found.items()}


def solve_decoders(
    source: Source,
    bases: Mapping[str, Tensor],
    scales: Mapping[str, Tensor],
    ridge: Criterion | float | int,
) -> dict[str, tuple[Float[Tensor, "k m"], float]]:
    """Decoders of subspaces, in the units of the quantities, each with its μ; those alike in one batch."""
    alike: dict[tuple, list[str]] = {}
    for q, W in bases.items():
        known = source.moments[q]
        alike.setdefault((*W.shape, len(known.yy), id(known.codes)), []).append(q)
    found: dict[str, tuple[Tensor, float]] = {}
    for (k, *_), names in alike.items():
        if k == 0:
            found |= {q: (bases[q].new_zeros(0, len(scales[q])), 0.0) for q in names}
            continue
        W, scale = (torch.stack([of[q] for q in names]) for of in (bases, scales))
        if ridge == 0:
            A = _least_norm(_inside(source, names, W))
            found |= {q: (a, 0.0) for q, a in zip(names, A, strict=True)}
            continue
        if ridge == "loo":
            A, strengths = _by_rows(source, names, W, scale)
        else:
            fitted = fit_ridge(_inside(source, names, W), scale, ridge)
            A, strengths = fitted.coefficients, fitted.strength
        A = A / torch.where(scale > 0, scale, 1).unsqueeze(-2)
        found |= {q: (a, mu) for q, a, mu in zip(names, A, strengths.tolist(), strict=True)}
    return {q: found[q] for q in bases}


def _inside(source: Source, names: list[str], W: Float[Tensor, "q k d"]) -> Moments:
    """Moments of the coordinates of each subspace, side by side; S_zy is large and not stacked itself."""
    known = [source.moments[q] for q in names]
    short = [replace(own, zy=basis @ own.zy) for own, basis in zip(known, W, strict=True)]
    return replace(stacked(short), codes=known[0].codes.projected(W))


def _by_rows(
    source: Source, names: list[str], W: Float[Tensor, "q k d"], scale: Float[Tensor, "q m"]
) -> tuple[Float[Tensor, "q k m"], Float[Tensor, "q"]]:
    """Coefficients and strengths where each row is left out, for which the rows are read again."""
    assert source.rows is not None
    each = [
        fit_ridge(source.moments[q].projected(w), s, "loo", rows=source.rows[q].projected(w))
        for q, w, s in zip(names, W, scale, strict=True)
    ]
    return torch.stack([one.coefficients for one in each]), torch.stack([one.strength for one in each])


def _least_norm(moments: Moments) -> Float[Tensor, "q k m"]:
    """Least squares of least norm from moments."""
    values, vectors = torch.linalg.eigh(moments.zz)
    seen = values > NULL * values[..., -1:]
    inverse = torch.where(seen, 1 / torch.where(seen, values, 1), 0)
    return (vectors * inverse.unsqueeze(-2)) @ (vectors.mT @ moments.zy)
