"""Curves to start from: the straight line, and shortest paths in a graph over the latent space."""

from itertools import product
from math import gcd

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree
from torch import Tensor

from pullback.geometry.energy import Curves
from pullback.geometry.route import Points, Route, resample

GRID = 48
MARGIN = 0.25
NEIGHBOURS = 10
MOST_GRAPH_POINTS = 5000
PROBE_BUDGET = 2**26
# A shortest path is sought no farther than this times the straight line's length.
REACH = 1.05
REACH_NODES = 65
REACH_GROUPS = 8


def _offsets(most: int) -> list[tuple[int, int]]:
    """Coprime steps on a grid, one of each pair of opposite ones."""
    steps = product(range(most + 1), range(-most, most + 1))
    return [(dx, dy) for dx, dy in steps if (dx, dy) > (0, 0) and gcd(dx, abs(dy)) == 1]


# Two neighbourhoods of one grid, 16 and 32 directions: their rounding of lengths differs, and with it, where
# routes of nearly equal length compete, the route.
NEIGHBOURHOODS = (2, 3)


def straight_lines(start: Points, end: Points, nodes: int) -> Curves:
    """Equal steps from ``start`` to ``end``; the ends are exact."""
    t = torch.linspace(0, 1, nodes, dtype=start.dtype, device=start.device)[:, None]
    line = torch.lerp(start.unsqueeze(1), end.unsqueeze(1), t)
    line[:, -1] = end
    return line


def graph_paths(
    route: Route, start: Points, end: Points, nodes: int, data: Float[Tensor, "k d"] | None
) -> list[Curves]:
    """Shortest graph paths with the true end points attached, resampled to equal length.

    In two dimensions the graph is a 48 x 48 grid over the box of ``data`` and end points, once with 16 and
    once with 32 neighbours a node; in more it joins the points of ``data`` and the end points to their ten
    nearest. An edge is as long as the decoder makes it through its mid-point; edges of a non-finite length
    are dropped, and a pair that the graph does not connect gets its straight line.

    Returns: one batch (m, nodes, d) for each graph.
    """
    line = straight_lines(start, end, nodes)
    fine = straight_lines(start, end, max(REACH_NODES, nodes))
    reach = REACH * route.chords(fine).sum(1).double().cpu().numpy()
    reach = np.nan_to_num(reach, nan=np.inf, posinf=np.inf)
    if start.shape[1] == 2:
        box = torch.cat([start, end] if data is None else [start, end, data])
        points, graphs = _grid(route, box)
        tree = KDTree(points)
        source, target = (np.asarray(tree.query(z.double().cpu().numpy())[1]) for z in (start, end))
    else:
        assert data is not None
        ends, position = torch.unique(torch.cat([start, end]), dim=0, return_inverse=True)
        points, graphs = _neighbours(route, torch.cat([ends, _thinned(data)]))
        source, target = position.cpu().numpy().reshape(2, -1)
    known = torch.from_numpy(points).to(start)
    return [
        _attached(known, line, nodes, source, target, *_shortest(g, source, target, reach)) for g in graphs
    ]


def _attached(
    points: Points,
    line: Curves,
    nodes: int,
    source: np.ndarray,
    target: np.ndarray,
    path: np.ndarray,
    at: np.ndarray,
) -> Curves:
    """Graph paths as curves: true ends, equal steps, and the line where there is no path."""
    if path.shape[1] == 1:  # every pair lies in one cell of the graph
        return line
    ends = [
        torch.from_numpy(path == node[:, None]).to(line.device).unsqueeze(-1) for node in (source, target)
    ]
    curves = torch.where(ends[0], line[:, :1], points[torch.from_numpy(path.copy()).to(line.device)])
    curves = torch.where(ends[1], line[:, -1:], curves)
    joined = resample(curves, torch.from_numpy(np.diff(at, axis=1)).to(line), nodes)
    missing = torch.from_numpy(~np.isfinite(at[:, -1]) | (source == target)).to(line.device)
    return torch.where(missing[:, None, None], line, joined)


