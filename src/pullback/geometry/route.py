"""The two ways to the same geometry: through an embedding, or through the metric tensor.

`Extrinsic` knows an embedding F and never differentiates the tensor; `Intrinsic` knows the tensor alone.
Graphs, re-spacing, quadrature and the discrete energy are written once for both.
"""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.geometry.energy import CurveEnergy, Curves, EmbeddingEnergy, TensorEnergy
from pullback.geometry.spline import LOBATTO_INNER, LOBATTO_WEIGHTS, Spline, spline_through
from pullback.jets import PackedJet, directional_jet, jet
from pullback.jets.taylor import layers_of, survey
from pullback.metrics import BaseMetric
from pullback.typing import Map

Points = Float[Tensor, "n d"]
# Points a sweep, and numbers in their images: more than fit in cache cost more each.
SPEED_POINTS, SPEED_ENTRIES = 2**10, 2**21


@dataclass(frozen=True)
class Inspection:
    """What is measured of discrete geodesics on their mesh.

    Attributes:
        speeds: of the splines through the nodes.
        energy, residual: discrete energy and Euler-Lagrange residual; NaN where the route measures neither.
        doubled_energy: discrete energy of the same splines on twice the mesh.
        momentum_start, momentum_end: covectors -½ ∂E_n/∂z_0 and ½ ∂E_n/∂z_n.
        bend: max_k |Q_kᵀ F̈_k|, the tangential part of the second derivative by fourth-order differences:
            zero but for the discretisation error of the geodesic equation; NaN without an embedding.
    """

    speeds: "Speeds"
    energy: Float[Tensor, " m"]
    residual: Float[Tensor, " m"]
    doubled_energy: Float[Tensor, " m"]
    momentum_start: Float[Tensor, "m d"]
    momentum_end: Float[Tensor, "m d"]
    bend: Float[Tensor, " m"]


@dataclass(frozen=True)
class Speeds:
    """Squared speeds of splines at the five Lobatto points of every interval, (m, n, 5)."""

    square: Float[Tensor, "m n 5"]

    def energy(self) -> Float[Tensor, " m"]:
        """∫ g(ż, ż) dt."""
        return self._integral(self.square)

    def length(self) -> Float[Tensor, " m"]:
        """∫ |ż| dt; the root has slope zero, not infinity, where the curve stands still."""
        still = self.square <= 0
        return self._integral(torch.where(still, 0, torch.where(still, 1, self.square).sqrt()))

    def _integral(self, values: Tensor) -> Tensor:
        return (values @ values.new_tensor(LOBATTO_WEIGHTS)).mean(-1)


