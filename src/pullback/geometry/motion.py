"""The geodesic equation in three forms, solved by Runge-Kutta steps of order eight of adapted length.

A state is a position z and a companion w: the velocity, or in the Hamiltonian form the momentum.

    embedding    v̇ = -R⁻¹Qᵀ F̈, F̈ = H[v, v], J = QR
    tensor       g v̇ = ½ q - ġ v, q_c = vᵀ∂_c g v, ġ = Σ_c v_c ∂_c g
    Hamiltonian  ż = g⁻¹p, ṗ = -½ pᵀ∂_c g⁻¹ p        where the metric knows this force in closed form
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.integrate import DOP853
from torch import Tensor
from torch.nn.functional import pad

from pullback.geometry.route import Points
from pullback.jets import PackedJet, directional_jet, jet
from pullback.jets.taylor import is_piecewise_linear, layers_of, survey
from pullback.metrics import BaseMetric
from pullback.metrics.base import AdaptedMetric
from pullback.typing import Map

Values = Float[Tensor, " n"]
Pace = Float[Tensor, "S n"]

FIRST_STEPS = 2
LEAST_FACTOR, LARGEST_FACTOR, CAUTION = 0.2, 5.0, 1.5
# By how much smaller an error a step may have in the next attempt.
LOCAL_FACTOR = 1e-3
# Numbers that one evaluation may hold at a time: on the CPU they should stay in the cache.
CPU_NUMBERS = 3 * 2**15
DEVICE_NUMBERS = 2**24


class Motion(ABC):
    """Free motion on a metric."""

    @abstractmethod
    def rates(self, z: Points, w: Points) -> tuple[Points, Points]:
        """Time derivatives of position and companion; not finite outside the domain of the metric."""

    @abstractmethod
    def squared_norm(self, z: Points, v: Points) -> Values:
        """g(v, v)."""

    @abstractmethod
    def numbers(self, z: Points) -> int:
        """How many numbers one point takes in `rates`."""

    def companion(self, z: Points, v: Points) -> Points:
        """The companion of the velocity ``v``."""
        return v

    def velocity(self, z: Points, w: Points) -> Points:
        """The velocity of the companion ``w``."""
        return w

    def rows(self, z: Points) -> int:
        """How many points to move at a time."""
        budget = CPU_NUMBERS if z.device.type == "cpu" else DEVICE_NUMBERS
        return max(1, budget // self.numbers(z))


class EmbeddedMotion(Motion):
    """Motion on a metric g = (∂F)ᵀ∂F."""

    def __init__(self, embedding: Map):
        self.embedding = embedding
        self.piecewise_linear = is_piecewise_linear(list(survey(layers_of(embedding))))

    def rates(self, z: Points, w: Points) -> tuple[Points, Points]:
        jacobian, second = self._derivatives(z, w)
        Q, R = torch.linalg.qr(jacobian.permute(1, 2, 0))
        along = Q.mT @ second.unsqueeze(-1)
        return w, -torch.linalg.solve_triangular(R, along, upper=True).squeeze(-1)

    def _derivatives(self, z: Points, v: Points) -> tuple[Float[Tensor, "d n q"], Float[Tensor, "n q"]]:
        """J in rows, and H[v, v]: from one sweep where that carries no more rows than two."""
        d = z.shape[1]
        if d <= 2 and not self.piecewise_linear:
            state = jet(self.embedding, z, 2, lowest=1, packed=True)
            assert isinstance(state, PackedJet)
            if d == 1:
                return state.rows[:1], v.square() * state.rows[1]
            x, y = v.unsqueeze(-1).unbind(1)
            xx, xy, yy = state.rows[2:]
            return state.rows[:2], x * x * xx + 2 * x * y * xy + y * y * yy
        state = jet(self.embedding, z, 1, lowest=1, packed=True)
        second = directional_jet(self.embedding, z, v, order=2).second
        assert isinstance(state, PackedJet)
        assert second is not None
        return state.rows, second

    def squared_norm(self, z: Points, v: Points) -> Values:
        return directional_jet(self.embedding, z, v, order=1).first.square().sum(-1)

    def numbers(self, z: Points) -> int:
        return (z.shape[1] + 4) * max(64, self.embedding(z[:1]).shape[1])


class TensorMotion(Motion):
    """Motion on a metric known by its tensor and the tensor's derivative."""

    def __init__(self, metric: BaseMetric):
        self.metric = metric

    def rates(self, z: Points, w: Points) -> tuple[Points, Points]:
        P = torch.einsum("nabc,nb->nac", self.metric.derivative(z), w)
        force = torch.einsum("nac,na->nc", P, w) / 2 - torch.einsum("nac,nc->na", P, w)
        return w, torch.linalg.solve_ex(self.metric.tensor(z), force.unsqueeze(-1))[0].squeeze(-1)

    def squared_norm(self, z: Points, v: Points) -> Values:
        return torch.einsum("na,nab,nb->n", v, self.metric.tensor(z), v)

    def numbers(self, z: Points) -> int:
        return max(64, 2 * z.shape[1] ** 3)


