"""A function of many points in chunks: values and derivatives as in one piece."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from metric_cases import AMBIENTS, decoder, numbers
from pullback.metrics import ConformalMetric, EuclideanMetric, PullbackMetric
from pullback.metrics.chunks import by_chunks


class Hidden(nn.Module):
    """A module that does not tell all that it uses."""

    def __init__(self, secret: torch.Tensor):
        super().__init__()
        self.inside = [secret]
        self.layer = nn.Linear(2, 3, dtype=torch.float64)

    def forward(self, z):
        return torch.tanh(self.layer(z)) * self.inside[0]


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("known", [True, False])
def test_first_and_second_derivatives_are_those_of_one_piece(size, known):
    net = decoder().requires_grad_(True)
    z = numbers(10, 2).requires_grad_()
    owners = (net,) if known else ()

    def gradients(function):
        value = function(z)
        parameters = [z, *net.parameters()]
        first = torch.autograd.grad(value.square().sum(), parameters, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), parameters)
        return [value, *first, *second]

    expected = gradients(net)
    found = gradients(lambda z: by_chunks(net, z, size, *owners))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_what_a_module_does_not_tell_has_its_gradient_too():
    secret = numbers(3, seed=2).requires_grad_()
    net, z = Hidden(secret), numbers(7, 2)
    (expected,) = torch.autograd.grad(net(z).square().sum(), secret)
    (found,) = torch.autograd.grad(by_chunks(net, z, 2, net).square().sum(), secret)
    torch.testing.assert_close(found, expected)


class Exponential(nn.Module):
    """A module that holds what it computed of its parameter."""

    def __init__(self, raw: torch.Tensor):
        super().__init__()
        self.raw = nn.Parameter(raw)
        self.inside = [self.raw.exp()]

    def forward(self, z):
        return torch.tanh(z @ self.inside[0])


def test_weights_computed_before_the_call_have_their_gradient():
    net, z = Exponential(numbers(2, 3)), numbers(7, 2)
    inner = net.inside[0]
    for wanted in (net.raw, inner):
        expected = torch.autograd.grad(net(z).square().sum(), wanted, retain_graph=True)
        found = torch.autograd.grad(by_chunks(net, z, 2, net).square().sum(), wanted, retain_graph=True)
        torch.testing.assert_close(found, expected)
    by_chunks(net, z, 2, net).sum().backward()
    assert net.raw.grad.abs().min() > 0


@pytest.mark.parametrize("tail", [nn.Identity(), nn.Unflatten(1, (2, 3))])
@pytest.mark.parametrize("name", ["tensor", "logdet", "derivative"])
def test_cached_parametrizations_have_their_gradient(name, tail, monkeypatch):
    net = nn.Sequential(*decoder().requires_grad_(True), tail)
    for k in (0, 2, 4):
        weight_norm(net[k])
    parameters = [p for name, p in net.named_parameters() if name != "4.bias"]
    metric, z = PullbackMetric(net), numbers(30, 2)
    value = getattr(metric, name)
    expected = torch.autograd.grad(value(z).sum(), parameters)
    monkeypatch.setattr("pullback.jets.taylor.CPU_BUDGET", 2**13)
    with parametrize.cached():
        found = torch.autograd.grad(value(z).sum(), parameters)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["tensor", "logdet", "derivative"])
def test_weights_that_a_function_encloses_have_their_gradient(name, monkeypatch):
    W, z = numbers(2, 6).requires_grad_(), numbers(30, 2)
    value = getattr(PullbackMetric(lambda z: torch.tanh(z @ W), AMBIENTS["Poisson"]), name)
    expected = torch.autograd.grad(value(z).square().sum(), W)
    monkeypatch.setattr("pullback.jets.taylor.CPU_BUDGET", 2**13)
    found = torch.autograd.grad(value(z).square().sum(), W)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_transforms_see_through_chunks():
    net, z = decoder().requires_grad_(True), numbers(7, 2)
    J = torch.func.vmap(torch.func.jacrev(lambda row: net(row[None])[0]))(z)
    _, along = torch.func.jvp(lambda z: by_chunks(net, z, 2, net), (z,), (torch.ones_like(z),))
    torch.testing.assert_close(along, J.sum(-1))
    back = torch.func.grad(lambda z: by_chunks(net, z, 2, net).sum())(z)
    torch.testing.assert_close(back, J.sum(1))


def test_a_conformal_factor_made_of_a_determinant_has_its_derivatives(monkeypatch):
    inner = PullbackMetric(decoder())
    metric, z = ConformalMetric(EuclideanMetric(2), lambda z: 0.5 * inner.logdet(z)), numbers(6, 2)
    monkeypatch.setattr("pullback.jets.taylor.CPU_BUDGET", 2**12)
    slope = torch.einsum("nab,nabc->nc", inner.inverse(z), inner.derivative(z))
    expected = torch.einsum("nab,nc->nabc", metric.tensor(z), slope)
    torch.testing.assert_close(metric.derivative(z), expected, rtol=1e-10, atol=1e-10)


def test_nothing_is_recorded_where_nothing_asks_for_it():
    net, z = decoder(), numbers(7, 2)
    assert not by_chunks(net, z, 2, net).requires_grad
    live = z.clone().requires_grad_()
    with torch.no_grad():
        assert not by_chunks(net, live, 2, net).requires_grad
    torch.testing.assert_close(by_chunks(net, z, 2, net), net(z))


@pytest.mark.parametrize("name", ["Euclidean", "LowRank", "Poisson", "LearnedGaussian", "LowRank of z"])
def test_weights_of_a_wide_decoder_have_their_gradient(name, monkeypatch):
    """Through the reduced last layers and chunk by chunk, as through single points."""
    net = decoder(p=6).requires_grad_(True)
    metric, z = PullbackMetric(net, AMBIENTS[name]), numbers(300, 2)
    parameters = list(net.parameters())

    def gradients(function):
        loss = torch.cat([part.square().reshape(-1) for part in function()]).sum()
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]

    expected = gradients(lambda: [f(row) for row in z.split(50) for f in (metric.tensor, metric.logdet)])
    monkeypatch.setattr("pullback.jets.taylor.CPU_BUDGET", 2**17)
    found = gradients(lambda: [metric.tensor(z), metric.logdet(z)])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_last_layer_of_low_rank_is_not_reduced_where_its_weights_learn():
    """The QR of such a matrix has no derivative; the metric has."""
    net = decoder(p=40)
    with torch.no_grad():
        net[-1].weight[:, 0] = 0
    net.requires_grad_(True)
    z = numbers(300, 2)
    loss = PullbackMetric(net).tensor(z).square().sum()
    gradients = torch.autograd.grad(loss, list(net.parameters())[:-1])
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
