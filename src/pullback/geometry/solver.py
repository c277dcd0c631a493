"""From starting curves to certified geodesics: coarse descent, selection, fine descent, doubling."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullback.geometry.energy import CurveEnergy, Curves
from pullback.geometry.newton import Descent, advance, begin, correct
from pullback.geometry.route import Inspection, Points, Route, respace
from pullback.geometry.spline import spline_through
from pullback.geometry.starts import straight_lines

COARSE_TOL = 1e-1
COARSE_STEPS = (1, 1, 2, 4)
COARSE_DAMPING = 1.0
# With more, curves of the coarse stage end in other valleys: of 1225 pairs one was 1.1 % longer.
COARSE_ISOTROPIC = 1e-4
FINE_STEPS = 3
FINE_DAMPING = 1e-3
# While curves are on their way, others of the pair within this part of the best energy may still win.
EARLY_BEAM = 0.2
LATE_BEAM = 0.05
# Curves of one pair are the same if their nodes lie closer than this many steps, or their energies than this
# part.
SAME_STEPS = 2.0
SAME_ENERGY = 1e-3


@dataclass(frozen=True)
class Options:
    """How a geodesic is sought; the fields are options of `pullback.geometry.geodesic`."""

    nodes: int
    max_nodes: int
    tol: float
    gap_tol: float
    max_iter: int
    beam: float


@dataclass(frozen=True)
class Solution:
    """Curves on the asked mesh with everything that was measured on the final one."""

    points: Float[Tensor, "m N d"]
    length: Float[Tensor, " m"]
    energy: Float[Tensor, " m"]
    residual: Float[Tensor, " m"]
    gap: Float[Tensor, " m"]
    defect: Float[Tensor, " m"]
    iterations: Int[Tensor, " m"]
    start: Int[Tensor, " m"]
    mesh: Int[Tensor, " m"]
    momentum_start: Float[Tensor, "m d"]
    momentum_end: Float[Tensor, "m d"]
    finest: list[Float[Tensor, "_ d"]]

    def rows(self, index: Tensor) -> "Solution":
        """The curves ``index``."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {name: part[index] for name, part in parts.items() if isinstance(part, Tensor)}
        return Solution(finest=[self.finest[row] for row in index.tolist()], **tensors)

    def put(self, index: Tensor, other: "Solution") -> None:
        """Write the curves of ``other`` into the rows ``index``."""
        for field in fields(self):
            if field.name != "finest":
                getattr(self, field.name)[index] = getattr(other, field.name)
        for row, curve in zip(index.tolist(), other.finest, strict=True):
            self.finest[row] = curve


@dataclass
class _Race:
    """Curves under way: which pair each belongs to, where it started and how many steps it took before."""

    pair: Tensor
    start: Tensor
    descent: Descent
    before: Tensor

    def rows(self, index: Tensor) -> "_Race":
        return _Race(self.pair[index], self.start[index], self.descent.rows(index), self.before[index])


def solve(
    route: Route, rough: Route, start: Points, end: Points, curves: list[Curves], options: Options
) -> Solution:
    """Geodesics from ``start`` to ``end``, one a pair, from the given starting curves.

    Args:
        route, rough: the geometry in the precision of the answer, and in the one of the coarse stage.
        curves: one batch (m, N, d) for every kind of start, in the coarse precision and with the coarse
            nodes.
    """
    solution = _descended(route, rough, start, end, curves, options)
    if len(curves) > 1:
        _try_alone(route, rough, start, end, curves, solution, options)
    _bound_by_lines(route, start, end, solution, options)
    return solution


def _try_alone(
    route: Route,
    rough: Route,
    start: Points,
    end: Points,
    curves: list[Curves],
    solution: Solution,
    options: Options,
) -> None:
    """Pairs without a certificate try each start by itself, until one leads to a certificate.

    The best curve on a coarse mesh may lead nowhere: where the chart has a pole it jumps across, in one step.
    A curve that is longer than the one at hand by more than ``gap_tol`` is no answer, certified or not.
    """
    for kind, given in enumerate(curves):
        failed = (~_certified(solution, options)).nonzero().squeeze(1)
        if len(failed) == 0:
            return
        other = _descended(route, rough, start[failed], end[failed], [given[failed]], options)
        other.start.fill_(kind)
        other.iterations.add_(solution.iterations[failed])
        longer = other.length > (1 + options.gap_tol) * solution.length[failed]
        good = (_certified(other, options) & ~longer).nonzero().squeeze(1)
        solution.put(failed[good], other.rows(good))


