"""Batches: even sizes, every row once, the same noise for any number of processes, and streams."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pullback.training.batches import (
    IndexedBatches,
    Paired,
    Placement,
    as_batches,
    even_bounds,
    seeded_streams,
)

CPU = torch.device("cpu")
PLACE = Placement(CPU, torch.float32, noise_features=2)


class Rank:
    """Process ``rank`` of ``size``, as far as cutting batches goes."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size

    def __call__(self, tensor):
        return tensor

    def gather(self, rows):
        return rows


@given(st.integers(1, 500), st.integers(1, 200))
def test_batches_are_even_and_cover_all_rows(n, batch_size):
    bounds = even_bounds(n, batch_size)
    sizes = [stop - start for start, stop in bounds]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])]
    assert bounds[-1][1] == n
    assert len(bounds) == -(-n // batch_size)


def test_an_epoch_has_every_row_once_in_a_new_order_each_time():
    batches = as_batches(torch.arange(50.0).unsqueeze(1), 16, PLACE, shuffle=True)
    streams = seeded_streams(0)
    first, second = (torch.cat([b.x for b in batches.epoch(streams)]).flatten() for _ in range(2))
    assert first.sort().values.tolist() == list(range(50))
    assert first.tolist() != second.tolist()
    again = torch.cat([b.x for b in batches.epoch(seeded_streams(0))]).flatten()
    assert torch.equal(first, again)


def test_validation_keeps_the_order():
    batches = as_batches(torch.arange(50.0).unsqueeze(1), 16, PLACE, shuffle=False)
    assert torch.cat([b.x for b in batches.epoch(seeded_streams(0))]).flatten().tolist() == list(range(50))


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 7, 16])
def test_processes_cut_the_same_batches_and_noise(size, batch_size):
    x = torch.arange(23.0).unsqueeze(1)
    whole = list(as_batches(x, batch_size, PLACE, shuffle=True).epoch(seeded_streams(4)))
    parts = [
        list(
            as_batches(x, batch_size, Placement(CPU, torch.float32, 2, Rank(rank, size)), shuffle=True).epoch(
                seeded_streams(4)
            )
        )
        for rank in range(size)
    ]
    for position, batch in enumerate(whole):
        own = [part[position] for part in parts]
        assert torch.equal(torch.cat([b.x for b in own]), batch.x)
        assert torch.equal(torch.cat([b.noise for b in own]), batch.noise)
        assert {b.size for b in own} == {batch.size}
        counts = [len(b.x) for b in own]
        assert max(counts) - min(counts) <= 1


def test_a_resumed_epoch_goes_on_with_the_noise_stream_as_it_stood():
    batches = as_batches(torch.arange(50.0).unsqueeze(1), 8, PLACE, shuffle=True)
    streams = seeded_streams(1)
    epoch = list(batches.epoch(streams))
    fresh = seeded_streams(1)
    order = fresh.order.get_state()
    iterator = batches.epoch(fresh)
    for _ in range(3):
        next(iterator)
    resumed = seeded_streams(99)
    resumed.order.set_state(order)
    resumed.noise.set_state(fresh.noise.get_state())
    rest = list(batches.epoch(resumed, skip=3))
    assert len(rest) == len(epoch) - 3
    for expected, got in zip(epoch[3:], rest, strict=True):
        assert torch.equal(expected.x, got.x)
        assert torch.equal(expected.noise, got.noise)


class OnDemand:
    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def rows(self, index):
        return self.values[index]


class Squares:
    """A map-style dataset."""

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return np.array([float(i), float(i) ** 2], dtype=np.float32)


class Endless(IterableDataset):
    def __iter__(self):
        return (torch.full((2,), float(i)) for i in range(20))


def test_all_kinds_of_data_give_the_same_rows():
    values = torch.tensor([[float(i), float(i) ** 2] for i in range(20)])
    expected = torch.cat([b.x for b in as_batches(values, 6, PLACE, shuffle=True).epoch(seeded_streams(2))])
    for data in (values.numpy(), OnDemand(values), Squares(), values.int()):
        got = torch.cat([b.x for b in as_batches(data, 6, PLACE, shuffle=True).epoch(seeded_streams(2))])
        assert got.dtype == torch.float32
        assert torch.equal(got, expected)


def test_pairs_are_rows_and_their_quantities():
    x, q = torch.arange(20.0).unsqueeze(1), torch.arange(20).unsqueeze(1) * 2
    for data in (
        Paired(x, q),
        Paired(OnDemand(x), q),
        TensorDataset(x, q),
        DataLoader(TensorDataset(x, q), 6),
    ):
        for batch in as_batches(data, 6, PLACE, shuffle=True).epoch(seeded_streams(2)):
            assert torch.equal(batch.quantities, 2 * batch.x)


def test_a_loader_shuffles_by_our_stream_and_leaves_the_global_one_alone():
    loader = DataLoader(torch.arange(40.0).unsqueeze(1), batch_size=16, shuffle=True)
    batches = as_batches(loader, 1, PLACE, shuffle=True)
    before = torch.get_rng_state()
    streams = seeded_streams(3)
    first, second = (torch.cat([b.x for b in batches.epoch(streams)]).flatten() for _ in range(2))
    again = torch.cat([b.x for b in batches.epoch(seeded_streams(3))]).flatten()
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert batches.count == 3


def test_a_stream_of_unknown_length():
    loader = DataLoader(Endless(), batch_size=6)
    batches = as_batches(iter([torch.zeros(3, 2)]), 6, PLACE, shuffle=True)
    assert batches.count is None
    assert [len(b.x) for b in as_batches(loader, 1, PLACE, shuffle=False).epoch(seeded_streams(0))] == [
        6,
        6,
        6,
        2,
    ]
    assert [b.size for b in batches.epoch(seeded_streams(0))] == [3]
    with pytest.raises(ValueError, match="pass an iterable that starts anew each epoch"):
        list(batches.epoch(seeded_streams(0)))


def test_quantities_of_another_length_are_refused():
    with pytest.raises(ValueError, match="quantities: expected 3 rows as the data, got 4"):
        Paired(torch.zeros(3, 1), torch.zeros(4, 1))


@pytest.mark.usefixtures("as_users_run")
def test_other_data_are_refused():
    with pytest.raises(TypeError, match="data: expected a tensor"):
        as_batches(3, 6, PLACE, shuffle=True)
    with pytest.raises(ValueError, match="data: expected at least one row"):
        IndexedBatches(torch.zeros(0, 2), 6, PLACE, shuffle=True)
    with pytest.raises(TypeError, match="expected batches that are tensors, got str"):
        list(as_batches(iter(["a"]), 6, PLACE, shuffle=True).epoch(seeded_streams(0)))
