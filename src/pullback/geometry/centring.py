"""Newton's method for the Fréchet means of groups of points, all groups at once.

A centre x and its points z_i are joined by discrete geodesics of energies E_i(x), so F(x) = Σ w_i E_i(x)
depends on x alone. With the interior nodes of a curve eliminated (H_11 their Hessian, H_1x the mixed block),

    ∂E_i = ∂E_i/∂z_0,   ∂²E_i = H_xx - H_x1 H_11⁻¹ H_1x

exactly. E_n is off by O(1/n²); gradients on a mesh and on every second node of it give (4 ∂E_2n - ∂E_n)/3,
which vanishes at the minimum of the sum of squared distances to O(1/n⁴).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullback.geometry.energy import Curves, System
from pullback.geometry.geodesics import Geodesic
from pullback.geometry.momenta import SETTLED, by_mesh, settled
from pullback.geometry.newton import NOISE_ROUNDINGS
from pullback.geometry.route import Extrinsic, Intrinsic, Route
from pullback.geometry.tridiagonal import solve_block_tridiagonal
from pullback.metrics import BaseMetric, PullbackMetric

ARMIJO = 1e-4
HALVINGS = 10
CORRECTIONS = 4
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
    """

    row: Int[Tensor, " m"]
    points: Curves

    def part(self, keep: Bool[Tensor, " n"]) -> "Sheaf":
        """The curves to the points that ``keep`` names."""
        inside = keep[self.row]
        return Sheaf(self.row[inside], self.points[inside])

    def put(self, other: "Sheaf", keep: Bool[Tensor, " n"]) -> None:
        """Take the curves to the points that ``keep`` names from ``other``, which has at least those."""
        self.points[keep[self.row]] = other.part(keep).points

    def shifted(self, start: Float[Tensor, "n d"]) -> "Sheaf":
        """First nodes moved to ``start``, the others by less and less of that step, last nodes not at all."""
        t = torch.linspace(1, 0, self.points.shape[1], dtype=start.dtype, device=start.device)[:, None]
        first = start[self.row].unsqueeze(1)
        points = self.points + t * (first - self.points[:, :1])
        points[:, :1] = first
        return Sheaf(self.row, points)


@dataclass
class Fan:
    """Geodesics from centres to n points and the derivatives of their energies.

    Attributes:
        sheaves: the curves.
        energy: E_i, infinite where the curve left the domain of the metric.
        gradient, hessian: of E_i with respect to the centre.
        settled: whether the curve became a discrete geodesic.
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
        for name in ("energy", "gradient", "hessian", "settled"):
            getattr(self, name)[keep] = getattr(other, name)[keep]


def unfolded(route: Route, sheaves: list[Sheaf], n: int) -> Fan:
    """Let curves settle to discrete geodesics and see how their energies change with the centres.

    Args:
        n: number of points; those that no curve leads to get zeros.
    """
    like = sheaves[0].points
    d = like.shape[2]
    zeros = like.new_zeros(n), like.new_zeros(n, d), like.new_zeros(n, d, d)
    fan = Fan([], *zeros, torch.ones(n, dtype=torch.bool, device=like.device))
    for sheaf in sheaves:
        row, intervals = sheaf.row, sheaf.points.shape[1] - 1
        if len(row) == 0:
            fan.sheaves.append(sheaf)
            continue
        descent = settled(route, sheaf.points)
        fan.sheaves.append(Sheaf(row, descent.points))
        blocks = descent.problem.start_blocks(descent.points)
        reduced = blocks.diagonal - _back_action(descent.system, blocks.coupling)
        fan.energy[row], fan.settled[row] = descent.energy, descent.residual <= SETTLED
        fan.gradient[row] = 2 * intervals * blocks.gradient
        fan.hessian[row] = intervals * (reduced + reduced.mT)
    lost = ~torch.isfinite(fan.energy)
    fan.energy[lost], fan.gradient[lost], fan.hessian[lost] = torch.inf, 0, 0
    return fan


def _back_action(system: System, coupling: Float[Tensor, "m d d"]) -> Float[Tensor, "m d d"]:
    """H_x1 H_11⁻¹ H_1x: what the interior nodes give back as they follow the first one."""
    right = coupling.new_zeros(*system.gradient.shape, coupling.shape[1])
    right[:, 0] = coupling.mT
    return coupling @ solve_block_tridiagonal(system.diagonal, system.upper, right)[:, 0]


def fan_of(route: Route, path: Geodesic, dtype: torch.dtype) -> Fan:
    """The curves of geodesics on their final meshes, in the precision in which to go on."""
    sheaves = [Sheaf(row, curves.to(dtype)) for row, curves in by_mesh(path, moving=False)]
    return unfolded(route, sheaves, len(path))


def correction(
    route: Route, fan: Fan, among: Bool[Tensor, " n"]
) -> tuple[Float[Tensor, "n d"], Bool[Tensor, " n"]]:
    """(∂E_2n - ∂E_n)/3, to be added to ∂E_2n: what both meshes together say of the gradient's error.

    Zero for points not ``among`` those to be corrected, or whose curve on every second node finds no
    geodesic, or one of another energy.

    Returns: the corrections, and which points have one.
    """
    coarse = [Sheaf(sheaf.row, sheaf.points[:, ::2].clone()) for sheaf in fan.sheaves]
    seen = unfolded(route, coarse, len(fan.energy))
    alike = among & seen.settled & ((fan.energy - seen.energy).abs() <= ALIKE * fan.energy)
    return torch.where(alike[:, None], (fan.gradient - seen.gradient) / 3, 0), alike


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
    """The corrected sum of squares F around every centre, in frames that are orthonormal there.

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


