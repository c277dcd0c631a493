"""Hamiltonian Monte Carlo, flat and Riemannian, on a posterior that is known."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pullback.dynamics import Chains, ModelPotential, sample_hmc, sample_rhmc
from pullback.dynamics.chains import GeneratorNoise, run_chains
from pullback.dynamics.hmc import FlatKernel
from pullback.dynamics.place import make_motion
from pullback.dynamics.potential import as_potential
from pullback.dynamics.rhmc import RiemannianKernel
from pullback.metrics import CentroidMetric, EuclideanMetric, from_tensor
from pullback.models import Gaussian

COVARIANCE = torch.tensor([[0.20, -0.03], [-0.03, 0.52]], dtype=torch.float64)
MEAN = torch.tensor([0.4, -0.3], dtype=torch.float64)


def quadratic(z: Tensor) -> Tensor:
    """-log N(z; MEAN, COVARIANCE) without its constant."""
    apart = z - MEAN.to(z)
    return (apart @ torch.linalg.inv(COVARIANCE).to(z) * apart).sum(1) / 2


def linear_posterior() -> ModelPotential:
    """x | z ~ N(A z + b, I) with the posterior N(MEAN, COVARIANCE)."""
    excess = torch.linalg.inv(COVARIANCE) - torch.eye(2).double()
    A = torch.cat([torch.linalg.cholesky(excess).mT, torch.zeros(3, 2).double()])
    b = torch.tensor([0.3, -0.2, 0.1, 0.0, 0.5], dtype=torch.float64)
    pulled = torch.linalg.solve(A[:2].mT, torch.linalg.solve(COVARIANCE, MEAN))
    x = b + torch.cat([pulled, torch.zeros(3).double()])
    return ModelPotential(lambda z: z @ A.mT + b, Gaussian(), x.expand(2000, 5))


def whitened(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance in coordinates in which they should be 0 and 1."""
    root = torch.linalg.cholesky(COVARIANCE)
    w = torch.linalg.solve_triangular(root, (z.double() - MEAN).mT, upper=False).mT
    return w.mean(0), w.var(0)


def assert_posterior(z: Tensor, mean: float = 0.1, variance: float = 0.12) -> None:
    found, spread = whitened(z)
    assert float(found.abs().max()) <= mean, found
    assert float((spread - 1).abs().max()) <= variance, spread


def learned_metric(dtype: torch.dtype = torch.float64) -> CentroidMetric:
    draw = torch.Generator().manual_seed(0)
    c, L = torch.randn(20, 2, generator=draw), torch.randn(20, 2, 2, generator=draw).tril()
    return CentroidMetric(c.to(dtype), L.to(dtype), temperature=0.8, regularization=0.05)


def test_hmc_finds_the_posterior_of_a_linear_model() -> None:
    start = torch.zeros(2000, 2, dtype=torch.float64)
    chains = sample_hmc(linear_posterior(), start, n_steps=60, step_size=0.15)
    assert_posterior(chains.z)
    assert chains.converged, chains.message
    assert int(chains.divergences.sum()) == 0
    assert float(chains.acceptance.mean()) > 0.98
    assert chains.reversibility_error is None
    torch.testing.assert_close(chains.log_density, -linear_posterior()(chains.z))
    torch.testing.assert_close(chains.mean, MEAN, rtol=0, atol=0.03)
    torch.testing.assert_close(chains.variance, COVARIANCE.diag(), rtol=0.1, atol=0)


@pytest.mark.parametrize("step_size", [0.14, 0.2265])
def test_without_jitter_paths_of_half_a_period_do_not_mix(step_size: float) -> None:
    """Negative control: ten steps are half a period of the narrow and of the wide direction."""
    start = torch.zeros(2000, 2, dtype=torch.float64)
    chains = sample_hmc(quadratic, start, n_steps=60, step_size=step_size, jitter=0)
    mean, variance = whitened(chains.z)
    assert float(mean.abs().max()) > 0.12 or float((variance - 1).abs().max()) > 0.14
    assert not chains.converged
    assert "between the halves" in chains.message
    mixed = sample_hmc(quadratic, start, n_steps=60, step_size=step_size)
    assert_posterior(mixed.z)
    assert mixed.converged, mixed.message


