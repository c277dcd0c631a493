"""Distances between all pairs of points, each pair solved once."""

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullback.geometry.pairs import (
    PairSearch,
    Progress,
    Told,
    check_both,
    check_progress,
    latent_graph,
    logger,
    pair_chunks,
)
from pullback.geometry.route import route_of
from pullback.geometry.starts import REACH_NODES, straight_lines
from pullback.metrics import as_metric
from pullback.validation import check_choice, check_points

LINE_CHUNK = 2**9


class ApproximationWarning(UserWarning):
    """A result is an approximation that was asked for by name; Python shows it once for each place."""


@dataclass(frozen=True)
class DistanceMatrix:
    """Distances between points, with the certificate of each.

    Attributes:
        values: (n, k); infinite where no curve stays in the metric's domain, NaN only for pairs that an
            interruption left out, see `missing`.
        converged: whether the geodesic of the pair is certified; never for graph distances.
        gap: (E_2n - E_n)/E_2n of its mesh, as in `Geodesic`; NaN for graph distances, which have none.
        method: "geodesic" or "graph".
        message: what failed and what to raise, or "all pairs converged".
        z, other: the points, as they were given.
    """

    values: Float[Tensor, "n k"]
    converged: Bool[Tensor, "n k"]
    gap: Float[Tensor, "n k"]
    method: Literal["geodesic", "graph"]
    message: str
    z: Float[Tensor, "n d"]
    other: Float[Tensor, "k d"] | None

    @property
    def missing(self) -> Bool[Tensor, "n k"]:
        """Pairs that were not computed because the computation was interrupted."""
        return torch.isnan(self.values)


def distance_matrix(
    metric: Any,
    z: Tensor,
    other: Tensor | None = None,
    *,
    method: Literal["geodesic", "graph"] = "geodesic",
    full: bool = False,
    progress: Progress | None = None,
    known: DistanceMatrix | None = None,
    **options: Any,
) -> Float[Tensor, "n k"] | DistanceMatrix:
    """Geodesic distances between all rows of ``z``, or from all rows of ``z`` to all of ``other``.

    Each pair i < j is solved once and entered twice. Pairs go through the solver a bounded number at a time;
    the graph over the latent space from which they start is made once, and the shortest paths of a chunk are
    found together from each of its distinct points.

    Args:
        metric: any object with ``tensor``.
        z: points, (n, d).
        other: points, (k, d); None for the distances among ``z``.
        method: "geodesic", or "graph": shortest paths in a graph through all points, an approximation that
            takes one Dijkstra search a point instead of a geodesic a pair (and warns).
        full: return a `DistanceMatrix`. An interruption (Ctrl-C) then ends the computation with what there
            is; without it, the interruption is raised.
        progress: called with the pairs done and their total after every chunk; the log has every tenth.
        known: an interrupted result for the same points, to go on from.
        **options: of `geodesic`; ``data`` are points that the graph covers, ``chunk_size`` pairs at a time.

    Returns:
        (n, k), detached (`distance` can be differentiated); without ``other`` symmetric with zero diagonal.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value.

    Example:
        >>> import torch
        >>> from pullback.geometry.reference import PoincareDisk
        >>> z = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]], dtype=torch.float64)
        >>> distance_matrix(PoincareDisk(), z).round(decimals=4)
        tensor([[0.0000, 1.0986, 1.0986],
                [1.0986, 0.0000, 1.6807],
                [1.0986, 1.6807, 0.0000]], dtype=torch.float64)
    """
    check_choice("method", method, ("geodesic", "graph"))
    check_progress(progress)
    model = as_metric(metric)
    rows, columns = check_both(model, z, other)
    if method == "graph":
        unused = sorted(set(options) - {"data"})
        if unused or known is not None:
            name = unused[0] if unused else "known"
            raise ValueError(f"{name}: expected method='geodesic' with this argument, got 'graph'")
        warnings.warn(
            "method='graph' gives lengths of paths in a graph, an approximation without certificates",
            ApproximationWarning,
            stacklevel=2,
        )
        values = graph_distances(model, rows, None if other is None else columns, data=options.get("data"))
        return _graph_matrix(values, *_kept(rows, other)) if full else values
    matrix = _begun(rows, other, known)
    search = PairSearch.over(model, rows if other is None else torch.cat([rows, columns]), options)
    interrupted = False
    try:
        _fill(matrix, search, rows, columns, other is None, progress)
    except KeyboardInterrupt:
        if not full:
            raise
        interrupted = True
    message = _message(matrix, interrupted)
    if not full:
        if not bool(matrix.converged.all()):
            logger.warning(message)
        return matrix.values
    return replace(matrix, message=message)


