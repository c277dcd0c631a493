"""Geodesics between pairs of points, all pairs at once, each with its certificate."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullback.geometry.graphs import LatentGraph
from pullback.geometry.route import Points, Route, in_precision, resample, route_of
from pullback.geometry.solver import Options, Solution, solve
from pullback.geometry.spline import spline_through
from pullback.geometry.starts import graph_paths, straight_lines
from pullback.metrics import as_metric, checked_tensor
from pullback.validation import check_finite, check_pair, check_points, check_positive, check_whole

logger = logging.getLogger(__name__)

START_NAMES = ("line", "graph")
Start = str | Tensor | LatentGraph
NODE_BUDGET = 2**15
# Numbers in the images of the nodes: up to 512 outputs the number of nodes is the narrower bound.
ENTRY_BUDGET = 2**24


@dataclass(frozen=True)
class Geodesic:
    """Geodesics of m pairs, with the checks that say how far to trust each.

    Attributes:
        points: nodes at equal steps of arc length, (m, nodes, d).
        length, energy: L and E = L² of each curve (no factor ½), by the quadrature of `curve_length`.
        converged: finite, ``residual`` <= tol and ``gap`` <= gap_tol.
        residual: max_k (n/2) |∂E/∂z_k|_{g⁻¹} / √E, the Euler-Lagrange residual of the discrete problem.
        gap: (E_2n - E_n)/E_2n, the part of the energy that the mesh does not see; large where the curve jumps
            over a fold.
        defect: max_k |Q_kᵀ F̈_k| / L, an estimate of the discretisation error (NaN without an embedding).
        iterations: Newton steps of the winning curve, all stages together.
        start: which of ``starts`` won, as an index into ``start_names``.
        start_names: names of the starts that were tried.
        mesh: number of nodes of the mesh on which each curve was found.
        finest: the nodes of that mesh, one (mesh, d) tensor a pair; ``points`` are a part of them.
        velocity_start, velocity_end: dz/dt at the ends, g⁻¹ of the discrete momenta, (m, d); off by O(1/n²),
            which `logarithm_map` takes to O(1/n⁴).
        message: what failed and what to raise, or "all curves converged".
    """

    points: Float[Tensor, "m N d"]
    length: Float[Tensor, " m"]
    energy: Float[Tensor, " m"]
    converged: Bool[Tensor, " m"]
    residual: Float[Tensor, " m"]
    gap: Float[Tensor, " m"]
    defect: Float[Tensor, " m"]
    iterations: Int[Tensor, " m"]
    start: Int[Tensor, " m"]
    start_names: tuple[str, ...]
    mesh: Int[Tensor, " m"]
    finest: tuple[Float[Tensor, "_ d"], ...]
    velocity_start: Float[Tensor, "m d"]
    velocity_end: Float[Tensor, "m d"]
    message: str

    def __len__(self) -> int:
        return len(self.points)

    def _parameters(self, t: float | int | Tensor) -> Float[Tensor, "m T"]:
        t = torch.as_tensor(t, dtype=self.points.dtype, device=self.points.device)
        t = t.reshape(1, -1) if t.ndim < 2 else t
        if not bool(((t >= 0) & (t <= 1)).all()):
            raise ValueError("t: expected parameters in [0, 1]")
        if t.shape[0] not in (1, len(self)):
            raise ValueError(f"t: expected (T,) or ({len(self)}, T), got {tuple(t.shape)}")
        return t.expand(len(self), -1)

    def at(self, t: float | int | Tensor) -> Float[Tensor, "m T d"]:
        """Points at parameters in [0, 1] of the spline through the nodes; ``t`` is (T,) or one row a pair."""
        return spline_through(self.points).at(self._parameters(t))

    def velocity(self, t: float | int | Tensor) -> Float[Tensor, "m T d"]:
        """dz/dt of the same spline."""
        return spline_through(self.points).velocity(self._parameters(t))


def geodesic(
    metric: Any,
    start: Tensor,
    end: Tensor,
    *,
    nodes: int = 65,
    starts: Start | Sequence[Start] = ("line", "graph"),
    data: Tensor | None = None,
    tol: float | int | None = None,
    gap_tol: float | int = 1e-2,
    max_nodes: int = 257,
    max_iter: int = 60,
    beam: float | int = 0.1,
    chunk_size: int | None = None,
) -> Geodesic:
    """Geodesics from ``start`` to ``end``, all pairs in one batched computation.

    Minimises the discrete energy E = n Σ|F(z_{k+1}) - F(z_k)|² (without an embedding F: n Σ δᵀg(mid-point)δ)
    by a Newton iteration with exact second derivatives, damped by the gain ratio for every pair on its own.
    Each start descends on a coarse mesh; the best, and those within ``beam`` of it, go on to ``nodes`` and,
    where the certificate fails, to finer meshes up to ``max_nodes``.

    The coarse stage runs in single precision where a copy of the decoder can be made for it, and for single
    precision input the curves whose residual is at its rounding floor are finished in double precision.

    The result is a local geodesic in the chart, the shortest that the starts lead to: unwrap the end points
    of a periodic chart, and ask for a longer geodesic by a start near it.

    Args:
        metric: any object with ``tensor(z) -> (n, d, d)``, such as `PullbackMetric`.
        start, end: end points, (m, d); a single point (d,) is used for every pair.
        nodes: nodes of the returned curves, odd and at least 5.
        starts: "line", "graph" (shortest path in a graph over the latent space; in more than two dimensions
            it needs ``data``), or curves (m, N, d); one or several of these. A `LatentGraph` made before is
            a graph, too, and serves many calls.
        data: latent points (k, d) that say where the data live: the graph covers them.
        tol: bound on `Geodesic.residual`; None is 1e-6 in float64 and 1e-2 in float32.
        gap_tol: bound on `Geodesic.gap`.
        max_nodes: finest mesh.
        max_iter: Newton steps on each mesh after the coarse one.
        beam: relative energy above the best within which other starts are kept.
        chunk_size: pairs at a time; None bounds the memory.
    Returns: a `Geodesic`; detached (`distance` can be differentiated).
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value, or a metric that is not positive
            definite at an end point.
    Example:
        >>> import torch
        >>> from pullback.geometry.reference import Sphere
        >>> from pullback.metrics import PullbackMetric
        >>> a, b = torch.tensor([[0.0, 0.0]]).double(), torch.tensor([[1.0, 0.0]]).double()
        >>> path = geodesic(PullbackMetric(Sphere().embedding), a, b)
        >>> round(path.length.item(), 8), path.converged.item()
        (1.57079633, True)
    """
    known = as_metric(metric)
    start, end = (end.detach() for end in check_pair(("start", "end"), start, end, known.dim))
    options = _options(start, nodes, max_nodes, tol, gap_tol, max_iter, beam)
    data = None if data is None else check_points("data", data, start.shape[1]).detach()
    kinds = start_kinds(starts, start, data)
    if chunk_size is not None:
        check_whole("chunk_size", chunk_size)
    with torch.no_grad():
        g = checked_tensor(known, torch.cat([start, end]))
        solution = _resting(start, options)
        moving = (start != end).any(1).nonzero().squeeze(1)
        if len(moving):
            _solve_moving(route_of(known), start, end, moving, kinds, data, options, chunk_size, solution)
        return _geodesic(solution, g, options, tuple(map(_name_of, kinds)))


def _solve_moving(
    route: Route,
    start: Points,
    end: Points,
    moving: Int[Tensor, " k"],
    kinds: list[Start],
    data: Float[Tensor, "c d"] | None,
    options: Options,
    chunk_size: int | None,
    solution: Solution,
) -> None:
    """Fill in the pairs of different points, a bounded number at a time; one graph serves them all."""
    rough, dtype = in_precision(route, torch.float32, start.dtype)
    if any(_named(kind, "graph") for kind in kinds):
        points = torch.cat([start[moving], end[moving]]).to(dtype)
        graph = LatentGraph.over(rough, points, None if data is None else data.to(points))
        kinds = [graph if _named(kind, "graph") else kind for kind in kinds]
    for rows in moving.split(chunk_size or pairs_at_once(route, start, options.nodes)):
        a, b = start[rows], end[rows]
        coarse = (options.nodes + 1) // 2
        origin, curves = _starting_curves(rough, a.to(dtype), b.to(dtype), kinds, rows, coarse)
        part = solve(route, rough, a, b, curves, options)
        part.start.copy_(torch.tensor(origin, device=start.device)[part.start])
        solution.put(rows, part)


def pairs_at_once(route: Route, z: Points, nodes: int) -> int:
    """How many curves of ``nodes`` nodes to take at a time: fewer where the images of points are wide."""
    width = max(1, route.probe(z[:1]).numel())
    return max(1, min(NODE_BUDGET, ENTRY_BUDGET // width) // nodes)


def _options(
    z: Tensor,
    nodes: Any,
    max_nodes: Any,
    tol: float | int | None,
    gap_tol: float | int,
    max_iter: Any,
    beam: float | int,
) -> Options:
    check_whole("nodes", nodes, minimum=5)
    if nodes % 2 == 0:
        raise ValueError(f"nodes: expected an odd number >= 5, got {nodes}; meshes are doubled and nest")
    check_whole("max_nodes", max_nodes, minimum=nodes)
    check_whole("max_iter", max_iter)
    check_positive("gap_tol", gap_tol)
    check_positive("beam", beam, zero=True)
    if tol is None:
        tol = 1e-2 if z.dtype == torch.float32 else 1e-6
    check_positive("tol", tol)
    return Options(int(nodes), int(max_nodes), float(tol), float(gap_tol), int(max_iter), float(beam))


def start_kinds(starts: Any, start: Tensor, data: Tensor | None) -> list[Start]:
    """The starts that will be tried: names, prepared graphs, and curves of the right shape."""
    m, d = start.shape
    default = isinstance(starts, tuple) and starts == START_NAMES
    kinds = [starts] if isinstance(starts, Start) else list(starts)
    if not kinds:
        raise ValueError(f"starts: expected at least one of {START_NAMES} or curves (m, N, d), got none")
    for kind in kinds:
        if isinstance(kind, Tensor):
            if kind.ndim != 3 or kind.shape[0] != m or kind.shape[2] != d or kind.shape[1] < 3:
                raise ValueError(f"starts: expected curves ({m}, N >= 3, {d}), got {tuple(kind.shape)}")
            check_finite("starts", kind.flatten(1))
        elif isinstance(kind, LatentGraph):
            if kind.nodes.shape[1] != d:
                raise ValueError(f"starts: expected a graph in {d} dimensions, got {kind.nodes.shape[1]}")
        elif kind not in START_NAMES:
            raise ValueError(f"starts: expected 'line', 'graph' or curves (m, N, d), got {kind!r}")
    if any(_named(kind, "graph") for kind in kinds) and d != 2 and (d == 1 or data is None):
        if d > 1 and not default:
            raise ValueError(f"starts: graph start in {d} dimensions needs data=(n, {d})")
        if d > 1:
            logger.info("no data given in %d dimensions: starting from straight lines alone", d)
        kinds = [kind for kind in kinds if not _named(kind, "graph")] or ["line"]
    return kinds


def _named(kind: Start, name: str) -> bool:
    return isinstance(kind, str) and kind == name


def _name_of(kind: Start) -> str:
    if isinstance(kind, str):
        return kind
    return "graph" if isinstance(kind, LatentGraph) else "given"


def _starting_curves(
    route: Route,
    start: Points,
    end: Points,
    kinds: list[Start],
    rows: Tensor,
    nodes: int,
) -> tuple[list[int], list[Tensor]]:
    """The curves that every start gives (a graph gives several batches), and which start each batch is of."""
    origin, curves = [], []
    for number, kind in enumerate(kinds):
        if isinstance(kind, Tensor):
            given = kind.detach()[rows].to(start)
            given = torch.cat([start.unsqueeze(1), given[:, 1:-1], end.unsqueeze(1)], dim=1)
            batches = [resample(given, torch.ones_like(given[:, 1:, 0]), nodes)]
        elif isinstance(kind, LatentGraph):
            batches = graph_paths(route, start, end, nodes, kind)
        else:
            batches = [straight_lines(start, end, nodes)]
        curves += batches
        origin += [number] * len(batches)
    return origin, curves


def _resting(z: Points, options: Options) -> Solution:
    """The answer for pairs of equal points, to be overwritten for the others."""
    m = len(z)
    zeros = [torch.zeros_like(z[:, 0]) for _ in range(5)]
    counts = [torch.zeros(m, dtype=torch.long, device=z.device) for _ in range(2)]
    points = z.unsqueeze(1).repeat(1, options.nodes, 1)
    return Solution(
        points,
        *zeros,
        *counts,
        mesh=torch.full_like(counts[0], options.nodes),
        momentum_start=torch.zeros_like(z),
        momentum_end=torch.zeros_like(z),
        finest=list(points),
    )


def _geodesic(solution: Solution, g: Tensor, options: Options, names: tuple[str, ...]) -> Geodesic:
    m = len(solution.points)
    finite = torch.isfinite(solution.points).flatten(1).all(1) & torch.isfinite(solution.length)
    sharp, seen = solution.residual <= options.tol, solution.gap <= options.gap_tol
    momenta = torch.cat([solution.momentum_start, solution.momentum_end]).unsqueeze(-1)
    velocities = torch.linalg.solve(g, momenta).squeeze(-1)
    given = ("momentum_start", "momentum_end", "finest")
    kept = [field.name for field in fields(solution) if field.name not in given]
    return Geodesic(
        **{name: getattr(solution, name) for name in kept},
        converged=finite & sharp & seen,
        start_names=names,
        finest=tuple(solution.finest),
        velocity_start=velocities[:m],
        velocity_end=velocities[m:],
        message=_message(finite, sharp, seen, solution, options),
    )


def _message(finite: Tensor, sharp: Tensor, seen: Tensor, solution: Solution, options: Options) -> str:
    """Which tests failed, for how many curves, and what to do."""
    parts = []
    if not bool(finite.all()):
        count = int((~finite).sum())
        parts.append(f"{count} left the domain of the metric: give a start that stays inside it")
    if not bool((sharp | ~finite).all()):
        bad = ~sharp & finite
        worst = float(solution.residual[bad].max())
        parts.append(
            f"{int(bad.sum())} by residual (largest {worst:.2g} > tol {options.tol:g}): raise max_iter "
            f"({options.max_iter}) or tol"
        )
    if not bool((seen | ~finite).all()):
        bad = ~seen & finite
        worst = float(solution.gap[bad].max())
        parts.append(
            f"{int(bad.sum())} by gap (largest {worst:.2g} > gap_tol {options.gap_tol:g}): raise max_nodes "
            f"({options.max_nodes})"
        )
    if not parts:
        return "all curves converged"
    failed = int((~(finite & sharp & seen)).sum())
    return f"{failed} of {len(finite)} curves not converged: " + "; ".join(parts)
