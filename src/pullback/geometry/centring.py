"""Newton's method for the Fréchet means of groups of points, all groups at once.

A centre x and its points z_i are joined by discrete geodesics of energies E_i(x), so F(x) = Σ w_i E_i(x)
depends on x alone. With the interior nodes of a curve eliminated (H_11 their Hessian, H_1x the mixed block),

    ∂E_i = ∂E_i/∂z_0,   ∂²E_i = H_xx - H_x1 H_11⁻¹ H_1x

exactly. E_n is off by O(1/n²); energies and derivatives on a mesh and on every second node of it give
(4 E_2n - E_n)/3, whose minimum is that of the sum of squared distances to O(1/n⁴).
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullback.geometry.energy import Curves, System
from pullback.geometry.geodesics import NODE_BUDGET, Geodesic
from pullback.geometry.momenta import SETTLED, SETTLING_DAMPING, SETTLING_STEPS
from pullback.geometry.newton import NOISE_ROUNDINGS, Descent, advance, begin, correct
from pullback.geometry.route import Extrinsic, Intrinsic, Points, Route
from pullback.geometry.tridiagonal import solve_block_tridiagonal
from pullback.metrics import BaseMetric, PullbackMetric

ARMIJO = 1e-4
HALVINGS = 10
# Curvatures of ½F relative to the metric (1 in flat space) below which a centre is no firm minimum.
LEAST_CONVEXITY = 1e-6
# A step off a saddle, in standard deviations.
KICK = 0.3
# Relative difference of energies up to which the curves of two meshes are taken for the same.
ALIKE = 0.05


@dataclass
class Sheaf:
    """Curves of one mesh from centres to some of the points.

    Attributes:
        row: number of the point at the end of each curve.
        points: the curves.
        factor: with which the energy of each counts.
        fine: whether this is the final mesh, not every second node of it.
    """

    row: Int[Tensor, " m"]
    points: Curves
    factor: Float[Tensor, " m"]
    fine: bool

    def part(self, keep: Bool[Tensor, " n"]) -> "Sheaf":
        """The curves to the points that ``keep`` names."""
        inside = keep[self.row]
        return Sheaf(self.row[inside], self.points[inside], self.factor[inside], self.fine)

    def put(self, other: "Sheaf", keep: Bool[Tensor, " n"]) -> None:
        """Take the curves to the points that ``keep`` names from ``other``, which has at least those."""
        self.points[keep[self.row]] = other.part(keep).points

    def shifted(self, start: Float[Tensor, "n d"]) -> "Sheaf":
        """First nodes moved to ``start``, the others by less and less of that step, last nodes not at all."""
        t = torch.linspace(1, 0, self.points.shape[1], dtype=start.dtype, device=start.device)[:, None]
        first = start[self.row].unsqueeze(1)
        points = self.points + t * (first - self.points[:, :1])
        points[:, :1] = first
        return replace(self, points=points)


@dataclass
class Fan:
    """Geodesics from centres to n points and the derivatives of their energies.

    Attributes:
        sheaves: the curves.
        energy: E_i, infinite where the curve left the domain of the metric.
        gradient, hessian: of E_i with respect to the centre.
        settled: whether all curves of a point became discrete geodesics.
    """

    sheaves: list[Sheaf]
    energy: Float[Tensor, " n"]
    gradient: Float[Tensor, "n d"]
    hessian: Float[Tensor, "n d d"]
    settled: Bool[Tensor, " n"]

    def put(self, other: "Fan", keep: Bool[Tensor, " n"]) -> None:
        """Take the points that ``keep`` names from ``other``."""
        for mine, its in zip(self.sheaves, other.sheaves, strict=True):
            mine.put(its, keep)
        self._read(other, keep)

    def _read(self, other: "Fan", keep: Bool[Tensor, " n"]) -> None:
        for name in ("energy", "gradient", "hessian", "settled"):
            getattr(self, name)[keep] = getattr(other, name)[keep]

    def loosen(self, route: Route, rows: Bool[Tensor, " n"]) -> None:
        """Count some points by their fine curves alone from now on."""
        for sheaf in self.sheaves:
            if sheaf.fine:
                sheaf.factor[rows[sheaf.row]] = 1
        self.sheaves = [sheaf if sheaf.fine else sheaf.part(~rows) for sheaf in self.sheaves]
        own = [sheaf.part(rows) for sheaf in self.sheaves if sheaf.fine]
        self._read(unfolded(route, own, len(self.energy)), rows)

    @property
    def extrapolated(self) -> Bool[Tensor, " n"]:
        """Which points count by two meshes."""
        both = torch.zeros_like(self.settled)
        for sheaf in self.sheaves:
            if not sheaf.fine:
                both[sheaf.row] = True
        return both


def unfolded(route: Route, sheaves: list[Sheaf], n: int) -> Fan:
    """Let curves settle to discrete geodesics between their ends and add up what they say of each point."""
    like = sheaves[0].points
    d = like.shape[2]
    settled = torch.ones(n, dtype=torch.bool, device=like.device)
    fan = Fan([], like.new_zeros(n), like.new_zeros(n, d), like.new_zeros(n, d, d), settled)
    for sheaf in sheaves:
        if len(sheaf.row) == 0:
            fan.sheaves.append(sheaf)
            continue
        descent = _settled(route, sheaf.points)
        fan.sheaves.append(replace(sheaf, points=descent.points))
        fan.settled[sheaf.row] &= descent.residual <= SETTLED
        blocks = descent.problem.start_blocks(descent.points)
        reduced = blocks.diagonal - _back_action(descent.system, blocks.coupling)
        factor = 2 * (sheaf.points.shape[1] - 1) * sheaf.factor[:, None]
        fan.energy.index_add_(0, sheaf.row, sheaf.factor * descent.energy)
        fan.gradient.index_add_(0, sheaf.row, factor * blocks.gradient)
        fan.hessian.index_add_(0, sheaf.row, factor[:, None] * (reduced + reduced.mT) / 2)
    lost = ~torch.isfinite(fan.energy)
    fan.energy[lost], fan.gradient[lost], fan.hessian[lost] = torch.inf, 0, 0
    return fan


def _settled(route: Route, points: Curves) -> Descent:
    descent = begin(route.energy(points[:, 0], points[:, -1]), points, damping=SETTLING_DAMPING)
    # A curve between equal points rests already, though its relative residual is 0/0.
    descent.residual.masked_fill_(descent.energy == 0, 0)
    advance(descent, tol=SETTLED, steps=SETTLING_STEPS)
    correct(descent, tol=SETTLED)
    return descent


def _back_action(system: System, coupling: Float[Tensor, "m d d"]) -> Float[Tensor, "m d d"]:
    """H_x1 H_11⁻¹ H_1x: what the interior nodes give back as they follow the first one."""
    right = coupling.new_zeros(*system.gradient.shape, coupling.shape[1])
    right[:, 0] = coupling.mT
    return coupling @ solve_block_tridiagonal(system.diagonal, system.upper, right)[:, 0]


def fan_of(route: Route, path: Geodesic, dtype: torch.dtype) -> Fan:
    """The curves of geodesics on their final meshes and, extrapolating, on every second node of them.

    A point whose coarse curve finds no geodesic, or one of another energy, counts by the fine one alone.

    Args:
        dtype: the precision in which to go on.
    """
    fine, coarse = [], []
    for nodes in path.mesh.unique().tolist():
        for row in (path.mesh == nodes).nonzero().squeeze(1).split(max(1, NODE_BUDGET // nodes)):
            points = torch.stack([path.finest[i] for i in row.tolist()]).to(dtype)
            factor = torch.ones_like(points[:, 0, 0])
            fine.append(Sheaf(row, points, factor, True))
            coarse.append(Sheaf(row, points[:, ::2].clone(), factor, False))
    near, far = (unfolded(route, sheaves, len(path)) for sheaves in (fine, coarse))
    alike = far.settled & ((near.energy - far.energy).abs() <= ALIKE * near.energy)
    sheaves = [replace(sheaf, factor=1 + alike[sheaf.row] / 3) for sheaf in near.sheaves]
    kept = [sheaf.part(alike) for sheaf in far.sheaves]
    sheaves += [replace(sheaf, factor=-sheaf.factor / 3) for sheaf in kept]
    columns = [
        torch.where(alike.reshape(-1, *(1,) * (a.ndim - 1)), a + (a - b) / 3, a)
        for a, b in ((getattr(near, name), getattr(far, name)) for name in ("energy", "gradient", "hessian"))
    ]
    return Fan(sheaves, *columns, settled=near.settled)


@dataclass(frozen=True)
class Groups:
    """Which centre each point belongs to, and with what weight; the weights of a group sum to 1."""

    of: Int[Tensor, " n"]
    weight: Float[Tensor, " n"]
    count: int

    def total(self, values: Float[Tensor, "n *r"]) -> Float[Tensor, "k *r"]:
        """Weighted sums over the groups; a point without weight does not count, finite or not."""
        weight = self.weight.reshape(-1, *(1,) * (values.ndim - 1))
        terms = torch.where(weight > 0, weight * values, 0)
        return values.new_zeros(self.count, *values.shape[1:]).index_add(0, self.of, terms)


def tensor_of(route: Route) -> BaseMetric:
    """The metric that a route sees, in the route's precision."""
    if isinstance(route, Intrinsic):
        return route.metric
    assert isinstance(route, Extrinsic)
    return PullbackMetric(route.embedding)


