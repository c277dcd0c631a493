"""One table over the whole family of metrics: each keeps the same promises."""

import pytest
import torch
from torch import Tensor

from metric_cases import METRICS, numbers
from pullback.geometry import distance, geodesic
from pullback.metrics import BaseMetric, PullbackMetric, as_metric, checked_tensor, from_tensor

N = 5


def made(name: str, dtype: torch.dtype = torch.float64) -> tuple[BaseMetric, Tensor]:
    case = METRICS[name]
    return as_metric(case.build(dtype)), numbers(N, case.d, dtype=dtype)


def by_autograd(function, z: Tensor) -> Tensor:
    """The derivative of a function of rows, row by row."""
    rows = [torch.autograd.functional.jacobian(lambda x: function(x[None])[0], row) for row in z]
    return torch.stack(rows)


@pytest.mark.parametrize("name", METRICS)
def test_tensor_inverse_and_determinant_belong_together(name, dtype):
    metric, z = made(name, dtype)
    g = checked_tensor(metric, z)
    d = z.shape[1]
    loose = 1e-11 if dtype == torch.float64 else 2e-3
    assert g.dtype == metric.inverse(z).dtype == metric.logdet(z).dtype == dtype
    assert metric.derivative(z).shape == (N, d, d, d)
    assert metric.second_derivative(z).shape == (N, d, d, d, d)
    eye = torch.eye(d, dtype=dtype).expand_as(g)
    torch.testing.assert_close(metric.inverse(z) @ g, eye, rtol=loose, atol=loose)
    torch.testing.assert_close(metric.logdet(z), torch.linalg.slogdet(g)[1], rtol=loose, atol=loose)
    assert metric.dim in (d, None)
    assert repr(metric)
    empty = z[:0]
    assert metric.tensor(empty).shape == (0, d, d)
    assert metric.logdet(empty).shape == (0,)


