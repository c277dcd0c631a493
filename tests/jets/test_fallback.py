"""Layers without a rule: exact, local, and honest about it."""

import pytest
import torch
from torch import nn

from jet_cases import dense, jet_difference, points, seeded
from pullback.jets import Residual, contract_hessian, contract_third, jet, reference_jet


def _with_softmax():
    return seeded(
        lambda: nn.Sequential(
            nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 6), nn.Softmax(dim=-1), nn.Linear(6, 5), nn.Tanh()
        )
    ).double()


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("grad", [True, False])
def test_softmax_between_layers(order, grad):
    f, x = _with_softmax(), points(4, 2)
    with torch.set_grad_enabled(grad):
        found = jet(f, x, order)
        assert found.method == "mixed"
        assert jet_difference(found, reference_jet(f, x, order)) <= 1e-12
        whole = jet(f, x, order, fallback="nested")
    assert whole.method == "nested"
    assert jet_difference(found, whole) <= 1e-12


def test_unknown_first_layer_and_unknown_branch():
    x = points(3, 2)
    first = nn.Sequential(nn.Softmax(dim=-1), nn.Linear(2, 3)).double()
    branch = nn.Sequential(nn.Linear(2, 3), Residual(nn.Softmax(dim=-1)), nn.Tanh()).double()
    for f in (first, branch):
        found = jet(f, x, 3)
        assert found.method == "mixed"
        assert jet_difference(found, reference_jet(f, x, 3)) <= 1e-12


def test_single_precision_stays_single_and_exact(dtype):
    f, x = _with_softmax(), points(4, 2)
    found = jet(f.to(dtype), x.to(dtype), 3)
    assert found.third.dtype == dtype
    expected = reference_jet(f.double(), x, 3).third
    atol = 1e-4 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(found.third.double(), expected, rtol=0, atol=atol)


def test_gradients_flow_through_an_unknown_layer():
    f = _with_softmax()
    x = points(2, 2).requires_grad_()
    parameters = [x, *f.parameters()]
    ours = torch.autograd.grad(jet(f, x, 2).hessian.square().sum(), parameters, allow_unused=True)
    reference = torch.autograd.grad(
        reference_jet(f, x, 2).hessian.square().sum(), parameters, allow_unused=True
    )
    for a, b in zip(ours, reference, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("grad", [True, False])
def test_contractions_of_a_plain_function(grad):
    def f(z):
        return torch.stack([torch.exp(z.prod(1)), torch.sin(z.pow(3).sum(1)), z[:, 0] * z[:, 1] ** 2], 1)

    x, covectors = points(4, 2), points(4, 6).reshape(4, 2, 3)
    with torch.set_grad_enabled(grad):
        full = reference_jet(f, x, 3)
        second = torch.einsum("nqi,niab->nqab", covectors, full.hessian)
        third = torch.einsum("nqi,niabc->nqabc", covectors, full.third)
        torch.testing.assert_close(contract_hessian(f, x, covectors), second, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(contract_third(f, x, covectors), third, rtol=1e-12, atol=1e-12)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        y = x.unflatten(1, (2, 4))
        return self.attention(y, y, y, need_weights=False)[0].flatten(1)


def test_operations_without_nested_derivatives_are_named():
    f = seeded(lambda: nn.Sequential(nn.Linear(2, 8), Attention())).double()
    with pytest.raises(NotImplementedError, match=r"Attention: .* register_jet_rule"):
        jet(f, points(2, 2), 2)


def test_functions_of_a_transform():
    """jets inside of torch.func transforms take the path without in-place updates."""
    f, x = dense(nn.Tanh, 2), points(3, 2)
    expected = reference_jet(f, x, 3)

    def jacobian(z):
        return jet(f, z, 2).hessian

    derivative = torch.func.jvp(jacobian, (x,), (torch.ones_like(x),))[1]
    torch.testing.assert_close(derivative, expected.third.sum(-1), rtol=1e-12, atol=1e-13)
    single = torch.func.vmap(lambda z: jet(f, z.unsqueeze(0), 1).jacobian.squeeze(0))(x)
    torch.testing.assert_close(single, expected.jacobian, rtol=1e-12, atol=1e-13)
    with torch.no_grad(), torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(jet(f, dual, 2).hessian).tangent
    torch.testing.assert_close(tangent, derivative, rtol=1e-12, atol=1e-13)