class Route(ABC):
    """A metric, seen through its embedding or through its tensor."""

    measures_residual: bool = False

    def cast(self, dtype: torch.dtype) -> "Route":
        """The same geometry computed in ``dtype`` where a copy can do that; else the route itself."""
        return self

    @abstractmethod
    def probe(self, z: Points) -> Tensor:
        """What `edges` needs to know of points."""

    @abstractmethod
    def edges(self, left: Tensor, middle: Tensor, right: Tensor, delta: Tensor) -> Tensor:
        """Lengths of straight edges ``delta`` from the probes of both ends and of the mid-point."""

    @abstractmethod
    def chords(self, points: Curves) -> Float[Tensor, "m n"]:
        """Lengths of the straight pieces between the nodes of curves."""

    @abstractmethod
    def squared_speed(self, z: Points, velocity: Points) -> Float[Tensor, " n"]:
        """g(ż, ż)."""

    @abstractmethod
    def energy(self, start: Points, end: Points) -> CurveEnergy:
        """The discrete energy of curves from ``start`` to ``end``."""

    @abstractmethod
    def discrete_energy(self, points: Curves) -> Float[Tensor, " m"]:
        """Discrete energy E_n, differentiable with respect to points and parameters."""

    @abstractmethod
    def momenta(self, points: Curves) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]]:
        """The discrete momenta: covectors -½ ∂E_n/∂z_0 and ½ ∂E_n/∂z_n."""

    @abstractmethod
    def inspect(self, points: Curves) -> Inspection:
        """Measurements of discrete geodesics, in as few sweeps as they allow."""

    def speeds(self, points: Curves) -> Speeds:
        """Squared speeds of the splines through ``points`` at their Lobatto points."""
        return Speeds(self._speeds(spline_through(points)))

    def _speeds(self, curve: Spline) -> Tensor:
        points = curve.points
        m, nodes, d = points.shape
        inside, velocity = curve.inside(LOBATTO_INNER)
        ends = [(points, torch.cat([curve.left, curve.right[:, -1:]], dim=1))]
        if nodes < 4:  # straight pieces: the two sides of a node move differently
            ends = [(points[:, :-1], curve.left), (points[:, 1:], curve.right)]
        z = torch.cat([p.reshape(-1, d) for p in (*(end[0] for end in ends), inside)])
        v = torch.cat([p.reshape(-1, d) for p in (*(end[1] for end in ends), velocity)])
        square = self.squared_speed(z, v)
        inner = square[-3 * m * (nodes - 1) :].reshape(m, nodes - 1, 3)
        outer = square[: -3 * m * (nodes - 1)]
        if nodes < 4:
            left, right = outer.reshape(2, m, nodes - 1)
        else:
            left, right = outer.reshape(m, nodes)[:, :-1], outer.reshape(m, nodes)[:, 1:]
        return torch.cat([left.unsqueeze(-1), inner, right.unsqueeze(-1)], dim=-1)


