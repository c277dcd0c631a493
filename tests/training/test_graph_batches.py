"""Batches of edges and their loss: one gradient, encoded once or edge by edge, on one process or two."""

import numpy as np
import pytest
import torch
from torch import nn

from pullback.models.encoders import create_encoder
from pullback.models.umap import UMAPModule, curve_parameters, fuzzy_graph, umap_loss
from pullback.training import TrainingOptions, fit
from pullback.training.batches import Placement, as_batches, seeded_streams
from pullback.training.embedding_objective import EmbeddingObjective
from pullback.training.graph_batches import GraphRows

CPU = torch.device("cpu")
A, B = curve_parameters(0.1, 1.0)


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(60, 5)))


@pytest.fixture(scope="module")
def graph(x):
    return fuzzy_graph(x, n_neighbors=5)


def batches_of(x, graph, batch_size, dtype=torch.float64, **options):
    return as_batches(GraphRows(x, graph, **options), batch_size, Placement(CPU, dtype, 0), shuffle=True)


def objective(dtype=torch.float64, decoder: nn.Module | None = None) -> EmbeddingObjective:
    encoder = create_encoder("default", 5, 2, generator=torch.Generator().manual_seed(3), hidden_size=16)
    return EmbeddingObjective(UMAPModule(encoder, decoder).to(dtype), A, B)


def gradients(module, total) -> torch.Tensor:
    wanted = [p for p in module.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, wanted)])


@pytest.mark.parametrize("batch_size", [100, 20], ids=["all rows once", "rows that are touched"])
@pytest.mark.parametrize("negatives", ["batch", "uniform"])
def test_gradients_are_those_of_encoding_edge_by_edge(x, graph, batch_size, negatives) -> None:
    batches = batches_of(x, graph, batch_size, negatives=negatives)
    assert batches.once == (batch_size == 100)
    goal = objective().train()
    batch = next(iter(batches.epoch(seeded_streams(0))))
    assert len(batch.x) <= 60
    loss = goal(batch.x, batch.noise, 0, quantities=batch.quantities).total
    ends = goal.model.encoder(batch.x[batch.quantities.places.flatten()]).view(2, -1, 2)
    b = batch.size
    each = umap_loss(ends[0, :b], ends[1, :b], ends[0, b:], ends[1, b:], A, B)
    assert loss.item() == pytest.approx(each.item(), rel=1e-12)
    first, second = gradients(goal, loss), gradients(goal, each)
    assert (first - second).abs().max() <= 1e-12 * second.abs().max().clamp_min(1)


