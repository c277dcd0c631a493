"""Energies and their gradients against recorded numbers, autograd and each other."""

import math

import pytest
import torch

from golden_cases import CASES, Case
from metric_cases import centroids
from pullback import EuclideanMetric, PullbackMetric
from pullback.dynamics import (
    ModelPotential,
    as_potential,
    hamiltonian,
    hamiltonian_gradient,
    riemannian_logprior,
    spherical_logprior,
)
from pullback.models import Bernoulli, Gaussian


def quartic(z):
    return (z**4).sum(1) / 4 + z.square().sum(1) / 2


@pytest.mark.parametrize("name", CASES)
def test_energy_and_gradients_are_the_recorded_ones(name):
    case = Case(name)
    z, rho, metric, potential = case["z"], case["rho"], case.metric, case.potential()
    d, binary, features = z.shape[1], case.settings[-1], case["x"].shape[1]
    constant = 0.5 * math.log(2 * math.pi) * (d + (0 if binary else features))
    H = hamiltonian(z, rho, metric, potential=potential)
    torch.testing.assert_close(H, case["H_pythae_no_2pi_momentum"] + constant, rtol=1e-12, atol=1e-12)
    fit = potential.at(z).log_likelihood + (0 if binary else features * 0.5 * math.log(2 * math.pi))
    torch.testing.assert_close(fit, case["log_p_x_given_z"], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(spherical_logprior(z), case["log_p_z"], rtol=1e-13, atol=1e-13)
    density = riemannian_logprior(rho, metric.inverse(z), metric.logdet(z))
    torch.testing.assert_close(density, case["mvn_logpdf_scipy"], rtol=1e-12, atol=1e-12)
    for wrt, key in (("position", "dHdz"), ("momentum", "dHdrho")):
        found = hamiltonian_gradient(z, rho, metric, potential=potential, wrt=wrt)
        for rows in (slice(0, -1), slice(-1, None)):
            expected = case[key][rows]
            assert (found[rows] - expected).abs().max() <= 1e-12 * expected.abs().max()


def pulled(d):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = torch.nn.Sequential(torch.nn.Linear(d, 7), torch.nn.Tanh(), torch.nn.Linear(7, 9)).double()
    return PullbackMetric(decoder.requires_grad_(False))


METRICS = [
    *(
        (f"centroids of {d}, {kind}", lambda d=d, kind=kind: centroids(torch.float64, d, kind))
        for d in (1, 2, 3, 6, 10)
        for kind in ("mean", "sum")
    ),
    ("a decoder's", lambda: pulled(2)),
    ("flat", lambda: EuclideanMetric(3)),
]


@pytest.mark.parametrize("metric", [make for _, make in METRICS], ids=[name for name, _ in METRICS])
@pytest.mark.parametrize("wrt", ["position", "momentum"])
def test_three_methods_agree(metric, wrt):
    metric = metric()
    d = metric.dim or 2
    generator = torch.Generator().manual_seed(d)
    z, rho = (torch.randn(5, d, generator=generator, dtype=torch.float64) for _ in range(2))
    closed, automatic, central, forward = (
        hamiltonian_gradient(z, rho, metric, potential=quartic, wrt=wrt, **options)
        for options in (
            {},
            {"method": "autograd"},
            {"method": "finite"},
            {"method": "finite", "scheme": "forward"},
        )
    )
    scale = automatic.abs().max()
    assert (closed - automatic).abs().max() <= 1e-13 * scale
    assert (central - automatic).abs().max() <= 1e-8 * scale
    # what rounding of H leaves is ε |H| / h
    energy = hamiltonian(z, rho, metric, potential=quartic).abs().max()
    assert (forward - automatic).abs().max() <= 1e-6 * torch.maximum(scale, energy)


@pytest.mark.parametrize("d", [1, 2, 3, 10])
def test_single_precision_agrees_with_double(d):
    metric = centroids(torch.float64, d, "mean")
    z, rho = (
        torch.randn(20, d, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in (0, 1)
    )
    narrow = type(metric)(
        metric.centroids.float(),
        metric.factors.float(),
        temperature=metric.temperature,
        regularization=metric.regularization,
        reduction=metric.reduction,
    )
    wide, single = metric.local(z), narrow.local(z.float())
    for name in ("inverse", "logdet"):
        expected, found = getattr(wide, name), getattr(single, name)
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()
    expected, found = wide.kinetic_gradient(rho), single.kinetic_gradient(rho.float())
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_gradient_of_a_momentum_density_of_ones_own():
    metric = centroids(torch.float64, 2, "mean")
    z, rho = torch.rand(4, 2, dtype=torch.float64), torch.rand(4, 2, dtype=torch.float64)

    def heavy(rho, inverse, logdet):
        square = torch.einsum("na,nab,nb->n", rho, inverse, rho)
        return -0.5 * logdet - 2 * torch.log1p(square / 2)

    for wrt in ("position", "momentum"):
        closed, automatic = (
            hamiltonian_gradient(
                z, rho, metric, potential=quartic, wrt=wrt, method=method, momentum_logprior=heavy
            )
            for method in ("closed", "autograd")
        )
        plain = hamiltonian_gradient(z, rho, metric, potential=quartic, wrt=wrt)
        torch.testing.assert_close(closed, automatic, rtol=1e-12, atol=1e-12)
        assert (closed - plain).abs().max() > 1e-3


@pytest.mark.parametrize("likelihood", [Gaussian(0.7), Bernoulli()])
@pytest.mark.parametrize("own_prior", [False, True])
def test_potential_of_a_model_is_differentiable_twice(likelihood, own_prior):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).double()
    x = (torch.rand(3, 3, generator=torch.Generator().manual_seed(1)) > 0.5).double()
    options = {"position_logprior": lambda z: -z.abs().pow(3).sum(1)} if own_prior else {}
    potential = ModelPotential(decoder, likelihood, x, **options)
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    value, gradient = potential.value_and_gradient(z)
    (expected,) = torch.autograd.grad(potential(z).sum(), z, create_graph=True)
    torch.testing.assert_close(value, potential(z))
    torch.testing.assert_close(gradient, expected, rtol=1e-13, atol=1e-13)
    assert torch.autograd.gradcheck(lambda z: potential.value_and_gradient(z)[1], z)
    weight = decoder[0].weight
    one, other = (
        torch.autograd.grad(g.square().sum(), weight, retain_graph=True)[0] for g in (gradient, expected)
    )
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_no_graph_where_nothing_asks_for_one():
    frozen = ModelPotential(torch.nn.Identity(), Gaussian(), torch.zeros(2, 2))
    value, gradient = frozen.value_and_gradient(torch.ones(2, 2))
    assert not value.requires_grad
    assert not gradient.requires_grad
    with torch.no_grad():
        _, gradient = as_potential(quartic).value_and_gradient(torch.ones(2, 2, requires_grad=True))
    assert not gradient.requires_grad
    torch.testing.assert_close(gradient, torch.full((2, 2), 2.0))


def test_a_constant_potential_has_no_gradient():
    _, gradient = as_potential(lambda z: torch.ones(len(z))).value_and_gradient(torch.ones(2, 2))
    assert gradient.tolist() == [[0, 0], [0, 0]]