class Extrinsic(Route):
    """Geometry of a metric g = (∂F)ᵀ∂F through the embedding F."""

    measures_residual = True

    def __init__(self, embedding: Map):
        self.embedding = embedding

    def cast(self, dtype: torch.dtype) -> "Extrinsic":
        module = self.embedding
        if not isinstance(module, nn.Module) or any(
            layer.rule is None for layer in survey(layers_of(module))
        ):
            return self
        numbers = [*module.parameters(), *module.buffers()]
        if all(number.dtype == dtype for number in numbers) or not all(number.is_leaf for number in numbers):
            return self
        return Extrinsic(copy.deepcopy(module).to(dtype))

    def probe(self, z: Points) -> Tensor:
        return self.embedding(z)

    def edges(self, left: Tensor, middle: Tensor, right: Tensor, delta: Tensor) -> Tensor:
        """Two chords: one alone cheats where the surface folds."""
        return (middle - left).norm(dim=-1) + (right - middle).norm(dim=-1)

    def _images(self, points: Curves) -> Tensor:
        return self.embedding(points.flatten(0, 1)).unflatten(0, points.shape[:2])

    def chords(self, points: Curves) -> Float[Tensor, "m n"]:
        return self._images(points).diff(dim=1).norm(dim=-1)

    def _at_once(self, z: Points) -> int:
        with torch.no_grad():
            width = max(1, self.embedding(z[:1]).numel())
        return max(1, min(SPEED_POINTS, SPEED_ENTRIES // width))

    def squared_speed(self, z: Points, velocity: Points) -> Float[Tensor, " n"]:
        size = self._at_once(z)
        parts = [
            directional_jet(self.embedding, *part, order=1).first.square().sum(-1)
            for part in zip(z.split(size), velocity.split(size), strict=True)
        ]
        return torch.cat(parts)

    def energy(self, start: Points, end: Points) -> CurveEnergy:
        return EmbeddingEnergy.between(self.embedding, start, end)

    def discrete_energy(self, points: Curves) -> Float[Tensor, " m"]:
        return (points.shape[1] - 1) * self._images(points).diff(dim=1).square().sum((1, 2))

    def momenta(self, points: Curves) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]]:
        n, (m, _, d) = points.shape[1] - 1, points.shape
        ends = jet(self.embedding, points[:, [0, -1]].reshape(-1, d), 1, packed=True)
        assert isinstance(ends, PackedJet)
        F, *J = ends.rows.unflatten(1, (m, 2))
        steps = self._images(points[:, [1, -2]]) - F
        pulled = n * torch.einsum("amkq,mkq->mka", torch.stack(J), steps)
        return pulled[:, 0], -pulled[:, 1]

    def inspect(self, points: Curves) -> Inspection:
        size = max(1, self._at_once(points[:, 0]) // points.shape[1])
        parts = [self._inspect(part) for part in points.split(size)]
        joined = {f.name: [getattr(part, f.name) for part in parts] for f in fields(Inspection)}
        square = torch.cat([speeds.square for speeds in joined.pop("speeds")])
        return Inspection(Speeds(square), **{name: torch.cat(column) for name, column in joined.items()})

    def _inspect(self, points: Curves) -> Inspection:
        m, nodes, d = points.shape
        n, curve = nodes - 1, spline_through(points)
        state = jet(self.embedding, points.reshape(-1, d), 1, packed=True)
        assert isinstance(state, PackedJet)
        rows = state.rows.unflatten(1, (m, nodes))
        F, J = rows[0], rows[1:]
        z, v = (part.reshape(-1, d) for part in curve.inside(LOBATTO_INNER))
        along = directional_jet(self.embedding, z, v, order=1)
        inner = along.first.square().sum(-1).reshape(m, n, 3)
        speed = torch.einsum("amkq,mka->mkq", J, torch.cat([curve.left, curve.right[:, -1:]], dim=1))
        square = speed.square().sum(-1).unsqueeze(-1)
        middle = along.value.reshape(m, n, 3, -1)[:, :, 1]
        steps = F.diff(dim=1)
        energy = n * steps.square().sum((1, 2))
        halves = (middle - F[:, :-1]).square().sum((1, 2)) + (F[:, 1:] - middle).square().sum((1, 2))
        inside = J.permute(1, 2, 0, 3)[:, 1:-1]
        return Inspection(
            Speeds(torch.cat([square[:, :-1], inner, square[:, 1:]], dim=-1)),
            energy,
            n**2 * _tangential(inside, steps.diff(dim=1)) / energy.sqrt(),
            2 * n * halves,
            n * torch.einsum("amq,mq->ma", J[:, :, 0], steps[:, 0]),
            n * torch.einsum("amq,mq->ma", J[:, :, -1], steps[:, -1]),
            _tangential(inside[:, 1:-1], _second_derivative(F)),
        )


def _second_derivative(F: Float[Tensor, "m N q"]) -> Float[Tensor, "m M q"]:
    """Fourth-order differences of curves at equal steps, without the two outer nodes of each end."""
    near, far = F[:, 1:-3] + F[:, 3:-1], F[:, :-4] + F[:, 4:]
    return (F.shape[1] - 1) ** 2 * (16 * near - far - 30 * F[:, 2:-2]) / 12


def _tangential(J: Float[Tensor, "m K d q"], v: Float[Tensor, "m K q"]) -> Float[Tensor, " m"]:
    """max_k |Q_kᵀ v_k| for J_k = Q_k R_k."""
    covector = J @ v.unsqueeze(-1)
    solved, info = torch.linalg.solve_ex(J @ J.mT, covector)
    square = (covector * solved).sum((2, 3)).clamp_min(0).masked_fill(info != 0, torch.inf)
    return square.amax(1).sqrt()


class Intrinsic(Route):
    """Geometry of a metric known by its tensor."""

    def __init__(self, metric: BaseMetric):
        self.metric = metric

    def probe(self, z: Points) -> Tensor:
        return self.metric.tensor(z)

    def edges(self, left: Tensor, middle: Tensor, right: Tensor, delta: Tensor) -> Tensor:
        """Simpson's rule for the length of a straight piece."""
        a, b, c = (_norm(g, delta) for g in (left, middle, right))
        return (a + 4 * b + c) / 6

    def chords(self, points: Curves) -> Float[Tensor, "m n"]:
        m, nodes, _ = points.shape
        g = self.metric.tensor((points[:, 1:] + points[:, :-1]).flatten(0, 1) / 2)
        return _norm(g, points.diff(dim=1).flatten(0, 1)).reshape(m, nodes - 1)

    def squared_speed(self, z: Points, velocity: Points) -> Float[Tensor, " n"]:
        return torch.einsum("na,nab,nb->n", velocity, self.metric.tensor(z), velocity)

    def energy(self, start: Points, end: Points) -> CurveEnergy:
        return TensorEnergy(self.metric)

    def discrete_energy(self, points: Curves) -> Float[Tensor, " m"]:
        m, nodes, _ = points.shape
        delta = points.diff(dim=1)
        g = self.metric.tensor((points[:, 1:] + points[:, :-1]).flatten(0, 1) / 2).unflatten(
            0, (m, nodes - 1)
        )
        return (nodes - 1) * torch.einsum("mka,mkab,mkb->m", delta, g, delta)

    def momenta(self, points: Curves) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]]:
        m, n = points.shape[0], points.shape[1] - 1
        low = torch.cat([points[:, 0], points[:, -2]])
        delta = torch.cat([points[:, 1], points[:, -1]]) - low
        middle = low + delta / 2
        lowered = torch.einsum("nab,nb->na", self.metric.tensor(middle), delta)
        q = torch.einsum("nabc,na,nb->nc", self.metric.derivative(middle), delta, delta) / 4
        return n * (lowered - q)[:m], n * (lowered + q)[m:]

    def inspect(self, points: Curves) -> Inspection:
        speeds = self.speeds(points)
        doubled = self.discrete_energy(spline_through(points).doubled())
        unknown = torch.full_like(doubled, torch.nan)
        return Inspection(speeds, unknown, unknown, doubled, *self.momenta(points), unknown)


