"""Batches for an embedding of a graph: edges drawn by weight, and the rows at their ends.

A batch is drawn for all processes together. Each process encodes its part of the rows and scores its part of
the edges, so that any number of processes takes the same steps.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from pullback.models.umap import BlockSampler, EdgeSampler
from pullback.training.batches import SAMPLED_ROWS, Batch, Placement, Streams, checksum
from pullback.validation import check_whole

ONCE_BELOW = 2
"""Rows, in batch sizes, up to which a step encodes all: the ends of its edges are most of them anyway."""
FEWEST_STEPS = 4
"""Steps of an epoch at least: an epoch of a small graph draws its edges several times."""


class Pairs(NamedTuple):
    """What a batch of edges tells besides its rows.

    Attributes:
        places: both ends of all pairs ``(2, b + m b)`` among the codes of all processes, the b edges first.
        columns: known quantities of this process's rows ``(r, m)``, NaN where missing, or None.
    """

    places: Int[Tensor, "2 c"]
    columns: Float[Tensor, "r m"] | None = None


@dataclass(frozen=True, eq=False)
class GraphRows:
    """Rows and the graph that says which of them belong together.

    Attributes:
        values: a tensor ``(n, p)``, or an object with ``__len__`` and ``rows(index)``.
        graph: symmetric weights ``(n, n)``.
        negatives, negative_sample_rate: of `pullback.models.umap.EdgeSampler`.
        most_batches: steps of an epoch at most; None draws as many edges as there are, in 4 steps at least.
        decoded: rows of a batch that a decoder is shown; 0 where there is none.
        jitter: standard deviation of normal noise on the rows, newly drawn for each step.
        nodes: rows among which the edges of a step are drawn (`pullback.models.umap.BlockSampler`); None, or
            as many as there are, draws them among all.
        columns: known quantities of the rows ``(n, m)``, or None.
    """

    values: Any
    graph: sparse.csr_matrix
    negatives: str = "batch"
    negative_sample_rate: int = 5
    most_batches: int | None = None
    decoded: int = 0
    jitter: float = 0.0
    nodes: int | None = None
    columns: Float[Tensor, "n m"] | None = None

    def __post_init__(self) -> None:
        if self.graph.shape != (len(self.values), len(self.values)):
            raise ValueError(
                f"graph: expected one row and column for each of {len(self.values)}, got {self.graph.shape}"
            )
        if self.most_batches is not None:
            check_whole("num_batches", self.most_batches)
        if self.nodes is not None:
            check_whole("nodes_per_step", self.nodes, minimum=2)
            if self.negatives != "batch":
                raise ValueError(
                    "nodes_per_step: expected negatives='batch', since random pairs lie among them too, got "
                    f"{self.negatives!r}"
                )

    def batches(self, batch_size: int, placement: Placement) -> "EdgeBatches":
        """The batches of an epoch, of ``batch_size`` edges at most."""
        return EdgeBatches(self, batch_size, placement)


class EdgeBatches:
    """Batches of edges and of the rows at their ends.

    ``x`` of a batch are the rows to encode, ``quantities`` the `Pairs` to score, and ``noise`` the places in
    ``x`` of rows that a decoder is shown, where there is one.
    """

    def __init__(self, source: GraphRows, batch_size: int, placement: Placement):
        self.source, self.placement = source, placement
        edges = self._sampler(1).n_edges
        steps = math.ceil(edges / batch_size)
        # Smaller batches would suit a small graph's epoch as well, but their noise costs trustworthiness.
        size = math.ceil(edges / steps) if steps >= FEWEST_STEPS else min(batch_size, edges)
        steps = max(steps, FEWEST_STEPS)
        self._count = steps if source.most_batches is None else min(steps, source.most_batches)
        self.sampler = self._sampler(size)
        n = len(source.values)
        self.once = self._among is None and n <= ONCE_BELOW * batch_size
        self._own = placement.bounds(n)
        if isinstance(source.values, Tensor):
            resident = source.values.to(placement.device, placement.dtype)
            self._resident: Tensor | None = resident[self._own] if self.once else resident
        else:
            self._resident = None

    @property
    def _among(self) -> int | None:
        """Rows of a step where they are fewer than there are."""
        nodes = self.source.nodes
        return None if nodes is None or nodes >= self.size else nodes

    def _sampler(self, size: int) -> EdgeSampler | BlockSampler:
        source: Any = self.source
        rate = source.negative_sample_rate
        generator = torch.Generator()
        if self._among is not None:
            return BlockSampler(source.graph, size, generator, nodes=self._among, negative_sample_rate=rate)
        return EdgeSampler(
            source.graph, size, generator, negatives=source.negatives, negative_sample_rate=rate
        )

    @property
    def count(self) -> int:
        """Batches of an epoch."""
        return self._count

    @property
    def size(self) -> int:
        """Rows of the data."""
        return len(self.source.values)

    def digest(self) -> str:
        """Checksum of the graph and of some rows."""
        rows = self._rows(torch.linspace(0, self.size - 1, min(self.size, SAMPLED_ROWS)).long(), whole=True)
        graph = self.source.graph
        parts = (graph.data, graph.indices, np.asarray([self.source.jitter, self._among or 0.0]))
        columns = () if self.source.columns is None else (self.source.columns,)
        return checksum(rows, *(torch.from_numpy(np.asarray(part)) for part in parts), *columns)

    def epoch(self, streams: Streams, *, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch; the first ``skip`` are drawn and left out."""
        self.sampler.generator = streams.order
        for number in range(self.count):
            drawn = self.sampler.draw()
            if number < skip:
                continue
            b = len(drawn.head)
            own = self.placement.bounds(b)
            other = drawn.negative_tail.view(-1, b)[:, own].reshape(-1)
            head = drawn.head[own].repeat(self.source.negative_sample_rate + 1)
            ends = torch.stack([head, torch.cat([drawn.tail[own], other])])
            nodes = None if self.once else self._touched(drawn.head, drawn.tail, drawn.negative_tail)
            yield self._batch(nodes, self._places(nodes, ends), b, streams.noise)

    def _touched(self, *ends: Tensor) -> Int[Tensor, " m"]:
        """The rows at these ends, each once, ascending."""
        mark = torch.zeros(self.size, dtype=torch.bool)
        for end in ends:
            mark[end] = True
        return mark.nonzero().flatten()

    def _places(self, nodes: Tensor | None, ends: Int[Tensor, "2 c"]) -> Int[Tensor, "2 c"]:
        """Where the codes of these rows are."""
        if nodes is None:
            return ends
        place = torch.empty(self.size, dtype=torch.long)
        place[nodes] = torch.arange(len(nodes))
        return place[ends]

    def _batch(self, nodes: Tensor | None, places: Tensor, b: int, noise: torch.Generator) -> Batch:
        count = self.size if nodes is None else len(nodes)
        own = self.placement.bounds(count)
        x = self._rows(None if nodes is None else nodes[own])
        if self.source.jitter:
            # drawn for the rows of all processes, so that each row has the same noise on any number of them
            moved = torch.randn(count, *x.shape[1:], generator=noise, dtype=x.dtype)[own]
            x = torch.add(x, moved.to(x.device), alpha=self.source.jitter)
        shown = None
        if self.source.decoded:
            # drawn for all processes; each decodes what it has encoded
            chosen = torch.randint(count, (min(self.source.decoded, count),), generator=noise)
            chosen = chosen[(chosen >= own.start) & (chosen < own.stop)] - own.start
            shown = chosen.to(self.placement.device)
        pairs = Pairs(places.to(self.placement.device), self._columns(own if nodes is None else nodes[own]))
        return Batch(x, shown, pairs, b)

    def _columns(self, rows: slice | Tensor) -> Tensor | None:
        columns = self.source.columns
        return None if columns is None else columns[rows].to(self.placement.device, self.placement.dtype)

    def _rows(self, nodes: Tensor | None, *, whole: bool = False) -> Tensor:
        """Rows of the data; None are this process's part of all of them."""
        values = self.source.values
        if self._resident is not None and not whole:
            return self._resident if nodes is None else self._resident[nodes.to(self._resident.device)]
        if nodes is None:
            nodes = torch.arange(self._own.start, self._own.stop)
        rows = values[nodes] if isinstance(values, Tensor) else values.rows(nodes)
        return rows.to(self.placement.device, self.placement.dtype)
