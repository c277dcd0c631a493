"""The span that predicts a quantity: the one to read it from."""

from collections.abc import Mapping
from typing import Literal, overload

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import gram_spectrum, leading_singular
from pullback.subspaces.arguments import per_name
from pullback.subspaces.crossvalidation import weighted_loadings
from pullback.subspaces.encoding import check_rank
from pullback.subspaces.moments import Moments
from pullback.subspaces.rank import covariance_rank, cross_validated
from pullback.subspaces.ridge import Criterion, fit_ridge
from pullback.subspaces.sources import SINGLE, Data, Source, as_source
from pullback.subspaces.subspace import Subspace, assembled
from pullback.validation import check_choice

Standardize = Literal["quantity", "column"]
STANDARDIZE = ("quantity", "column")


@overload
def readout_subspace(
    stats_or_Z: Tensor,
    Y: Tensor,
    k: int | None = None,
    *,
    criterion: Criterion | None = None,
    standardize: Standardize = "quantity",
    folds: int = 5,
    generator: torch.Generator | None = None,
) -> Subspace: ...
@overload
def readout_subspace(
    stats_or_Z: Data,
    Y: Mapping[str, Tensor] | None = None,
    k: int | Mapping[str, int] | None = None,
    *,
    criterion: Criterion | None = None,
    standardize: Standardize = "quantity",
    folds: int = 5,
    generator: torch.Generator | None = None,
) -> dict[str, Subspace]: ...
def readout_subspace(
    stats_or_Z: Data,
    Y: Tensor | Mapping[str, Tensor] | None = None,
    k: int | Mapping[str, int] | None = None,
    *,
    criterion: Criterion | None = None,
    standardize: Standardize = "quantity",
    folds: int = 5,
    generator: torch.Generator | None = None,
) -> Subspace | dict[str, Subspace]:
    """The k directions of the codes from which a quantity is predicted best, by reduced-rank ridge
    regression.

        B = (S_zz + λ I)⁻¹ S_zy,   R = leading eigenvectors of S_yz B,   span = columns of B R

    λ is the strength on a grid from 1e-8 to 10 times the largest eigenvalue of S_zz with the least error.

    Izenman 1975, "Reduced-rank regression for the multivariate linear model"; Mukherjee, Zhu 2011,
    "Reduced rank ridge regression and its kernel extensions".

    Args:
        stats_or_Z: codes (B, D), `SufficientStatistics`, or a list of them, one a fold.
        Y: (B, m), or name -> (B, m); None with statistics.
        k: how many directions, for all or by name; None takes the rank that cross-validation supports, and
            needs rows or a list of statistics.
        criterion: "loo", the exact error of leaving each row out, needs rows; "gcv" does with moments. None
            is "loo" where rows are given.
        standardize: "quantity" keeps the ratios of columns, as for one field; "column" gives all columns unit
            variance, for mixed units.
        folds: of the rows, where k is None.
        generator: of the folds; None draws the same ones every time.
    Returns: a `Subspace`, or name -> `Subspace` where several quantities can be given.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; k above the rank of cov(z, y); a
            constant quantity.
    Example:
        >>> import torch
        >>> z = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> z = z * torch.tensor([9.0, 1.0, 1.0])
        >>> y = z @ torch.tensor([[1.0], [1.0], [0.0]])
        >>> found = readout_subspace(z, y, 1)
        >>> [round(abs(value), 3) for value in found.W[0].tolist()]
        [0.707, 0.707, 0.0]
    """
    check_choice("standardize", standardize, STANDARDIZE)
    parts = folds if k is None else None
    source = as_source(stats_or_Z, Y, folds=parts, generator=generator)
    sizes = dict.fromkeys(source.moments) if k is None else per_name("k", k, source.moments)
    how = source.criterion(criterion)
    found = {q: solve_readout(source, q, sizes[q], how, standardize) for q in source.moments}
    return found[SINGLE] if source.single else found


def solve_readout(
    source: Source,
    name: str,
    k: int | None,
    criterion: Criterion,
    standardize: Standardize = "quantity",
    *,
    at_most: bool = False,
) -> Subspace:
    """One quantity's read-out; ``at_most`` lowers k to the rank."""
    moments, scale = source.moments[name], source.scale(name, standardize)
    wanted, cv_error = k, None
    if wanted is None:
        k, cv_error = cross_validated(source, name, None, standardize=standardize)
    rows = None if source.rows is None else source.rows[name]
    ridge = fit_ridge(moments, scale, criterion, rows=rows, spectrum=source.spectrum(name))
    K = weighted_loadings(ridge)
    values, left = gram_spectrum(K, k or 1)
    e, V = ridge.spectrum.values, ridge.spectrum.vectors
    # B R = V (e + λ)^-1/2 times the left singular vectors of K and their sizes, which do not turn the span;
    # multiplied as rows, since V is stored by columns
    span = ((left[:, :k].mT / (e + ridge.strength).sqrt()) @ V.mT).mT
    if wanted is not None:
        k = _within_rank(wanted, span, moments, scale, name, at_most)
        span = span[:, :k]
    target = K.mT @ left[:, 0]
    total = (moments.yy * scale.square()).sum()
    return assembled(
        source,
        name,
        span,
        target / target.norm(),
        values[:k] / total,
        kind="readout",
        criterion=criterion,
        scale=scale,
        ridge=ridge.strength,
        cv_error=cv_error,
    )


def _within_rank(
    k: int,
    span: Float[Tensor, "d r"],
    moments: Moments,
    scale: Float[Tensor, " m"],
    name: str,
    at_most: bool,
) -> int:
    """k, where the rank of S_zy allows it, see `check_rank`.

    Singular values of Q'S_zy are at most those of S_zy, and the first of these at most its norm: where k of
    them stand out beside the norm, S_zy need not be decomposed.
    """
    cross = moments.zy * scale
    sizes = torch.linalg.svdvals(torch.linalg.qr(span).Q.mT @ cross)
    beside = torch.cat([cross.norm().unsqueeze(0), sizes])
    if len(sizes) < k or covariance_rank(beside, moments, scale) <= k:
        sizes = leading_singular(cross, min(k, *cross.shape))[1]
    return check_rank(k, covariance_rank(sizes, moments, scale), name, at_most)
