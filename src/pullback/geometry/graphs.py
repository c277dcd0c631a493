"""Graphs over the latent space, with edges as long as the metric makes them."""

from dataclasses import dataclass
from itertools import product
from math import gcd

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree
from torch import Tensor

from pullback.geometry.route import Points, Route

GRID = 48
MARGIN = 0.25
NEIGHBOURS = 10
MOST_GRAPH_POINTS = 5000
PROBE_BUDGET = 2**26
# A graph through given points is read for distances, so its long edges are cut finer: in two dimensions they
# were up to 40 % too short in four pieces.
PIECES, FINE_PIECES = 4, 16
GRID_LINKS = 4
LINE_NODES = 193
LINK_BUDGET = 2**17
DISTANCE_BUDGET = 2**22


def _offsets(most: int) -> list[tuple[int, int]]:
    """Coprime steps on a grid, one of each pair of opposite ones."""
    steps = product(range(most + 1), range(-most, most + 1))
    return [(dx, dy) for dx, dy in steps if (dx, dy) > (0, 0) and gcd(dx, abs(dy)) == 1]


# Two neighbourhoods of one grid, 16 and 32 directions: their rounding of lengths differs, and with it, where
# routes of nearly equal length compete, the route.
NEIGHBOURHOODS = (2, 3)


