"""The discrete energies: gradient and Hessian blocks against autograd, and their bookkeeping."""

import pytest
import torch
from torch import nn

from pullback.geometry import energy as module
from pullback.geometry.energy import EmbeddingEnergy, TensorEnergy
from pullback.geometry.reference import PoincareDisk, Torus
from pullback.metrics import as_metric, from_tensor


def curves(m: int = 3, nodes: int = 6, d: int = 2) -> torch.Tensor:
    return torch.randn(m, nodes, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 4


def network(d: int = 2) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(d, 8), nn.Tanh(), nn.Linear(8, 5))
    return net.double().requires_grad_(False)


def chord_energy(F, points: torch.Tensor) -> torch.Tensor:
    return (points.shape[0] - 1) * F(points).diff(dim=0).square().sum()


def midpoint_energy(g, points: torch.Tensor) -> torch.Tensor:
    delta = points.diff(dim=0)
    return (points.shape[0] - 1) * torch.einsum(
        "na,nab,nb->", delta, g((points[1:] + points[:-1]) / 2), delta
    )


@pytest.mark.parametrize("kind", ["network", "torus", "disk", "network 3"])
def test_gradient_and_hessian_are_those_of_autograd(kind):
    d = 3 if kind == "network 3" else 2
    points = curves(d=d)
    if kind == "disk":
        problem = TensorEnergy(as_metric(PoincareDisk()))
        reference = lambda z: midpoint_energy(PoincareDisk().tensor, z)  # noqa: E731
    else:
        F = Torus().embedding if kind == "torus" else network(d)
        problem = EmbeddingEnergy.between(F, points[:, 0], points[:, -1])
        reference = lambda z: chord_energy(F, z)  # noqa: E731
    energy, system = problem.model(points)
    n, K = points.shape[1] - 1, points.shape[1] - 2
    for i, curve in enumerate(points):
        inner = lambda z, curve=curve: reference(torch.cat([curve[:1], z, curve[-1:]]))  # noqa: E731
        assert energy[i].item() == pytest.approx(reference(curve).item(), rel=1e-13)
        gradient = torch.autograd.functional.jacobian(inner, curve[1:-1]) / (2 * n)
        torch.testing.assert_close(system.gradient[i], gradient, rtol=1e-12, atol=1e-13)
        hessian = torch.autograd.functional.hessian(inner, curve[1:-1]).transpose(1, 2) / (2 * n)
        for k in range(K):
            torch.testing.assert_close(system.diagonal[i, k], hessian[k, k], rtol=1e-11, atol=1e-12)
            if k < K - 1:
                torch.testing.assert_close(system.upper[i, k], hessian[k, k + 1], rtol=1e-11, atol=1e-12)


def test_both_discretisations_agree_to_second_order():
    torus = Torus()
    metric = from_tensor(lambda z: torch.func.vmap(_torus_tensor)(z), 2)
    gaps = []
    for nodes in (33, 65):
        t = torch.linspace(0, 1, nodes, dtype=torch.float64)
        curve = torch.stack([t, t**2], dim=-1)[None]
        chord = EmbeddingEnergy.between(torus.embedding, curve[:, 0], curve[:, -1]).model(curve)[0]
        gaps.append((TensorEnergy(metric).model(curve)[0] / chord - 1).abs().item())
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.05)


def _torus_tensor(z: torch.Tensor) -> torch.Tensor:
    radius = 2 + 0.7 * torch.cos(z[1])
    return torch.diag(torch.stack([radius**2, torch.full_like(radius, 0.49)]))


def test_stiffness_is_the_hessian_without_second_derivatives():
    points = curves()
    linear = nn.Linear(2, 4).double().requires_grad_(False)
    _, system = EmbeddingEnergy.between(linear, points[:, 0], points[:, -1]).model(points)
    x = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    product = (system.diagonal @ x.unsqueeze(-1)).squeeze(-1)
    product[:, :-1] += (system.upper @ x[:, 1:].unsqueeze(-1)).squeeze(-1)
    product[:, 1:] += (system.upper.mT @ x[:, :-1].unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(system.stiffness_times(x), product)


def test_chunks_do_not_change_the_model(monkeypatch):
    points = curves(m=7)
    problem = EmbeddingEnergy.between(network(), points[:, 0], points[:, -1])
    whole_energy, whole = problem.model(points)
    monkeypatch.setattr(module, "SWEEP_BYTES", 1)
    energy, system = problem.model(points)
    torch.testing.assert_close(energy, whole_energy, rtol=1e-14, atol=0)
    for name in ("gradient", "diagonal", "upper", "metric", "coupling"):
        torch.testing.assert_close(getattr(system, name), getattr(whole, name), rtol=1e-12, atol=1e-14)


def test_rows_of_a_problem_are_the_problem_of_the_rows():
    points = curves(m=5)
    problem = EmbeddingEnergy.between(network(), points[:, 0], points[:, -1])
    index = torch.tensor([3, 1])
    energy, system = problem.rows(index).model(points[index])
    whole_energy, whole = problem.model(points)
    torch.testing.assert_close(energy, whole_energy[index])
    torch.testing.assert_close(system.diagonal, whole.rows(index).diagonal)