def _kept(z: Tensor, other: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Copies of the points: what is theirs later may be changed in place."""
    return z.detach().clone(), None if other is None else other.detach().clone()


def _begun(
    rows: Float[Tensor, "n d"], other: Float[Tensor, "k d"] | None, known: DistanceMatrix | None
) -> DistanceMatrix:
    """The matrix before the first pair, or as far as it was computed before."""
    shape = (len(rows), len(rows if other is None else other))
    if known is not None:
        if not isinstance(known, DistanceMatrix):
            raise TypeError(f"known: expected a DistanceMatrix, got {type(known).__name__}")
        if tuple(known.values.shape) != shape or known.values.dtype != rows.dtype or known.method == "graph":
            raise ValueError(
                f"known: expected geodesic distances {shape} {rows.dtype}, got {known.method} distances "
                f"{tuple(known.values.shape)} {known.values.dtype}"
            )
        theirs = known.other
        same = other is None if theirs is None else other is not None and torch.equal(theirs, other)
        if not same or not torch.equal(known.z, rows):
            raise ValueError("known: expected distances of the same points z and other, got those of others")
        parts = (known.values.clone(), known.converged.clone(), known.gap.clone())
        return DistanceMatrix(*parts, "geodesic", "", *_kept(rows, other))
    values = torch.full(shape, torch.nan, dtype=rows.dtype, device=rows.device)
    gap, converged = values.clone(), torch.zeros(shape, dtype=torch.bool, device=rows.device)
    if other is None:
        for part, entry in ((values, 0), (gap, 0), (converged, 1)):
            part.fill_diagonal_(entry)
    return DistanceMatrix(values, converged, gap, "geodesic", "", *_kept(rows, other))


def _fill(
    matrix: DistanceMatrix,
    search: PairSearch,
    rows: Tensor,
    columns: Tensor,
    symmetric: bool,
    progress: Progress | None,
) -> None:
    """Solve what is missing, chunk by chunk, in place."""
    n, k = matrix.values.shape
    total = n * (n - 1) // 2 if symmetric else n * k
    told = Told("geodesic distances", total, progress)
    for i, j in pair_chunks(n, None if symmetric else k, search.size, rows.device):
        open_ = torch.isnan(matrix.values[i, j]).nonzero().squeeze(1)
        if len(open_):
            a, b = i[open_], j[open_]
            path = search.between(rows[a], columns[b])
            for part, found in ((matrix.gap, path.gap), (matrix.converged, path.converged)):
                part[a, b] = found
                if symmetric:
                    part[b, a] = found
            length = path.length.nan_to_num(nan=torch.inf)
            # The values last: an entry that is not NaN is complete.
            if symmetric:
                matrix.values[b, a] = length
            matrix.values[a, b] = length
        told.step(len(i))


def _message(matrix: DistanceMatrix, interrupted: bool) -> str:
    parts = []
    missing = matrix.missing
    if interrupted:
        parts.append(
            f"interrupted, {int(missing.sum())} of {missing.numel()} entries missing: pass known= to go on"
        )
    failed = int((~matrix.converged & ~missing).sum())
    if failed:
        parts.append(
            f"{failed} of {missing.numel()} entries are not certified (largest gap "
            f"{float(matrix.gap[~missing].max()):.2g}): raise max_nodes or max_iter"
        )
    return "; ".join(parts) if parts else "all pairs converged"


def _graph_matrix(values: Tensor, z: Tensor, other: Tensor | None) -> DistanceMatrix:
    uncertain = torch.zeros_like(values, dtype=torch.bool)
    gap = torch.full_like(values, torch.nan)
    if other is None:
        uncertain.fill_diagonal_(1)
        gap.fill_diagonal_(0)
    message = "lengths of graph paths, an approximation without certificates: use method='geodesic'"
    return DistanceMatrix(values, uncertain, gap, "graph", message, z, other)


def graph_distances(
    metric: Any, z: Float[Tensor, "n d"], other: Tensor | None = None, *, data: Tensor | None = None
) -> Float[Tensor, "n k"]:
    """Lengths of shortest paths in a graph through all points: quick, about as long as the geodesics.

    In two dimensions the points are linked to each other and to a grid of 48 x 48; in more, each to as many
    of its nearest among the points and ``data`` as make 131 072 links in all, at least ten. What the graph
    does not connect gets the length of its straight line.

    Args:
        metric: any object with ``tensor``.
        z, other: points, (n, d) and (k, d); without ``other`` the distances among ``z``, symmetric.
        data: more points for the graph to cover.
    Returns: (n, k), detached; infinite where the line leaves the metric's domain, too.
    """
    model = as_metric(metric)
    rows, columns = check_both(model, z, other)
    data = None if data is None else check_points("data", data, rows.shape[1])
    if 0 in (len(rows), len(columns)):
        return rows.new_zeros(len(rows), len(columns))
    points = rows if other is None else torch.cat([rows, columns])
    graph = latent_graph(model, points, data, through=True)
    values = graph.distances(rows, columns)
    if other is None:
        values = torch.minimum(values, values.mT).fill_diagonal_(0)
    apart = torch.isinf(values).nonzero()
    route = route_of(model)
    with torch.no_grad():
        for part in apart.split(LINE_CHUNK):
            i, j = part.T
            lengths = route.chords(straight_lines(rows[i], columns[j], REACH_NODES)).sum(1)
            values[i, j] = lengths.nan_to_num(nan=torch.inf)
    return values


def finite_squares(distances: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Squares of distances, an infinite one as n times the largest other: sums of them can be compared."""
    square = distances.square()
    known = torch.isfinite(square)
    largest = torch.where(known, square, 0).max()
    return torch.where(known, square, torch.where(largest > 0, len(square) * largest, 1))
