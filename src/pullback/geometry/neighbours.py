"""The nearest points under a metric, with a proof that no other is nearer where there can be one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullback.geometry.geodesics import ENTRY_BUDGET
from pullback.geometry.pairs import PairSearch, Progress, Told, check_both, check_progress, latent_graph
from pullback.geometry.route import Extrinsic, route_of
from pullback.metrics import as_metric, checked_tensor
from pullback.validation import check_whole

BLOCK_ENTRIES = 2**21
EMBED_CHUNK = 2**12
# Numbers in the images that are kept; more are made again for every block of points.
KEPT_ENTRIES = 2**26
# A bound counts as above a distance only if it is so by more than both were computed to.
BOUND_MARGIN = 1e-6


@dataclass(frozen=True)
class Neighbours:
    """The k nearest points of n, nearest first.

    Attributes:
        index: rows of ``other`` (or of ``z``, the point itself left out), (n, k).
        distance: geodesic distances to them, (n, k); infinite where no curve stays in the metric's domain.
        converged: whether the geodesic is certified, (n, k).
        exact: whether every point that is left out has been ruled out: its chord in data space, which is
            never longer than a geodesic, is longer than the k-th distance, or its geodesic was solved, (n,).
        geodesics: number of geodesics that were solved.
        message: how the candidates were found, and what is not certain.
    """

    index: Int[Tensor, "n k"]
    distance: Float[Tensor, "n k"]
    converged: Bool[Tensor, "n k"]
    exact: Bool[Tensor, " n"]
    geodesics: int
    message: str


def nearest_neighbours(
    metric: Any,
    z: Tensor,
    other: Tensor | None = None,
    *,
    k: int = 10,
    candidates: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Neighbours:
    """The k points of ``other`` that are nearest to each row of ``z`` by geodesic distance.

    With an embedding F the chord |F(a) - F(b)| is a lower bound of the distance of a and b. Geodesics are
    solved in the order of the bound until it exceeds the k-th distance that was found: no method that knows
    the bound alone solves fewer (Seidl and Kriegel 1998, "Optimal multi-step k-nearest neighbor search"; here
    k at a time). Without an embedding the candidates are the nearest in a graph through all points, and the
    result says that it is approximate.

    Args:
        metric: any object with ``tensor``.
        z: points, (n, d).
        other: points to choose from, (m, d); None chooses among ``z``, each point's own row left out.
        k: neighbours of a point.
        candidates: most geodesics solved for one point, at least k; None is no limit with an embedding and
            2 k + 4 without.
        progress: called with the number of points that are finished and n after every round.
        **options: of `geodesic`; ``data`` are points that the graph covers, ``chunk_size`` pairs at a time.

    Returns: `Neighbours`; detached.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value, fewer than k points to choose
            from, or a metric that is not positive definite at a point.

    Example:
        >>> import torch
        >>> from pullback.geometry.reference import Sphere
        >>> from pullback.metrics import PullbackMetric
        >>> z = torch.tensor([[0.0, 0.0], [0.4, 0.0], [0.0, 0.3], [-2.0, 0.0]], dtype=torch.float64)
        >>> near = nearest_neighbours(PullbackMetric(Sphere().embedding), z, k=1)
        >>> near.index[:, 0].tolist(), bool(near.exact.all())
        ([2, 0, 0, 2], True)
    """
    model = as_metric(metric)
    check_progress(progress)
    rows, columns = check_both(model, z, other)
    check_whole("k", k)
    choice = len(columns) - (other is None)
    if k > choice:
        raise ValueError(f"k: expected at most the {choice} points to choose from, got {k}")
    if candidates is not None:
        check_whole("candidates", candidates, minimum=k)
    with torch.no_grad():
        checked_tensor(model, rows)
        if other is not None:
            checked_tensor(model, columns)
    search = PairSearch.over(model, rows if other is None else torch.cat([rows, columns]), options)
    found = _Found.nothing(rows, k, len(columns), symmetric=other is None)
    told = Told("points with their neighbours", len(rows), progress)
    with torch.no_grad():
        if isinstance(route_of(model), Extrinsic):
            exact = _search(found, search, rows, columns, candidates, told)
            message = "every other point is ruled out by its chord"
            if not bool(exact.all()):
                message = f"approximate for {int((~exact).sum())} points: raise candidates ({candidates})"
        else:
            most = min(2 * k + 4 if candidates is None else candidates, choice)
            _from_graph(found, search, rows, columns, most, options.get("data"), told)
            exact = torch.full((len(rows),), most == choice, device=rows.device)
            message = "all points were compared"
            if most < choice:
                message = f"approximate: the nearest of {most} candidates from a graph, raise candidates"
    lost = torch.isinf(found.distance)
    if bool(lost.any()):
        message += f"; {int(lost.sum())} neighbours are reached by no curve that was found: give data"
    uncertain = int((~found.converged & ~lost).sum())
    if uncertain:
        message += f"; {uncertain} distances are not certified: raise max_nodes or max_iter"
    known = len(found.solved)
    return Neighbours(found.index, found.distance, found.converged, exact, known, message)


@dataclass
class _Found:
    """The nearest of the points compared so far, and which pairs were compared.

    Attributes:
        distance, index, converged: the nearest k, nearest first; infinite and -1 where there are fewer.
        solved: numbers row * m + column of the pairs solved, sorted; with ``symmetric`` row < column.
        count: geodesics known of each row.
        width: m.
    """

    distance: Tensor
    index: Tensor
    converged: Tensor
    solved: np.ndarray
    count: Tensor
    width: int
    symmetric: bool

    @classmethod
    def nothing(cls, z: Tensor, k: int, width: int, *, symmetric: bool) -> "_Found":
        distance = torch.full((len(z), k), torch.inf, dtype=z.dtype, device=z.device)
        index = torch.full(distance.shape, -1, device=z.device)
        count = torch.zeros(len(z), dtype=torch.long, device=z.device)
        empty = np.empty(0, dtype=np.int64)
        return cls(distance, index, torch.zeros_like(index, dtype=torch.bool), empty, count, width, symmetric)

    def fresh(self, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        """The pairs that were not solved, each once."""
        if self.symmetric:
            row, column = torch.minimum(row, column), torch.maximum(row, column)
        number = np.unique((row * self.width + column).cpu().numpy())
        new = torch.from_numpy(np.setdiff1d(number, self.solved, assume_unique=True)).to(row.device)
        return new // self.width, new % self.width

    def known(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Rows ``first`` to ``last`` of the pairs that need no solving, the points themselves included."""
        if self.symmetric:
            row, column = np.divmod(self.solved, self.width)
            own = np.arange(self.width)
            row, column = np.concatenate([row, column, own]), np.concatenate([column, row, own])
            inside = (row >= first) & (row < last)
            row, column = row[inside], column[inside]
        else:
            low, high = np.searchsorted(self.solved, [first * self.width, last * self.width])
            row, column = np.divmod(self.solved[low:high], self.width)
        device = self.index.device
        return torch.from_numpy(row - first).to(device), torch.from_numpy(column).to(device)

    def solve(self, search: PairSearch, rows: Tensor, columns: Tensor, row: Tensor, column: Tensor) -> None:
        """Solve pairs that are new and keep the nearest of each row."""
        for i, j in zip(row.split(search.size), column.split(search.size), strict=True):
            path = search.between(rows[i], columns[j])
            length = path.length.nan_to_num(nan=torch.inf)
            self._offer(i, j, length, path.converged)
            if self.symmetric:
                self._offer(j, i, length, path.converged)
        number = (row * self.width + column).cpu().numpy()
        self.solved = np.union1d(self.solved, number)

    def _offer(self, row: Tensor, column: Tensor, length: Tensor, converged: Tensor) -> None:
        self.count.index_add_(0, row, torch.ones_like(row))
        touched, position = torch.unique(row, return_inverse=True)
        k = self.distance.shape[1]
        place = torch.cat([torch.arange(len(touched), device=row.device).repeat_interleave(k), position])
        parts = ((self.distance, length), (self.index, column), (self.converged, converged))
        known = [torch.cat([old[touched].flatten(), new]) for old, new in parts]
        # What was solved comes before what was not, infinitely far or not.
        order = torch.argsort((known[1] < 0).long(), stable=True)
        for key in (known[0], place):
            order = order[torch.argsort(key[order], stable=True)]
        place = place[order]
        rank = torch.arange(len(order), device=row.device) - torch.searchsorted(place, place)
        best = order[rank < k]
        for (part, _), values in zip(parts, known, strict=True):
            part[touched] = values[best].unflatten(0, (len(touched), k))


