"""The span along which codes and a quantity vary together: what must go for the quantity to go."""

from collections.abc import Mapping
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import leading_singular
from pullback.subspaces.arguments import per_name
from pullback.subspaces.rank import covariance_ranks
from pullback.subspaces.ridge import Criterion
from pullback.subspaces.sources import SINGLE, Data, Source, as_source
from pullback.subspaces.subspace import Span, Subspace, assembled


@overload
def encoding_subspace(
    stats_or_Z: Tensor, Y: Tensor, k: int | None = None, *, criterion: Criterion | None = None
) -> Subspace: ...
@overload
def encoding_subspace(
    stats_or_Z: Data,
    Y: Mapping[str, Tensor] | None = None,
    k: int | Mapping[str, int] | None = None,
    *,
    criterion: Criterion | None = None,
) -> dict[str, Subspace]: ...
def encoding_subspace(
    stats_or_Z: Data,
    Y: Tensor | Mapping[str, Tensor] | None = None,
    k: int | Mapping[str, int] | None = None,
    *,
    criterion: Criterion | None = None,
) -> Subspace | dict[str, Subspace]:
    """The column span of S_zy, by its k leading left singular vectors.

    With k the rank of S_zy, cov((I - WᵀW) z, y) = 0 on the same rows for any codes whatever, so that a
    read-out from what is left fails by construction and says nothing of what a model has learned. Where the
    covariance of the codes is no multiple of the identity this is another subspace than the one that predicts
    y best, which is `readout_subspace`.

    Args:
        stats_or_Z: codes (B, D), `SufficientStatistics`, or a list of them.
        Y: (B, m), or name -> (B, m); None with statistics.
        k: how many directions, for all or by name; None is the rank of S_zy.
        criterion: of the decoder's ridge, "loo" or "gcv"; None is "loo" where rows are given.
    Returns: a `Subspace`, or name -> `Subspace` where several quantities can be given.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; k above the rank; a constant
            quantity.
    Example:
        >>> import torch
        >>> z = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
        >>> found = encoding_subspace(z, z[:, :1] * torch.tensor([1.0, 2.0]))
        >>> found.k, [round(abs(value), 1) for value in found.W[0].tolist()]
        (1, [1.0, 0.0, 0.0])
    """
    source = as_source(stats_or_Z, Y)
    sizes = dict.fromkeys(source.moments) if k is None else per_name("k", k, source.moments)
    found = solve_encodings(source, sizes, source.criterion(criterion))
    return found[SINGLE] if source.single else found


def principal_directions(
    z: Float[Tensor, "b d"], Y: Mapping[str, Tensor]
) -> dict[str, tuple[Float[Tensor, " d"], Float[Tensor, " m"]]]:
    """The leading singular pair (w, v) of S_zy for every quantity, both of unit norm.

    Args:
        z: codes, (B, D).
        Y: name -> (B, ...).
    Returns: name -> w (D,) with its largest entry positive, and v (m,).
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; a constant quantity, or one
            without covariance with the codes.
    Example:
        >>> import torch
        >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> principal_directions(z, {"mass": 3 * z[:, 1]})["mass"]
        (tensor([0., 1.]), tensor([1.]))
    """
    source = as_source(z, Y)
    found = {}
    for group in source.groups(dict.fromkeys(source.moments)):
        left, sizes, right = leading_singular(group.cross, 1)
        ranks = covariance_ranks(sizes, group.moments, group.scale)
        for q, rank, w, v in zip(group.names, ranks, left[..., 0], right[..., 0], strict=True):
            check_rank(None, rank, q, at_most=True)
            sign = torch.where(w[w.abs().argmax()] < 0, -1, 1)
            found[q] = ((sign * w).to(source.dtype), (sign * v).to(source.dtype))
    return {q: found[q] for q in source.moments}


def solve_encodings(
    source: Source, sizes: Mapping[str, int | None], criterion: Criterion, *, at_most: bool = False
) -> dict[str, Subspace]:
    """Encodings of several quantities; ``at_most`` lowers k to the rank."""
    spans: dict[str, Span] = {}
    for group in source.groups(sizes):
        cross = group.cross
        wanted = None if group.k is None else max(1, min(group.k, *cross.shape[-2:]))
        left, values, right = leading_singular(cross, wanted)
        ranks = covariance_ranks(values, group.moments, group.scale)
        explained = (values / torch.linalg.matrix_norm(cross).unsqueeze(-1)).square()
        for i, (q, rank) in enumerate(zip(group.names, ranks, strict=True)):
            k = check_rank(group.k, rank, q, at_most)
            spans[q] = Span(left[i, :, :k].mT, right[i, :, 0], explained[i, :k], group.scale[i])
    return assembled(source, {q: spans[q] for q in sizes}, kind="encoding", criterion=criterion)


def check_rank(k: int | None, rank: int, name: str, at_most: bool) -> int:
    """k, or the rank where k is None or may be lowered; raise where it is too large."""
    if rank == 0:
        raise ValueError(f"Y: quantity {name!r} has no covariance with z")
    if k is None:
        return rank
    if k > rank and not at_most:
        raise ValueError(f"k: k={k} but rank of cov(z, y) is {rank} for quantity {name!r}; lower k")
    return min(k, rank)
