"""Every constant of the log densities, against scipy and torch.distributions."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from pullback.models import densities


def tolerance(dtype: torch.dtype) -> float:
    return 1e-12 if dtype == torch.float64 else 2e-5


def test_normal_is_scipys(dtype, generator):
    x, mean, log_scale = (torch.randn(20, generator=generator, dtype=torch.float64) for _ in range(3))
    ours = densities.normal(x.to(dtype), mean.to(dtype), log_scale.to(dtype))
    theirs = scipy.stats.norm.logpdf(x.numpy(), mean.numpy(), np.exp(log_scale.numpy()))
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.double(), torch.from_numpy(theirs), rtol=tolerance(dtype), atol=1e-6)


def test_normal_takes_a_number_as_scale(dtype):
    x = torch.tensor([0.3, -2.0], dtype=dtype)
    ours = densities.normal(x, torch.zeros(2, dtype=dtype), math.log(0.5))
    torch.testing.assert_close(ours, torch.distributions.Normal(0.0, 0.5).log_prob(x))


def test_bernoulli_is_scipys_and_keeps_the_far_tail(dtype):
    logits = torch.tensor([-60.0, -3.0, 0.0, 2.5, 60.0], dtype=dtype)
    for target in (0.0, 1.0):
        ours = densities.bernoulli(torch.full_like(logits, target), logits)
        sign = 1 if target else -1
        exact = -np.logaddexp(0.0, -sign * logits.double().numpy())
        torch.testing.assert_close(
            ours.double(), torch.from_numpy(exact), rtol=1e-6, atol=60 * torch.finfo(dtype).eps
        )
    probability = torch.sigmoid(logits[1:4]).double().numpy()
    ones = densities.bernoulli(torch.ones(3, dtype=dtype), logits[1:4]).double().numpy()
    np.testing.assert_allclose(ones, scipy.stats.bernoulli.logpmf(1, probability), rtol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 7, 300, 20_000])
@pytest.mark.parametrize("rate", [1e-3, 1.0, 250.0, 2e4])
def test_poisson_is_scipys(dtype, count, rate):
    log_rate = torch.tensor([math.log(rate)], dtype=dtype)
    ours = densities.poisson(torch.tensor([float(count)], dtype=dtype), log_rate)
    exact = scipy.stats.poisson.logpmf(count, np.exp(log_rate.double().numpy()))
    np.testing.assert_allclose(ours.numpy(), exact, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("count", [0, 1, 12, 4000])
@pytest.mark.parametrize("mean", [1e-2, 3.0, 5e3])
@pytest.mark.parametrize("theta", [1e-4, 0.7, 40.0, 1e5])
def test_negative_binomial_is_scipys(dtype, count, mean, theta):
    x = torch.tensor([float(count)], dtype=dtype)
    log_mean, log_theta = (torch.tensor([math.log(v)], dtype=dtype) for v in (mean, theta))
    ours = densities.negative_binomial(x, log_mean, log_theta).item()
    mean, theta = math.exp(log_mean.item()), min(max(math.exp(log_theta.item()), 1e-4), 1e5)
    exact = scipy.stats.nbinom.logpmf(count, theta, theta / (theta + mean))
    assert ours == pytest.approx(exact, rel=2e-9, abs=1e-9)


def test_negative_binomial_with_large_dispersion_is_a_poisson():
    x = torch.arange(0.0, 30.0)
    log_mean = torch.full_like(x, math.log(8.0))
    ours = densities.negative_binomial(x, log_mean, torch.full_like(x, 40.0))
    torch.testing.assert_close(ours, densities.poisson(x, log_mean), rtol=0, atol=4e-3)
    low = densities.negative_binomial(x, log_mean, torch.full_like(x, -1e3))
    assert bool(torch.isfinite(low).all())


def test_negative_binomial_sums_to_one_with_variance_mean_plus_square_over_theta():
    x = torch.arange(0.0, 4000.0, dtype=torch.float64)
    mean, theta = 6.0, 1.5
    table = [torch.full_like(x, math.log(v)) for v in (mean, theta)]
    p = torch.exp(densities.negative_binomial(x, *table))
    first, second = (p * x).sum(), (p * x * x).sum()
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    assert (second - first**2).item() == pytest.approx(mean + mean**2 / theta, rel=1e-10)


def test_negative_binomial_gradients_are_right():
    x = torch.tensor([0.0, 3.0, 17.0], dtype=torch.float64)
    log_mean = torch.tensor([0.1, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    log_theta = torch.tensor([-1.0, 0.4, 5.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m, t: densities.negative_binomial(x, m, t), (log_mean, log_theta))


def test_categorical_is_torchs(dtype, generator):
    logits = torch.randn(6, 4, generator=generator, dtype=dtype)
    index = torch.tensor([0, 3, 1, 2, 2, 0])
    ours = densities.categorical(index, logits)
    torch.testing.assert_close(ours, torch.distributions.Categorical(logits=logits).log_prob(index))


def test_standard_normal_has_its_constant(dtype, generator):
    z = torch.randn(5, 3, generator=generator, dtype=dtype)
    exact = scipy.stats.multivariate_normal.logpdf(z.double().numpy(), np.zeros(3))
    np.testing.assert_allclose(densities.standard_normal(z).double().numpy(), exact, rtol=tolerance(dtype))