class HamiltonianMotion(TensorMotion):
    """Motion on a metric that knows the force on a momentum in closed form; g is never differentiated."""

    def rates(self, z: Points, w: Points) -> tuple[Points, Points]:
        return self.velocity(z, w), self.metric.hamiltonian_force(z, w)

    def companion(self, z: Points, v: Points) -> Points:
        return (self.metric.tensor(z) @ v.unsqueeze(-1)).squeeze(-1)

    def velocity(self, z: Points, w: Points) -> Points:
        if _offers(self.metric, "inverse"):
            return (self.metric.inverse(z) @ w.unsqueeze(-1)).squeeze(-1)
        return torch.linalg.solve_ex(self.metric.tensor(z), w.unsqueeze(-1))[0].squeeze(-1)


def _offers(metric: BaseMetric, name: str) -> bool:
    """Whether a metric has its own version of an optional method."""
    if isinstance(metric, AdaptedMetric):
        return name in vars(metric)
    return getattr(type(metric), name) is not getattr(BaseMetric, name)


def motion_of(metric: BaseMetric, *, trainable: bool = False) -> Motion:
    """The closed-form force where the metric has one, else the embedding, else the tensor.

    Args:
        trainable: keep the embedding's own parameters, so that results can be differentiated; otherwise the
            most compact embedding of the same metric is used.
    """
    if _offers(metric, "hamiltonian_force"):
        return HamiltonianMotion(metric)
    embedding = metric.embedding if trainable else metric.compact_embedding()
    return TensorMotion(metric) if embedding is None else EmbeddedMotion(embedding)


def follow(motion: Motion, z: Points, w: Points, pace: Pace) -> tuple[Points, Points]:
    """Displacements and companions after the given steps.

    Args:
        pace: length of every step of every row; rows with fewer steps than others have zeros at the end.
    """
    y = torch.cat([torch.zeros_like(z), w], dim=1)
    for h in pace:
        rows = (h > 0).nonzero().squeeze(1)
        if len(rows) == len(z):
            y = _step(motion, z, y, h)[0]
        else:
            y = y.index_copy(0, rows, _step(motion, z[rows], y[rows], h[rows])[0])
    moved, final = y.chunk(2, dim=1)
    return moved, final


def _step(motion: Motion, z: Points, y: Tensor, h: Values) -> tuple[Tensor, Tensor]:
    """One step of order 8 and its twelve slopes; ``y`` holds the displacement from ``z`` and the companion.

    Hairer, Nørsett, Wanner 1993, "Solving ordinary differential equations I", section II.5 (Dormand, Prince).
    For a smooth decoder eight such steps do what hundreds of the classical order 4 do.
    """
    A, B = (torch.as_tensor(table, dtype=z.dtype, device=z.device) for table in (DOP853.A, DOP853.B))
    step, slopes = h.unsqueeze(1), []
    for k in range(len(B)):
        trial = y + step * torch.tensordot(A[k, :k], torch.stack(slopes), dims=1) if k else y
        moved, w = trial.chunk(2, dim=1)
        slopes.append(torch.cat(motion.rates(z + moved, w), dim=1))
    stages = torch.stack(slopes)
    return y + step * torch.tensordot(B, stages, dims=1), stages


