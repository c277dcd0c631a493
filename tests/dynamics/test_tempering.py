"""Schedules and tempered flows."""

import pytest
import torch

from golden_cases import CASES, Case
from metric_cases import centroids
from pullback import EuclideanMetric
from pullback.dynamics import null_tempering, quadratic_tempering, tempered_flow


def quadratic(z):
    return z.square().sum(1) / 2


def numbers(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_schedule_is_the_recorded_one(name):
    case = Case(name)
    root, steps = case.settings[3], case.settings[5]
    found = [quadratic_tempering(root**2, k, steps) ** 0.5 for k in range(steps + 1)]
    torch.testing.assert_close(
        torch.tensor(found, dtype=torch.float64), case["sqrt_beta"], rtol=1e-14, atol=0
    )


def test_null_schedule_never_changes():
    assert [null_tempering(0.4, k, 3) for k in range(4)] == [0.4] * 4


def linear(beta0, k, n_steps):
    return beta0 + (1 - beta0) * k / n_steps


@pytest.mark.parametrize("tempering", [quadratic_tempering, null_tempering, linear])
@pytest.mark.parametrize("beta0", [0.3, 1.0])
def test_volume_changes_as_the_temperatures_say(tempering, beta0):
    metric, d = centroids(torch.float64, 2, "mean"), 2
    z0, noise = numbers(1, d), numbers(1, d, 1)

    def flowed(both):
        # the momentum, not the noise, is the coordinate whose volume is meant
        z, rho = both[None, :d], both[None, d:]
        root = torch.linalg.cholesky(metric.inverse(z))
        flow = tempered_flow(
            z,
            metric,
            potential=quadratic,
            step_size=0.05,
            beta0=beta0,
            tempering=tempering,
            fixed_point_steps=40,
            noise=(root.mT @ rho.unsqueeze(2)).squeeze(2) * beta0**0.5,
        )
        return torch.cat([flow.z_final, flow.rho_final], dim=1)[0]

    start = torch.cat([z0, noise], dim=1)[0]
    found = torch.linalg.slogdet(torch.autograd.functional.jacobian(flowed, start)).logabsdet
    ratio = beta0 / tempering(beta0, 3, 3)
    torch.testing.assert_close(found, torch.tensor(ratio).log().double(), rtol=1e-7, atol=1e-10)


def test_momentum_has_the_covariance_of_the_metric():
    metric = centroids(torch.float64, 3, "mean")
    z = numbers(1, 3).expand(200_000, 3)
    flow = tempered_flow(
        z, metric, potential=quadratic, step_size=0.01, n_steps=1, beta0=0.4, noise=numbers(200_000, 3, 1)
    )
    expected = metric.tensor(z[:1])[0] / 0.4
    found = torch.cov(flow.rho_init.mT)
    scale = expected.diagonal().sqrt()
    assert ((found - expected) / scale / scale.unsqueeze(1)).abs().max() <= 4 * 2**0.5 / 200_000**0.5


@pytest.mark.parametrize("kind", ["mean", "sum"])
def test_methods_of_differentiation_give_the_same_flow_and_gradients(kind):
    """The gradient with respect to a momentum is partial, though positions may have been computed from it."""
    metric, found = centroids(torch.float64, 2, kind), {}
    for method in ("closed", "autograd", "finite"):
        z, noise = numbers(3, 2).requires_grad_(method != "finite"), numbers(3, 2, 1)
        flow = tempered_flow(z, metric, potential=quadratic, step_size=0.05, noise=noise, gradient=method)
        ends = torch.cat([flow.z_final, flow.rho_final])
        assert flow.info.gradient.startswith(method)
        found[method] = ends.detach()
        if method != "finite":
            found[method + "'"] = torch.autograd.grad(ends.square().sum(), z)[0]
    torch.testing.assert_close(found["closed"], found["autograd"], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found["closed'"], found["autograd'"], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(found["closed"], found["finite"], rtol=1e-7, atol=1e-8)


def test_what_a_flow_says():
    metric, z = centroids(torch.float64, 2, "mean"), numbers(5, 2)
    flow = tempered_flow(
        z, metric, potential=quadratic, step_size=0.05, generator=torch.Generator().manual_seed(0)
    )
    again = tempered_flow(z, metric, potential=quadratic, step_size=0.05, noise=flow.noise)
    assert torch.equal(flow.z_final, again.z_final)
    torch.testing.assert_close(flow.inverse_final, metric.inverse(flow.z_final))
    torch.testing.assert_close(flow.logdet_init, metric.logdet(z))
    assert flow.beta_final == pytest.approx(1)
    assert flow.decoder_output is None
    info = flow.info
    assert info.iterations.tolist() == [3] * 5
    assert bool(info.converged.all())
    assert 0 < info.residual.max() < 1e-3
    assert (info.gradient, info.backprop) == ("closed", "exact")
    assert info.displacement > 0


def test_a_diverging_flow_is_no_exception():
    metric, z = centroids(torch.float64, 2, "sum"), numbers(3, 2)
    noise = numbers(3, 2, 1)
    noise[0] *= 1e5
    flow = tempered_flow(z, metric, potential=quadratic, step_size=0.5, noise=noise)
    assert flow.info.converged.tolist()[0] is False
    calm = tempered_flow(z[1:], metric, potential=quadratic, step_size=0.5, noise=noise[1:])
    torch.testing.assert_close(flow.z_final[1:], calm.z_final)


def test_flat_flow_is_explicit():
    z, noise = numbers(3, 2), numbers(3, 2, 1)
    flow = tempered_flow(z, EuclideanMetric(2), potential=quadratic, step_size=0.1, noise=noise)
    other = tempered_flow(z, 1.0 * EuclideanMetric(2), potential=quadratic, step_size=0.1, noise=noise)
    torch.testing.assert_close(flow.z_final, other.z_final, rtol=1e-14, atol=1e-14)
    assert flow.info.residual.tolist() == [0] * 3