@dataclass(frozen=True)
class Shape:
    """The sum of squares F around every centre, in frames that are orthonormal there.

    Attributes:
        value: F.
        frame: columns orthonormal with respect to g, (k, d, d).
        slope: ∂F in the frame.
        convexity, axes: eigenvalues, ascending, and eigenvectors of ½ ∂²F in the frame: all 1 in flat space.
    """

    value: Float[Tensor, " k"]
    frame: Float[Tensor, "k d d"]
    slope: Float[Tensor, "k d"]
    convexity: Float[Tensor, "k d"]
    axes: Float[Tensor, "k d d"]

    @property
    def residual(self) -> Float[Tensor, " k"]:
        """|Σ w log|_g / √F; zero where all points coincide."""
        away = self.value > 0
        return torch.where(away, self.slope.norm(dim=1) / 2 / torch.where(away, self.value, 1).sqrt(), 0)

    @property
    def saddle(self) -> Bool[Tensor, " k"]:
        """Whether F falls to the second order in some direction."""
        return (self.convexity[:, 0] < -LEAST_CONVEXITY) & (self.value > 0)

    def step(self, attempt: int, tol: float) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
        """The ``attempt``-th step to try, in the frame, and the decrease of F that it promises.

        Newton's step first, no longer than √F; then, and where F is not convex, Σ w log and its halves; and
        from a saddle along the direction in which F falls.
        """
        firm = self.convexity[:, 0] > LEAST_CONVEXITY
        reach = self.value.clamp_min(0).sqrt()
        along = torch.einsum("kab,ka->kb", self.axes, self.slope)
        scaled = along / torch.where(firm[:, None], 2 * self.convexity, 1)
        newton = -torch.einsum("kab,kb->ka", self.axes, scaled)
        size = newton.norm(dim=1).clamp_min(torch.finfo(reach.dtype).tiny)
        newton = newton * (reach / size).clamp_max(1)[:, None]
        half = 0.5 ** (attempt - firm.to(reach))
        step = torch.where((firm & (attempt == 0))[:, None], newton, -half[:, None] / 2 * self.slope)
        stuck = self.saddle & (self.residual <= tol)
        side = torch.where(along[:, 0] > 0, -1.0, 1.0).to(reach)
        kick = (side * KICK * half * reach)[:, None] * self.axes[:, :, 0]
        step = torch.where(stuck[:, None], kick, step)
        promise = -(step * self.slope).sum(1)
        fall = -self.convexity[:, 0] * kick.square().sum(1)
        return step, torch.where(stuck, promise + fall, promise)


