"""Rows as they probably are, where each was measured by a factor of its own: some numbers badly, some not.

z ~ N(m, Σ) and U_iᵀ z_i seen with noise N(0, s² I): m the mean of what was seen, Σ and s² by expectation
maximisation, rows by their posterior mean (Rubin and Thayer 1982, for factors that differ from row to row).
What starts look for, which rows are close, is lost under the noise of the worst numbers otherwise.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.models.dictionary.gram import whitened
from pullback.models.dictionary.row_metrics import RowMetrics

ROUNDS = 30
AT_REST = 1e-3
ENTRIES = 2**22
FLOOR = 1e-12
"""s², in units of the rows, below which they are seen without noise."""


def filled(
    Z: Float[Tensor, "n p"],
    metrics: RowMetrics,
    weights: Float[Tensor, " n"] | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> Float[Tensor, "n p"]:
    """Posterior means of rows.

    Args:
        Z: rows, (n, p); what their factors do not see of them does not matter.
        metrics: of the rows.
        weights: w, (n,); None for 1.
        enough: whether time is up, asked after every round.
    """
    factors = metrics.factors
    n, p, r = factors.shape
    w = Z.new_ones(n) if weights is None else weights.to(Z)
    many, total = w @ metrics.numbers, w.sum()
    centre = metrics.mean(Z, w)
    Y = whitened(Z - centre, factors)
    size = max(1, ENTRIES // (p * max(p, r)))
    parts = [slice(begin, begin + size) for begin in range(0, n, size)]
    # as if what was seen were all there is
    covariance = torch.eye(p, dtype=Y.dtype, device=Y.device) * (
        (w @ Y.square().sum(1)) / (w @ factors.square().sum((1, 2)))
    )
    energy = w @ Y.square().sum(1) / many
    if not energy > 0:
        return centre.expand_as(Z)
    s2 = 0.1 * energy
    means = torch.empty(n, p, dtype=Y.dtype, device=Y.device)
    for _ in range(ROUNDS):
        spread, left = torch.zeros_like(covariance), Y.new_zeros(())
        for at in parts:
            U, v, seen = factors[at], w[at], covariance @ factors[at]
            inside = U.mT @ seen
            noise = s2 * torch.eye(r, dtype=Y.dtype, device=Y.device)
            gain = torch.linalg.solve(inside + noise, seen.mT).mT
            means[at] = (gain @ Y[at].unsqueeze(2)).squeeze(2)
            known = torch.einsum("n,npr,nqr->pq", v, gain, seen)
            spread += (v * means[at].mT) @ means[at] + v.sum() * covariance - known
            missed = Y[at] - whitened(means[at], U)
            unsure = (inside - U.mT @ gain @ inside).diagonal(dim1=1, dim2=2).sum(1)
            left += v @ (missed.square().sum(1) + unsure)
        before, s2 = s2, torch.maximum(left / many, FLOOR * energy)
        covariance = (spread + spread.mT) / (2 * total)
        if abs(before - s2) <= AT_REST * s2 or enough():
            break
    return centre + means
