"""Batches of edges, drawn in proportion to their weight, and of random pairs beside them."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from scipy import sparse
from torch import Tensor

from pullback.validation import check_choice, check_whole

FAINTEST = 0.025
Negatives = Literal["batch", "uniform"]


@dataclass(frozen=True, eq=False)
class EdgeBatch:
    """Rows at the ends of edges and of random pairs.

    Attributes:
        head, tail: ends of the edges, (b,).
        negative_head, negative_tail: ends of the random pairs, (m b,); each head meets m random rows.
    """

    head: Int[Tensor, " b"]
    tail: Int[Tensor, " b"]
    negative_head: Int[Tensor, " c"]
    negative_tail: Int[Tensor, " c"]


class EdgeSampler:
    """Draws batches of directed edges with probability w / Σ w.

    One number is drawn in each of b equal parts of [0, Σ w) and looked up in the cumulative sum of the
    weights: every draw keeps its probability, an edge comes up as often as it should to within one, and heads
    come in order. Edges below 0.025 of the heaviest are left out.

    Args:
        graph: symmetric weights, (n, n), as of `fuzzy_graph`.
        batch_size: edges of a batch, b.
        generator: source of all draws; indices are on its device. Its state is the sampler's.
        negatives: the random rows are tails of the batch, so drawn by degree ("batch"), or any ("uniform").
        negative_sample_rate: random pairs an edge, m.
    Raises:
        ValueError: a graph without edges, an unknown option.
    Example:
        >>> import torch
        >>> from scipy import sparse
        >>> graph = sparse.csr_matrix([[0.0, 1.0], [1.0, 0.0]])
        >>> batch = EdgeSampler(graph, 2, torch.Generator().manual_seed(0)).draw()
        >>> batch.head.tolist(), batch.tail.tolist(), len(batch.negative_head)
        ([0, 1], [1, 0], 10)
    """

    def __init__(
        self,
        graph: sparse.csr_matrix,
        batch_size: int,
        generator: torch.Generator,
        *,
        negatives: Negatives = "batch",
        negative_sample_rate: int = 5,
    ):
        check_whole("batch_size", batch_size)
        check_whole("negative_sample_rate", negative_sample_rate)
        check_choice("negatives", negatives, ("batch", "uniform"))
        edges = sparse.coo_array(graph)
        if not edges.nnz:
            raise ValueError("graph: expected edges between rows, got none")
        kept = edges.data >= FAINTEST * edges.data.max()
        device = generator.device
        self.head = torch.from_numpy(edges.row[kept].astype(np.int64)).to(device)
        self.tail = torch.from_numpy(edges.col[kept].astype(np.int64)).to(device)
        self._cumulative = torch.from_numpy(np.cumsum(edges.data[kept], dtype=np.float64)).to(device)
        self._parts = torch.arange(batch_size, dtype=torch.float64, device=device)
        self.n_nodes, self.batch_size, self.generator = len(graph.indptr) - 1, batch_size, generator
        self.negatives, self.negative_sample_rate = negatives, negative_sample_rate

    @property
    def n_edges(self) -> int:
        """Directed edges that are drawn from."""
        return len(self.head)

    @property
    def steps_per_epoch(self) -> int:
        """Batches until as many edges have been drawn as there are."""
        return math.ceil(self.n_edges / self.batch_size)

    def draw(self) -> EdgeBatch:
        """The next batch."""
        place = torch.rand(
            self.batch_size, generator=self.generator, dtype=torch.float64, device=self.generator.device
        )
        place.add_(self._parts).mul_(float(self._cumulative[-1]) / self.batch_size)
        # A draw that rounds to the total lies behind the last edge.
        edge = torch.searchsorted(self._cumulative, place, right=True).clamp_(max=self.n_edges - 1)
        head, tail = self.head.index_select(0, edge), self.tail.index_select(0, edge)
        high = self.batch_size if self.negatives == "batch" else self.n_nodes
        other = torch.randint(
            high,
            (self.batch_size * self.negative_sample_rate,),
            generator=self.generator,
            device=self.generator.device,
        )
        other = tail.index_select(0, other) if self.negatives == "batch" else other
        return EdgeBatch(head, tail, head.repeat(self.negative_sample_rate), other)

    def state_dict(self) -> dict[str, Tensor]:
        """What the next draws depend on."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue where `state_dict` was taken."""
        self.generator.set_state(state["generator"])