@dataclass
class Centring:
    """Centres on their way to the means of their groups; `pursue` moves them on in place.

    What falls is F + <tilt, x - anchor> with F = Σ w E: on one mesh, the gradient corrected by both.

    Attributes:
        centres: (k, d).
        fan: curves from the centres to the points.
        groups: which point belongs to which centre.
        bias, anchor: `correction` of every point, and the centres at which it was taken.
        corrected: points that have had a correction each time; one that comes and goes would find no end.
        steps: steps taken by each centre.
    """

    centres: Float[Tensor, "k d"]
    fan: Fan
    groups: Groups
    bias: Float[Tensor, "n d"]
    anchor: Float[Tensor, "k d"]
    corrected: Bool[Tensor, " n"]
    steps: Int[Tensor, " k"]

    @classmethod
    def at(cls, route: Route, centres: Float[Tensor, "k d"], fan: Fan, groups: Groups) -> "Centring":
        """Before the first step."""
        steps = torch.zeros(len(centres), dtype=torch.long, device=centres.device)
        bias, corrected = correction(route, fan, torch.ones_like(fan.settled))
        return cls(centres, fan, groups, bias, centres, corrected, steps)

    @property
    def tilt(self) -> Float[Tensor, "k d"]:
        """Weighted sums of `bias`."""
        return self.groups.total(self.bias)

    def value(self, centres: Float[Tensor, "k d"], energy: Float[Tensor, " n"]) -> Float[Tensor, " k"]:
        """What falls, with the curves' energies from given centres."""
        return self.groups.total(energy) + (self.tilt * (centres - self.anchor)).sum(1)

    def shape(self, metric: BaseMetric) -> Shape:
        """F and its derivatives at the centres."""
        factor = torch.linalg.cholesky(metric.tensor(self.centres))
        eye = torch.eye(self.centres.shape[1], dtype=factor.dtype, device=factor.device).expand_as(factor)
        frame = torch.linalg.solve_triangular(factor, eye, upper=False).mT
        slope = torch.einsum("kab,ka->kb", frame, self.groups.total(self.fan.gradient) + self.tilt)
        convexity, axes = torch.linalg.eigh(frame.mT @ self.groups.total(self.fan.hessian) @ frame / 2)
        return Shape(self.groups.total(self.fan.energy), frame, slope, convexity, axes)


def pursue(route: Route, state: Centring, *, tol: float, max_iter: int) -> None:
    """Steps of every centre until its residual is at most ``tol`` and it stands on no saddle.

    The correction is renewed where the steps have ended, which moves the centres by little and soon by
    nothing.
    """
    for _ in range(CORRECTIONS):
        _descend(route, state, tol=tol / 2, max_iter=max_iter)
        state.bias, state.corrected = correction(route, state.fan, state.corrected)
        state.anchor = state.centres
        shape = state.shape(tensor_of(route))
        if not bool(((shape.residual > tol) & (state.steps < max_iter)).any()):
            return


def _descend(route: Route, state: Centring, *, tol: float, max_iter: int) -> None:
    """Steps that lower what is to fall; a centre for which none does stays."""
    metric = tensor_of(route)
    stuck = torch.zeros_like(state.steps, dtype=torch.bool)
    while True:
        shape = state.shape(metric)
        open_ = ((shape.residual > tol) | shape.saddle) & ~stuck & (state.steps < max_iter)
        if not bool(open_.any()):
            return
        moved = _stepped(route, metric, state, shape, open_, tol)
        state.steps += moved.long()
        stuck |= open_ & ~moved


def _stepped(
    route: Route, metric: BaseMetric, state: Centring, shape: Shape, open_: Bool[Tensor, " k"], tol: float
) -> Bool[Tensor, " k"]:
    """Try one step of every open centre; which of them moved."""
    groups, waiting = state.groups, open_.clone()
    before = state.value(state.centres, state.fan.energy)
    noise = NOISE_ROUNDINGS * torch.finfo(before.dtype).eps * shape.value
    for attempt in range(HALVINGS):
        step, promise = shape.step(attempt, tol)
        trial = state.centres + (shape.frame @ step.unsqueeze(-1)).squeeze(-1) * waiting[:, None]
        rows = waiting[groups.of]
        shifted = [sheaf.part(rows).shifted(trial[groups.of]) for sheaf in state.fan.sheaves]
        fan = unfolded(route, shifted, len(groups.of))
        change = before - state.value(trial, fan.energy)
        proper = torch.linalg.cholesky_ex(metric.tensor(trial))[1] == 0
        accept = waiting & proper & ((change >= ARMIJO * promise) | (change.abs() <= noise))
        state.fan.put(fan, accept[groups.of])
        state.centres = torch.where(accept[:, None], trial, state.centres)
        waiting = waiting & ~accept
        if not bool(waiting.any()):
            break
    return open_ & ~waiting