def test_an_epoch_draws_as_many_edges_as_there_are_or_a_few_times_so_many(x, graph) -> None:
    edges = int((graph.data >= 0.025 * graph.data.max()).sum())
    for size, count, times in ((10_000, 4, 4), (edges // 6, 7, 1)):
        batches = batches_of(x, graph, size)
        drawn = list(batches.epoch(seeded_streams(0)))
        assert len(drawn) == batches.count == count
        assert times * edges <= sum(batch.size for batch in drawn) < times * edges + count
        assert max(batch.size for batch in drawn) <= size
    assert batches_of(x, graph, 10_000, most_batches=2).count == 2


def test_edges_come_as_often_as_their_weight_says(x, graph) -> None:
    batches = batches_of(x, graph, 10_000)
    streams, seen = seeded_streams(0), np.zeros((60, 60))
    for _ in range(50):
        for batch in batches.epoch(streams):
            head, tail = batch.quantities.places[:, : batch.size].numpy()
            np.add.at(seen, (head, tail), 1)
    weight = graph.toarray() * (graph.toarray() >= 0.025 * graph.data.max())
    expected = seen.sum() * weight / weight.sum()
    # five standard deviations of independent draws; draws that are spread evenly vary less
    assert (np.abs(seen - expected) <= 5 * np.sqrt(expected)).all()


def test_skipping_leaves_what_follows_as_it_is(x, graph) -> None:
    batches = batches_of(x, graph, 20, decoded=8)
    whole = list(batches.epoch(seeded_streams(1)))
    rest = list(batches.epoch(seeded_streams(1), skip=3))
    assert len(rest) == len(whole) - 3
    for one, other in zip(whole[3:], rest, strict=True):
        assert torch.equal(one.quantities.places, other.quantities.places)
        assert torch.equal(one.x, other.x)


def test_jitter_moves_rows_anew_at_each_step(x, graph) -> None:
    batches, streams = batches_of(x, graph, 100, jitter=0.3), seeded_streams(0)
    moves = torch.stack([batch.x - x for _ in range(50) for batch in batches.epoch(streams)])
    assert len(moves) == 200
    # standard errors: 0.3 / sqrt(200) of a mean, 0.3 / sqrt(2 * 60000) of the spread
    assert moves.mean(0).abs().max() < 5 * 0.3 / 200**0.5
    assert moves.std().item() == pytest.approx(0.3, abs=5 * 0.3 / 120_000**0.5)
    assert (moves[0] - moves[1]).abs().min() > 0
    assert batches.digest() != batches_of(x, graph, 100).digest()


def test_edges_of_a_step_lie_among_few_rows(x, graph) -> None:
    few, all_rows = batches_of(x, graph, 20, nodes=12), batches_of(x, graph, 20)
    assert few.count == all_rows.count
    assert few.digest() != all_rows.digest()
    for batch in few.epoch(seeded_streams(0)):
        assert len(batch.x) <= 12
        assert batch.quantities.places.max() < len(batch.x)
    assert batches_of(x, graph, 20, nodes=len(x)).digest() == all_rows.digest()
    with pytest.raises(ValueError, match="nodes_per_step: expected neg"):
        GraphRows(x, graph, nodes=12, negatives="uniform")


class Half:
    """One of two processes, as far as batches ask."""

    size = 2

    def __init__(self, rank: int):
        self.rank = rank

    def __call__(self, tensor):
        return tensor

    def gather(self, rows):
        return rows


@pytest.mark.parametrize("options", [{}, {"jitter": 0.3}, {"nodes": 30}])
@pytest.mark.parametrize("batch_size", [100, 20])
def test_two_processes_share_the_batch_of_one(x, graph, batch_size, options) -> None:
    def drawn(place: Placement):
        source = GraphRows(x, graph, decoded=16, **options)
        return list(as_batches(source, batch_size, place, shuffle=True).epoch(seeded_streams(2)))

    one = drawn(Placement(CPU, torch.float64, 0))
    parts = [drawn(Placement(CPU, torch.float64, 0, Half(rank))) for rank in range(2)]
    for whole, first, second in zip(one, *parts, strict=True):
        assert torch.equal(torch.cat([first.x, second.x]), whole.x)
        pairs = torch.cat([first.quantities.places, second.quantities.places], dim=1)
        assert sorted(pairs.T.tolist()) == sorted(whole.quantities.places.T.tolist())
        shown = torch.cat([first.noise, second.noise + len(first.x)])
        assert shown.sort().values.tolist() == whole.noise.sort().values.tolist()


def test_a_fit_falls_and_ends_after_its_steps(x, graph, dtype) -> None:
    goal = objective(dtype, decoder=nn.Linear(2, 5))
    options = TrainingOptions(max_epochs=100, max_steps=50, patience=None, progress=False, lr=1e-2)
    result = fit(goal, GraphRows(x, graph, decoded=16), options, generator_seed=0)
    assert result.steps == 50
    assert set(result.history) == {"loss", "cross_entropy", "reconstruction"}
    assert result.history["cross_entropy"][-1] < 0.5 * result.history["cross_entropy"][0]
    assert next(goal.parameters()).dtype == dtype


def test_rows_and_graph_must_fit(x, graph) -> None:
    with pytest.raises(
        ValueError, match=r"graph: expected one row and column for each of 50, got \(60, 60\)"
    ):
        GraphRows(x[:50], graph)
    with pytest.raises(ValueError, match="num_batches"):
        GraphRows(x, graph, most_batches=0)


def test_a_checkpoint_of_another_graph_is_refused(x, graph, tmp_path) -> None:
    options = {"max_epochs": 2, "patience": None, "progress": False, "checkpoint_dir": tmp_path}
    fit(objective(), GraphRows(x, graph), TrainingOptions(**options), generator_seed=0)
    other = graph.copy()
    other.data **= 2
    with pytest.raises(ValueError, match="belongs to another run, which differs in data checksum"):
        fit(objective(), GraphRows(x, other), TrainingOptions(**options, resume=True), generator_seed=0)