@pytest.mark.slow
def test_rhmc_finds_the_posterior_of_a_linear_model() -> None:
    start = torch.zeros(2000, 2, dtype=torch.float64)
    chains = sample_rhmc(
        linear_posterior(),
        learned_metric(),
        start,
        n_steps=60,
        step_size=0.2,
        n_leapfrog=8,
        check_reversibility=True,
    )
    assert_posterior(chains.z)
    assert chains.converged, chains.message
    assert float(chains.acceptance.mean()) > 0.98
    assert chains.reversibility_error is not None
    assert float(chains.reversibility_error.quantile(0.9)) <= 1e-8


def test_rhmc_keeps_the_posterior(dtype: torch.dtype) -> None:
    """Few transitions from exact draws: a wrong log det or momentum would move them away."""
    draw = torch.Generator().manual_seed(1)
    noise = torch.randn(1000, 2, generator=draw, dtype=torch.float64)
    start = (MEAN + noise @ torch.linalg.cholesky(COVARIANCE).mT).to(dtype)
    chains = sample_rhmc(quadratic, learned_metric(dtype), start, n_steps=6, step_size=0.2, n_leapfrog=6)
    assert chains.z.dtype == chains.acceptance.dtype == dtype
    assert_posterior(chains.z)
    assert float(chains.acceptance.mean()) > 0.97
    torch.testing.assert_close(chains.log_density, -quadratic(chains.z))


