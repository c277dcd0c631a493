"""Batches of edges: probabilities, repeatability, random pairs."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.stats import chisquare

from pullback.models.umap import EdgeSampler, fuzzy_graph


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def graph() -> sparse.csr_matrix:
    return fuzzy_graph(np.random.default_rng(0).normal(size=(60, 3)), n_neighbors=8)


def test_edges_come_up_in_proportion_to_their_weight(graph):
    sampler = EdgeSampler(graph, 500, source())
    count = np.zeros((60, 60))
    for _ in range(200):
        batch = sampler.draw()
        np.add.at(count, (batch.head.numpy(), batch.tail.numpy()), 1)
    kept = graph.toarray() * (graph.toarray() >= 0.025 * graph.max())
    expected = kept * count.sum() / kept.sum()
    assert not count[kept == 0].any()
    # one draw in each part: what is left of chance is well below that of independent draws
    assert chisquare(count[kept > 0], expected[kept > 0]).pvalue > 0.5
    assert np.abs(count - expected).max() <= 200
    few = expected > 0
    assert np.abs(count - expected)[few].mean() < 0.8 * np.sqrt(expected[few]).mean()


def test_a_batch_holds_each_edge_as_often_as_it_should_to_within_one(graph):
    sampler = EdgeSampler(graph, 4000, source())
    share = 4000 * graph.toarray() / graph.toarray()[graph.toarray() >= 0.025].sum()
    batch = sampler.draw()
    count = np.zeros((60, 60))
    np.add.at(count, (batch.head.numpy(), batch.tail.numpy()), 1)
    kept = graph.toarray() >= 0.025
    assert (np.abs(count - share)[kept] < 2).all()


def test_faint_edges_are_left_out_of_the_draws():
    weights = np.array([[0, 1, 0.02], [1, 0, 0.5], [0.02, 0.5, 0]])
    sampler = EdgeSampler(sparse.csr_matrix(weights), 100, source())
    assert sampler.n_edges == 4
    batch = sampler.draw()
    assert not ((batch.head == 0) & (batch.tail == 2)).any()


@pytest.mark.parametrize("negatives", ["batch", "uniform"])
def test_each_head_meets_as_many_random_rows_as_asked(graph, negatives):
    sampler = EdgeSampler(graph, 50, source(), negatives=negatives, negative_sample_rate=3)
    batch = sampler.draw()
    assert len(batch.negative_tail) == 150
    assert torch.equal(batch.negative_head.view(3, 50), batch.head.expand(3, 50))
    many = torch.cat([sampler.draw().negative_tail for _ in range(400)])
    share = torch.bincount(many, minlength=60).double().numpy() / len(many)
    kept = graph.toarray() * (graph.toarray() >= 0.025)
    expected = kept.sum(0) / kept.sum() if negatives == "batch" else np.full(60, 1 / 60)
    np.testing.assert_allclose(share, expected, atol=0.003)


def test_one_state_gives_the_same_draws(graph):
    sampler = EdgeSampler(graph, 30, source(3))
    sampler.draw()
    state = sampler.state_dict()
    batch = sampler.draw()
    other = EdgeSampler(graph, 30, source(99))
    other.load_state_dict(state)
    again = other.draw()
    for name in ("head", "tail", "negative_head", "negative_tail"):
        assert torch.equal(getattr(batch, name), getattr(again, name))


def test_the_global_generator_is_left_alone(graph):
    before = torch.get_rng_state()
    EdgeSampler(graph, 30, source()).draw()
    assert torch.equal(before, torch.get_rng_state())


def test_an_epoch_has_as_many_steps_as_batches_of_edges(graph):
    sampler = EdgeSampler(graph, 100, source())
    assert sampler.steps_per_epoch == -(-sampler.n_edges // 100)


def test_sums_of_many_edges_lose_none():
    """Cumulative sums in float32 would stop growing at 2^24."""
    n = 6000
    chain = sparse.diags_array([np.ones(n - 1), np.ones(n - 1)], offsets=[1, -1]).tocsr()
    chain.data *= 2.0**22
    sampler = EdgeSampler(sparse.csr_matrix(chain), 2 * (n - 1), source())
    batch = sampler.draw()
    assert torch.equal(batch.head, sampler.head)
    assert torch.equal(batch.tail, sampler.tail)


BAD = [
    ({"batch_size": 0}, "batch_size"),
    ({"negatives": "all"}, "'uniform'"),
    ({"negative_sample_rate": 0}, "negative_sample_rate"),
    ({"graph": sparse.csr_matrix((4, 4))}, "graph: expected edges"),
]


@pytest.mark.parametrize(("options", "words"), BAD)
@pytest.mark.usefixtures("as_users_run")
def test_bad_input(graph, options, words):
    good = {"graph": graph, "batch_size": 5, "generator": source()}
    with pytest.raises(ValueError, match=words):
        EdgeSampler(**(good | options))
