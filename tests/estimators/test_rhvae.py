"""The Riemannian VAE as an estimator: its metric, its anchors, its four ways to sample, and what it says."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

import pullback as pb
from pullback import RHVAE, VAE
from pullback.estimators import anchors
from pullback.estimators.counts import LogNormalise
from pullback.estimators.sampling import CHAINS_PER_ROW, FEWEST_CHAINS
from pullback.metrics import CentroidMetric, EuclideanMetric, PullbackMetric
from pullback.models import ConvEncoder

TINY = {"hidden": (8,), "metric_hidden": (8,), "max_epochs": 3, "progress": False, "random_state": 0}
SHORT = {"n_steps": 25, "warmup": 10, "n_leapfrog": 4, "tolerance": 1e-6}


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 2)) @ rng.normal(size=(2, 5)) + 0.5 * rng.normal(size=(60, 5)) + 10


@pytest.fixture
def quick(as_users_run: None) -> None:
    """Chains call small functions very often: checks of shapes at each call would take most of the time."""


@pytest.fixture(scope="module")
def fitted(X: np.ndarray) -> RHVAE:
    return RHVAE(2, **TINY | {"max_epochs": 60, "lr": 1e-2}).fit(X)


# --- metric and anchors -------------------------------------------------------------------------------------


def test_the_metric_is_the_learned_one(X: np.ndarray, fitted: RHVAE, dtype: torch.dtype) -> None:
    metric = fitted.metric(dtype=dtype)
    assert isinstance(metric, CentroidMetric)
    assert isinstance(fitted.metric("pullback"), PullbackMetric)
    assert isinstance(fitted.metric("euclidean"), EuclideanMetric)
    data = torch.from_numpy(fitted.centroids_data_)
    rows = fitted.scaling_.apply(data)
    codes, factors = fitted.module_.encode(rows), fitted.module_.metric_network(rows)
    z = torch.from_numpy(fitted.embedding_[:7]).to(dtype)
    weights = torch.exp(-(z.double()[:, None] - codes).square().sum(-1) / 2)
    M = factors @ factors.mT
    wanted = torch.einsum("nk,kab->nab", weights, M) / len(M) + 1e-2 * torch.eye(2, dtype=torch.float64)
    rtol = 1e-10 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(metric.inverse(z).double(), wanted, rtol=rtol, atol=rtol)
    assert pb.geodesic(fitted.metric(), *torch.from_numpy(fitted.embedding_[:2])[:, None]).converged.all()
    assert torch.isfinite(pb.curvature(metric, z).scalar).all()


@pytest.mark.parametrize("choice", ["kmedoids", "kmeans", "random", "all"])
def test_anchors_are_chosen_among_the_training_rows(choice: str, X: np.ndarray) -> None:
    model = RHVAE(2, **TINY, centroids=choice, n_centroids=7).fit(X)
    rows = X[model.training_index_]
    inside = (np.abs(model.centroids_data_[:, None] - rows).max(-1) < 1e-9).any(1)
    assert inside.all() == (choice != "kmeans")
    assert len(model.centroids_data_) == (len(rows) if choice == "all" else 7)
    stored = model.scaling_.apply(torch.from_numpy(model.centroids_data_))
    torch.testing.assert_close(model.module_.centroids_data, stored)
    again = clone(model).fit(X)
    assert again.centroids_data_.tobytes() == model.centroids_data_.tobytes()


def test_few_rows_have_as_many_anchors_unless_more_are_asked_for(X: np.ndarray) -> None:
    assert len(RHVAE(2, **TINY).fit(X[:15]).centroids_data_) == 15
    with pytest.raises(ValueError, match="n_centroids: expected at most 54, the number of training rows"):
        RHVAE(2, **TINY, n_centroids=64).fit(X)


def test_own_anchors(X: np.ndarray, tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    own = X[:4] + 0.5
    model = RHVAE(2, **TINY, centroids=own).fit(X)
    np.testing.assert_array_equal(model.centroids_data_, own)
    frame = pd.DataFrame(X, columns=[*"abcde"])
    same = RHVAE(2, **TINY, centroids=frame[:4] + 0.5).fit(frame)
    np.testing.assert_array_equal(same.centroids_data_, own)
    found = pb.load(model.save(tmp_path / "model"))
    assert found.score(X) == model.score(X)
    assert "centroids: not stored with the model" in caplog.text
    for bad, message in (
        ({"centroids": X[:, :3]}, "centroids: expected 5 features like X, got 3"),
        ({"centroids": own, "n_centroids": 5}, "n_centroids: expected None or 4, the rows of centroids"),
        ({"centroids": "mean"}, "centroids: expected one of 'kmedoids', 'kmeans', 'random', 'all'"),
        ({"n_centroids": 0}, "n_centroids: expected a whole number >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            RHVAE(2, **TINY | bad).fit(X)


def test_of_many_rows_a_sample_is_looked_at(X: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchors, "MOST_NUMBERS", 100)
    model = RHVAE(2, **TINY, n_centroids=20).fit(X)
    assert len(model.centroids_data_) <= 20


def test_counts_are_seen_as_the_encoder_sees_them(tmp_path) -> None:
    rng = np.random.default_rng(0)
    profile = np.where(np.arange(60)[:, None] % 2, [8.0, 1, 1, 1], [1.0, 1, 1, 8])
    counts = rng.poisson(profile * rng.integers(1, 30, size=(60, 1)))
    model = RHVAE(2, **TINY, likelihood="poisson", n_centroids=2).fit(counts)
    assert isinstance(model.module_.metric_network[0], LogNormalise)
    # of two kinds at all depths the two medoids are one of each
    assert {row.argmax() for row in model.centroids_data_} == {0, 3}
    x = torch.from_numpy(counts[:3]).float()
    torch.testing.assert_close(model.module_.metric_network(x), model.module_.metric_network(5 * x))
    found = pb.load(model.save(tmp_path / "model"))
    assert found.score(counts) == model.score(counts)


def test_images_get_convolutions() -> None:
    images = np.random.default_rng(0).random((12, 1, 16, 16)).astype(np.float32)
    model = RHVAE(2, **TINY | {"max_epochs": 1}).fit(images)
    assert isinstance(model.module_.metric_network.trunk[0], ConvEncoder)
    assert model.sample(2, method="posterior", X=images, random_state=0).x.shape == (2, 1, 16, 16)


# --- training -----------------------------------------------------------------------------------------------


def test_a_step_size_that_is_too_large_is_halved_and_said(X: np.ndarray, tmp_path) -> None:
    model = RHVAE(2, **TINY, step_size=3.0).fit(X)
    halvings = model.module_.halvings
    assert halvings > 0
    assert model.step_size_ == pytest.approx(3.0 / 2**halvings)
    assert f"step size halved {halvings} times to {model.step_size_:.3g}" in model.message_
    assert model.residual_ <= 1e-3
    found = pb.load(model.save(tmp_path / "model"))
    assert (found.step_size_, found.residual_) == (model.step_size_, model.residual_)
    assert (found.module_.halvings, found.message_) == (halvings, model.message_)


def test_a_flow_that_is_not_solved_warns_once(X: np.ndarray) -> None:
    with pytest.warns(ConvergenceWarning) as caught:
        model = RHVAE(2, **TINY, step_size=3.0, adapt_step_size=False).fit(X)
    (message,) = [str(w.message) for w in caught if "fixed points" in str(w.message)]
    assert "have not converged" in message
    assert "reduce step_size or raise temperature" in message
    assert model.residual_ > 1e-3
    assert model.step_size_ == 3.0


def test_a_metric_that_does_not_reach_the_data_warns(X: np.ndarray) -> None:
    with pytest.warns(ConvergenceWarning, match="equals λI at the data .* raise temperature"):
        model = RHVAE(2, **TINY, temperature=1e-3, n_centroids=3).fit(X)
    assert model.coverage_ < 0.05


def test_options_reach_the_module(X: np.ndarray) -> None:
    model = RHVAE(
        2,
        **TINY | {"max_epochs": 1},
        n_steps=2,
        beta0=0.5,
        tempering="null",
        temperature=0.9,
        regularization=0.1,
        reduction="sum",
        fixed_point_steps=4,
        backprop="truncated",
    ).fit(X)
    module, metric = model.module_, model.metric()
    assert (module.n_steps, module.fixed_point_steps, module.backprop) == (2, 4, "truncated")
    assert float(module.beta0) == 0.5
    assert (metric.temperature, metric.regularization, metric.reduction) == (0.9, 0.1, "sum")
    with pytest.raises(ValueError, match="beta0: expected an inverse temperature"):
        RHVAE(2, **TINY, beta0=1.5).fit(X)


def test_the_score_is_a_bound_row_by_row(X: np.ndarray, fitted: RHVAE) -> None:
    order = np.random.default_rng(1).permutation(60)
    np.testing.assert_allclose(fitted.score_samples(X[order]), fitted.score_samples(X)[order], rtol=1e-10)
    scaled = fitted.scaling_.apply(torch.from_numpy(X))
    exact = fitted.module_.log_likelihood(scaled, method="quadrature").value - fitted.scaling_.log_volume()
    assert fitted.score(X) < float(exact.mean())
    assert fitted.score(X) > float(exact.mean()) - 5


# --- samples ------------------------------------------------------------------------------------------------


def test_volume_samples_stay_within_reach_and_say_how_it_went(fitted: RHVAE) -> None:
    samples = fitted.sample(5, method="volume", random_state=0)
    metric = fitted.metric()
    z = torch.from_numpy(samples.z)
    assert (torch.cdist(z, metric.centroids).amin(1) <= 2 * metric.temperature).all()
    np.testing.assert_allclose(samples.log_density, -0.5 * metric.logdet(z).numpy(), rtol=1e-8)
    found = samples.diagnostics
    assert found["chains"] == FEWEST_CHAINS
    assert [len(found[name]) for name in ("acceptance", "divergences", "step_size")] == [5] * 3
    assert [len(found[name]) for name in ("r_hat", "effective_sample_size")] == [2] * 2
    assert found["converged"]
    again = fitted.sample(5, method="volume", random_state=0)
    assert again.z.tobytes() == samples.z.tobytes()
    box = fitted.sample(200, method="volume", options={"support": "box", "n_steps": 60}, random_state=0)
    assert box.z.shape == (200, 2)
    noisy = fitted.sample(5, method="volume", random_state=0, observe="sample")
    assert noisy.z.tobytes() == samples.z.tobytes()
    assert np.abs(noisy.x - samples.x).max() > 0


def test_chains_that_did_not_converge_warn(fitted: RHVAE) -> None:
    with pytest.warns(ConvergenceWarning, match="method='volume': .*(fewer than 4 draws|never moved)"):
        samples = fitted.sample(3, method="volume", options={"n_steps": 2}, random_state=0)
    assert not samples.diagnostics["converged"]
    assert samples.diagnostics["r_hat"] is None


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_rhmc_of_a_row_draws_from_its_posterior(X: np.ndarray, fitted: RHVAE) -> None:
    """Against moments by quadrature of p(x | z) N(z; 0, I)."""
    options = {"n_steps": 40, "n_leapfrog": 10, "step_size": 0.3, "warmup": 0, "tolerance": 1e-6}
    samples = fitted.sample(600, method="rhmc", X=X[:2], random_state=0, options=options)
    assert samples.diagnostics["rows"][:3].tolist() == [0, 1, 0]
    axis = torch.linspace(-6, 6, 201, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    for row in (0, 1):
        x = fitted.scaling_.apply(torch.from_numpy(X[row : row + 1])).expand(len(grid), -1)
        log = fitted.module_.likelihood.log_prob(x, fitted.module_.decode(grid)) - grid.square().sum(1) / 2
        weights = torch.softmax(log, 0)[:, None]
        mean = (weights * grid).sum(0)
        deviation = (weights * (grid - mean).square()).sum(0).sqrt()
        own = torch.from_numpy(samples.z[row::2])
        assert ((own.mean(0) - mean).abs() < 0.25 * deviation).all()
        torch.testing.assert_close(own.std(0), deviation, rtol=0.17, atol=0)


@pytest.mark.usefixtures("quick")
def test_rows_are_judged_each_by_its_own_chains(X: np.ndarray, fitted: RHVAE) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of chains so short
        samples = fitted.sample(6, method="rhmc", X=X[:10], random_state=0, options=SHORT)
    assert samples.diagnostics["chains"] == 6 * CHAINS_PER_ROW
    assert samples.diagnostics["rows"].tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.warns(ConvergenceWarning, match="2 of 2 rows, first row 0: fewer than 4 draws"):
        fitted.sample(2, method="rhmc", X=X[:2], random_state=0, options={"n_steps": 2, "warmup": 0})


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_rhmc_without_data_draws_from_the_prior_times_the_volume(fitted: RHVAE) -> None:
    samples = fitted.sample(600, method="rhmc", random_state=0, options=SHORT)
    metric = fitted.metric()
    z = torch.from_numpy(samples.z)
    wanted = -0.5 * metric.logdet(z) - z.square().sum(1) / 2 - np.log(2 * np.pi)
    np.testing.assert_allclose(samples.log_density, wanted.numpy(), rtol=1e-8)
    axis = torch.linspace(-6, 6, 201, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    weights = torch.softmax(-0.5 * metric.logdet(grid) - grid.square().sum(1) / 2, 0)[:, None]
    variance = (weights * grid.square()).sum(0) - (weights * grid).sum(0).square()
    torch.testing.assert_close(z.var(0), variance, rtol=0.2, atol=0)


def test_methods_and_their_data_are_checked(X: np.ndarray, fitted: RHVAE, as_users_run: None) -> None:
    for arguments, message in (
        ({"method": "dream"}, "method: expected one of 'prior', 'posterior', 'volume', 'rhmc', got 'dream'"),
        ({"method": "posterior"}, "X: expected the data whose posterior is sampled for method='posterior'"),
        ({"method": "volume", "X": X}, "X: expected None for method='volume'"),
        ({"method": "volume", "options": {"tolerance": 1}}, "options: expected some of n_steps,"),
        ({"method": "rhmc", "options": {"radius": 1}}, "options: expected some of .* got radius"),
        ({"method": "volume", "options": {"support": "ball"}}, "support: expected one of 'balls', 'box'"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted.sample(2, **arguments)


@pytest.mark.parametrize(
    "options",
    [pytest.param({}, marks=pytest.mark.slow, id="mean"), pytest.param({"reduction": "sum"}, id="sum")],
)
def test_a_large_step_in_ten_dimensions_trains(options: dict, as_users_run: None) -> None:
    """Handwritten digits; with the sum over centroids the first step size is too large for the metric."""
    order = np.random.RandomState(0).permutation(1797)[:600]
    digits = (load_digits().data[order] / 16 > 0.5).astype(np.float32)
    known = TINY | {
        "hidden": (128,),
        "likelihood": "bernoulli",
        "batch_size": 100,
        "max_epochs": 20,
        "lr": 1e-3,
    }
    plain = VAE(10, **{name: value for name, value in known.items() if name != "metric_hidden"}).fit(digits)
    model = RHVAE(10, **known, step_size=0.05, **options).fit(digits)
    assert np.isfinite(model.history_["loss"]).all()
    assert model.residual_ <= 1e-3
    assert (model.module_.halvings > 0) == bool(options)
    assert model.history_["validation/loss"][-1] < plain.history_["validation/loss"][-1] + 0.6