def test_rhmc_on_the_flat_metric_is_hmc() -> None:
    start = torch.zeros(5, 2, dtype=torch.float64)
    flat = sample_rhmc(quadratic, EuclideanMetric(2), start, n_steps=8, step_size=0.2)
    also = sample_hmc(quadratic, start, n_steps=8, step_size=0.2)
    torch.testing.assert_close(flat.z, also.z, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(flat.acceptance, also.acceptance)
    wide = from_tensor(lambda z: torch.eye(2).to(z).expand(len(z), 2, 2), 2)
    torch.testing.assert_close(sample_rhmc(quadratic, wide, start, n_steps=8, step_size=0.2).z, also.z)


def test_reversibility_is_checked() -> None:
    start = torch.zeros(50, 2, dtype=torch.float64)
    settings = {"n_steps": 5, "step_size": 0.2, "n_leapfrog": 6, "check_reversibility": True}
    chains = sample_rhmc(quadratic, learned_metric(), start, **settings)
    assert chains.reversibility_error is not None
    assert float(chains.reversibility_error.max()) <= 1e-8
    # a tolerance as loose as this is no fixed point: the way back misses, and that is seen
    loose = sample_rhmc(quadratic, learned_metric(), start, tolerance=1e-2, **settings)
    assert loose.reversibility_error is not None
    assert float(loose.reversibility_error.max()) > 1e-6
    assert int(loose.divergences.sum()) > 0


def test_fixed_points_that_are_not_found_are_rejections() -> None:
    start = torch.zeros(50, 2, dtype=torch.float64)
    chains = sample_rhmc(
        quadratic, learned_metric(), start, n_steps=5, step_size=0.2, n_leapfrog=4, max_iterations=1
    )
    assert chains.divergences.tolist() == [5] * 50
    assert torch.equal(chains.z, start)
    assert "never moved" in chains.message
    assert not chains.converged


class Recorded:
    """Noise of so many chains, drawn once: rows of it are the noise of some of them."""

    def __init__(self, chains: int, transitions: int):
        noise = GeneratorNoise(torch.zeros(chains, 2).double(), torch.Generator().manual_seed(3))
        self._drawn = [noise() for _ in range(transitions)]

    def of(self, rows: list[int]):
        numbers = iter(self._drawn)
        return lambda: tuple(part[rows] for part in next(numbers))


@pytest.mark.parametrize("kind", ["flat", "riemannian"])
def test_a_chain_does_not_depend_on_its_neighbours(kind: str) -> None:
    potential = as_potential(lambda z: quadratic(z) + (3 * z).sin().sum(1))
    start = torch.randn(6, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    noise = Recorded(6, 12)

    def run(rows: list[int]) -> Chains:
        kernel = FlatKernel(potential, n_leapfrog=4)
        if kind == "riemannian":
            motion = make_motion(learned_metric(), potential)
            kernel = RiemannianKernel(
                motion, n_leapfrog=4, tolerance=1e-10, max_iterations=50, check_reversibility=False
            )
        options = {"n_steps": 7, "warmup": 5, "step_size": 0.3}
        return run_chains(kernel, start[rows], noise=noise.of(rows), **options)

    together = run(list(range(6)))
    assert len(set(together.step_size.tolist())) == 6
    for rows in ([2], [5, 0]):
        alone = run(rows)
        torch.testing.assert_close(alone.z, together.z[rows], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(alone.step_size, together.step_size[rows], rtol=1e-9, atol=1e-9)
        assert torch.equal(alone.acceptance, together.acceptance[rows])


@pytest.mark.parametrize("first", [1e-3, 30.0])
def test_warmup_finds_a_step_size_from_far_away(first: float) -> None:
    start = torch.zeros(40, 2, dtype=torch.float64)
    chains = sample_hmc(quadratic, start, n_steps=30, step_size=first, warmup=150)
    assert float(chains.step_size.min()) > 0.3
    assert float(chains.step_size.max()) < 0.9
    assert 0.7 < float(chains.acceptance.mean()) < 0.97
    eager = sample_hmc(quadratic, start, n_steps=30, step_size=first, warmup=150, target_acceptance=0.98)
    assert float(eager.step_size.mean()) < float(chains.step_size.mean())


def test_same_seed_same_chains() -> None:
    start = torch.zeros(4, 2)

    def run(seed: int | None) -> Tensor:
        draw = None if seed is None else torch.Generator().manual_seed(seed)
        return sample_hmc(quadratic, start, n_steps=5, step_size=0.2, generator=draw).z

    before = torch.get_rng_state()
    assert torch.equal(run(1), run(1))
    assert torch.equal(run(None), run(None))
    assert not torch.equal(run(1), run(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_history_progress_and_precision(dtype: torch.dtype) -> None:
    told = []
    chains = sample_hmc(
        quadratic,
        torch.zeros(6, 2, dtype=dtype),
        n_steps=20,
        warmup=10,
        step_size=0.2,
        keep_draws=True,
        progress=lambda *done: told.append(done),
    )
    assert told == [(k, 30) for k in range(1, 31)]
    draws = chains.draws
    assert draws is not None
    assert draws.shape == (20, 6, 2)
    assert torch.equal(draws[-1], chains.z)
    torch.testing.assert_close(chains.mean, draws.mean((0, 1)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        chains.variance, draws.flatten(0, 1).var(0, correction=0), rtol=1e-5, atol=1e-5
    )
    for found in (
        chains.z,
        chains.log_density,
        chains.acceptance,
        chains.step_size,
        chains.mean,
        chains.r_hat,
    ):
        assert found is not None
        assert found.dtype == dtype
    assert not chains.z.requires_grad
    assert sample_hmc(quadratic, chains.z, n_steps=2, step_size=0.2).draws is None


def test_a_long_history_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    start = torch.zeros(200, 2, dtype=torch.float64)
    whole = sample_hmc(quadratic, start, n_steps=100, step_size=0.2)
    monkeypatch.setattr("pullback.dynamics.history.HISTORY_NUMBERS", 100)
    part = sample_hmc(quadratic, start, n_steps=100, step_size=0.2)
    assert torch.equal(part.z, whole.z)
    torch.testing.assert_close(part.mean, whole.mean)
    assert part.effective_sample_size is not None
    assert bool(torch.isfinite(part.effective_sample_size).all())


def test_too_few_draws_are_not_judged() -> None:
    chains = sample_hmc(quadratic, torch.zeros(50, 2), n_steps=3, step_size=0.2)
    assert chains.effective_sample_size is None
    assert chains.r_hat is None
    assert not chains.converged
    assert "raise n_steps" in chains.message


def test_what_is_not_finite_is_a_rejection() -> None:
    """A potential with a hole, and steps that overflow."""

    def broken(z: Tensor) -> Tensor:
        assert bool(torch.isfinite(z).all())
        return torch.where(z[:, 0] > 0.9, torch.nan, quadratic(z))

    start = torch.zeros(100, 2)
    chains = sample_hmc(broken, start, n_steps=30, step_size=0.2)
    assert int(chains.divergences.sum()) > 0
    assert float(chains.z[:, 0].max()) <= 0.9
    assert not chains.converged
    assert "diverged" in chains.message

    def steep(z: Tensor) -> Tensor:
        assert bool(torch.isfinite(z).all())
        return z.square().square().sum(1)

    lost = sample_hmc(steep, start, n_steps=10, step_size=50.0)
    assert lost.divergences.tolist() == [10] * 100
    assert torch.equal(lost.z, start)


def test_one_dimension() -> None:
    chains = sample_hmc(lambda z: z.square().sum(1) / 2, torch.zeros(500, 1), n_steps=40, step_size=0.3)
    assert float(chains.variance) == pytest.approx(1, abs=0.1)
    line = CentroidMetric(torch.zeros(1, 1), torch.ones(1, 1, 1), temperature=1.0, regularization=0.5)
    curved = sample_rhmc(
        lambda z: z.square().sum(1) / 2, line, chains.z, n_steps=5, step_size=0.3, n_leapfrog=5
    )
    assert float(curved.z.var()) == pytest.approx(1, abs=0.25)


HMC = {"n_steps": 2, "step_size": 0.1}


@pytest.mark.parametrize("sampler", ["hmc", "rhmc"])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"start": [[0.0, 0.0]]}, TypeError, "start: expected a torch.Tensor"),
        ({"start": torch.zeros(2)}, ValueError, "start: expected (n, d)"),
        ({"start": torch.zeros(0, 2)}, ValueError, "start: expected at least one point"),
        ({"start": torch.full((3, 2), torch.nan)}, ValueError, "start: expected finite numbers"),
        ({"potential": 3}, TypeError, "potential: expected a function"),
        ({"potential": lambda z: z}, ValueError, "potential: expected (3,)"),
        ({"potential": lambda z: z.sum(1) / 0}, ValueError, "potential: expected finite numbers at start"),
        ({"n_steps": 0}, ValueError, "n_steps"),
        ({"n_steps": 2.5}, TypeError, "n_steps"),
        ({"n_leapfrog": 0}, ValueError, "n_leapfrog"),
        ({"warmup": -1}, ValueError, "warmup"),
        ({"step_size": 0.0}, ValueError, "step_size: expected a finite number > 0"),
        ({"step_size": "big"}, TypeError, "step_size: expected a number"),
        ({"step_size": torch.ones(2)}, ValueError, "step_size: expected one number, got shape (2,)"),
        ({"jitter": 1.0}, ValueError, "jitter: expected a share in [0, 1)"),
        ({"target_acceptance": 1.0}, ValueError, "target_acceptance: expected a number between 0 and 1"),
        ({"generator": 3}, TypeError, "generator: expected a torch.Generator"),
        ({"progress": True}, TypeError, "progress: expected a function"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_bad_input(sampler: str, options: dict, error: type[Exception], message: str) -> None:
    settings = HMC | {"potential": quadratic, "start": torch.zeros(3, 2)} | options
    potential, start = settings.pop("potential"), settings.pop("start")
    between = () if sampler == "hmc" else (EuclideanMetric(2),)
    with pytest.raises(error) as caught:
        {"hmc": sample_hmc, "rhmc": sample_rhmc}[sampler](potential, *between, start, **settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": 3}, TypeError, "metric: expected an object with tensor(z)"),
        ({"metric": EuclideanMetric(3)}, ValueError, "start: expected (n, 3) like metric, got (3, 2)"),
        ({"metric": learned_metric()}, ValueError, "float64 like centroids"),
        ({"metric": from_tensor(lambda z: -torch.eye(2).expand(3, 2, 2), 2)}, ValueError, "at row 0"),
        ({"tolerance": 0.0}, ValueError, "tolerance"),
        ({"max_iterations": 0}, ValueError, "max_iterations"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_bad_metric(options: dict, error: type[Exception], message: str) -> None:
    settings = HMC | {"metric": EuclideanMetric(2)} | options
    metric = settings.pop("metric")
    with pytest.raises(error) as caught:
        sample_rhmc(quadratic, metric, torch.zeros(3, 2), **settings)
    assert message in str(caught.value)


def test_a_result_is_frozen() -> None:
    chains = sample_hmc(quadratic, torch.zeros(3, 2), **HMC)
    assert replace(chains, message="").message == ""
    with pytest.raises(AttributeError):
        chains.message = ""  # type: ignore[misc]