def _descended(
    route: Route, rough: Route, start: Points, end: Points, curves: list[Curves], options: Options
) -> Solution:
    """The curves to which the descent leads."""
    problem = route.energy(start, end)
    race = _coarse(rough, curves, options)
    points = race.descent.points.to(start.dtype)
    points[:, 0], points[:, -1] = start[race.pair], end[race.pair]
    race = _refined(route, problem, race, points, options)
    solution = _measured(route, race, options)
    while True:
        open_ = ~_certified(solution, options)
        finer = 2 * race.descent.points.shape[1] - 1
        if finer > options.max_nodes or not bool(open_.any()):
            return solution
        race = race.rows((torch.isfinite(race.descent.energy) & open_[race.pair]).nonzero().squeeze(1))
        race = _refined(route, problem, race, race.descent.points, options)
        race = race.rows(torch.isfinite(race.descent.energy).nonzero().squeeze(1))
        if len(race.pair) == 0:
            return solution
        solution.put(race.pair, _measured(route, race, options))


def _coarse(route: Route, curves: list[Curves], options: Options) -> _Race:
    """All starts on the coarse mesh, fewer and fewer of them."""
    m, kinds = curves[0].shape[0], len(curves)
    points = respace(route, torch.cat(curves))
    pair = torch.arange(m, device=points.device).repeat(kinds)
    start = torch.arange(kinds, device=points.device).repeat_interleave(m)
    problem = route.energy(curves[0][:, 0], curves[0][:, -1])
    descent = begin(problem.rows(pair), points, damping=COARSE_DAMPING, isotropic=COARSE_ISOTROPIC)
    race = _Race(pair, start, descent, torch.zeros_like(pair))
    for steps in COARSE_STEPS:
        race = race.rows(_leaders(race, EARLY_BEAM))
        advance(race.descent, tol=COARSE_TOL, steps=steps)
    return race.rows(_leaders(race, options.beam, converged=True))


def _refined(route: Route, problem: CurveEnergy, race: _Race, points: Curves, options: Options) -> _Race:
    """Twice the mesh of ``points``, equal steps, Newton to the end; one curve a pair."""
    finer = respace(route, spline_through(points).doubled())
    descent = begin(problem.rows(race.pair), finer, damping=FINE_DAMPING)
    race = _Race(race.pair, race.start, descent, race.before + race.descent.iterations)
    early = min(FINE_STEPS, options.max_iter)
    advance(race.descent, tol=options.tol, steps=early)
    race = race.rows(_leaders(race, LATE_BEAM, converged=True))
    advance(race.descent, tol=options.tol, steps=options.max_iter - early)
    race = race.rows(_leaders(race, 0.0))
    if route.measures_residual and points.dtype == torch.float64:
        correct(race.descent, tol=options.tol)
    _sharpen(route, race.descent, options)
    return race


def _sharpen(route: Route, descent: Descent, options: Options) -> None:
    """Finish in float64 what single precision cannot: its second differences have a rounding floor."""
    blurred = (descent.residual > options.tol).nonzero().squeeze(1)
    if descent.points.dtype == torch.float64 or len(blurred) == 0:
        return
    exact = route.cast(torch.float64)
    if exact is route:
        return
    points = descent.points[blurred].double()
    finished = begin(exact.energy(points[:, 0], points[:, -1]), points, damping=FINE_DAMPING)
    advance(finished, tol=options.tol, steps=options.max_iter)
    for name in ("points", "energy", "residual"):
        part = getattr(descent, name)
        part[blurred] = getattr(finished, name).to(part.dtype)
    descent.iterations[blurred] += finished.iterations


