"""Curves to start from: the straight line, and shortest paths in a graph over the latent space."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from pullback.geometry.energy import Curves
from pullback.geometry.graphs import LatentGraph
from pullback.geometry.route import Points, Route, resample

# A shortest path is sought no farther than this times the straight line's length.
REACH = 1.05
REACH_NODES = 65
REACH_GROUPS = 8


def straight_lines(start: Points, end: Points, nodes: int) -> Curves:
    """Equal steps from ``start`` to ``end``; the ends are exact."""
    t = torch.linspace(0, 1, nodes, dtype=start.dtype, device=start.device)[:, None]
    line = torch.lerp(start.unsqueeze(1), end.unsqueeze(1), t)
    line[:, -1] = end
    return line


def graph_paths(
    route: Route, start: Points, end: Points, nodes: int, data: Float[Tensor, "k d"] | LatentGraph | None
) -> list[Curves]:
    """Shortest graph paths with the true end points attached, resampled to equal length.

    The graph is the one given, or that of `LatentGraph.over` the end points and ``data``. A pair that it does
    not connect gets its straight line.

    Returns: one batch (m, nodes, d) for each graph.
    """
    line = straight_lines(start, end, nodes)
    fine = straight_lines(start, end, max(REACH_NODES, nodes))
    reach = REACH * route.chords(fine).sum(1).double().cpu().numpy()
    reach = np.nan_to_num(reach, nan=np.inf, posinf=np.inf)
    graph = data if isinstance(data, LatentGraph) else LatentGraph.over(route, torch.cat([start, end]), data)
    source, target = graph.nearest(start), graph.nearest(end)
    known = torch.from_numpy(graph.nodes).to(start)
    return [
        _attached(known, line, nodes, source, target, *_shortest(g, source, target, reach))
        for g in graph.graphs
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
