"""The VAE as an estimator: its bound, its posterior samples, its weights, and the quality of its defaults."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from pullback import VAE
from pullback.ambient import LearnedGaussian, LearnedNegativeBinomial
from pullback.estimators.variational import antithetic_nodes, warmed_up
from pullback.geometry import curve_length, geodesic
from pullback.models import Gaussian, NegativeBinomial

TINY = {"hidden": (8,), "max_epochs": 3, "progress": False, "random_state": 0}


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 5)) @ np.diag([3.0, 1, 1, 1, 0.1]) + 10


def test_score_is_the_evidence_lower_bound(X: np.ndarray) -> None:
    model = VAE(2, **TINY | {"max_epochs": 30}).fit(X)
    scaled = model.scaling_.apply(torch.from_numpy(X))
    generator = torch.Generator().manual_seed(1)
    draws = [
        model.module_.elbo(scaled, torch.randn(40, 2, generator=generator, dtype=torch.float64))
        for _ in range(2000)
    ]
    wanted = torch.stack(draws).mean(0) - model.scaling_.log_volume()
    spread = torch.stack(draws).std(0) / math.sqrt(model.SCORE_DRAWS)
    assert (abs(model.score_samples(X) - wanted.numpy()) < 4 * spread.numpy()).all()
    exact = model.module_.log_likelihood(scaled, method="quadrature").value - model.scaling_.log_volume()
    assert (model.score_samples(X) < exact.numpy() + 4 * spread.numpy()).all()
    assert model.score(X) < float(exact.mean())


def test_the_score_of_a_row_does_not_depend_on_its_neighbours(X: np.ndarray) -> None:
    model = VAE(2, **TINY).fit(X)
    order = np.random.default_rng(1).permutation(40)
    np.testing.assert_allclose(model.score_samples(X[order]), model.score_samples(X)[order], rtol=1e-12)
    np.testing.assert_allclose(model.score_samples(X[3:4]), model.score_samples(X)[3:4], rtol=1e-12)
    assert model.score(X) == model.score(X)


def test_nodes_are_standard_normal_pairs() -> None:
    nodes = antithetic_nodes(4096, 3)
    assert nodes.mean(0).abs().max() < 1e-15
    torch.testing.assert_close(nodes.T @ nodes / 4096, torch.eye(3, dtype=torch.float64), atol=0.1, rtol=0)
    assert torch.equal(antithetic_nodes(32, 2), antithetic_nodes(32, 2))


def test_prior_samples_are_standard_normal(X: np.ndarray) -> None:
    samples = VAE(2, **TINY).fit(X).sample(20000, random_state=0)
    np.testing.assert_allclose(samples.z.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(samples.z.T), np.eye(2), atol=0.03)
    normal = torch.distributions.Normal(0, 1).log_prob(torch.from_numpy(samples.z)).sum(1)
    np.testing.assert_allclose(samples.log_density, normal, rtol=1e-12)


def test_posterior_samples_come_from_the_rows_in_turn(X: np.ndarray) -> None:
    model = VAE(2, **TINY).fit(X)
    samples = model.sample(5000, method="posterior", X=X[:2], random_state=0)
    assert samples.diagnostics["rows"][:4].tolist() == [0, 1, 0, 1]
    q = model.module_.posterior(model.scaling_.apply(torch.from_numpy(X[:2])))
    for row in (0, 1):
        own = samples.z[row::2]
        sigma = torch.exp(q.log_std[row]).numpy()
        np.testing.assert_allclose((own - q.mean[row].numpy()).mean(0) / sigma, 0, atol=0.1)
        np.testing.assert_allclose(own.std(0), sigma, rtol=0.06)
    pairs = type(q)(q.mean[[0, 1]], q.log_std[[0, 1]]).log_prob(torch.from_numpy(samples.z[:2]))
    np.testing.assert_allclose(samples.log_density[:2], pairs, rtol=1e-12)
    with pytest.raises(ValueError, match="X: expected the data whose posterior is sampled"):
        model.sample(2, method="posterior")


def test_a_large_beta_presses_the_posterior_onto_the_prior(X: np.ndarray) -> None:
    options = TINY | {"max_epochs": 60, "lr": 1e-2, "patience": None}
    weak, strong = (VAE(1, **options, beta=beta).fit(X).history_["kl"][-1] for beta in (0.1, 100.0))
    assert strong < 0.05 < weak


def test_warmup_and_schedules(X: np.ndarray) -> None:
    assert warmed_up(0.5, 0) == 0.5
    ramp = warmed_up(2.0, 10)
    assert [ramp(step) for step in (0, 5, 10, 99)] == [0.0, 1.0, 2.0, 2.0]
    both = warmed_up(lambda step: 1.0 + step, 10)
    assert [both(step) for step in (0, 5, 20)] == [0.0, 3.0, 21.0]
    plain, warm = (VAE(1, **TINY, warmup_epochs=epochs).fit(X).history_["kl"] for epochs in (0, 3))
    assert plain != warm
    scheduled = VAE(1, **TINY, beta=lambda step: 0.0).fit(X)
    assert scheduled.history_["loss"] == scheduled.history_["reconstruction"]


def test_free_bits_are_a_term_of_their_own(X: np.ndarray) -> None:
    model = VAE(2, **TINY, free_bits=5.0).fit(X)
    assert model.history_["free_bits"][0] > 0


@pytest.mark.parametrize(
    ("likelihood", "ambient"),
    [
        (Gaussian("network"), LearnedGaussian),
        (NegativeBinomial("network", library="observed"), LearnedNegativeBinomial),
    ],
)
def test_networks_of_noise_and_of_dispersion_give_a_metric_too(X: np.ndarray, likelihood, ambient) -> None:
    data = X if ambient is LearnedGaussian else np.round(4 * np.abs(X))
    model = VAE(2, likelihood=likelihood, **TINY).fit(data)
    metric = model.metric(dtype=torch.float64)
    assert isinstance(metric.ambient, ambient)
    a, b = torch.zeros(1, 2, dtype=torch.float64), torch.full((1, 2), 0.3, dtype=torch.float64)
    assert (torch.linalg.eigvalsh(metric.tensor(a)) > 0).all()
    path = geodesic(metric, a, b, starts="line", nodes=17)
    assert bool(path.converged.all())
    assert (
        path.length.item()
        <= curve_length(metric, torch.lerp(a, b, torch.linspace(0, 1, 17)[:, None].double())).item()
    )


@pytest.mark.parametrize("divisor", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_default_quality_on_digits(divisor: int) -> None:
    X = (load_digits().data / divisor).astype(np.float32)
    model = VAE(progress=False, random_state=0).fit(X)
    assert trustworthiness(X, model.embedding_, n_neighbors=15) > 0.96
    pca = PCA(2).fit(X)
    linear = np.square(pca.inverse_transform(pca.transform(X)) - X).sum()
    assert np.square(model.inverse_transform(model.embedding_) - X).sum() < 0.55 * linear
    assert model.converged_