@pytest.mark.parametrize("name", METRICS)
def test_single_precision_follows_double(name):
    (metric, z), (exact, wide) = made(name, torch.float32), made(name)
    close = {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(metric.tensor(z).double(), exact.tensor(wide), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(metric.derivative(z).double(), exact.derivative(wide), **close)
    torch.testing.assert_close(metric.second_derivative(z).double(), exact.second_derivative(wide), **close)


@pytest.mark.parametrize("name", METRICS)
def test_derivatives_are_those_of_autograd(name):
    metric, z = made(name)
    first, second = metric.derivative(z), metric.second_derivative(z)
    torch.testing.assert_close(first, by_autograd(metric.tensor, z), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(second, by_autograd(metric.derivative, z), rtol=1e-10, atol=1e-10)
    assert (first - first.transpose(1, 2)).abs().max() <= 1e-13 * (1 + first.abs().max())
    assert (second - second.transpose(3, 4)).abs().max() <= 1e-12 * (1 + second.abs().max())


@pytest.mark.parametrize("name", METRICS)
def test_forward_mode_gives_the_same_derivatives(name):
    """Of tensor, inverse and log det along a direction."""
    metric, z = made(name)
    t = numbers(*z.shape, seed=4)
    change = torch.einsum("nabc,nc->nab", metric.derivative(z), t)
    inverse = metric.inverse(z)
    expected = {
        metric.tensor: change,
        metric.inverse: -inverse @ change @ inverse,
        metric.logdet: torch.einsum("nab,nab->n", inverse, change),
    }
    for method, along in expected.items():
        seen = torch.func.jvp(method, (z,), (t,))[1]
        assert (seen - along).abs().max() <= 1e-11 * (1 + along.abs().max()), method


@pytest.mark.parametrize("name", METRICS)
def test_hamiltonian_force_is_that_of_autograd(name):
    metric, z = made(name)
    p = numbers(*z.shape, seed=9)
    live = z.clone().requires_grad_()
    kinetic = torch.einsum("na,nab,nb->", p, torch.linalg.inv(metric.tensor(live)), p) / 2
    gradient = torch.autograd.grad(kinetic, live, allow_unused=True)[0] if kinetic.requires_grad else None
    expected = torch.zeros_like(z) if gradient is None else -gradient
    torch.testing.assert_close(metric.hamiltonian_force(z, p), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", METRICS)
def test_embedding_and_compact_embedding_have_the_metric_of_the_tensor(name):
    metric, z = made(name)
    assert (metric.embedding is not None) == METRICS[name].embedded
    for embedding in (metric.embedding, metric.compact_embedding()):
        if embedding is not None:
            torch.testing.assert_close(
                PullbackMetric(embedding).tensor(z), metric.tensor(z), rtol=1e-12, atol=1e-12
            )


@pytest.mark.parametrize("name", METRICS)
def test_geodesics_converge_and_agree_with_the_tensor_path(name):
    metric, _ = made(name)
    d = METRICS[name].d
    a, b = 0.7 * numbers(2, d, seed=2), 0.7 * numbers(2, d, seed=3)
    path = geodesic(metric, a, b, starts="line", nodes=33)
    assert bool(path.converged.all()), path.message
    if METRICS[name].embedded:
        other = geodesic(from_tensor(metric.tensor, d), a, b, starts="line", nodes=33)
        assert bool(other.converged.all()), other.message
        assert ((path.length - other.length) / path.length).abs().max() <= 1e-9


TRAINABLE = ("pullback LearnedNegativeBinomial", "expected", "ensemble", "conformal", "sum", "multiple")


@pytest.mark.parametrize("name", TRAINABLE)
def test_distance_has_a_gradient_to_the_parameters(name):
    metric, _ = made(name)
    owner = metric
    while not isinstance(owner, PullbackMetric):
        owner = owner.members[0] if hasattr(owner, "members") else owner.base
    weight = owner.decoder[0].weight if hasattr(owner.decoder[0], "weight") else owner.decoder[0][0].weight
    a, b = numbers(2, 2, seed=2), numbers(2, 2, seed=3)
    weight.requires_grad_(True)
    (gradient,) = torch.autograd.grad(distance(metric, a, b, starts="line").sum(), weight)
    weight.requires_grad_(False)
    step = 1e-5 * numbers(*weight.shape, seed=6)
    ends = []
    for sign in (1, -1):
        weight += sign * step
        ends.append(distance(metric, a, b, starts="line").sum())
        weight -= sign * step
    expected = (ends[0] - ends[1]) / 2
    assert ((gradient * step).sum() / expected - 1).abs() <= 1e-4


@pytest.mark.parametrize("name", METRICS)
def test_any_number_of_points_in_chunks_gives_the_same(name, monkeypatch):
    """Small chunks, and points enough for the reduced embedding, with and without a graph."""
    metric, _ = made(name)
    z = numbers(150, METRICS[name].d, seed=8)
    one_by_one = [torch.cat([f(row) for row in z[:6].split(1)]) for f in (metric.tensor, metric.logdet)]
    monkeypatch.setattr("pullback.jets.taylor.CPU_BUDGET", 2**17)
    monkeypatch.setattr("pullback.metrics.centroid.BLOCK_NUMBERS", 300)
    monkeypatch.setattr("pullback.metrics.centroid.CENTROIDS_AT_ONCE", 5)
    for grad in (True, False):
        live = z.clone().requires_grad_(grad)
        for f, expected in zip((metric.tensor, metric.logdet), one_by_one, strict=True):
            seen = f(live)
            torch.testing.assert_close(seen[:6].detach(), expected, rtol=1e-11, atol=1e-11)
        if grad and seen.requires_grad:
            (gradient,) = torch.autograd.grad(seen.sum(), live)
            trace = torch.einsum("nab,nabc->nc", metric.inverse(z), metric.derivative(z))
            torch.testing.assert_close(gradient, trace, rtol=1e-8, atol=1e-8)
    few, t = z[:20], numbers(20, z.shape[1], seed=4)
    along = torch.einsum("nab,nabc,nc->n", metric.inverse(few), metric.derivative(few), t)
    seen = torch.func.jvp(metric.logdet, (few,), (t,))[1]
    torch.testing.assert_close(seen, along, rtol=1e-9, atol=1e-9)