def _search(
    found: _Found, search: PairSearch, rows: Tensor, columns: Tensor, most: int | None, told: Told
) -> Bool[Tensor, " n"]:
    """Solve in the order of the chord bound until it exceeds the k-th distance; which rows got so far."""
    n, k = found.distance.shape
    embedding = route_of(search.metric)
    assert isinstance(embedding, Extrinsic)
    chords = _Chords.over(embedding, rows, columns)
    open_ = torch.ones(n, dtype=torch.bool, device=rows.device)
    exact = torch.zeros_like(open_)
    while bool(open_.any()):
        wanted = []
        for first in range(0, n, chords.block):
            last = min(first + chords.block, n)
            bound = chords.between(first, last)
            bound[found.known(first, last)] = torch.inf
            near, column = bound.topk(min(k, len(columns)), dim=1, largest=False)
            inside = near <= found.distance[first:last, -1:] * (1 + BOUND_MARGIN)
            inside &= torch.isfinite(near)
            exact[first:last] = ~inside.any(1)
            if most is not None:
                rank = torch.arange(near.shape[1], device=rows.device)
                inside &= rank < (most - found.count[first:last, None])
            open_[first:last] = inside.any(1)
            row, place = inside.nonzero().T
            wanted.append((row + first, column[row, place]))
        row, column = (torch.cat(part) for part in zip(*wanted, strict=True))
        found.solve(search, rows, columns, *found.fresh(row, column))
        told.step(int((~open_).sum()) - told.done)
    return exact


