"""How much the coordinates of different subspaces vary together."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import widened
from pullback.subspaces.arguments import check_enough_rows
from pullback.subspaces.leaks import conditional_leak
from pullback.subspaces.projection import Projection, project
from pullback.subspaces.statistics import SufficientStatistics

RIDGE = 1e-12
"""Relative to the mean variance of a block: small enough for coordinates a million times apart in scale."""


def disentanglement_loss(
    Z: Float[Tensor, "b d"],
    W: Mapping[str, Tensor],
    *,
    Y: Mapping[str, Tensor] | None = None,
    statistics: SufficientStatistics | None = None,
) -> Float[Tensor, ""]:
    """Mean squared canonical correlation of every two subspaces, corrected for chance, mean over pairs.

    With Q_i an orthonormal basis of the centred coordinates of subspace i,

        x = ‖Q_iᵀ Q_j‖²/min(k_i, k_j),   c = max(k_i, k_j)/(B - 1),   (x - c)/(1 - c)

    is 0 on average for independent coordinates and 1 where one subspace contains the other. It does not
    change with rotations or scales of the coordinates. Quantities that are correlated themselves cannot reach
    0: give Y, and the loss is `conditional_leak`, which asks only for what the other quantity does not imply.

    Args:
        Z: codes, (B, D), B - 1 > max k.
        W: name -> orthonormal rows (k, D).
        Y: name -> (B, ...), for the conditional leak.
        statistics: of all data, for the conditional leak; None estimates them from the rows given, which for
            a small batch is too optimistic.
    Returns: a scalar in the dtype of Z (float32 for half precision), 0 for a single subspace.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; a batch too small.
    Example:
        >>> import torch
        >>> z = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
        >>> apart = {"a": torch.eye(4)[:2], "b": torch.eye(4)[2:]}
        >>> bool(disentanglement_loss(z, apart).abs() < 0.01)
        True
        >>> bool(disentanglement_loss(z, {"a": torch.eye(4)[:2], "b": torch.eye(4)[:3]}) > 0.999)
        True
    """
    if Y is not None:
        if statistics is None:
            statistics = SufficientStatistics.from_tensors(Z.detach(), Y)
        return conditional_leak(Z, W, Y, statistics=statistics)
    if statistics is not None:
        raise ValueError("statistics: expected None without Y, got statistics")
    return disentanglement(project(Z, W))


def disentanglement(projection: Projection) -> Tensor:
    """`disentanglement_loss` of checked arguments.

    All pairs come from one Gram matrix K x K in float64: with L_i L_iᵀ = S_iᵀS_i + 1e-12 t I the rows of
    L_i⁻¹ S_iᵀ are those of the Q factor of [S_i; √(1e-12 t) I], without a decomposition of B rows.
    """
    sizes = projection.sizes
    check_enough_rows(projection.rows, max(sizes), "disentanglement")
    if len(sizes) < 2:
        return (projection.coordinates[:1] * 0).sum()
    S = widened(projection.coordinates)
    correlations = _whitened(S.mT @ S, sizes).square()
    k = correlations.new_tensor(sizes)
    if len(set(sizes)) == 1:
        Q, size = len(sizes), sizes[0]
        shared = correlations.view(Q, size, Q, size).sum((1, 3))
    else:
        shared = torch.stack([rows.sum(0) for rows in correlations.split(sizes)])
        shared = torch.stack([columns.sum(1) for columns in shared.split(sizes, dim=1)], dim=1)
    chance = torch.maximum(k, k.unsqueeze(1)) / (projection.rows - 1)
    found = (shared / torch.minimum(k, k.unsqueeze(1)) - chance) / (1 - chance)
    first, second = torch.triu_indices(len(sizes), len(sizes), 1, device=found.device)
    return found[first, second].mean().to(projection.codes.dtype)


def _whitened(gram: Float[Tensor, "k k"], sizes: tuple[int, ...]) -> Float[Tensor, "k k"]:
    """T G Tᵀ with T block diagonal of L_i⁻¹: cross-correlations of whitened blocks."""
    if len(set(sizes)) == 1:
        Q, size = len(sizes), sizes[0]
        whole = gram.view(Q, size, Q, size)
        own = whole.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        L = _factor(own)
        half = torch.linalg.solve_triangular(L, gram.view(Q, size, Q * size), upper=False)
        turned = half.reshape(Q * size, Q, size).permute(1, 2, 0)
        return torch.linalg.solve_triangular(L, turned, upper=False).reshape(Q * size, Q * size)
    rows, factors = [], []
    start = 0
    for size in sizes:
        end = start + size
        L = _factor(gram[start:end, start:end])
        factors.append(L)
        rows.append(torch.linalg.solve_triangular(L, gram[start:end], upper=False))
        start = end
    half = torch.cat(rows).mT.split(sizes)
    return torch.cat(
        [torch.linalg.solve_triangular(L, part, upper=False) for L, part in zip(factors, half, strict=True)]
    )


def _factor(own: Float[Tensor, "*q k k"]) -> Float[Tensor, "*q k k"]:
    """Cholesky factor of a Gram matrix with its ridge; a dead block gets the identity."""
    t = own.diagonal(dim1=-2, dim2=-1).mean(-1)
    ridge = torch.where(t > 0, RIDGE * t, 1.0)
    eye = torch.eye(own.shape[-1], dtype=own.dtype, device=own.device)
    return torch.linalg.cholesky(own + ridge[..., None, None] * eye)
