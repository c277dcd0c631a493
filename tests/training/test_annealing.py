"""Cyclic annealing and batches of neighbours."""

import pytest
import torch

from pullback.training import LocalityBatchSampler, cyclic_annealing


def test_a_cycle_rises_stays_and_starts_again():
    values = [cyclic_annealing(epoch, 20, 2, fraction=0.4, low=0.1, high=0.9) for epoch in range(20)]
    assert values[:10] == pytest.approx([0.1, 0.3, 0.5, 0.7, *6 * [0.9]])
    assert values[10:] == pytest.approx(values[:10])


def test_fraction_of_one_rises_all_the_time():
    assert [cyclic_annealing(epoch, 4, 1, fraction=1.0) for epoch in range(4)] == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match="fraction: expected"):
        cyclic_annealing(0, 4, 1, fraction=fraction)


def test_every_row_is_primary_once_and_brings_neighbours():
    x = torch.arange(23.0)[:, None]
    sampler = LocalityBatchSampler(x, 5, 2, 4, random_state=0)
    assert len(sampler) == 5
    seen = []
    for batch in sampler:
        primary = len(batch) // 3
        seen += batch[:primary]
        pairs = [batch[primary:][2 * k : 2 * k + 2] for k in range(primary)]
        for row, pair in zip(batch[:primary], pairs, strict=True):
            assert len(set(pair)) == 2
            assert row not in pair
            assert all(abs(row - other) <= 4 for other in pair)
    assert sorted(seen) == list(range(23))


def test_epochs_differ_and_seeds_repeat():
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    one, other = (LocalityBatchSampler(x, 4, 1, 3, random_state=1) for _ in range(2))
    first = list(one)
    assert first == list(other)
    assert first != list(one)


def test_serves_a_loader():
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    data = torch.utils.data.TensorDataset(x)
    loader = torch.utils.data.DataLoader(data, batch_sampler=LocalityBatchSampler(x, 4, 1, 3))
    assert [len(batch) for (batch,) in loader] == [8] * 5


def test_more_neighbours_than_rows():
    x = torch.zeros(5, 2)
    with pytest.raises(ValueError, match="n_neighbors: expected fewer than 5"):
        LocalityBatchSampler(x, 2, 1, 5)
    with pytest.raises(ValueError, match="n_secondary: expected at most"):
        LocalityBatchSampler(x, 2, 4, 3)
