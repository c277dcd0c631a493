"""The span along which codes and a quantity vary together: what must go for the quantity to go."""

from collections.abc import Mapping
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import leading_singular
from pullback.subspaces.arguments import per_name
from pullback.subspaces.rank import covariance_rank
from pullback.subspaces.ridge import Criterion
from pullback.subspaces.sources import SINGLE, Data, Source, as_source
from pullback.subspaces.subspace import Subspace, assembled


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
    how = source.criterion(criterion)
    found = {q: solve_encoding(source, q, sizes[q], how) for q in source.moments}
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
    for q, moments in source.moments.items():
        scale = source.scale(q, "quantity")
        w, sizes, v = leading_singular(moments.zy * scale, 1)
        check_rank(None, covariance_rank(sizes, moments, scale), q, at_most=True)
        sign = torch.where(w[w.abs().argmax()] < 0, -1, 1)
        found[q] = ((sign * w[:, 0]).to(source.dtype), (sign * v[:, 0]).to(source.dtype))
    return found


def solve_encoding(
    source: Source, name: str, k: int | None, criterion: Criterion, *, at_most: bool = False
) -> Subspace:
    """One quantity's encoding; ``at_most`` lowers k to the rank."""
    moments, scale = source.moments[name], source.scale(name, "quantity")
    cross = moments.zy * scale
    wanted = None if k is None else min(k, *cross.shape)
    left, sizes, right = leading_singular(cross, wanted)
    rank = covariance_rank(sizes, moments, scale)
    chosen = check_rank(k, rank, name, at_most)
    explained = sizes[:chosen].square() / cross.square().sum()
    return assembled(
        source,
        name,
        left[:, :chosen],
        right[:, 0],
        explained,
        kind="encoding",
        criterion=criterion,
        scale=scale,
    )


def check_rank(k: int | None, rank: int, name: str, at_most: bool) -> int:
    """k, or the rank where k is None or may be lowered; raise where it is too large."""
    if rank == 0:
        raise ValueError(f"Y: quantity {name!r} has no covariance with z")
    if k is None:
        return rank
    if k > rank and not at_most:
        raise ValueError(f"k: k={k} but rank of cov(z, y) is {rank} for quantity {name!r}; lower k")
    return min(k, rank)
