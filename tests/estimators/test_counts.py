"""What an encoder sees of counts, and the typical total."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from pullback.estimators import scaling
from pullback.estimators.counts import LogNormalise, median_library
from pullback.inputs import read_input


@given(depth=st.integers(1, 1000))
def test_depth_is_divided_out(depth: int) -> None:
    x = torch.tensor([[1.0, 0.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(LogNormalise(100.0)(depth * x), torch.log1p(25 * x))


def test_empty_rows_give_zeros_and_precision_is_kept(dtype: torch.dtype) -> None:
    found = LogNormalise(10.0).to(dtype)(torch.zeros(2, 3, dtype=dtype))
    assert torch.equal(found, torch.zeros(2, 3, dtype=dtype))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_median_of_rows_that_have_counts(form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "CHUNK_VALUES", 4)
    counts = np.array([[0, 0], [1, 1], [2, 2], [5, 5], [100, 100]])
    assert median_library(read_input(form(counts)), np.arange(4)) == 4.0
    with pytest.raises(ValueError, match="rows without any"):
        median_library(read_input(form(counts)), np.arange(1))
