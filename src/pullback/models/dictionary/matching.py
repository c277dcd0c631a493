"""Which atom of one dictionary is which of another, and how their coordinates correspond."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pullback.charts import ChartIsometry, Relabelling
from pullback.linalg import principal_angles
from pullback.models.dictionary.codes import SparseCodes
from pullback.models.dictionary.layout import Layout

LARGE = 0.25
"""Share of a row's largest weight above which its coordinate counts."""
ChartMap = ChartIsometry | Relabelling


@dataclass(frozen=True, eq=False)
class Alignment:
    """Atoms of a dictionary among those of another.

    Attributes:
        permutation: the other's atom that each atom is, (K,); -1 where there is none.
        similarity: cosine of their usage, or of their subspaces where there were no rows, (K,).
        maps: isometry that takes an atom's coordinates to the other's; None where charts differ or too few
            rows share the atom.
        scores: how well coordinates agree after it, (K,); NaN where there is no map.
    """

    permutation: Int[np.ndarray, " k"]
    similarity: Float[np.ndarray, " k"]
    maps: tuple[ChartMap | None, ...]
    scores: Float[np.ndarray, " k"]


def align_by_rows(layout: Layout, codes: SparseCodes, other_layout: Layout, other: SparseCodes) -> Alignment:
    """Atoms paired by the cosine of their usage over shared rows, coordinates by the chart's isometries.

    Args:
        layout: atoms of the one.
        codes: its codes of n rows.
        other_layout: atoms of the other.
        other: its codes of the same rows.
    """
    first, second = (torch.as_tensor(np.asarray(c.to_csr().toarray())) for c in (codes, other))
    pairs = _assigned(_cosines(first, second))
    maps: list[ChartMap | None] = []
    scores = np.full(layout.K, np.nan)
    for k, (j, _) in enumerate(pairs):
        found = None
        if j >= 0 and layout.charts[k] == other_layout.charts[j]:
            found = _map(layout, codes, k, other, j, first, second)
        maps.append(found)
        if found is not None:
            scores[k] = found.score
    return Alignment(np.array([j for j, _ in pairs]), np.array([s for _, s in pairs]), tuple(maps), scores)


def align_by_decoders(
    layout: Layout, B: Float[Tensor, "k p"], other_layout: Layout, other: Float[Tensor, "l p"]
) -> Alignment:
    """Atoms paired by the angles between the row spaces of their decoders.

    Args:
        layout: atoms of the one.
        B: its decoders, (M_tot, p).
        other_layout: atoms of the other.
        other: its decoders.
    """
    cosines = torch.zeros(layout.K, other_layout.K, dtype=torch.float64)
    for k in range(layout.K):
        for j in range(other_layout.K):
            if layout.charts[k].M == other_layout.charts[j].M:
                one, two = B[layout.block(k)].double(), other[other_layout.block(j)].double()
                cosines[k, j] = principal_angles(one.mT, two.mT).cos().square().mean().sqrt()
    pairs = _assigned(cosines)
    nothing = np.full(layout.K, np.nan)
    return Alignment(
        np.array([j for j, _ in pairs]), np.array([s for _, s in pairs]), (None,) * layout.K, nothing
    )


def subspace_overlap(one: Float[Tensor, "k p"], other: Float[Tensor, "l p"]) -> float:
    """Mean squared cosine of the angles between the directions that carry two atoms, 0 to 1.

    Args:
        one, other: decoders; directions below a hundredth of the largest do not count.
    """
    spans = []
    for B in (one.double(), other.double()):
        _, sizes, right = torch.linalg.svd(B, full_matrices=False)
        spans.append(right[sizes > 1e-2 * sizes[0].clamp_min(1e-300)].mT)
    if 0 in (spans[0].shape[1], spans[1].shape[1]):
        return 0.0
    return float(principal_angles(*spans).cos().square().mean())


def _cosines(first: Tensor, second: Tensor) -> Tensor:
    sizes = [x / x.norm(dim=0).clamp_min(1e-300) for x in (first.double(), second.double())]
    return sizes[0].mT @ sizes[1]


def _assigned(cosines: Tensor) -> list[tuple[int, float]]:
    rows, columns = linear_sum_assignment(cosines.numpy(), maximize=True)
    found = {int(k): (int(j), float(cosines[k, j])) for k, j in zip(rows, columns, strict=True)}
    return [found.get(k, (-1, 0.0)) for k in range(cosines.shape[0])]


def _map(
    layout: Layout, codes: SparseCodes, k: int, other: SparseCodes, j: int, first: Tensor, second: Tensor
) -> ChartMap | None:
    chart = layout.charts[k]
    large = (first[:, k] > LARGE * first.amax(1)) & (second[:, j] > LARGE * second.amax(1))
    places = []
    for one, atom in ((codes, k), (other, j)):
        row, _, t = one.of_atom(atom)
        full = torch.full((len(one), max(chart.c, 1)), torch.nan, dtype=torch.float64)
        full[row, : chart.c] = t[:, : chart.c].double().cpu()
        places.append(full[large][:, : chart.c])
    return chart.align(*places) if int(large.sum()) > chart.c + 1 else None