def _step_error(motion: Motion, z: Points, stages: Tensor, h: Values) -> Values:
    """Size |.|_g of what a step gets wrong, by the two embedded formulas of lower order."""
    tables = torch.as_tensor(np.stack([DOP853.E5[:-1], DOP853.E3[:-1]]), dtype=z.dtype, device=z.device)
    wrong = (h[:, None] * torch.tensordot(tables, stages, dims=1)).unflatten(-1, (2, -1))
    at = z.repeat(2, 1)
    parts = wrong[:, :, 0].flatten(0, 1), motion.velocity(at, wrong[:, :, 1].flatten(0, 1))
    square = sum(motion.squared_norm(at, part) for part in parts)
    fifth, third = square.unflatten(0, (2, -1))  # type: ignore[union-attr]
    whole = fifth + 0.01 * third
    return torch.where(whole > 0, fifth / torch.where(whole > 0, whole, 1).sqrt(), whole)


@dataclass(frozen=True)
class Journey:
    """Where free motions are after unit time.

    Attributes:
        moved: displacement z(1) - z(0), or to where the motion was last well, (n, d).
        velocity: dz/dt there.
        error: change of the end when every step was halved, relative to the length of the way; infinite where
            the motion did not get to the end.
        drift: relative change of g(v, v) on the way.
        time: 1, or until when the metric could be followed.
        stuck: the steps had to become so small that time stands still: the motion leaves the domain of the
            metric.
        steps: steps taken.
        pace: their lengths, padded with zeros.
    """

    moved: Float[Tensor, "n d"]
    velocity: Float[Tensor, "n d"]
    error: Float[Tensor, " n"]
    drift: Float[Tensor, " n"]
    time: Float[Tensor, " n"]
    stuck: Bool[Tensor, " n"]
    pace: Float[Tensor, "S n"]

    @property
    def steps(self) -> Int[Tensor, " n"]:
        """Number of steps of every row."""
        return (self.pace > 0).sum(0)

    def replay(self, rows: Tensor) -> Pace:
        """The steps of ``rows``; without a velocity one step is exact."""
        pace = self.pace[:, rows]
        if len(pace) == 0:
            return torch.ones(1, len(rows), dtype=self.time.dtype, device=rows.device)
        return torch.cat([torch.where(pace[:1] > 0, pace[:1], 1), pace[1:]])

    def good(self, tol: float) -> Bool[Tensor, " n"]:
        """Which motions are known to ``tol``."""
        return (self.error <= tol) & (self.drift <= 10 * tol)

    def put(self, rows: Tensor, other: "Journey") -> "Journey":
        """The rows ``rows`` replaced by ``other``."""
        longest = max(len(self.pace), len(other.pace))
        old, new = (pad(part.pace, (0, 0, 0, longest - len(part.pace))) for part in (self, other))
        names = ("moved", "velocity", "error", "drift", "time", "stuck")
        parts = (getattr(self, name).index_copy(0, rows, getattr(other, name)) for name in names)
        return Journey(*parts, pace=old.index_copy(1, rows, new))


def travel(
    motion: Motion, z: Points, v: Points, *, tol: float, max_steps: int, size: int | None = None
) -> Journey:
    """Free motions from ``z`` with velocities ``v`` for unit time, each in steps of its own.

    The length of the steps follows their estimated errors; then all are halved, and what that changes at the
    end is the error of the longer ones. Motions that miss ``tol`` are repeated with smaller steps.

    Args:
        tol: largest such change, relative to the way; and a tenth of the largest drift.
        max_steps: most attempts at a step.
        size: motions at a time; None bounds the memory.
    """
    m = len(z)
    zero = torch.zeros_like(z[:, 0])
    whole = torch.zeros_like(zero, dtype=torch.bool)
    result = Journey(torch.zeros_like(z), v, zero, zero, torch.ones_like(zero), whole, zero.new_zeros(0, m))
    if m == 0:
        return result
    square = motion.squared_norm(z, v)
    finest = 10 * torch.finfo(z.dtype).eps
    for rows in (square > 0).nonzero().squeeze(1).split(size or motion.rows(z)):
        # A tolerance below rounding is tried, too: `Journey.good` says what came of it.
        local = max(float(tol), finest)
        while len(rows):
            part = _attempt(motion, z[rows], v[rows], square[rows], local, max_steps)
            result = result.put(rows, part)
            local *= LOCAL_FACTOR
            if local < finest:
                break
            rows = rows[~part.good(tol) & (part.time == 1)]
    return result


