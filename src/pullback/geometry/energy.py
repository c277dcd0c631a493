"""The discrete energy of a batch of curves, its gradient and its Hessian by blocks.

Nodes z_0 .. z_n of a curve stand at t_k = k/n; the ends are fixed, K = n - 1 interior nodes are free.
Gradient and Hessian are those of E/(2n). Two discretisations, both of second order in 1/n:

    embedding path   E = n Σ_k |F(z_{k+1}) - F(z_k)|²              derivatives of F alone
    tensor path      E = n Σ_k δᵀ g(m) δ, δ = z_{k+1} - z_k, m the mid-point   derivatives of g
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.jets.linearization import linearize
from pullback.metrics import BaseMetric
from pullback.typing import Map

Curves = Float[Tensor, "m N d"]


# Bytes of one batch of derivative rows. More leave the cache, and the allocator hands such blocks back to the
# system after every operation: sweeps over twice as many points took twice as long a point.
SWEEP_BYTES = 3 * 2**18


@dataclass(frozen=True)
class System:
    """Second-order model of E/(2n) at the interior nodes, K a curve.

    Attributes:
        gradient: of E/(2n).
        diagonal, upper: blocks of the Hessian of E/(2n).
        metric: g at the nodes.
        coupling: blocks above the diagonal of the stiffness matrix, whose diagonal blocks are 2 g: the
            Hessian of E/(2n) if the second derivatives of the embedding (or the derivatives of g) were zero.
    """

    gradient: Float[Tensor, "m K d"]
    diagonal: Float[Tensor, "m K d d"]
    upper: Float[Tensor, "m L d d"]
    metric: Float[Tensor, "m K d d"]
    coupling: Float[Tensor, "m L d d"]

    def rows(self, index: Tensor) -> "System":
        """The curves ``index`` of the batch."""
        return System(*(getattr(self, field.name)[index] for field in fields(self)))

    def put(self, index: Tensor, other: "System") -> None:
        """Write the curves of ``other`` into the rows ``index``."""
        for field in fields(self):
            getattr(self, field.name)[index] = getattr(other, field.name)

    def updated(self, accept: Tensor, other: "System") -> "System":
        """Curves where ``accept`` holds from ``other``, the rest from here."""
        return System(*(_choose(accept, getattr(other, f.name), getattr(self, f.name)) for f in fields(self)))

    def stiffness_times(self, x: Float[Tensor, "m K d"]) -> Float[Tensor, "m K d"]:
        """The stiffness matrix times a displacement of the nodes."""
        product = 2 * (self.metric @ x.unsqueeze(-1)).squeeze(-1)
        product[:, :-1] += (self.coupling @ x[:, 1:].unsqueeze(-1)).squeeze(-1)
        product[:, 1:] += (self.coupling.mT @ x[:, :-1].unsqueeze(-1)).squeeze(-1)
        return product


@dataclass(frozen=True)
class StartBlocks:
    """Derivatives of E/(2n) that involve the first node, which the solver holds fixed.

    Attributes:
        gradient: with respect to z_0.
        diagonal: second derivative with respect to z_0.
        coupling: with respect to z_0 (rows) and z_1.
    """

    gradient: Float[Tensor, "m d"]
    diagonal: Float[Tensor, "m d d"]
    coupling: Float[Tensor, "m d d"]


def _choose(accept: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(accept.reshape(-1, *(1,) * (old.ndim - 1)), new, old)


class CurveEnergy(ABC):
    """Discrete energy of a batch of curves between fixed ends."""

    @abstractmethod
    def model(self, points: Curves) -> tuple[Float[Tensor, " m"], System]:
        """Energies and the second-order model at ``points``."""

    @abstractmethod
    def rows(self, index: Tensor) -> "CurveEnergy":
        """The energy of the curves ``index`` of the batch."""

    @abstractmethod
    def start_blocks(self, points: Curves) -> StartBlocks:
        """How the energy changes with the first node."""


class EmbeddingEnergy(CurveEnergy):
    """E = n Σ |F_{k+1} - F_k|² of a metric with an embedding F.

    With a_k = 2F_k - F_{k-1} - F_{k+1}: gradient J_kᵀa_k, blocks 2 J_kᵀJ_k + Σ_i a_ki ∇²F_i and -J_kᵀJ_{k+1}.

    Args:
        embedding: F.
        first, last: F at the fixed ends, (m, 1, q).
    """

    def __init__(self, embedding: Map, first: Tensor, last: Tensor):
        self.embedding, self.first, self.last = embedding, first, last

    @classmethod
    def between(cls, embedding: Map, start: Tensor, end: Tensor) -> "EmbeddingEnergy":
        """The energy of curves from ``start`` to ``end``, (m, d)."""
        first, last = embedding(torch.cat([start, end])).unsqueeze(1).chunk(2)
        return cls(embedding, first, last)

    def rows(self, index: Tensor) -> "EmbeddingEnergy":
        return EmbeddingEnergy(self.embedding, self.first[index], self.last[index])

    def model(self, points: Curves) -> tuple[Float[Tensor, " m"], System]:
        K, d = points.shape[1] - 2, points.shape[2]
        size = len(points)
        if points.device.type == "cpu":
            size = SWEEP_BYTES // (K * (1 + d) * max(self.first.shape[2], 64) * points.element_size())
        parts = [
            self._model(*part)
            for part in zip(*(x.split(max(size, 1)) for x in (points, self.first, self.last)), strict=True)
        ]
        if len(parts) == 1:
            return parts[0]
        systems = [system for _, system in parts]
        joined = (torch.cat([getattr(s, f.name) for s in systems]) for f in fields(System))
        return torch.cat([energy for energy, _ in parts]), System(*joined)

    def _model(self, points: Curves, first: Tensor, last: Tensor) -> tuple[Tensor, System]:
        m, nodes, _ = points.shape
        inner = linearize(self.embedding, points[:, 1:-1].flatten(0, 1))
        values = inner.value.unflatten(0, (m, nodes - 2))
        steps = torch.cat([first, values, last], dim=1).diff(dim=1)
        pull = -steps.diff(dim=1)
        J = inner.rows.unflatten(1, (m, nodes - 2))
        left, right = J.permute(1, 2, 0, 3), J.permute(1, 2, 3, 0)
        gradient = (left @ pull.unsqueeze(-1)).squeeze(-1)
        metric = left @ right
        coupling = -(left[:, :-1] @ right[:, 1:])
        second = inner.contract_hessian(pull.flatten(0, 1)).unflatten(0, (m, nodes - 2))
        energy = (nodes - 1) * steps.square().sum((1, 2))
        return energy, System(gradient, 2 * metric + second, coupling, metric, coupling)

    def start_blocks(self, points: Curves) -> StartBlocks:
        at = linearize(self.embedding, points[:, :2].flatten(0, 1))
        F, J = at.value.unflatten(0, (-1, 2)), at.rows.unflatten(1, (-1, 2)).permute(1, 2, 0, 3)
        pull = torch.stack([F[:, 0] - F[:, 1], torch.zeros_like(F[:, 0])], dim=1)
        second = at.contract_hessian(pull.flatten(0, 1)).unflatten(0, (-1, 2))[:, 0]
        left, right = J.unbind(1)
        gradient = (left @ pull[:, 0].unsqueeze(-1)).squeeze(-1)
        return StartBlocks(gradient, left @ left.mT + second, -left @ right.mT)


class TensorEnergy(CurveEnergy):
    """E = n Σ δᵀ g(m) δ of a metric known by its tensor.

    With q_c = δᵀ∂_c g δ, P_ac = Σ_b ∂_c g_ab δ_b, Q_ce = δᵀ∂_c∂_e g δ a segment adds, in units of n:
    gradient -2gδ + q/2 on its left, 2gδ + q/2 on its right node; Hessian 2g - P - Pᵀ + Q/4, 2g + P + Pᵀ + Q/4
    and -2g - P + Pᵀ + Q/4 (left, right, left-right).
    """

    def __init__(self, metric: BaseMetric):
        self.metric = metric

    def rows(self, index: Tensor) -> "TensorEnergy":
        return self

    def model(self, points: Curves) -> tuple[Float[Tensor, " m"], System]:
        n = points.shape[1] - 1
        g, lowered, q, P, Q = self._segments(points)
        left = (2 * g - P - P.mT + Q)[:, 1:]
        right = (2 * g + P + P.mT + Q)[:, :-1]
        across = (-2 * g - P + P.mT + Q)[:, 1:-1]
        gradient = (2 * lowered + q)[:, :-1] + (q - 2 * lowered)[:, 1:]
        energy = n * (points.diff(dim=1) * lowered).sum((1, 2))
        node = (g[:, 1:] + g[:, :-1]) / 2
        return energy, System(gradient / 2, (left + right) / 2, across / 2, node, -g[:, 1:-1])

    def start_blocks(self, points: Curves) -> StartBlocks:
        g, lowered, q, P, Q = (part[:, 0] for part in self._segments(points[:, :2]))
        across = -2 * g - P + P.mT + Q
        return StartBlocks(q / 2 - lowered, (2 * g - P - P.mT + Q) / 2, across / 2)

    def _segments(self, points: Curves) -> tuple[Tensor, ...]:
        """g, gδ, q/2, P and Q/4 of every segment."""
        shape = (len(points), points.shape[1] - 1)
        middle = (points[:, 1:] + points[:, :-1]).flatten(0, 1) / 2
        delta = points.diff(dim=1)
        g = self.metric.tensor(middle).unflatten(0, shape)
        lowered = (g @ delta.unsqueeze(-1)).squeeze(-1)
        first = self.metric.derivative(middle).unflatten(0, shape)
        second = self.metric.second_derivative(middle).unflatten(0, shape)
        P = torch.einsum("mkabc,mkb->mkac", first, delta)
        q = torch.einsum("mkac,mka->mkc", P, delta) / 2
        Q = torch.einsum("mkabce,mka,mkb->mkce", second, delta, delta) / 4
        return g, lowered, q, P, Q
