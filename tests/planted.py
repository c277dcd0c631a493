"""Rows that are sums of points on known manifolds, with the truth they were drawn from."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pullback.models.dictionary.iterate import Alternated
from pullback.models.dictionary.scores import DictionaryScores, score_dictionary

SIX = ("circle", "circle", "circle", "interval", "interval", "sphere")
FRAME = 6
Mixing = Literal["single", "additive", "simplex"]


@dataclass(frozen=True)
class Planted:
    """Rows Z = Σ_k A_k g_k(t_k) + noise.

    Attributes:
        Z, clean: with and without noise, (n, p).
        A: amplitudes, (n, K).
        t: coordinates of every row on each manifold, active or not, K of (n, c).
        parts: A_k g_k(t_k), K of (n, p).
        kinds: of the manifolds.
        frames: their directions, (K, 6, p).
    """

    Z: Tensor
    clean: Tensor
    A: Tensor
    t: tuple[Tensor, ...]
    parts: tuple[Tensor, ...]
    kinds: tuple[str, ...]
    frames: Tensor


def planted(
    n: int,
    mixing: Mixing = "single",
    *,
    kinds: Sequence[str] = SIX,
    p: int = 64,
    sigma: float = 0.05,
    centre: float = 0.5,
    seed: int = 0,
    frames: Tensor | None = None,
) -> Planted:
    """Float64 rows; ``frames`` of another draw gives new rows on the same manifolds."""
    g = torch.Generator().manual_seed(seed)
    square = torch.randn(len(kinds), p, FRAME, generator=g, dtype=torch.float64)
    axes = torch.linalg.qr(square).Q.mT if frames is None else frames
    t = tuple(drawn_coordinates(kind, n, g) for kind in kinds)
    A = drawn_amplitudes(n, len(kinds), mixing, g)
    parts = tuple(
        A[:, k, None] * (point_on(kind, t[k], axes[k]) + centre * axes[k, 5]) for k, kind in enumerate(kinds)
    )
    clean = torch.stack(parts).sum(0)
    Z = clean + sigma * torch.randn(n, p, generator=g, dtype=torch.float64)
    return Planted(Z, clean, A, t, parts, tuple(kinds), axes)


def drawn_coordinates(kind: str, n: int, g: torch.Generator) -> Tensor:
    if kind == "sphere":
        u = torch.randn(n, 3, generator=g, dtype=torch.float64)
        return u / u.norm(dim=1, keepdim=True)
    u = torch.rand(n, 1 if kind in ("circle", "interval") else 2, generator=g, dtype=torch.float64)
    if kind == "circle":
        angle = 2 * math.pi * u
        return (angle + 0.6 * angle.sin()) % (2 * math.pi)
    return 2 * math.pi * u if kind == "torus" else 2 * u - 1


def point_on(kind: str, t: Tensor, frame: Tensor) -> Tensor:
    """The manifold without its centre, (n, p)."""
    first, last = t[:, :1], t[:, -1:]
    if kind == "circle":
        local = torch.cat([t.cos(), t.sin(), 0.35 * (2 * t).cos(), 0.35 * (2 * t).sin()], 1)
    elif kind == "interval":
        local = torch.cat([(1.75 * t).cos(), (1.75 * t).sin()], 1)
    elif kind == "sphere":
        local = t
    elif kind == "torus":
        local = 0.75 * torch.cat([first.cos(), first.sin(), last.cos(), last.sin()], 1)
    else:
        local = torch.cat([t, 0.4 * first * last], 1)
    return local @ frame[: local.shape[1]]


def drawn_amplitudes(n: int, K: int, mixing: Mixing, g: torch.Generator) -> Tensor:
    active = 1 + torch.randint(1 if mixing == "single" else min(3, K), (n, 1), generator=g)
    place = torch.rand(n, K, generator=g).argsort(1).argsort(1)
    A = (place < active).double()
    if mixing == "single":
        return A
    A = A * (0.4 + 0.6 * torch.rand(n, K, generator=g, dtype=torch.float64))
    return A / 0.7 if mixing == "additive" else A / A.sum(1, keepdim=True)


class Golden:
    """The recorded draws in golden/manifold_dictionary.npz, as float64."""

    def __init__(self) -> None:
        path = Path(__file__).parent / "golden" / "manifold_dictionary.npz"
        self.arrays = np.load(path, allow_pickle=False)

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key]).double()

    def coordinates(self, name: str) -> tuple[Tensor, ...]:
        return tuple(self[f"{name}_t{k}"] for k in range(len(SIX)))

    def kinds(self, name: str) -> tuple[str, ...]:
        return tuple(str(kind) for kind in self.arrays[f"{name}_kinds"])


def by_truth(A: Tensor, kinds: Sequence[str]) -> Callable[[np.ndarray, np.ndarray], list[str]]:
    """Charts of groups by the atom that most of their rows have: what charts that are known can reach."""

    def chosen(rows: np.ndarray, labels: np.ndarray) -> list[str]:
        held = np.stack([A.numpy()[rows[labels == c]].mean(0) for c in range(len(kinds))])
        return [kinds[k] for k in linear_sum_assignment(-held)[1]]

    return chosen


def scores_of(fit: Alternated, draw: Planted) -> DictionaryScores:
    layout, codes, n = fit.layout, fit.codes, len(draw.Z)
    usage = torch.zeros(n, layout.K, dtype=torch.float64)
    coordinates, parts = [], []
    for k, chart in enumerate(layout.charts):
        t = chart.grid()[:1].expand(n, -1).clone()
        row, slot = (codes.atoms == k).nonzero(as_tuple=True)
        usage[row, k] = codes.weights[row, slot]
        t[row] = codes.coords[row, slot, : chart.c]
        coordinates.append(t)
        parts.append(usage[:, k : k + 1] * (chart.jet(t, 0).value @ fit.B[layout.block(k)]))
    return score_dictionary(
        draw.Z,
        draw.A,
        draw.kinds,
        draw.t,
        estimate=usage,
        fitted_kinds=[chart.name for chart in layout.charts],
        fitted_coordinates=coordinates,
        contributions=parts,
        clean=draw.clean,
        parts=draw.parts or None,
    )