def _norm(g: Tensor, delta: Tensor) -> Tensor:
    return ((g @ delta.unsqueeze(-1)).squeeze(-1) * delta).sum(-1).clamp_min(0).sqrt()


def route_of(metric: BaseMetric, *, trainable: bool = False) -> Route:
    """The embedding where there is one, else the tensor.

    Args:
        trainable: keep the embedding's own parameters, so that results can be differentiated; otherwise the
            most compact embedding of the same metric is used.
    """
    embedding = metric.embedding if trainable else metric.compact_embedding()
    return Intrinsic(metric) if embedding is None else Extrinsic(embedding)


def in_precision(route: Route, wanted: torch.dtype, given: torch.dtype) -> tuple[Route, torch.dtype]:
    """The geometry in the ``wanted`` precision where a copy can do that, else as it is; and which it is."""
    other = route.cast(wanted)
    return (route, given) if other is route else (other, wanted)


def respace(route: Route, points: Curves) -> Curves:
    """The same polygons with nodes at equal arc length; end points are copied."""
    return resample(points, route.chords(points), points.shape[1])


def resample(points: Curves, lengths: Float[Tensor, "m n"], nodes: int) -> Float[Tensor, "m M d"]:
    """``nodes`` points at equal steps of the cumulative ``lengths`` of the pieces of polygons.

    A polygon whose lengths are zero or not finite is returned with equal steps of its own parameter.
    """
    m, _, d = points.shape
    total = lengths.sum(1, keepdim=True)
    usable = torch.isfinite(total) & (total > 0)
    share = torch.where(usable, lengths / torch.where(usable, total, 1), 1 / lengths.shape[1])
    knots = torch.cat([torch.zeros_like(total), share.cumsum(1)], dim=1)
    t = torch.linspace(0, 1, nodes, dtype=points.dtype, device=points.device)[1:-1].expand(m, -1).contiguous()
    piece = torch.searchsorted(knots, t, right=True).clamp(1, lengths.shape[1]) - 1
    fraction = (
        ((t - knots.gather(1, piece)) / share.gather(1, piece).clamp_min(1e-30)).clamp(0, 1).unsqueeze(-1)
    )
    index = piece.unsqueeze(-1).expand(-1, -1, d)
    inner = torch.lerp(points.gather(1, index), points.gather(1, index + 1), fraction)
    return torch.cat([points[:, :1], inner, points[:, -1:]], dim=1)
