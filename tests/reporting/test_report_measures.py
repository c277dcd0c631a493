"""The numbers behind the checks, against closed forms."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from pullback.metrics import EuclideanMetric, from_tensor
from pullback.plots.conditions import condition_numbers
from pullback.reporting.measures import (
    active_dims,
    coverage,
    neighbourhoods,
    pca_unexplained_share,
    unexplained_share,
)
from pullback.typing import Metric

RNG = np.random.default_rng(0)


def test_unexplained_share() -> None:
    x = RNG.normal(size=(50, 4))
    assert unexplained_share(x, x) == 0
    assert unexplained_share(x, np.broadcast_to(x.mean(0), x.shape)) == pytest.approx(1)
    assert unexplained_share(x, x + 1) == pytest.approx(1 / x.var(0).mean())
    constant = np.ones((5, 2))
    assert unexplained_share(constant, constant) == 0
    assert unexplained_share(constant, constant + 1) == 1


def test_pca_share_is_that_of_its_eigenvalues() -> None:
    x = RNG.normal(size=(200, 5)) * [5, 3, 2, 1, 0.5]
    expected = 1 - PCA(2).fit(x).explained_variance_ratio_.sum()
    assert pca_unexplained_share(x, 2) == pytest.approx(expected, rel=1e-10)
    assert pca_unexplained_share(x, 5) == 0


def test_neighbourhoods() -> None:
    x = RNG.normal(size=(80, 6))
    assert neighbourhoods(x, x) == (1.0, 1.0, 10)
    z = x[:, :2]
    found = neighbourhoods(x, z)
    assert found[0] == pytest.approx(trustworthiness(x, z, n_neighbors=10))
    assert found[1] == pytest.approx(trustworthiness(z, x, n_neighbors=10))
    assert neighbourhoods(x[:12], z[:12])[2] == 5
    assert neighbourhoods(x[:4], z[:4]) == (None, None, 1)


def diagonal(first: Callable[[torch.Tensor], torch.Tensor]) -> Metric:
    return from_tensor(lambda z: torch.diag_embed(torch.stack([first(z), torch.ones_like(z[:, 0])], 1)), 2)


def test_condition_numbers(dtype: torch.dtype) -> None:
    metric = diagonal(lambda z: z[:, 0] ** 2)
    z = np.array([[2.0, 0.0], [0.5, 1.0], [1.0, 3.0]], dtype=str(dtype).removeprefix("torch."))
    np.testing.assert_allclose(condition_numbers(metric, z, chunk_size=2), [4, 4, 1])


def test_a_singular_metric_has_an_infinite_condition_number() -> None:
    metric = diagonal(lambda z: 0 * z[:, 0])
    assert condition_numbers(metric, np.ones((1, 2)))[0] == math.inf


def test_one_dimension_is_well_conditioned() -> None:
    np.testing.assert_array_equal(condition_numbers(EuclideanMetric(1), np.zeros((3, 1))), 1.0)


def test_coverage_of_many_dimensions_is_measured_in_the_plane() -> None:
    axis = np.linspace(0, 1, 51)
    flat = np.stack(np.meshgrid(axis, 1.1 * axis), axis=-1).reshape(-1, 2)
    turn = np.linalg.qr(RNG.normal(size=(4, 4)))[0][:, :2]
    assert coverage(flat @ turn.T) == pytest.approx(coverage(flat), abs=0.03)


def test_active_dims() -> None:
    codes = RNG.normal(size=(500, 3)) * [1.0, 0.3, 0.02]
    assert active_dims(codes, has_prior=True) == 2
    assert active_dims(codes * 1e-3, has_prior=False) == 2
    assert active_dims(codes * 1e-3, has_prior=True) == 0