def _attempt(motion: Motion, z: Points, v: Points, square: Values, local: float, max_steps: int) -> Journey:
    """One journey with steps of relative error ``local``, and once more with all steps halved."""
    w = motion.companion(z, v)
    coarse, pace, left, stuck = _paced(motion, z, w, local * square.sqrt(), max_steps)
    time = 1 - left
    # Where time stands still, halving tells nothing: those states stay as they are.
    through = left == 0
    rows = through.nonzero().squeeze(1)
    fine = pace[:, rows].repeat_interleave(2, dim=0) / 2
    moved, final = (part.clone() for part in coarse.chunk(2, dim=1))
    finer, ahead = follow(motion, z[rows], w[rows], fine)
    change = torch.full_like(left, torch.inf)
    change[rows] = (motion.squared_norm(z[rows] + finer, finer - moved[rows]) / square[rows]).sqrt()
    moved[rows], final[rows] = finer, ahead
    velocity = motion.velocity(z + moved, final)
    drift = (motion.squared_norm(z + moved, velocity) / square - 1).abs()
    steps = pad(pace, (0, 0, 0, len(pace)))
    steps[:, rows] = fine
    change, drift = (torch.where(torch.isnan(part), torch.inf, part) for part in (change, drift))
    return Journey(moved, velocity, change, drift, time, stuck, steps)


def _paced(
    motion: Motion, z: Points, w: Points, allowed: Values, max_steps: int
) -> tuple[Tensor, Pace, Values, Bool[Tensor, " n"]]:
    """Steps with lengths under control: states, accepted steps, time that is left, and who is stuck."""
    y = torch.cat([torch.zeros_like(z), w], dim=1)
    left = torch.ones_like(z[:, 0])
    h = left / FIRST_STEPS
    growth = torch.full_like(left, LARGEST_FACTOR)
    smallest = torch.finfo(z.dtype).eps ** 0.45
    taken: list[Tensor] = []
    for _ in range(max_steps):
        rows = ((left > 0) & ((h >= smallest) | (h == left))).nonzero().squeeze(1)
        if len(rows) == 0:
            break
        at, state, step = z[rows], y[rows], h[rows]
        after, stages = _step(motion, at, state, step)
        error = _step_error(motion, at + state.chunk(2, dim=1)[0], stages, step) / allowed[rows]
        finite = torch.isfinite(after).all(1) & torch.isfinite(error)
        factor = (0.9 * error.clamp_min(1e-12) ** -0.125).clamp(LEAST_FACTOR, LARGEST_FACTOR)
        # In front of an edge of the domain, longer steps are tried again with caution.
        factor = torch.where(finite, torch.minimum(factor, growth[rows]), LEAST_FACTOR)
        accept = finite & (error <= 1)
        growth[rows] = torch.where(finite, (CAUTION * growth[rows]).clamp_max(LARGEST_FACTOR), 1)
        y[rows] = torch.where(accept.unsqueeze(1), after, state)
        left[rows] -= torch.where(accept, step, 0)
        h[rows] = torch.minimum(step * factor, left[rows])
        taken.append(torch.zeros_like(left).index_copy(0, rows, torch.where(accept, step, 0)))
    stuck = (left > 0) & (h < smallest) & (h < left)
    pace = torch.stack(taken)
    order = torch.argsort((pace == 0).to(torch.uint8), dim=0, stable=True)
    pace = pace.gather(0, order)
    return y, pace[: int((pace > 0).sum(0).max())], left, stuck
