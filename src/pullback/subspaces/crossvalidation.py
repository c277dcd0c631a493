"""Errors of reduced-rank ridge regression on folds of moments, and the rank that they support."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import gram_spectrum
from pullback.subspaces.moments import Moments, merged
from pullback.subspaces.ridge import Ridge, fit_ridge

MIN_GAIN = 0.01


def rank_errors(folds: Sequence[Moments], scale: Float[Tensor, " m"], kmax: int) -> Float[Tensor, "folds k"]:
    """1 - R² on each fold of regressions of rank 0 to kmax that were fitted on the others.

    With train means, C_k = B R_k R_kᵀ the ridge regression B cut to its k leading fitted directions and
    dz, dy the fold's means less those of the others,

        err_k = tr(S_yy - 2 C_kᵀ S_zy + C_kᵀ S_zz C_k) + n ‖dy - C_kᵀ dz‖²

    on the fold, over err_0. The terms of R add up one by one, so that all ranks cost as much as the largest.
    """
    errors = []
    for index, fold in enumerate(folds):
        train = merged([part for other, part in enumerate(folds) if other != index])
        ridge = fit_ridge(train, scale, "gcv")
        R = gram_spectrum(weighted_loadings(ridge).mT, kmax)[1]
        T = ridge.coefficients @ R
        dz, dy = fold.z_mean - train.z_mean, (fold.y_mean - train.y_mean) * scale
        fitted, away = T.mT @ dz, R.mT @ dy
        gains = 2 * ((fold.zy * scale @ R) * T).sum(0) - (T * (fold.zz @ T)).sum(0)
        gains = gains + fold.n * (2 * away * fitted - fitted.square())
        total = (fold.yy * scale.square()).sum() + fold.n * dy.square().sum()
        left = total - torch.cat([gains.new_zeros(1), gains.cumsum(0)])
        errors.append(torch.where(total > 0, left / torch.where(total > 0, total, 1), 1.0))
    return torch.stack(errors)


def weighted_loadings(ridge: Ridge) -> Float[Tensor, "*q r m"]:
    """K = (e + λ)^-1/2 P: KᵀK is the Gram matrix of the values that the ridge regression fits."""
    return ridge.loadings / ridge.damped.sqrt().unsqueeze(-1)


def supported_rank(errors: Float[Tensor, "folds k"], min_gain: float = MIN_GAIN) -> int:
    """The smallest rank within one standard error of the best; 0 if it gains less than ``min_gain``."""
    mean = errors.mean(0)
    best = int(mean.argmin())
    allowed = mean[best] + errors[:, best].std(correction=1) / len(errors) ** 0.5
    k = int((mean <= allowed).nonzero()[0])
    return k if float(mean[0] - mean[k]) >= min_gain else 0
