"""The scale of noise: the distance to the nearest other row, shared by the features."""

import numpy as np
import pytest
import torch

from pullback.models.umap import jitter, jitter_scale, nearest


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_noise_is_as_long_as_the_way_to_the_nearest_row(kind):
    X = np.random.default_rng(0).normal(size=(300, 20)).astype(kind)
    sigma = jitter_scale(X)
    np.testing.assert_allclose(sigma * 20**0.5, np.median(nearest(X, 2)[1][:, 1]), rtol=1e-12)
    assert jitter_scale(torch.from_numpy(X)) == sigma
    np.testing.assert_allclose(jitter_scale(7 * X + 3), 7 * sigma, rtol=1e-4)


def test_copies_do_not_count():
    X = np.random.default_rng(0).normal(size=(50, 3))
    assert jitter_scale(np.concatenate([X, np.repeat(X[:1], 20, 0)])) == pytest.approx(
        jitter_scale(X), rel=0.05
    )
    assert jitter_scale(np.ones((4, 2))) == 0.0


def test_a_sample_of_the_rows_stands_for_all(monkeypatch):
    X = np.random.default_rng(0).normal(size=(900, 4))
    whole = jitter_scale(X)
    monkeypatch.setattr(jitter, "SAMPLED_ROWS", 300)
    assert jitter_scale(X) == pytest.approx(whole, rel=0.1)


@pytest.mark.usefixtures("as_users_run")
def test_bad_input():
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        jitter_scale(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="nan at row 0"):
        jitter_scale(np.full((3, 2), np.nan))