@dataclass(frozen=True)
class _Chords:
    """Distances in data space, which bound those along the surface from below.

    Attributes:
        block: rows at a time.
        size: images made at a time.
        kept: images of all columns where they fit into memory.
    """

    embedding: Extrinsic
    rows: Tensor
    columns: Tensor
    block: int
    size: int
    kept: list[Tensor] | None

    @classmethod
    def over(cls, embedding: Extrinsic, rows: Tensor, columns: Tensor) -> "_Chords":
        """Chords between two sets of points."""
        width = max(1, embedding.probe(columns[:1]).numel())
        block = max(1, min(BLOCK_ENTRIES // len(columns), KEPT_ENTRIES // width))
        chords = cls(embedding, rows, columns, block, max(1, min(EMBED_CHUNK, ENTRY_BUDGET // width)), None)
        fits = len(columns) * width <= KEPT_ENTRIES
        return replace(chords, kept=list(chords._images(columns))) if fits else chords

    def _images(self, z: Tensor) -> Iterator[Tensor]:
        return (self.embedding.probe(part) for part in z.split(self.size))

    def between(self, first: int, last: int) -> Tensor:
        """Chords from rows ``first`` to ``last`` to all columns; zero, which bounds all, where unknown."""
        left = torch.cat(list(self._images(self.rows[first:last])))
        # The direct form: differences of squares would lose what tells near points apart.
        parts = [
            torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")
            for right in (self._images(self.columns) if self.kept is None else self.kept)
        ]
        return torch.cat(parts, dim=1).nan_to_num(nan=0.0, posinf=torch.finfo(left.dtype).max)


def _from_graph(
    found: _Found,
    search: PairSearch,
    rows: Tensor,
    columns: Tensor,
    most: int,
    data: Tensor | None,
    told: Told,
) -> None:
    """Solve the nearest in a graph through all points."""
    points = rows if found.symmetric else torch.cat([rows, columns])
    graph = latent_graph(search.metric, points, data, through=True)
    size = max(1, BLOCK_ENTRIES // len(columns))
    for first in range(0, len(rows), size):
        last = min(first + size, len(rows))
        near = graph.distances(rows[first:last], columns)
        if found.symmetric:
            own = torch.arange(last - first, device=rows.device)
            near[own, own + first] = torch.nan
        # Points themselves sort last, after what the graph does not connect.
        column = near.argsort(dim=1, stable=True)[:, :most]
        row = torch.arange(first, last, device=rows.device).repeat_interleave(most)
        found.solve(search, rows, columns, *found.fresh(row, column.flatten()))
        told.step(last - first)
