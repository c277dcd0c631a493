"""Samples are frozen, and arrays where arrays are wanted."""

import dataclasses

import numpy as np
import pytest

from pullback import Samples


def test_samples_are_their_data() -> None:
    samples = Samples(np.arange(6.0).reshape(2, 3), np.zeros((2, 1)), np.zeros(2))
    assert np.asarray(samples) is samples.x
    assert np.array(samples) is not samples.x
    assert np.asarray(samples, dtype=np.float32).dtype == np.float32
    assert np.mean(samples) == 2.5
    assert len(samples) == 2
    assert samples.diagnostics == {}
    with pytest.raises(dataclasses.FrozenInstanceError):
        samples.x = None