@dataclass(frozen=True)
class LatentGraph:
    """Graphs of one set of nodes, made once for any number of pairs.

    Attributes:
        nodes: latent points, (G, d).
        graphs: symmetric graphs given by one entry an edge.
        tree: of the nodes.
    """

    nodes: np.ndarray
    graphs: tuple[csr_matrix, ...]
    tree: KDTree

    @classmethod
    def over(cls, route: Route, points: Points, data: Float[Tensor, "k d"] | None = None) -> "LatentGraph":
        """Graphs over the place where ``points`` and ``data`` live.

        In two dimensions a 48 x 48 grid over their box, once with 16 and once with 32 neighbours a node; in
        more, all of them joined to their ten nearest. An edge is as long as the metric makes it through its
        mid-point; edges of a non-finite length are dropped.
        """
        if points.shape[1] == 2:
            nodes, graphs = _grid(route, points, data)
            return cls(nodes, tuple(graphs), KDTree(nodes))
        nodes = _distinct(points, data)
        known = _numpy(nodes)
        tree = KDTree(known)
        pairs = _nearest_pairs(tree, NEIGHBOURS)
        return cls(known, (_linked(route, nodes, pairs, PIECES),), tree)

    @classmethod
    def through(cls, route: Route, points: Points, data: Float[Tensor, "k d"] | None = None) -> "LatentGraph":
        """One graph that has every one of ``points`` as a node, fit to read distances between them from it.

        In two dimensions the points are linked to the grid and to their ten nearest; in one, all follow each
        other along the line; in more, all points and data are linked to as many of their nearest as make
        131 072 edges, at least ten (with ten alone, paths of an eight-dimensional decoder were twice as long
        as geodesics).
        """
        if points.shape[1] > 2:
            nodes = _distinct(points, data)
            known = _numpy(nodes)
            tree = KDTree(known)
            pairs = _nearest_pairs(tree, max(NEIGHBOURS, LINK_BUDGET // len(nodes)))
            return cls(known, (_linked(route, nodes, pairs, FINE_PIECES),), tree)
        box = points if data is None else torch.cat([points, data])
        if points.shape[1] == 1:
            low, high = box.amin(0), box.amax(0)
            t = torch.linspace(0, 1, LINE_NODES, dtype=box.dtype, device=box.device)[:, None]
            nodes = _distinct(points, low + t * (high - low))
            known, order = _numpy(nodes), np.arange(len(nodes))
            pairs = np.stack([order[:-1], order[1:]], axis=1)
            return cls(known, (_linked(route, nodes, pairs, FINE_PIECES),), KDTree(known))
        grid, graphs = _grid(route, points, data)
        own = torch.unique(points, dim=0)
        nodes = torch.cat([torch.from_numpy(grid).to(own), own])
        known, last = _numpy(nodes), graphs[-1].tocoo()
        number = len(grid) + np.arange(len(own))
        to_grid = np.asarray(KDTree(grid).query(known[len(grid) :], k=GRID_LINKS)[1])
        links = np.stack([to_grid.reshape(-1), np.repeat(number, GRID_LINKS)], axis=1)
        among = _nearest_pairs(KDTree(known[len(grid) :]), NEIGHBOURS) + len(grid)
        joined = _linked(route, nodes, np.concatenate([links, among]), FINE_PIECES).tocoo()
        rows, columns = np.concatenate([last.row, joined.row]), np.concatenate([last.col, joined.col])
        graph = _graph(rows, columns, np.concatenate([last.data, joined.data]), len(nodes))
        return cls(known, (graph,), KDTree(known))

    def nearest(self, z: Points) -> np.ndarray:
        """Number of the node nearest to each point."""
        return np.asarray(self.tree.query(_numpy(z))[1])

    def distances(self, a: Points, b: Float[Tensor, "k d"]) -> Float[Tensor, "n k"]:
        """Lengths of the shortest paths from the nodes nearest to ``a`` to those nearest to ``b``.

        Infinite where the graph does not connect them; of several graphs the last one counts.
        """
        source, row = np.unique(self.nearest(a), return_inverse=True)
        target = self.nearest(b)
        found = np.empty((len(source), len(target)))
        size = max(1, DISTANCE_BUDGET // len(self.nodes))
        for first in range(0, len(source), size):
            part = slice(first, first + size)
            found[part] = dijkstra(self.graphs[-1], directed=False, indices=source[part])[:, target]
        return torch.from_numpy(found[row]).to(a)


def _numpy(z: Tensor) -> np.ndarray:
    return z.detach().double().cpu().numpy()


def _distinct(points: Points, data: Float[Tensor, "k d"] | None) -> Float[Tensor, "G d"]:
    """All points and some of the data, each place once."""
    return torch.unique(points if data is None else torch.cat([points, _thinned(data)]), dim=0)


def _thinned(data: Points) -> Float[Tensor, "c d"]:
    """At most `MOST_GRAPH_POINTS` rows, evenly through ``data``."""
    stride = -(-len(data) // MOST_GRAPH_POINTS)
    return data[::stride]


def _grid(
    route: Route, points: Points, data: Float[Tensor, "k d"] | None
) -> tuple[np.ndarray, list[csr_matrix]]:
    """Grid nodes (G, 2) and a graph for each neighbourhood.

    Nodes and all mid-points of edges lie on one grid of half the step, which is probed once. The margin is
    the spread of the data alone, so that points among them have one grid, few or many.
    """
    box = points if data is None else torch.cat([points, data])
    pad = MARGIN * (points if data is None or len(data) < 2 else data).std(dim=0, correction=0)
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


def _nearest_pairs(tree: KDTree, neighbours: int) -> np.ndarray:
    """Every point of the tree and its nearest ones, each pair once, (edges, 2)."""
    count = min(neighbours + 1, tree.n)
    nearest = np.asarray(tree.query(tree.data, k=count)[1]).reshape(tree.n, count)[:, 1:]
    tails = np.repeat(np.arange(tree.n), nearest.shape[1])
    return np.unique(np.sort(np.stack([tails, nearest.reshape(-1)], axis=1), axis=1), axis=0)


def _linked(route: Route, nodes: Points, pairs: np.ndarray, pieces: int) -> csr_matrix:
    """The graph of given edges, each an even number of ``pieces`` long."""
    lengths = np.empty(len(pairs))
    size = max(1, PROBE_BUDGET // (3 * route.probe(nodes[:1]).numel()))
    for first in range(0, len(pairs), size):
        part = slice(first, first + size)
        left, right = (nodes[torch.from_numpy(column.copy()).to(nodes.device)] for column in pairs[part].T)
        lengths[part] = _numpy(_in_pieces(route, left, right, pieces))
    return _graph(pairs[:, 0], pairs[:, 1], lengths, len(nodes))


def _in_pieces(route: Route, left: Points, right: Points, pieces: int) -> Float[Tensor, " n"]:
    step = (right - left) * (2 / pieces)
    total = torch.zeros_like(left[:, 0])
    at = route.probe(left)
    for k in range(0, pieces, 2):
        middle, end = (route.probe(torch.lerp(left, right, (k + j) / pieces)) for j in (1, 2))
        total = total + route.edges(at, middle, end, step)
        at = end
    return total
