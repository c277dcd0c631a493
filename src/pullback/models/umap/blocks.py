"""Batches of edges among few rows, so that a step encodes fewer of them."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Int
from scipy import sparse
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor

from pullback.models.umap.edges import FAINTEST, EdgeBatch
from pullback.validation import check_whole

REDRAWS = 3


class BlockSampler:
    """Draws edges whose ends lie in a few blocks of rows.

    Rows are put in an order that keeps neighbours near (Cuthill and McKee 1969, "Reducing the bandwidth of
    sparse symmetric matrices", reversed) and cut into K blocks at a random offset. k blocks are drawn; with δ
    places between the ends of an edge both are among them with probability

        P = k/K (s + (1 - s) (k - 1)/(K - 1)),  s = max(0, 1 - δ K / n),

    and edges are drawn among those inside with probability in proportion to w / P, so that over many batches
    each comes up as often as it would from all edges. Random pairs join a head to tails of the
    batch; those within one block are thinned to the share that they have among all rows.

    Same interface as `EdgeSampler`.

    Args:
        graph: symmetric weights, (n, n).
        batch_size: edges of a batch.
        generator: source of all draws.
        nodes: rows among which a batch lies, at most n.
        block_size: rows of a block; 1 draws rows one by one, which needs enough edges among ``nodes`` rows.
        negative_sample_rate: random pairs an edge.
    Raises:
        ValueError: a graph without edges, fewer than two blocks in a batch, more rows than there are.
    Example:
        >>> import torch
        >>> from pullback.models.umap import fuzzy_graph
        >>> graph = fuzzy_graph(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)))
        >>> sampler = BlockSampler(graph, 100, torch.Generator().manual_seed(0), nodes=50, block_size=10)
        >>> batch = sampler.draw()
        >>> len(batch.head), len(torch.cat([batch.head, batch.tail]).unique()) <= 50
        (100, True)
    """

    def __init__(
        self,
        graph: sparse.csr_matrix,
        batch_size: int,
        generator: torch.Generator,
        *,
        nodes: int,
        block_size: int = 1,
        negative_sample_rate: int = 5,
    ):
        check_whole("batch_size", batch_size)
        check_whole("block_size", block_size)
        check_whole("negative_sample_rate", negative_sample_rate)
        if not graph.nnz:
            raise ValueError("graph: expected edges between rows, got none")
        n = len(graph.indptr) - 1
        check_whole("nodes", nodes, minimum=2 * block_size)
        if nodes > n:
            raise ValueError(f"nodes: expected at most the {n} rows of the graph, got {nodes}")
        self.n_nodes, self.batch_size, self.generator = n, batch_size, generator
        self.negative_sample_rate = negative_sample_rate
        self.blocks = n // block_size
        self.chosen = min(self.blocks, max(2, round(nodes * self.blocks / n)))
        kept = graph.multiply(graph >= FAINTEST * graph.max()).tocsr()
        order = reverse_cuthill_mckee(kept, symmetric_mode=True).astype(np.int64)
        kept = sparse.csr_matrix(kept[order][:, order])
        device = generator.device
        self._order = torch.from_numpy(order).to(device)
        self._start = torch.from_numpy(kept.indptr.astype(np.int64)).to(device)
        self._column = torch.from_numpy(kept.indices.astype(np.int64)).to(device)
        row = np.repeat(np.arange(n), np.diff(kept.indptr))
        self._weight = torch.from_numpy(kept.data / self._chance(np.abs(row - kept.indices))).to(device)

    def _chance(self, apart: np.ndarray) -> np.ndarray:
        """Probability that both of two rows so many places apart are drawn; the order is a ring."""
        k, K, n = self.chosen, self.blocks, self.n_nodes
        together = np.maximum(0, 1 - np.minimum(apart, n - apart) * K / n)
        return k / K * (together + (1 - together) * (k - 1) / max(K - 1, 1))

    @property
    def n_edges(self) -> int:
        """Directed edges that are drawn from."""
        return len(self._column)

    @property
    def steps_per_epoch(self) -> int:
        """Batches until as many edges have been drawn as there are."""
        return math.ceil(self.n_edges / self.batch_size)

    def draw(self) -> EdgeBatch:
        """The next batch."""
        block, inside = self._drawn_blocks()
        row = inside.nonzero().flatten()
        first, count = self._start[row], self._start[row + 1] - self._start[row]
        last = count.cumsum(0)
        edge = torch.arange(int(last[-1]), device=row.device) + (first - last + count).repeat_interleave(
            count
        )
        edge = edge[inside[self._column[edge]]]
        if not len(edge):
            return self.draw()
        edge = edge[self._stratified(self._weight[edge].cumsum(0))]
        head, tail = torch.searchsorted(self._start, edge, right=True) - 1, self._column[edge]
        other = self._others(block, head, tail)
        m = self.negative_sample_rate
        return EdgeBatch(
            self._order[head], self._order[tail], self._order[head].repeat(m), self._order[other]
        )

    def _drawn_blocks(self) -> tuple[Int[Tensor, " n"], Bool[Tensor, " n"]]:
        """Block of each place in the order, and whether it is drawn."""
        n, device = self.n_nodes, self.generator.device
        offset = torch.randint(n, (), generator=self.generator, device=device)
        block = (torch.arange(n, device=device) + offset) % n * self.blocks // n
        which = torch.randperm(self.blocks, generator=self.generator, device=device)[: self.chosen]
        drawn = torch.zeros(self.blocks, dtype=torch.bool, device=device)
        drawn[which] = True
        return block, drawn[block]

    def _stratified(self, cumulative: Tensor) -> Tensor:
        place = self._uniform(self.batch_size)
        place.add_(torch.arange(self.batch_size, device=place.device))
        place.mul_(float(cumulative[-1]) / self.batch_size)
        return torch.searchsorted(cumulative, place, right=True).clamp_(max=len(cumulative) - 1)

    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, generator=self.generator, dtype=torch.float64, device=self.generator.device)

    def _others(self, block: Tensor, head: Tensor, tail: Tensor) -> Tensor:
        """Tails of the batch for random pairs, those of the head's own block thinned to their share."""
        near = block[head].repeat(self.negative_sample_rate)
        other = tail[self._random(len(near))]
        again = torch.arange(len(near), device=near.device)
        # with k blocks in the batch and K in all, so that 1/K of the pairs lie in one block
        kept = (self.chosen - 1) / max(self.blocks - 1, 1)
        for _ in range(REDRAWS):
            own = block[other[again]] == near[again]
            again = again[own & (self._uniform(len(again)) >= kept)]
            other[again] = tail[self._random(len(again))]
        return other

    def _random(self, count: int) -> Tensor:
        return torch.randint(
            self.batch_size, (count,), generator=self.generator, device=self.generator.device
        )

    def state_dict(self) -> dict[str, Tensor]:
        """What the next draws depend on."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue where `state_dict` was taken."""
        self.generator.set_state(state["generator"])
