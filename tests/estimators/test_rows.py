"""Seeds, splits, and rows that are dense only a batch at a time."""

import numpy as np
import pytest
import torch
from scipy import sparse

from pullback.estimators.rows import ScaledRows, draw_seed, read_quantities, split_rows, training_rows
from pullback.estimators.scaling import fit_scaling
from pullback.inputs import read_input


def test_seeds() -> None:
    assert draw_seed(3) == draw_seed(3) != draw_seed(4)
    state = np.random.RandomState(3)
    assert draw_seed(state) == draw_seed(3) != draw_seed(state)
    assert draw_seed(None) != draw_seed(None)
    assert all(0 <= draw_seed(None) < 2**31 for _ in range(50))


@pytest.mark.parametrize(
    ("n", "fraction", "held_out"), [(20, 0.1, 2), (19, 0.5, 0), (100, 0.333, 33), (50, 0.0, 0)]
)
def test_splits_partition_the_rows(n: int, fraction: float, held_out: int) -> None:
    training, validation = split_rows(n, fraction, seed=1)
    assert len(validation) == held_out
    assert sorted([*training, *validation]) == list(range(n))
    assert (np.diff(training) > 0).all()
    again = split_rows(n, fraction, seed=1)
    assert np.array_equal(again[1], validation)


def test_splits_follow_the_seed() -> None:
    splits = {tuple(split_rows(100, 0.1, seed)[1]) for seed in range(5)}
    assert len(splits) == 5


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_training_rows_are_the_scaled_rows_of_the_index(form) -> None:
    X = np.random.default_rng(0).normal(size=(30, 4))
    index = np.arange(0, 30, 2)
    table = read_input(form(X))
    scaling = fit_scaling("standard", table, index)
    rows = training_rows(table, scaling, index)
    wanted = scaling.apply(torch.from_numpy(X[index]))
    assert len(rows) == 15
    if form is np.asarray:
        assert torch.equal(rows, wanted)
    else:
        assert isinstance(rows, ScaledRows)
        torch.testing.assert_close(rows.rows(torch.tensor([4, 0, 4])), wanted[[4, 0, 4]])
        assert rows.rows(torch.tensor([], dtype=torch.int64)).shape == (0, 4)


def test_quantities_side_by_side() -> None:
    found = read_quantities({"a": [1, 2], "b": torch.ones(2, 2)}, 2, torch.float32)
    assert found.tolist() == [[1, 1, 1], [2, 1, 1]]
    assert found.dtype == torch.float32
    with pytest.raises(ValueError, match="got shape \\(\\)"):
        read_quantities({"a": 3.0}, 2, torch.float32)