def _thinned(data: Points) -> Float[Tensor, "c d"]:
    """At most `MOST_GRAPH_POINTS` rows, evenly through ``data``."""
    stride = -(-len(data) // MOST_GRAPH_POINTS)
    return data[::stride]


def _grid(route: Route, box: Points) -> tuple[np.ndarray, list[csr_matrix]]:
    """Grid nodes (G, 2) and a graph for each neighbourhood.

    Nodes and all mid-points of edges lie on one grid of half the step, which is probed once.
    """
    pad = MARGIN * box.std(dim=0, correction=0)
    low, high = box.amin(0) - pad, box.amax(0) + pad
    t = torch.linspace(0, 1, 2 * GRID - 1, dtype=box.dtype, device=box.device)
    fine = torch.stack(
        torch.meshgrid(*(low[i] + t * (high - low)[i] for i in range(2)), indexing="ij"), dim=-1
    )
    width = route.probe(fine[0, :1]).numel()
    band = max(1, min(GRID, PROBE_BUDGET // (4 * GRID * width)))
    edges: dict[tuple[int, int], list[np.ndarray]] = {}
    for first in range(0, GRID, band):
        _grid_band(route, fine, first, min(first + band, GRID), edges)
    number = np.arange(GRID * GRID).reshape(GRID, GRID)
    graphs = []
    for most in NEIGHBOURHOODS:
        pieces = [_offset_edges(number, *step, np.concatenate(edges[step])) for step in _offsets(most)]
        rows, columns, lengths = (np.concatenate(part) for part in zip(*pieces, strict=True))
        graphs.append(_graph(rows, columns, lengths, GRID * GRID))
    return fine[::2, ::2].reshape(-1, 2).double().cpu().numpy(), graphs


def _graph(rows: np.ndarray, columns: np.ndarray, lengths: np.ndarray, size: int) -> csr_matrix:
    finite = np.isfinite(lengths) & (lengths > 0)
    return csr_matrix((lengths[finite], (rows[finite], columns[finite])), shape=(size, size))


def _columns(dy: int) -> slice:
    """Grid columns from which a step dy stays on the grid."""
    return slice(max(0, -dy), GRID - max(0, dy))


def _offset_edges(number: np.ndarray, dx: int, dy: int, lengths: np.ndarray) -> tuple[np.ndarray, ...]:
    tails = number[: GRID - dx, _columns(dy)]
    return tails.reshape(-1), (tails + dx * GRID + dy).reshape(-1), lengths


def _grid_band(
    route: Route, fine: Tensor, first: int, last: int, edges: dict[tuple[int, int], list[np.ndarray]]
) -> None:
    """Lengths of the edges that start in grid rows ``first`` to ``last``, on a bounded number of probes."""
    most = max(NEIGHBOURHOODS)
    patch = fine[2 * first : 2 * (last + most) - 1]
    probes = route.probe(patch.reshape(-1, 2)).unflatten(0, patch.shape[:2])
    for dx, dy in _offsets(most):
        count, columns = min(last, GRID - dx) - first, _columns(dy)
        if count <= 0:
            continue
        width, left = columns.stop - columns.start, 2 * columns.start
        tail, middle, head = (_strided(probes, k * dx, left + k * dy, count, width) for k in range(3))
        delta = (patch[2 * dx, left + 2 * dy] - patch[0, left]).expand(len(tail), -1)
        lengths = route.edges(tail, middle, head, delta)
        edges.setdefault((dx, dy), []).append(lengths.double().cpu().numpy())


def _strided(array: Tensor, row: int, column: int, rows: int, columns: int) -> Tensor:
    """Every second entry of the fine grid from (row, column), as one list."""
    return array[row : row + 2 * rows - 1 : 2, column : column + 2 * columns - 1 : 2].flatten(0, 1)


def _neighbours(route: Route, points: Points) -> tuple[np.ndarray, list[csr_matrix]]:
    """The graph of nearest neighbours, four pieces an edge."""
    known = points.double().cpu().numpy()
    nearest = np.asarray(KDTree(known).query(known, k=min(NEIGHBOURS + 1, len(known)))[1])[:, 1:]
    tails = np.repeat(np.arange(len(known)), nearest.shape[1])
    pairs = np.unique(np.sort(np.stack([tails, nearest.reshape(-1)], axis=1), axis=1), axis=0)
    left, right = (points[torch.from_numpy(column.copy()).to(points.device)] for column in pairs.T)
    size = max(1, PROBE_BUDGET // (5 * route.probe(points[:1]).numel()))
    lengths = [_quartered(route, a, b) for a, b in zip(left.split(size), right.split(size), strict=True)]
    return known, [_graph(pairs[:, 0], pairs[:, 1], torch.cat(lengths).double().cpu().numpy(), len(known))]


def _quartered(route: Route, left: Points, right: Points) -> Tensor:
    at = [route.probe(torch.lerp(left, right, k / 4)) for k in range(5)]
    half = (right - left) / 2
    return route.edges(at[0], at[1], at[2], half) + route.edges(at[2], at[3], at[4], half)


def _shortest(
    graph: csr_matrix, source: np.ndarray, target: np.ndarray, reach: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of the shortest paths and distances from the source, padded in front with the source."""
    if len(np.unique(target)) < len(np.unique(source)):
        path, at = _shortest(graph, target, source, reach)
        return path[:, ::-1], (at[:, -1:] - at)[:, ::-1]
    distinct, row = np.unique(source, return_inverse=True)
    limit = np.zeros(len(distinct))
    np.maximum.at(limit, row, reach)
    distance = np.empty((len(distinct), graph.get_shape()[0]))
    before = np.empty(distance.shape, dtype=np.int32)
    for part in np.array_split(np.argsort(limit), min(REACH_GROUPS, len(distinct))):
        options = {"indices": distinct[part], "limit": limit[part].max(), "return_predecessors": True}
        distance[part], before[part] = dijkstra(graph, directed=False, **options)
    node, nodes = target.copy(), [target.copy()]
    while True:
        previous = before[row, node]
        if (previous < 0).all():
            break
        node = np.where(previous < 0, node, previous)
        nodes.append(node)
    path = np.stack(nodes[::-1], axis=1)
    at = distance[row[:, None], path]
    # Beyond its own reach a path is found only in the company of pairs that reach farther: not at all, then.
    return path, np.where((at[:, -1] <= reach)[:, None] & np.isfinite(at), at, np.nan)
