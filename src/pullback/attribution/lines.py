"""Derivatives summed along straight lines, before the affine stem of a network is applied.

Σ_k w_k ∂f/∂x(x_k) = (Σ_k w_k G_k) S with S the stem and G_k the derivative of what follows it: the sum is
taken over rows of the hidden width, and S is applied once a line. Where the net has fewer inputs than outputs
the directions are carried forward instead, and its last affine layers are applied once a line.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullback.attribution.network import Network
from pullback.jets.rules import Affine
from pullback.jets.state import JetState, start
from pullback.jets.sweep import Sweep
from pullback.jets.taylor import propagate

SWEEP_BYTES = 16 * 2**20


@dataclass(frozen=True, eq=False)
class Lines:
    """x(t) = b + t (a - b) as the network behind its stem sees it.

    Attributes:
        network: the network.
        course: from b to a as the net sees it, (m, k); only its width is known where it is not needed.
        origin, way: behind the stem, of b and from b to a, (m, *shape).
        outputs: d.
    """

    network: Network
    course: Float[Tensor, "m0 k"]
    origin: Float[Tensor, "m *shape"]
    way: Float[Tensor, "m *shape"]
    outputs: int

    @property
    def forward(self) -> bool:
        """Whether directions are carried forward."""
        return self.course.shape[1] < self.outputs

    def __len__(self) -> int:
        return len(self.origin)

    def at(self, t: Float[Tensor, " k"], owner: Int[Tensor, " k"]) -> Float[Tensor, "k *shape"]:
        """Points of the lines ``owner`` at ``t``, behind the stem."""
        return self.origin[owner] + t.view(-1, *(1,) * (self.origin.ndim - 1)) * self.way[owner]

    def pick(self, index: Tensor) -> "Lines":
        """Some of the lines."""
        course = self.course[index] if self.forward else self.course
        return replace(self, course=course, origin=self.origin[index], way=self.way[index])

    def values(self, points: Float[Tensor, "k *shape"]) -> Float[Tensor, "k d"]:
        """f at points behind the stem."""
        for layer in self.network.tail:
            points = layer.module(points)
        return points

    def blank(self) -> Tensor:
        """Zeros for a sum of derivatives of each line."""
        if not self.forward:
            return self.origin.new_zeros(self.outputs, *self.origin.shape)
        probe = self._push(self.origin[:1])
        return self.origin.new_zeros(probe.shape[0], len(self), *probe.shape[2:])

    def accumulate(
        self,
        total: Tensor,
        t: Float[Tensor, " k"],
        weight: Float[Tensor, " k"],
        owner: Int[Tensor, " k"],
    ) -> Tensor:
        """Add w_k times the derivative at the points t_k to the sums ``owner`` of ``total``."""
        for part in torch.arange(len(t), device=t.device).split(self._sweep_rows()):
            rows = self.derivatives(self.at(t[part], owner[part]))
            weighted = rows * weight[part].view(1, -1, *(1,) * (rows.ndim - 2))
            total.index_add_(1, owner[part], weighted)
        return total

    def derivatives(self, points: Float[Tensor, "k *shape"]) -> Float[Tensor, "r k *inner"]:
        """What is summed, at each point: rows behind the stem, or directions in front of the head."""
        n = len(points)
        if self.forward:
            return self._push(points)
        sweep = Sweep("derivative")
        value = sweep.record(self.network.tail, points)
        rows = torch.eye(self.outputs, dtype=value.dtype, device=value.device).unsqueeze(1)
        return sweep.pull(rows, None).expand(-1, n, *points.shape[1:])

    def finish(self, total: Float[Tensor, "r m *inner"]) -> Float[Tensor, "d m p"]:
        """Sums of derivatives by the raw features."""
        layers = self.network.layers
        if self.forward:
            rows = self._through_head(total).permute(2, 1, 0)
        else:
            sweep = Sweep("derivative")
            sweep.record(layers[: self.network.stem], self._somewhere())
            rows = sweep.pull(total, None)
        front = self.network.preprocessing
        return rows if front is None else front.pull(rows)

    def changes(self, total: Float[Tensor, "r m *inner"]) -> Float[Tensor, "m d"]:
        """Sums of derivatives times the way from b to a: what the contributions add up to."""
        if self.forward:
            moved = (total * self.course.T.reshape(*total.shape[:2], *(1,) * (total.ndim - 2))).sum(0)
            return self._through_head(moved.unsqueeze(0)).squeeze(0)
        return (total * self.way).flatten(2).sum(-1).T

    def _somewhere(self) -> Tensor:
        """A point that the net may see: affine layers do the same everywhere."""
        return self.origin.new_zeros(1, self.course.shape[1])

    def _through_head(self, rows: Tensor) -> Tensor:
        for layer in self.network.layers[self._head() :]:
            assert isinstance(layer.rule, Affine)
            rows = layer.rule.rows(layer.module, rows)
        return rows

    def _push(self, points: Tensor) -> Tensor:
        first = propagate(self.network.layers[: self.network.stem], start(self._somewhere(), 1))
        state = JetState(points, first.first, first.dim, 1)
        layers = self.network.layers[self.network.stem : self._head()]
        state = propagate(layers, state)
        return state.first.expand(-1, len(points), *state.value.shape[1:])

    def _head(self) -> int:
        """Steps before the last affine ones."""
        layers, end = self.network.layers, len(self.network.layers)
        while end > self.network.stem and isinstance(layers[end - 1].rule, Affine):
            end -= 1
        return end

    def _sweep_rows(self) -> int:
        """Points at a time, so that a few sets of rows fit the budget."""
        width = max(self.origin[:1].numel(), 64)
        rows = self.course.shape[1] if self.forward else self.outputs
        return max(1, SWEEP_BYTES // (2 * rows * width * self.origin.element_size()))


def lines(network: Network, a: Float[Tensor, "m p"], b: Float[Tensor, "m p"], outputs: int) -> Lines:
    """The straight lines from b to a, row by row."""
    first, last = network.enter(b), network.enter(a)
    origin, end = network.through_stem(first), network.through_stem(last)
    forward = first.shape[1] < outputs
    return Lines(network, last - first if forward else first[:0], origin, end - origin, outputs)
