"""Which pairs of samples a report joins by geodesics, and how these compare with straight lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from pullback.geometry import Geodesic, curve_length, geodesic
from pullback.plots.field import latent_tensor
from pullback.plots.labels import Labels

STATIONS = 11


@dataclass(frozen=True)
class Pair:
    """Two rows to join."""

    start: int
    end: int
    ends: tuple[str, str]

    @property
    def name(self) -> str:
        """Both ends in words."""
        return " → ".join(self.ends)


@dataclass(frozen=True)
class Paths:
    """Geodesics between pairs of samples beside the straight lines of latent space."""

    pairs: tuple[Pair, ...]
    geodesic: Geodesic
    straight: np.ndarray  # (pairs, nodes, d)
    length: np.ndarray  # (pairs,)
    straight_length: np.ndarray  # (pairs,)
    converged: np.ndarray  # (pairs,) bool
    residual: np.ndarray  # (pairs,)
    gap: np.ndarray  # (pairs,)

    @property
    def points(self) -> np.ndarray:
        """Nodes of the geodesics, ``(pairs, nodes, d)``."""
        return self.geodesic.points.detach().cpu().numpy()

    @property
    def saved(self) -> np.ndarray:
        """Share of the straight line's length that the geodesic saves, ``(pairs,)``."""
        whole = np.where(self.straight_length > 0, self.straight_length, 1.0)
        return np.where(self.straight_length > 0, 1 - self.length / whole, 0.0)


def stations_of(paths: Paths) -> np.ndarray:
    """Numbers of the nodes at which the page decodes the paths."""
    return np.round(np.linspace(0, paths.straight.shape[1] - 1, STATIONS)).astype(int)


def farthest_first(points: Float[np.ndarray, "n d"], count: int) -> np.ndarray:
    """Indices of points chosen one by one, each the farthest from those before, the first from the mean."""
    gaps = np.linalg.norm(points - points.mean(0), axis=1)
    chosen: list[int] = []
    for _ in range(min(count, len(points))):
        best = int(gaps.argmax())
        if chosen and gaps[best] <= 0:
            break
        chosen.append(best)
        step = np.linalg.norm(points - points[best], axis=1)
        gaps = step if len(chosen) == 1 else np.minimum(gaps, step)
    return np.array(chosen, dtype=np.int64)


def match_far_apart(
    points: Float[np.ndarray, "n d"], count: int, most_uses: int = 1
) -> list[tuple[int, int]]:
    """Pairs taken from the farthest down, no point in more than ``most_uses`` of them."""
    first, second = np.triu_indices(len(points), 1)
    order = np.argsort(-np.linalg.norm(points[first] - points[second], axis=1), kind="stable")
    uses = np.zeros(len(points), dtype=int)
    pairs: list[tuple[int, int]] = []
    for k in order:
        i, j = int(first[k]), int(second[k])
        if len(pairs) < count and max(uses[i], uses[j]) < most_uses and (points[i] != points[j]).any():
            pairs.append((i, j))
            uses[[i, j]] += 1
    return pairs


def medoids(points: Float[np.ndarray, "n d"], groups: np.ndarray) -> np.ndarray:
    """For each group, in order, the index of the point nearest to the group's mean."""
    found = []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        found.append(rows[np.linalg.norm(points[rows] - points[rows].mean(0), axis=1).argmin()])
    return np.array(found, dtype=np.int64)


def choose_pairs(
    codes: Float[np.ndarray, "n d"], count: int, labels: Labels | None, names: Sequence[str]
) -> tuple[Pair, ...]:
    """Typical samples of different classes first, then far-apart samples across the whole map."""
    if len(codes) < 2:
        return ()
    pairs: list[Pair] = []
    if labels is not None and not labels.numeric:
        middle = medoids(codes, labels.values)
        for i, j in match_far_apart(codes[middle], count, most_uses=2):
            a, b = int(middle[i]), int(middle[j])
            ends = labels.categories[labels.values[a]], labels.categories[labels.values[b]]
            pairs.append(Pair(a, b, ends))
    if len(pairs) < count:
        # The outermost 5 % by distance from the centre are left out: they are often single outliers.
        radius = np.linalg.norm(codes - np.median(codes, axis=0), axis=1)
        inner = np.flatnonzero(radius <= np.quantile(radius, 0.95))
        spread = inner[farthest_first(codes[inner], 2 * count)]
        for i, j in match_far_apart(codes[spread], count - len(pairs)):
            a, b = int(spread[i]), int(spread[j])
            pairs.append(Pair(a, b, (names[a], names[b])))
    return tuple(pairs)


def compare_paths(metric: Any, codes: Float[np.ndarray, "n d"], pairs: tuple[Pair, ...]) -> Paths:
    """Solve the geodesics of all pairs at once and measure them and the straight lines with one rule."""
    z = latent_tensor(metric, codes)
    start, end = z[[pair.start for pair in pairs]], z[[pair.end for pair in pairs]]
    found = geodesic(metric, start, end, data=z)
    steps = torch.linspace(0, 1, found.points.shape[1], dtype=z.dtype, device=z.device)[:, None]
    straight = start[:, None] * (1 - steps) + end[:, None] * steps
    return Paths(
        pairs,
        found,
        straight.cpu().numpy(),
        _array(found.length),
        _array(curve_length(metric, straight)),
        _array(found.converged),
        _array(found.residual),
        _array(found.gap),
    )


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
