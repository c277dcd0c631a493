"""Affine maps of the codes that leave nothing of a quantity to a linear reader."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import leading_singular
from pullback.subspaces.arguments import check_codes, check_size
from pullback.subspaces.moments import Moments
from pullback.subspaces.ridge import Spectrum
from pullback.subspaces.sources import SINGLE, Data, check_statistics
from pullback.subspaces.statistics import CODES, SufficientStatistics
from pullback.validation import check_positive

DEAD = 1e-10
"""Relative variance below which a direction of the codes has no data."""


@dataclass(frozen=True, eq=False)
class Eraser:
    """z' = mean + P (z - mean), which has no covariance with the quantities.

    Attributes:
        P: oblique projector, P P = P and P S_zy = 0, (D, D).
        mean: of the codes, (D,).
        rank: how many directions are gone.
        distortion: mean of ‖z' - z‖² over the variance of z.
        variance_kept: variance of z' over that of z; an oblique projector may keep what it also moves, so
            that the two need not add up to 1.
    """

    P: Float[Tensor, "d d"]
    mean: Float[Tensor, " d"]
    rank: int
    distortion: float
    variance_kept: float

    def __call__(self, Z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """The codes without the quantities, (B, D)."""
        codes = check_codes(Z)
        if codes.shape[1] != len(self.mean):
            raise ValueError(f"Z: expected (B, {len(self.mean)}), got {tuple(codes.shape)}")
        return self.mean + (codes - self.mean) @ self.P.mT


def erase(
    stats_or_Z: Data,
    Y: Tensor | Mapping[str, Tensor] | None = None,
    *,
    target_rank: int | None = None,
    rtol: float | int = 1e-6,
) -> Eraser:
    """The map that removes all linear information of quantities from codes and moves them least.

    With Σ the covariance of z, C its covariance with the standardised columns of y and U the left singular
    vectors of Σ^-1/2 C,

        P = I - Σ^1/2 U Uᵀ Σ^-1/2

    Belrose, Schneider-Joseph, Ravfogel, Cotterell, Raff, Biderman 2023, "LEACE: Perfect linear concept
    erasure in closed form".

    Args:
        stats_or_Z: codes (B, D), `SufficientStatistics`, or a list of them.
        Y: (B, m), or name -> (B, m), all erased together; None with statistics.
        target_rank: puts the leading principal components of each quantity in its place first, which leaves
            noise in its columns alone and moves the codes less.
        rtol: singular values below this part of the largest count as zero; relative, so that units do not
            matter.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; a constant quantity.
    Example:
        >>> import torch
        >>> z = torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> y = z[:, :1] + z[:, 1:2]
        >>> eraser = erase(z, y)
        >>> left = eraser(z) - z.mean(0)
        >>> eraser.rank, bool((left.mT @ (y - y.mean())).abs().max() < 1e-10)
        (1, True)
    """
    check_positive("rtol", rtol)
    if target_rank is not None:
        check_size("target_rank", target_rank)
    statistics = _statistics(stats_or_Z, Y)
    sigma = statistics.block(CODES, CODES) / statistics.n
    spectrum = Spectrum.of(sigma)
    e, V = spectrum.values, spectrum.vectors
    alive = e > DEAD * e[-1]
    root = (V * torch.where(alive, e, 0).sqrt()) @ V.mT
    inverse = (V * torch.where(alive, torch.where(alive, e, 1).rsqrt(), 0)) @ V.mT
    C = torch.cat([_columns(statistics, q, target_rank) for q in statistics.names], dim=1)
    left, sizes, _ = leading_singular(inverse @ C)
    U = left[:, sizes > rtol * sizes[0]] if bool(sizes[0] > 0) else left[:, :0]
    gone = (root @ U) @ (U.mT @ inverse)
    P = torch.eye(len(e), dtype=e.dtype, device=e.device) - gone
    total = sigma.diagonal().sum()
    kept = float(((P @ sigma) * P).sum() / total)
    moved = float(((gone @ sigma) * gone).sum() / total)
    mean = statistics.mean_of(CODES)
    return Eraser(P.to(statistics.dtype), mean.to(statistics.dtype), U.shape[1], moved, kept)


def _statistics(data: Data, Y: Tensor | Mapping[str, Tensor] | None) -> SufficientStatistics:
    if isinstance(data, Tensor):
        if Y is None:
            raise ValueError("Y: expected quantities where codes are given, got None")
        return SufficientStatistics.from_tensors(data, {SINGLE: Y} if isinstance(Y, Tensor) else Y)
    check_statistics(data, Y, least=1)
    whole = data if isinstance(data, SufficientStatistics) else SufficientStatistics.merge_all(data)
    whole.check_rows()
    return whole


def _columns(statistics: SufficientStatistics, name: str, target_rank: int | None) -> Tensor:
    """Covariance of the codes with unit-variance columns, or principal components, of one quantity."""
    moments: Moments = statistics.moments(name)
    moments.check_seen(name)
    varies = ~moments.constant
    if not bool(varies.any()):
        raise ValueError(f"Y: expected quantities that vary, but quantity {name!r} is constant: k = 0")
    cross, variance = moments.zy[:, varies], moments.yy[varies]
    if target_rank is not None and target_rank < cross.shape[1]:
        spectrum = Spectrum.of(statistics.block(name, name)[varies][:, varies])
        top = spectrum.vectors[:, -target_rank:]
        cross, variance = cross @ top, spectrum.values[-target_rank:]
        # components without variance say nothing
        cross, variance = cross[:, variance > 1e-12 * variance[-1]], variance[variance > 1e-12 * variance[-1]]
    return cross / (variance * moments.n).sqrt()
