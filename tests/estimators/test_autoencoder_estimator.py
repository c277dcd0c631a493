"""The autoencoder as an estimator: score, the Gaussian of its codes, and the quality of its defaults."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from pullback import Autoencoder
from pullback.estimators.autoencoder import fit_gaussian

TINY = {"hidden": (8,), "max_epochs": 3, "progress": False, "random_state": 0}


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 5)) @ np.diag([3.0, 1, 1, 1, 0.1]) + 10


def test_score_is_the_density_of_data_around_their_reconstruction(X: np.ndarray) -> None:
    model = Autoencoder(2, **TINY).fit(X)
    sigma = float(torch.exp(model.module_.likelihood.log_scale)) * model.scaling_.scale.numpy()
    error = (X - model.inverse_transform(model.transform(X))) / sigma
    wanted = (-0.5 * error**2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)).sum(axis=1)
    np.testing.assert_allclose(model.score_samples(X), wanted, rtol=1e-10)


def test_samples_follow_the_training_codes(X: np.ndarray) -> None:
    model = Autoencoder(2, **TINY).fit(X)
    samples = model.sample(20000, random_state=0)
    covariance = np.cov(model.embedding_.T)
    scale = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((samples.z.mean(0) - model.embedding_.mean(0)) / scale, 0, atol=0.03)
    np.testing.assert_allclose(
        np.cov(samples.z.T) / np.outer(scale, scale), covariance / np.outer(scale, scale), atol=0.03
    )
    normal = torch.distributions.MultivariateNormal(
        torch.from_numpy(model.embedding_.mean(0)), torch.from_numpy(covariance)
    )
    np.testing.assert_allclose(samples.log_density, normal.log_prob(torch.from_numpy(samples.z)), rtol=1e-9)


@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("d", [1, 3])
def test_codes_without_spread_still_have_a_density(name: str, d: int) -> None:
    flat = np.zeros((10, d), dtype=name)
    flat[:, 0] = np.arange(10)
    for z in (flat, np.ones((10, d), dtype=name)):
        mean, factor = fit_gaussian(z)
        assert (mean.dtype, factor.dtype) == (name, name)
        assert np.isfinite(np.linalg.slogdet(factor)[1])
        np.testing.assert_allclose(factor @ factor.T, np.atleast_2d(np.cov(z.T)), atol=1e-5)


@pytest.mark.parametrize("divisor", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_default_quality_on_digits(divisor: int) -> None:
    X = (load_digits().data / divisor).astype(np.float32)
    model = Autoencoder(progress=False, random_state=0).fit(X)
    assert trustworthiness(X, model.embedding_, n_neighbors=15) > 0.96
    pca = PCA(2).fit(X)
    linear = np.square(pca.inverse_transform(pca.transform(X)) - X).sum()
    assert np.square(model.inverse_transform(model.embedding_) - X).sum() < 0.5 * linear
    assert model.converged_