def _leaders(race: _Race, beam: float, *, converged: bool = False) -> Int[Tensor, " c"]:
    """Rows, ordered by pair, of each pair's best curve and of others within ``beam`` that differ from it.

    Each curve is compared with those of its pair that have less energy: by the distance of their nodes while
    they move, by their energies once ``converged``.
    """
    energy, points = race.descent.energy, race.descent.points
    order = torch.argsort(energy, stable=True)
    order = order[torch.argsort(race.pair[order], stable=True)]
    pair = race.pair[order]
    head = torch.searchsorted(pair, pair)
    rank = torch.arange(len(order), device=order.device) - head
    # A pair of which no start stays in the domain keeps one curve, too.
    near = (energy[order] <= (1 + beam) * energy[order[head]]) & torch.isfinite(energy[order])
    keep = (rank == 0) | near
    for lag in range(1, int(rank.max()) + 1 if len(rank) else 1):
        later = ((rank >= lag) & keep).nonzero().squeeze(1)
        a, b = order[later], order[later - lag]
        if converged:
            same = energy[a] - energy[b] <= SAME_ENERGY * energy[b]
        else:
            delta = (points[a] - points[b])[:, 1:-1]
            square = torch.einsum("mka,mkab,mkb->mk", delta, race.descent.system.metric[b], delta).amax(1)
            same = square * (points.shape[1] - 1) ** 2 <= SAME_STEPS**2 * energy[b]
        keep[later] = ~(same & keep[later - lag])
    return order[keep]


def _bound_by_lines(route: Route, start: Points, end: Points, solution: Solution, options: Options) -> None:
    """A curve without a certificate that is longer than the straight line gives way to the line.

    Between its nodes a curve may be of any length: where the shortest way leads through a pole of the chart,
    nodes were seen to run off to 1e128.
    """
    failed = (~_certified(solution, options)).nonzero().squeeze(1)
    if len(failed) == 0:
        return
    lines = straight_lines(start[failed], end[failed], options.nodes)
    length = route.speeds(lines).length()
    shorter = (torch.isfinite(length) & (solution.length[failed] > length)).nonzero().squeeze(1)
    if len(shorter) == 0:
        return
    rows, lines, seen = failed[shorter], lines[shorter], route.inspect(lines[shorter])
    unknown = torch.full_like(seen.bend, torch.inf)
    bounded = Solution(
        points=lines,
        length=length[shorter],
        energy=seen.speeds.energy(),
        residual=unknown,
        gap=unknown,
        defect=seen.bend / length[shorter],
        iterations=solution.iterations[rows],
        start=solution.start[rows],
        mesh=torch.full_like(rows, options.nodes),
        momentum_start=seen.momentum_start,
        momentum_end=seen.momentum_end,
        finest=list(lines),
    )
    solution.put(rows, bounded)


def _certified(solution: Solution, options: Options) -> Bool[Tensor, " m"]:
    return (solution.residual <= options.tol) & (solution.gap <= options.gap_tol)


def mesh_gap(discrete: Float[Tensor, " m"], seen: Inspection) -> Float[Tensor, " m"]:
    """The part of the energy between the nodes, (E_2n - E_n)/E_2n.

    ¾(E - E_n)/E with E by quadrature is the same where the mesh resolves the curve; it looks at other points,
    and the larger of the two counts: a ridge may hide from either.
    """
    doubled = 1 - discrete / seen.doubled_energy
    quadrature = 0.75 * (1 - discrete / seen.speeds.energy())
    return torch.maximum(doubled, quadrature).nan_to_num(nan=torch.inf)


def _measured(route: Route, race: _Race, options: Options) -> Solution:
    """Length, energy and certificate of curves on their mesh."""
    descent, points, mesh = race.descent, race.descent.points, race.descent.points.shape[1]
    seen = route.inspect(points)
    length = seen.speeds.length()
    residual, energy = descent.residual, descent.energy
    if route.measures_residual and points.dtype == torch.float64:
        residual, energy = seen.residual, seen.energy
    outside = ~torch.isfinite(energy)  # a map may have a derivative where it has no value
    length = length.masked_fill(outside, torch.nan)
    return Solution(
        points=points[:, :: (mesh - 1) // (options.nodes - 1)],
        length=length,
        energy=seen.speeds.energy(),
        residual=residual.nan_to_num(nan=torch.inf),
        gap=mesh_gap(energy, seen),
        defect=seen.bend / length,
        iterations=race.before + descent.iterations,
        start=race.start,
        mesh=torch.full_like(race.pair, mesh),
        momentum_start=seen.momentum_start,
        momentum_end=seen.momentum_end,
        finest=list(points),
    )
