"""Contractions, metrics and directional jets against the full arrays."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from jet_cases import BLOCKS, PIECEWISE, block, dense, points, seeded
from pullback import ambient
from pullback.jets import (
    contract_hessian,
    contract_third,
    directional_jet,
    metric_jet,
    reference_jet,
    tangential_acceleration,
)

NETS = {
    "tanh": lambda: dense(nn.Tanh, 3),
    "deep": lambda: dense(nn.SiLU, 3, depth=4),
    "ends in an activation": lambda: nn.Sequential(dense(nn.Tanh, 3), nn.Softplus()),
    "two last matrices": lambda: nn.Sequential(dense(nn.GELU, 3), nn.Linear(5, 4, dtype=torch.float64)),
    "relu": lambda: dense(PIECEWISE["leaky relu"], 3),
    "max pool": lambda: nn.Sequential(
        dense(nn.Tanh, 3, p=12), nn.Unflatten(1, (2, 6)), nn.MaxPool1d(2), nn.Tanh(), nn.Flatten()
    ),
    "softmax": lambda: nn.Sequential(
        dense(nn.Tanh, 3), nn.Softmax(dim=-1), nn.Linear(5, 4, dtype=torch.float64)
    ),
    "categorical": lambda: nn.Sequential(dense(nn.Tanh, 3), ambient.CategoricalFlattening(3)),
    **{name: (lambda name=name: block(name)) for name in BLOCKS},
}


def close(found, expected, tolerance=1e-12):
    scale = max(expected.abs().max().item(), 1e-3)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)


@pytest.fixture(params=[True, False], ids=["grad", "no grad"])
def grad(request):
    with torch.set_grad_enabled(request.param):
        yield request.param


@pytest.mark.parametrize("name", NETS)
def test_contractions_equal_the_full_arrays(name, grad):
    f, x = seeded(NETS[name]).eval(), points(4, 3)
    full = reference_jet(f, x, 3)
    p = full.value.shape[1]
    for q in (1, 5):
        covectors = points(4, q * p, seed=q).reshape(4, q, p)
        second, third = contract_hessian(f, x, covectors), contract_third(f, x, covectors)
        close(second, torch.einsum("nqi,niab->nqab", covectors, full.hessian))
        close(third, torch.einsum("nqi,niabc->nqabc", covectors, full.third))
        assert torch.equal(second, second.mT)
        assert torch.equal(third, third.mT)
        assert torch.equal(third, third.transpose(2, 4))


@pytest.mark.parametrize("name", NETS)
def test_directional_jets_equal_the_full_arrays(name, grad):
    f, x, v = seeded(NETS[name]).eval(), points(4, 3), points(4, 3, seed=7)
    full = reference_jet(f, x, 3)
    second = torch.einsum("niab,na,nb->ni", full.hessian, v, v)
    for order in (1, 2, 3):
        found = directional_jet(f, x, v, order)
        close(found.value, full.value)
        close(found.first, torch.einsum("nia,na->ni", full.jacobian, v))
        assert (found.second is None) == (order < 2)
        assert (found.third is None) == (order < 3)
    close(found.second, second)
    close(found.third, torch.einsum("niabc,na,nb,nc->ni", full.third, v, v, v))
    close(tangential_acceleration(f, x, v), torch.einsum("nic,ni->nc", full.jacobian, second))


def _ambients(p):
    generator = torch.Generator().manual_seed(3)
    weight = torch.rand(p, generator=generator, dtype=torch.float64) + 0.1
    factor = torch.randn(p, 2, generator=generator, dtype=torch.float64)
    factors = torch.randn(4, p, 2, generator=generator, dtype=torch.float64)
    return {
        None: torch.eye(p, dtype=torch.float64),
        ambient.Euclidean(): torch.eye(p, dtype=torch.float64),
        ambient.Diagonal(weight): torch.diag(weight),
        ambient.Gaussian(2.0): torch.eye(p, dtype=torch.float64) / 4,
        ambient.LowRank(factor): factor @ factor.T,
        ambient.LowRank(factors): factors @ factors.mT,
    }


@pytest.mark.parametrize("name", NETS)
def test_metric_and_christoffel_symbols_equal_the_full_arrays(name, grad):
    f, x = seeded(NETS[name]).eval(), points(4, 3)
    full = reference_jet(f, x, 2)
    for space, W in _ambients(full.value.shape[1]).items():
        found = metric_jet(f, x, space)
        W = W.expand(4, *W.shape[-2:])
        close(found.metric, full.jacobian.mT @ W @ full.jacobian)
        close(found.christoffel_first, torch.einsum("nic,nij,njab->ncab", full.jacobian, W, full.hessian))
        assert torch.equal(found.metric, found.metric.mT)
        assert torch.equal(found.christoffel_first, found.christoffel_first.mT)


def test_gram_and_direct_metric_agree(grad, dtype):
    f = dense(nn.Tanh, 2, p=60, h=4)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    for n in (1, 200):
        x = points(n, 2)
        full = reference_jet(f.double(), x, 2)
        found = metric_jet(f.to(dtype), x.to(dtype))
        close(found.metric.double(), full.jacobian.mT @ full.jacobian, tolerance)
        symbols = torch.einsum("nic,niab->ncab", full.jacobian, full.hessian)
        close(found.christoffel_first.double(), symbols, tolerance)


def test_derivative_of_the_metric_by_autograd():
    f, x = dense(nn.SiLU, 3), points(4, 3).requires_grad_()
    found = metric_jet(f, x)
    C = found.christoffel_first
    for a in range(3):
        for b in range(3):
            slope = torch.autograd.grad(found.metric[:, a, b].sum(), x, retain_graph=True)[0]
            torch.testing.assert_close(slope, C[:, b, a] + C[:, a, b], rtol=1e-12, atol=1e-13)


def test_contractions_are_differentiable():
    f, v = dense(nn.Tanh, 2, p=3, h=4), points(2, 2, seed=4)
    covectors = points(2, 3).reshape(2, 1, 3)
    x = points(2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda z, c: contract_hessian(f, z, c), (x, covectors.requires_grad_()))
    assert torch.autograd.gradcheck(lambda z: contract_third(f, z, covectors), x)
    assert torch.autograd.gradcheck(lambda z: tuple(metric_jet(f, z).__dict__.values()), x)
    assert torch.autograd.gradcheck(lambda z: directional_jet(f, z, v, 3).third, x)
    assert torch.autograd.gradcheck(lambda z: tangential_acceleration(f, z, v), x)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_single_precision_and_modes(mode, dtype):
    f, x = dense(nn.GELU, 3, p=30, h=40), points(40, 3)
    covectors = points(40, 60).reshape(40, 2, 30)
    expected = contract_hessian(f, x, covectors), metric_jet(f, x).christoffel_first
    with mode():
        g = f.to(dtype)
        found = (
            contract_hessian(g, x.to(dtype), covectors.to(dtype)),
            metric_jet(g, x.to(dtype)).christoffel_first,
        )
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        close(a.double(), b.detach(), 1e-12 if dtype == torch.float64 else 5e-6)


def test_no_points_give_empty_results():
    f, x = dense(nn.Tanh, 2), torch.empty(0, 2, dtype=torch.float64)
    assert contract_hessian(f, x, torch.empty(0, 3, 5, dtype=torch.float64)).shape == (0, 3, 2, 2)
    assert metric_jet(f, x).christoffel_first.shape == (0, 2, 2, 2)
    assert directional_jet(f, x, x, 3).third.shape == (0, 5)
    assert tangential_acceleration(f, x, x).shape == (0, 2)


def test_chunks_cover_all_points(monkeypatch):
    monkeypatch.setattr("pullback.jets.taylor.CPU_BUDGET", 1 << 14)
    f, x, v = dense(nn.Tanh, 2), points(50, 2), points(50, 2, seed=2)
    covectors = points(50, 5).unsqueeze(1)
    full = reference_jet(f, x, 2)
    close(contract_hessian(f, x, covectors), torch.einsum("nqi,niab->nqab", covectors, full.hessian))
    close(metric_jet(f, x).metric, full.jacobian.mT @ full.jacobian)
    close(directional_jet(f, x, v).second, torch.einsum("niab,na,nb->ni", full.hessian, v, v))


class LargestTensor(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that an operation returned."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return result


def test_metric_never_holds_a_hessian():
    n, d, p = 64, 8, 2000
    f, x = dense(nn.Tanh, d, p=p, h=256).float(), points(n, d, torch.float32)
    with torch.no_grad(), LargestTensor() as seen:
        metric_jet(f, x)
    assert 0 < seen.bytes < n * p * d * d * 4 / 4
