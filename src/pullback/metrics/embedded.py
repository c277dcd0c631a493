"""What follows from an embedding F with g = (∂F)ᵀ∂F: reductions of its Jacobian, a bounded number of points
at a time, and the derivatives of g."""

import logging
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pullback.graph import transforms_active
from pullback.jets import contract_third, metric_jet
from pullback.jets.jet import derivatives
from pullback.jets.taylor import chunk_rows, layers_of, width_of
from pullback.metrics.chunks import by_chunks
from pullback.metrics.compact import compact
from pullback.metrics.definite import inverse_of_root
from pullback.typing import Map

logger = logging.getLogger(__name__)

Points = Float[Tensor, "n d"]
Factor = Float[Tensor, "n q d"]

# A column of a Jacobian that leaves the span of those before it by less is rounding.
RANK_ROUNDINGS = 8

# From this many points on, reducing the last layers once costs less than carrying their outputs everywhere.
COMPACT_POINTS = 256


def points_at_once(f: Map, z: Points, rows: int) -> int:
    """How many points to take where each needs ``rows`` rows of the outputs of ``f``."""
    return chunk_rows(z, rows, width_of(layers_of(f), z))


def reduce_jacobian(embedding: Map, z: Points, reduction: Callable[[Tensor], Tensor]) -> Tensor:
    """``reduction`` of the Jacobian (n, q, d) of an embedding, which is never formed for all points."""
    embedding = _for_many(embedding, z)
    size = points_at_once(embedding, z, 2 + 2 * z.shape[1])
    return by_chunks(lambda part: reduction(derivatives(embedding, part, 1)[1]), z, size, embedding)


def _for_many(embedding: Map, z: Tensor) -> Map:
    """The embedding, of least width where there are many points."""
    if len(z) < COMPACT_POINTS or not isinstance(embedding, nn.Module):
        return embedding
    return compact(embedding, live=True)


def triangular(M: Factor) -> Float[Tensor, "n d d"]:
    """R of the QR of M; for q < d the missing rows are zero."""
    graph = M.requires_grad or transforms_active(M)
    R = torch.linalg.qr(M, mode="reduced" if graph else "r").R
    return R if R.shape[-2] == R.shape[-1] else nn.functional.pad(R, (0, 0, 0, R.shape[-1] - R.shape[-2]))


def rank_deficient(R: Float[Tensor, "n q d"]) -> Bool[Tensor, " n"]:
    """Whether the rank of M = QR is below d to rounding; not where R is NaN."""
    R = R.detach()
    if R.shape[-2] < R.shape[-1]:
        return torch.ones_like(R[:, 0, 0], dtype=torch.bool)
    least = RANK_ROUNDINGS * torch.finfo(R.dtype).eps * R.norm(dim=-2)
    return (R.diagonal(dim1=-2, dim2=-1).abs() <= least).any(-1)


def log_determinant(M: Factor) -> Float[Tensor, " n"]:
    """log det MᵀM = 2 Σ ln|diag R| (MᵀM would square the condition); -inf where the rank is below d."""
    R = triangular(M)
    deficient = rank_deficient(R)
    if not transforms_active(M) and bool(deficient.any()):
        logger.warning(
            "the decoder's Jacobian has rank below %d at %d points", M.shape[2], int(deficient.sum())
        )
    whole = 2 * torch.log(R.diagonal(dim1=-2, dim2=-1).abs()).sum(-1)
    return torch.where(deficient, -torch.inf, whole)


def inverse_gram(M: Factor) -> Float[Tensor, "n d d"]:
    """(MᵀM)⁻¹ = R⁻¹R⁻ᵀ; NaN where the rank is below d."""
    R = triangular(M)
    return torch.where(rank_deficient(R)[:, None, None], torch.nan, inverse_of_root(R.mT))


def first_derivative(embedding: Map, z: Points) -> Float[Tensor, "n d d d"]:
    """∂_c g_ab = <F_ac, F_b> + <F_a, F_bc> as [n, a, b, c]."""
    if not torch.is_grad_enabled():  # metric_jet bounds its memory itself
        C = metric_jet(embedding, z).christoffel_first
        return C + C.transpose(1, 2)
    embedding = _for_many(embedding, z)
    size = points_at_once(embedding, z, 2 + 2 * z.shape[1])
    C = by_chunks(lambda part: metric_jet(embedding, part).christoffel_first, z, size, embedding)
    return C + C.transpose(1, 2)


def second_derivative(embedding: Map, z: Points) -> Float[Tensor, "n d d d d"]:
    """∂_c∂_e g_ab = <F_ace, F_b> + <F_ac, F_be> + <F_ae, F_bc> + <F_a, F_bce> as [n, a, b, c, e]."""
    d = z.shape[1]
    size = points_at_once(embedding, z, 1 + d + d * d)
    return by_chunks(lambda part: _second_derivative(embedding, part), z, size, embedding)


def _second_derivative(embedding: Map, z: Tensor) -> Tensor:
    _, J, H = derivatives(embedding, z, 2)
    third = contract_third(embedding, z, J.mT).permute(0, 2, 1, 3, 4)
    flat = H.flatten(2)
    pairs = (flat.mT @ flat).unflatten(1, H.shape[2:]).unflatten(3, H.shape[2:])
    mixed = pairs.permute(0, 1, 3, 2, 4)
    return third + third.transpose(1, 2) + mixed + mixed.transpose(3, 4)
