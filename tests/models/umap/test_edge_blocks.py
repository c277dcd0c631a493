"""Batches among few rows: the same edges in the long run, and no more rows than asked."""

import numpy as np
import pytest
import torch
from scipy import sparse

from pullback.models.umap import fuzzy_graph
from pullback.models.umap.blocks import BlockSampler


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def graph() -> sparse.csr_matrix:
    return fuzzy_graph(np.random.default_rng(0).normal(size=(120, 2)), n_neighbors=6)


@pytest.mark.parametrize(("nodes", "block_size"), [(60, 1), (60, 10)])
def test_edges_come_up_in_proportion_to_their_weight(graph, nodes, block_size):
    sampler = BlockSampler(graph, 40, source(), nodes=nodes, block_size=block_size)
    kept = graph.toarray() * (graph.toarray() >= 0.025)
    count, negatives = np.zeros((120, 120)), np.zeros(120)
    for _ in range(800):
        batch = sampler.draw()
        np.add.at(count, (batch.head.numpy(), batch.tail.numpy()), 1)
        np.add.at(negatives, batch.negative_tail.numpy(), 1)
    assert not count[kept == 0].any()
    share = count / count.sum() / (kept / kept.sum() + (kept == 0))
    # each edge is met in about a fourth of the batches
    assert abs(np.average(share[kept > 0], weights=kept[kept > 0]) - 1) < 1e-9
    assert np.sqrt(np.average((share[kept > 0] - 1) ** 2, weights=kept[kept > 0])) < 0.25
    np.testing.assert_allclose(negatives / negatives.sum(), kept.sum(0) / kept.sum(), rtol=0.4, atol=1e-4)


@pytest.mark.parametrize(("nodes", "block_size"), [(30, 1), (30, 10), (24, 12)])
def test_a_batch_touches_no_more_rows_than_asked(graph, nodes, block_size):
    sampler = BlockSampler(graph, 60, source(), nodes=nodes, block_size=block_size, negative_sample_rate=3)
    for _ in range(20):
        batch = sampler.draw()
        ends = torch.cat([batch.head, batch.tail, batch.negative_head, batch.negative_tail])
        assert len(ends.unique()) <= nodes + 2 * sampler.chosen
        assert len(batch.head) == 60
        assert len(batch.negative_tail) == 180


def test_random_pairs_lie_in_one_block_as_seldom_as_among_all_rows(graph, monkeypatch):
    sampler = BlockSampler(graph, 200, source(), nodes=30, block_size=10)
    blocks = []
    plain = sampler._drawn_blocks

    def watched():
        blocks.append(plain())
        return blocks[-1]

    monkeypatch.setattr(sampler, "_drawn_blocks", watched)
    same = []
    place = torch.empty(120, dtype=torch.long)
    place[sampler._order] = torch.arange(120)
    for _ in range(150):
        batch = sampler.draw()
        block = blocks[-1][0][place]
        same.append((block[batch.negative_head] == block[batch.negative_tail]).double().mean())
    assert (sampler.chosen, sampler.blocks) == (3, 12)
    assert abs(float(np.mean(same)) - 1 / 12) < 0.03


def test_one_state_gives_the_same_draws(graph):
    sampler = BlockSampler(graph, 30, source(3), nodes=40, block_size=5)
    sampler.draw()
    state = sampler.state_dict()
    batch = sampler.draw()
    other = BlockSampler(graph, 30, source(99), nodes=40, block_size=5)
    other.load_state_dict(state)
    again = other.draw()
    for name in ("head", "tail", "negative_head", "negative_tail"):
        assert torch.equal(getattr(batch, name), getattr(again, name))


BAD = [
    ({"nodes": 121}, "nodes: expected at most the 120 rows"),
    ({"nodes": 10, "block_size": 6}, "nodes"),
    ({"block_size": 0}, "block_size"),
    ({"graph": sparse.csr_matrix((4, 4))}, "graph: expected edges"),
]


@pytest.mark.parametrize(("options", "words"), BAD)
@pytest.mark.usefixtures("as_users_run")
def test_bad_input(graph, options, words):
    good = {"graph": graph, "batch_size": 5, "generator": source(), "nodes": 40}
    with pytest.raises(ValueError, match=words):
        BlockSampler(**(good | options))
