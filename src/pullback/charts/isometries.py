"""Isometries of a chart: what is left free when two sets of coordinates describe the same manifold."""

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr
from torch import Tensor

TURN = 2 * math.pi


@dataclass(frozen=True, eq=False)
class ChartIsometry:
    """t -> Q t + shift, modulo 2π where the chart is periodic.

    Attributes:
        linear: Q, orthogonal, (c, c).
        shift: (c,).
        periodic: whether coordinates are angles.
        score: how well it maps one set of coordinates to the other; 1 is perfect.
    """

    linear: Float[Tensor, "c c"]
    shift: Float[Tensor, " c"]
    periodic: bool
    score: float

    def __call__(self, t: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Coordinates of the first kind as coordinates of the second."""
        moved = t @ self.linear.to(t).mT + self.shift.to(t)
        return moved.remainder(TURN) if self.periodic else moved


@dataclass(frozen=True, eq=False)
class Relabelling:
    """Labels of one kind as labels of another.

    Attributes:
        labels: the label that each label becomes, (n_labels,).
        score: the share of rows on which both then agree.
    """

    labels: Int[Tensor, " k"]
    score: float

    def __call__(self, t: Float[Tensor, "n 1"]) -> Float[Tensor, "n 1"]:
        """Labels of the first kind as labels of the second."""
        return self.labels.to(t.device)[t.long()].to(t)


def identity(t: Float[Tensor, "n c"], score: float = 1.0) -> ChartIsometry:
    """The map that changes nothing."""
    c = t.shape[1]
    eye = torch.eye(c, dtype=t.dtype, device=t.device)
    return ChartIsometry(eye, eye.new_zeros(c), False, score)


def align_angles(a: Float[Tensor, "n c"], b: Float[Tensor, "n c"]) -> ChartIsometry:
    """Best shift and reflection of every angle, and pairing of several: |mean exp i(b ∓ a)|, averaged."""
    c = a.shape[1]
    resultants = {
        (i, j, sign): torch.polar(torch.ones_like(a[:, j]), b[:, i] - sign * a[:, j]).mean()
        for i in range(c)
        for j in range(c)
        for sign in (1, -1)
    }
    best: ChartIsometry | None = None
    for pairing in permutations(range(c)):
        linear, shift, score = a.new_zeros(c, c), a.new_zeros(c), 0.0
        for i, j in enumerate(pairing):
            sign = max((1, -1), key=lambda s: float(resultants[i, j, s].abs()))
            linear[i, j], shift[i] = sign, resultants[i, j, sign].angle()
            score += float(resultants[i, j, sign].abs()) / c
        if best is None or score > best.score:
            best = ChartIsometry(linear, shift, True, score)
    assert best is not None
    return best


def align_ends(a: Float[Tensor, "n 1"], b: Float[Tensor, "n 1"]) -> ChartIsometry:
    """The sign of an interval; the score is |Spearman's correlation|, 0 where a coordinate is constant."""
    first, second = (x.detach().cpu().numpy().ravel() for x in (a, b))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return identity(a, 0.0)
    correlation = float(np.asarray(spearmanr(first, second))[0])
    same = identity(a, abs(correlation))
    return same if correlation >= 0 else ChartIsometry(-same.linear, same.shift, False, same.score)


def align_directions(a: Float[Tensor, "n c"], b: Float[Tensor, "n c"]) -> ChartIsometry:
    """Orthogonal Procrustes of unit vectors; the score is the mean cosine (Schönemann 1966)."""
    left, sizes, right = torch.linalg.svd(b.mT @ a)
    return ChartIsometry(left @ right, a.new_zeros(a.shape[1]), False, float(sizes.sum() / len(a)))


def align_points(a: Float[Tensor, "n c"], b: Float[Tensor, "n c"]) -> ChartIsometry:
    """Orthogonal Procrustes with a translation; the score is R²."""
    left, _, right = torch.linalg.svd((b - b.mean(0)).mT @ (a - a.mean(0)))
    Q = left @ right
    shift = b.mean(0) - Q @ a.mean(0)
    missed, spread = (b - a @ Q.mT - shift).square().sum(), (b - b.mean(0)).square().sum()
    return ChartIsometry(Q, shift, False, float(1 - missed / spread) if spread > 0 else 0.0)


def align_labels(a: Float[Tensor, "n 1"], b: Float[Tensor, "n 1"], n: int) -> Relabelling:
    """The assignment of labels on which most rows agree."""
    pairs = a.flatten().long() * n + b.flatten().long()
    table = torch.bincount(pairs, minlength=n * n).reshape(n, n)
    _, columns = linear_sum_assignment(table.cpu().numpy(), maximize=True)
    labels = torch.as_tensor(columns, device=a.device)
    agreed = table[torch.arange(n, device=a.device), labels].sum()
    return Relabelling(labels, float(agreed / max(1, len(a))))
