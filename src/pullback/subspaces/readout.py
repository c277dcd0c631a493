"""The span that predicts a quantity: the one to read it from."""

from collections.abc import Mapping
from typing import get_args, overload

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import gram_spectrum, leading_singular
from pullback.subspaces.arguments import per_name
from pullback.subspaces.crossvalidation import weighted_loadings
from pullback.subspaces.encoding import check_rank
from pullback.subspaces.rank import covariance_ranks, cross_validated
from pullback.subspaces.ridge import Criterion, Ridge, fit_ridge
from pullback.subspaces.sources import SINGLE, Data, Group, Source, Standardize, as_source
from pullback.subspaces.subspace import Span, Subspace, assembled
from pullback.validation import check_choice

STANDARDIZE = get_args(Standardize)


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
    found = solve_readouts(source, sizes, source.criterion(criterion), standardize)
    return found[SINGLE] if source.single else found


def solve_readouts(
    source: Source,
    sizes: Mapping[str, int | None],
    criterion: Criterion,
    standardize: Standardize = "quantity",
    *,
    at_most: bool = False,
) -> dict[str, Subspace]:
    """Read-outs of several quantities; ``at_most`` lowers k to the rank."""
    errors: dict[str, Tensor | None] = dict.fromkeys(sizes)
    known = dict(sizes)
    for q, k in sizes.items():
        if k is None:
            known[q], errors[q] = cross_validated(source, q, None, standardize=standardize)
    spans: dict[str, Span] = {}
    for group in source.groups(known, standardize):
        ridge = _ridge(source, group, criterion)
        values, basis, target = _leading(group, ridge)
        chosen = [group.k] * len(group.names)
        if None not in sizes.values():
            chosen = _within_ranks(group, basis, at_most)
        strengths = ridge.strength.tolist()
        for i, (q, k) in enumerate(zip(group.names, chosen, strict=True)):
            W, share = basis[i, :, :k].mT, values[i, :k]
            spans[q] = Span(W, target[i], share, group.scale[i], strengths[i], errors[q])
    return assembled(source, {q: spans[q] for q in sizes}, kind="readout", criterion=criterion)


def _leading(
    group: Group, ridge: Ridge
) -> tuple[Float[Tensor, "q k"], Float[Tensor, "q d k"], Float[Tensor, "q m"]]:
    """Shares of the variance that is fitted, directions of the codes as columns, and one of the quantity."""
    assert group.k is not None
    K = weighted_loadings(ridge)
    values, left = gram_spectrum(K, group.k or 1)
    # B R = V (e + λ)^-1/2 times the left singular vectors of K and their sizes, which do not turn the span;
    # multiplied as rows, since V is stored by columns
    rows = (left[..., : group.k].mT / ridge.damped.sqrt().unsqueeze(-2)) @ ridge.spectrum.vectors.mT
    target = (K.mT @ left[..., :1]).squeeze(-1)
    total = (group.moments.yy * group.scale.square()).sum(-1, keepdim=True)
    return (
        values[..., : group.k] / total,
        torch.linalg.qr(rows.mT).Q,
        target / target.norm(dim=-1, keepdim=True),
    )


def _ridge(source: Source, group: Group, criterion: Criterion) -> Ridge:
    """Regressions of a group, which share the codes; by themselves where rows are read again."""
    spectrum = source.spectrum(group.names[0])
    if criterion == "gcv":
        return fit_ridge(group.moments, group.scale, criterion, spectrum=spectrum)
    assert source.rows is not None
    each = [
        fit_ridge(source.moments[q], scale, criterion, rows=source.rows[q], spectrum=spectrum)
        for q, scale in zip(group.names, group.scale, strict=True)
    ]
    strength, loadings = (
        torch.stack([getattr(one, name) for one in each]) for name in ("strength", "loadings")
    )
    return Ridge(strength, spectrum, loadings)


def _within_ranks(group: Group, basis: Float[Tensor, "q d k"], at_most: bool) -> list[int]:
    """k of each quantity, where the rank of S_zy allows it, see `check_rank`.

    Singular values of Q'S_zy are at most those of S_zy, and the first of these at most its norm: where k of
    them stand out beside the norm, S_zy need not be decomposed.
    """
    assert group.k is not None
    cross = group.cross
    sizes = torch.linalg.svdvals(basis.mT @ cross)
    beside = torch.cat([torch.linalg.matrix_norm(cross).unsqueeze(-1), sizes], dim=-1)
    ranks = covariance_ranks(beside, group.moments, group.scale)
    if sizes.shape[-1] < group.k or min(ranks) <= group.k:
        exact = leading_singular(cross, min(group.k, *cross.shape[-2:]))[1]
        ranks = covariance_ranks(exact, group.moments, group.scale)
    return [check_rank(group.k, rank, q, at_most) for q, rank in zip(group.names, ranks, strict=True)]