def shape_of(metric: BaseMetric, centres: Points, fan: Fan, groups: Groups) -> Shape:
    """F and its derivatives at the centres."""
    factor = torch.linalg.cholesky(metric.tensor(centres))
    eye = torch.eye(centres.shape[1], dtype=centres.dtype, device=centres.device).expand_as(factor)
    frame = torch.linalg.solve_triangular(factor, eye, upper=False).mT
    slope = torch.einsum("kab,ka->kb", frame, groups.total(fan.gradient))
    convexity, axes = torch.linalg.eigh(frame.mT @ groups.total(fan.hessian) @ frame / 2)
    return Shape(groups.total(fan.energy), frame, slope, convexity, axes)


@dataclass
class Centring:
    """Centres on their way to the means of their groups; `pursue` moves them on in place.

    Attributes:
        centres: (k, d).
        fan: curves from the centres to the points.
        groups: which point belongs to which centre.
        steps: steps taken by each centre.
    """

    centres: Float[Tensor, "k d"]
    fan: Fan
    groups: Groups
    steps: Int[Tensor, " k"]

    @classmethod
    def at(cls, centres: Points, fan: Fan, groups: Groups) -> "Centring":
        """Before the first step."""
        return cls(centres, fan, groups, torch.zeros(len(centres), dtype=torch.long, device=centres.device))


