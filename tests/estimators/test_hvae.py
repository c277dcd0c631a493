"""The Hamiltonian VAE as an estimator: its bound, its posterior samples, its learned numbers."""

import numpy as np
import pytest
import torch

import pullback as pb
from pullback import HVAE, VAE
from pullback.dynamics import null_tempering, quadratic_tempering
from pullback.estimators.flows import resolve_tempering

TINY = {"hidden": (8,), "max_epochs": 3, "progress": False, "random_state": 0}


class Steep:
    """A schedule of the user's that says how it is made."""

    def __init__(self, power: float = 4.0):
        self.power = power

    def config(self) -> dict:
        return {"power": self.power}

    def __call__(self, beta0, k, n_steps):
        return beta0 ** (1 - (k / n_steps) ** self.power)


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 5)) @ np.diag([3.0, 1, 1, 1, 0.1]) + 10


@pytest.mark.slow
def test_score_is_the_bound_through_the_flow(X: np.ndarray) -> None:
    model = HVAE(2, **TINY | {"max_epochs": 20}).fit(X)
    scaled = model.scaling_.apply(torch.from_numpy(X))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        draws = torch.stack(
            [
                model.module_.elbo(scaled, torch.randn(40, 4, generator=generator, dtype=torch.float64))
                for _ in range(400)
            ]
        )
    wanted = draws.mean(0) - model.scaling_.log_volume()
    spread = draws.std(0) / model.SCORE_DRAWS**0.5
    assert (abs(model.score_samples(X) - wanted.numpy()) < 5 * spread.numpy()).all()
    exact = model.module_.log_likelihood(scaled, method="quadrature").value - model.scaling_.log_volume()
    assert model.score(X) < float(exact.mean())


def test_without_steps_that_move_it_is_a_vae(X: np.ndarray) -> None:
    """With a vanishing step the flow stays where it is, and so do bound and posterior."""
    still = HVAE(2, **TINY, beta0=1.0, step_size=1e-12).fit(X)
    plain = VAE(2, **TINY).fit(X)
    plain.module_.load_state_dict(still.module_.state_dict(), strict=False)
    np.testing.assert_allclose(plain.score(X), still.score(X), atol=0.3)
    samples = still.sample(2000, method="posterior", X=X[:1], random_state=0)
    q = still.module_.posterior(still.scaling_.apply(torch.from_numpy(X[:1])))
    np.testing.assert_allclose(samples.z.mean(0), q.mean[0].numpy(), atol=0.1)
    np.testing.assert_allclose(samples.z.std(0), q.log_std.exp()[0].numpy(), rtol=0.1)


def test_samples_of_the_posterior_are_carried_by_the_flow(X: np.ndarray) -> None:
    model = HVAE(2, **TINY, step_size=0.1).fit(X)
    samples = model.sample(50, method="posterior", X=X[:2], random_state=3)
    assert samples.diagnostics["rows"][:4].tolist() == [0, 1, 0, 1]
    noise = torch.randn(50, 4, generator=_same_generator(3), dtype=torch.float64)
    x = model.scaling_.apply(torch.from_numpy(X[:2])).repeat(25, 1)
    with torch.no_grad():
        flow = model.module_.flow(x, noise).flow
    np.testing.assert_allclose(samples.z, flow.z_final.numpy(), rtol=1e-12)
    assert np.abs(samples.z - flow.z_init.numpy()).max() > 1e-3
    # volume is kept: the density of position and momentum is that of their start, times √(β_K/β_0)^d
    start = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    momentum = start.log_prob(noise[:, 2:]) + np.log(0.3) - 2 * np.log(0.3**0.5)
    wanted = model.module_.posterior(x).log_prob(flow.z_init) + momentum
    np.testing.assert_allclose(samples.log_density, wanted.numpy(), rtol=1e-10)


def _same_generator(seed: int) -> torch.Generator:
    from pullback.estimators.rows import draw_seed

    return torch.Generator().manual_seed(draw_seed(seed))


def test_learned_numbers_are_fitted_and_come_back(X: np.ndarray, tmp_path) -> None:
    options = TINY | {"max_epochs": 10, "lr": 0.02}
    fixed = HVAE(2, **options).fit(X)
    assert (fixed.step_size_, fixed.beta0_) == (0.01, 0.3)
    learned = HVAE(2, **options, learn_step_size=True, learn_beta0=True).fit(X)
    assert learned.step_size_ != 0.01
    assert learned.beta0_ != 0.3
    found = pb.load(learned.save(tmp_path / "model"))
    assert (found.step_size_, found.beta0_) == (learned.step_size_, learned.beta0_)
    assert found.score_samples(X).tobytes() == learned.score_samples(X).tobytes()


def test_tempering_by_name_and_by_function(X: np.ndarray, tmp_path) -> None:
    assert resolve_tempering("quadratic") is quadratic_tempering
    assert resolve_tempering("null") is null_tempering
    with pytest.raises(ValueError, match="tempering: expected one of 'quadratic', 'null', got 'cubic'"):
        HVAE(2, **TINY, tempering="cubic").fit(X)
    with pytest.raises(TypeError, match="tempering: expected a name or a function"):
        HVAE(2, **TINY, tempering=3).fit(X)
    model = HVAE(2, **TINY, tempering=Steep()).fit(X)
    with pytest.raises(TypeError, match="tempering: expected 'quadratic', 'null' or an object of a "):
        model.save(tmp_path / "unknown")
    pb.register_module("steep", Steep)
    found = pb.load(model.save(tmp_path / "model"))
    assert found.tempering.power == 4.0
    assert found.score(X) == model.score(X)


def test_free_bits_count_all_coordinates_together(X: np.ndarray) -> None:
    model = HVAE(2, **TINY, free_bits=50.0).fit(X)
    kl, free = (np.array(model.history_[name]) for name in ("kl", "free_bits"))
    np.testing.assert_allclose(kl + free, 100.0, rtol=1e-6)


def test_methods_are_listed(X: np.ndarray, as_users_run: None) -> None:
    model = HVAE(2, **TINY).fit(X)
    for method in ("volume", "rhmc"):
        with pytest.raises(ValueError, match="method: expected one of 'prior', 'posterior', got"):
            model.sample(2, method=method)
    with pytest.raises(ValueError, match="X: expected the data whose posterior is sampled"):
        model.sample(2, method="posterior")
    with pytest.raises(ValueError, match="kind: expected one of 'pullback', 'euclidean'"):
        model.metric("learned")
    with pytest.raises(ValueError, match="options: expected none for method='prior', got n_steps"):
        model.sample(2, options={"n_steps": 3})
