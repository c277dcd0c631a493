"""Gradients of geodesic distance against closed forms and differences."""

import pytest
import torch
from torch import nn

from pullback.ambient import LearnedGaussian
from pullback.geometry import distance, geodesic
from pullback.geometry.reference import PoincareDisk, Sphere
from pullback.metrics import BaseMetric, EuclideanMetric, PullbackMetric, from_tensor

SPHERE = PullbackMetric(Sphere().embedding)


def pairs(m: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    a, b = (0.5 * torch.randn(m, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    return a, b


def net(p: int = 5) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, p)).double()


def relative(seen: torch.Tensor, expected: torch.Tensor) -> float:
    return ((seen - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("manifold", [Sphere(), PoincareDisk()])
def test_gradient_of_the_ends_is_that_of_the_closed_form(manifold):
    a, b = (z.clone().requires_grad_() for z in pairs())
    metric = SPHERE if isinstance(manifold, Sphere) else manifold
    seen = torch.autograd.grad(distance(metric, a, b, starts="line").sum(), [a, b])
    expected = torch.autograd.grad(manifold.distance(a, b).sum(), [a, b])
    for got, want in zip(seen, expected, strict=True):
        assert relative(got, want) <= 1e-5


def learned_tensor(f: nn.Module) -> BaseMetric:
    """A metric of a network that returns a factor of the tensor, so that no decoder is known."""

    def tensor(z: torch.Tensor) -> torch.Tensor:
        factor = f(z)[:, :4].unflatten(1, (2, 2))
        return factor.mT @ factor + torch.eye(2, dtype=z.dtype)

    return from_tensor(tensor, 2)


LIVE = {
    "embedding": PullbackMetric,
    "Fisher metric": lambda f: PullbackMetric(f, LearnedGaussian()),
    "learned tensor": learned_tensor,
}


@pytest.mark.parametrize(
    "kind", [kind if kind == "embedding" else pytest.param(kind, marks=pytest.mark.slow) for kind in LIVE]
)
def test_gradient_of_ends_and_weights_is_that_of_differences_of_distance(kind):
    """Acceptance 12: at most 1e-5 relative, by the embedding and by the tensor."""
    few = 6 if kind == "embedding" else 2
    f = net(6)
    a, b = (z.clone().requires_grad_() for z in pairs(few))
    live = [a, b, *f.parameters()]
    seen = torch.autograd.grad(distance(LIVE[kind](f), a, b, starts="line").sum(), live, allow_unused=True)
    if kind == "embedding":
        assert seen[-1] is None or seen[-1].abs().max() < 1e-12  # an offset of the output moves no distance
        live, seen = live[:-1], seen[:-1]
    step = 1e-5
    for tensor, gradient in zip(live, seen, strict=True):
        numbers = torch.randperm(tensor.numel(), generator=torch.Generator().manual_seed(0))[:few].tolist()
        differences = []
        for number in numbers:
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    tensor.view(-1)[number] += sign * step
                    values.append(distance(LIVE[kind](f), a, b, starts="line", tol=1e-9).sum().item())
                    tensor.view(-1)[number] -= sign * step
            differences.append((values[0] - values[1]) / (2 * step))
        expected = torch.tensor(differences, dtype=torch.float64)
        assert relative(gradient.reshape(-1)[numbers], expected) <= 1e-5


def test_gradient_on_a_doubled_mesh():
    f = net()
    f[0].weight.data *= 4
    a, b = (z.clone().requires_grad_() for z in pairs())
    options = {"nodes": 9, "gap_tol": 1e-4, "starts": "line"}
    coarse = torch.autograd.grad(distance(PullbackMetric(f), a, b, **options).sum(), [a, b])
    fine = torch.autograd.grad(distance(PullbackMetric(f), a, b, nodes=129, starts="line").sum(), [a, b])
    for got, want in zip(coarse, fine, strict=True):
        assert relative(got, want) < 1e-3


def bent() -> PullbackMetric:
    """A decoder on which the geodesics between ordinary points turn within a few nodes."""
    generator = torch.Generator().manual_seed(0)
    widths = [nn.Linear(2, 64), nn.Linear(64, 64), nn.Linear(64, 16)]
    for layer in widths:
        weight = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
        layer.weight.data = 4 * weight / layer.in_features**0.5
        layer.bias.data = torch.zeros_like(layer.bias).double()
    f = nn.Sequential(widths[0], nn.Tanh(), widths[1], nn.Tanh(), widths[2])
    return PullbackMetric(f.requires_grad_(False))


def test_a_mesh_that_is_too_coarse_to_extrapolate_makes_no_gradient_worse(caplog):
    metric, generator = bent(), torch.Generator().manual_seed(9)
    z = torch.randn(2, 12, 2, generator=generator, dtype=torch.float64)
    assert bool(geodesic(metric, *z, nodes=33).converged.all())
    a, b = (point.clone().requires_grad_() for point in z)
    gradients = torch.autograd.grad(distance(metric, a, b, nodes=33).sum(), [a, b])
    for point, gradient in zip(z, gradients, strict=True):
        norm = torch.einsum("na,nab,nb->n", gradient, metric.inverse(point), gradient).sqrt()
        assert (norm - 1).abs().max() <= 0.05
    assert "of 12 gradients are off by up to 0.0" in caplog.text


def test_curves_that_do_not_converge_are_logged(caplog):
    distance(SPHERE, *pairs(), starts="line")
    assert not caplog.records
    with torch.no_grad():
        distance(bent(), *(2 * z for z in pairs()), starts="line", max_iter=1, max_nodes=65)
    assert "curves not converged" in caplog.text


def test_unit_covectors_and_symmetry():
    a, b = (z.clone().requires_grad_() for z in pairs())
    d = distance(SPHERE, a, b)
    ga, gb = torch.autograd.grad(d.sum(), [a, b])
    for z, gradient in ((a, ga), (b, gb)):
        inverse = SPHERE.inverse(z.detach())
        norm = torch.einsum("na,nab,nb->n", gradient, inverse, gradient)
        torch.testing.assert_close(norm, torch.ones_like(norm), rtol=1e-5, atol=0)
    torch.testing.assert_close(distance(SPHERE, b, a), d, rtol=1e-7, atol=0)


def test_flat_distance_is_exact_and_has_a_zero_gradient_at_zero(dtype):
    a = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=dtype, requires_grad=True)
    b = torch.tensor([[3.0, 4.0], [1.0, 1.0]], dtype=dtype)
    d = distance(EuclideanMetric(2), a, b)
    torch.testing.assert_close(d, torch.tensor([5.0, 0.0], dtype=dtype))
    (gradient,) = torch.autograd.grad(d.sum(), a)
    expected = torch.tensor([[-0.6, -0.8], [0.0, 0.0]], dtype=dtype)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_a_graph_is_recorded_only_where_something_is_live():
    a, b = pairs()
    frozen = PullbackMetric(net().requires_grad_(False))
    assert not distance(frozen, a, b, starts="line").requires_grad
    assert distance(PullbackMetric(net()), a, b, starts="line").requires_grad
    with torch.no_grad():
        assert not distance(PullbackMetric(net()), a, b, starts="line").requires_grad


def test_a_live_single_point_gathers_the_gradient_of_all_pairs():
    a, b = pairs()
    point = a[0].clone().requires_grad_()
    (gathered,) = torch.autograd.grad(distance(SPHERE, point, b).sum(), point)
    many = a[:1].repeat(5, 1).requires_grad_()
    (spread,) = torch.autograd.grad(distance(SPHERE, many, b).sum(), many)
    torch.testing.assert_close(gathered, spread.sum(0))