def pursue(route: Route, state: Centring, *, tol: float, max_iter: int) -> None:
    """Steps of every centre until its residual is at most ``tol`` and it stands on no saddle.

    A step that does not lower F enough is replaced by shorter ones; a centre for which none does stays.
    """
    metric = tensor_of(route)
    stuck = torch.zeros_like(state.steps, dtype=torch.bool)
    while True:
        shape = shape_of(metric, state.centres, state.fan, state.groups)
        open_ = ((shape.residual > tol) | shape.saddle) & ~stuck & (state.steps < max_iter)
        if not bool(open_.any()):
            return
        before = state.fan.extrapolated
        moved = _stepped(route, metric, state, shape, open_, tol)
        if not torch.equal(before, state.fan.extrapolated):
            continue
        state.steps += moved.long()
        stuck |= open_ & ~moved


def _stepped(
    route: Route, metric: BaseMetric, state: Centring, shape: Shape, open_: Bool[Tensor, " k"], tol: float
) -> Bool[Tensor, " k"]:
    """Try one step of every open centre; which of them moved.

    Where a coarse curve ceases to exist under a step, its point is first made to count by its fine one alone.
    """
    groups, waiting = state.groups, open_.clone()
    noise = NOISE_ROUNDINGS * torch.finfo(shape.value.dtype).eps * shape.value
    for attempt in range(HALVINGS):
        step, promise = shape.step(attempt, tol)
        delta = (shape.frame @ step.unsqueeze(-1)).squeeze(-1) * waiting[:, None]
        rows = waiting[groups.of]
        trial = state.centres + delta
        shifted = [sheaf.part(rows).shifted(trial[groups.of]) for sheaf in state.fan.sheaves]
        fan = unfolded(route, shifted, len(groups.of))
        change = shape.value - groups.total(fan.energy)
        proper = torch.linalg.cholesky_ex(metric.tensor(trial))[1] == 0
        accept = waiting & proper & ((change >= ARMIJO * promise) | (change.abs() <= noise))
        state.fan.put(fan, accept[groups.of])
        state.centres = torch.where(accept[:, None], trial, state.centres)
        waiting = waiting & ~accept
        lost = waiting[groups.of] & ~fan.settled & state.fan.extrapolated
        if bool(lost.any()):
            state.fan.loosen(route, lost)
            break
        if not bool(waiting.any()):
            break
    return open_ & ~waiting
