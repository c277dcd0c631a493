"""Closed-form derivatives of activations: the table, autograd, and the quick versions."""

import pytest
import torch
from torch import nn

from jet_cases import SMOOTH
from pullback import ambient
from pullback.jets.activations import SMOOTH as TABLES
from pullback.jets.quick import QUICK

TABLE = {
    "tanh": (
        (-0.861723159313, 0.257433196703, 0.443672295150, 0.632101682224),
        (0.604367777117, 0.634739589982, -0.767232310092, 0.121592277383),
    ),
    "softplus beta": (
        (0.015216548675, 0.037326887344, 0.089833977063, 0.207818828951),
        (0.764089660175, 0.851952801968, 0.315323062967, -0.554894177682),
    ),
    "silu": (
        (-0.278414522045, -0.004622854252, 0.211522270024, 0.290775329001),
        (0.467731440518, 0.823386783473, 0.391220594678, -0.274995066388),
    ),
    "gelu": (
        (-0.125840629961, -0.125978685077, 0.053124263535, 0.514619881920),
        (0.530625443444, 0.976614101134, 0.471503439384, -0.767207914282),
    ),
    "gelu tanh": (
        (-0.126070987683, -0.125878069784, 0.054581537702, 0.511174474722),
        (0.530570134705, 0.976357218656, 0.470862926845, -0.766262335509),
    ),
    "mish": (
        (-0.307382464749, -0.026400962160, 0.224447916450, 0.379979662941),
        (0.561148377644, 0.968794868200, 0.353976415617, -0.588160512441),
    ),
    "elu": ((-0.509227744876, 0.190772255124, 0.190772255124, 0.190772255124), (0.7, 1.0, 0.0, 0.0)),
    "celu alpha": ((-0.908699616159, 0.465470814024, 0.273806361191, 0.161062565406), (0.7, 1.0, 0.0, 0.0)),
}


@pytest.mark.parametrize("name", TABLE)
def test_derivatives_at_two_points(name):
    module = SMOOTH[name]()
    found = torch.stack(TABLES[type(module)](module, torch.tensor([-1.3, 0.7], dtype=torch.float64), 3), 1)
    expected = torch.tensor(TABLE[name], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=2e-12)


def _by_autograd(module, a):
    """f, f', f'', f''' entry by entry."""
    a = a.clone().requires_grad_()
    orders = [module(a)]
    for _ in range(3):
        orders.append(torch.autograd.grad(orders[-1].sum(), a, create_graph=True)[0])
    return [order.detach() for order in orders]


FLATTENINGS = {
    "bernoulli": ambient.BernoulliFlattening,
    "poisson": ambient.PoissonFlattening,
    "negative binomial": lambda: ambient.NegativeBinomialFlattening(torch.tensor(3.0, dtype=torch.float64)),
}


@pytest.mark.parametrize("name", [*SMOOTH, *FLATTENINGS])
def test_derivatives_equal_autograd(name):
    module = (SMOOTH | FLATTENINGS)[name]()
    a = torch.linspace(-4.1, 3.9, 81, dtype=torch.float64).unsqueeze(0)
    # autograd's derivatives of CELU carry a constant in single precision
    tolerance = 1e-7 if name == "celu alpha" else 1e-13
    found = TABLES[type(module)](module, a, 3)
    for k, (ours, expected) in enumerate(zip(found, _by_autograd(module, a), strict=True)):
        torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance, msg=f"order {k}")


@pytest.mark.parametrize("name", [*SMOOTH, *FLATTENINGS])
def test_lower_orders_are_the_beginning_of_the_table(name):
    module = (SMOOTH | FLATTENINGS)[name]()
    a = torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(0)
    full = TABLES[type(module)](module, a, 3)
    for order in range(3):
        part = TABLES[type(module)](module, a, order)
        assert len(part) == order + 1
        assert all(torch.equal(x, y) for x, y in zip(part, full, strict=False))


@pytest.mark.parametrize(
    "module", [nn.Tanh(), nn.Sigmoid(), nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Softplus()]
)
def test_quick_table_equals_the_table(module, dtype):
    a = torch.linspace(-30, 30, 601, dtype=torch.float64).to(dtype)
    expected = TABLES[type(module)](module, a.double(), 3)
    tolerance = {"rtol": 0, "atol": 3e-6 if dtype == torch.float32 else 1e-14}
    for order in range(4):
        kept = a.clone()
        found = QUICK[type(module)](module, a, order)
        assert torch.equal(a, kept)
        assert len(found) == order + 1
        for ours, reference in zip(found, expected, strict=False):
            torch.testing.assert_close(ours.double(), reference, **tolerance)


def test_quick_softplus_keeps_parameters_and_threshold(dtype):
    a = torch.linspace(-5, 5, 41, dtype=dtype)
    for module in (nn.Softplus(2.5), nn.Softplus(5.0, 3.0), nn.Softplus(1.0, 1.0)):
        for ours, reference in zip(
            QUICK[nn.Softplus](module, a, 3), TABLES[nn.Softplus](module, a, 3), strict=True
        ):
            torch.testing.assert_close(ours, reference, rtol=1e-5, atol=5e-6)


def test_slopes_of_saturated_units_keep_their_digits():
    a = torch.tensor([-8.0, -4.0, 4.0, 8.0])
    u = 4 * torch.sigmoid(2 * a.double()) * torch.sigmoid(-2 * a.double())
    for table in (TABLES[nn.Tanh], QUICK[nn.Tanh]):
        torch.testing.assert_close(table(nn.Tanh(), a, 1)[1].double(), u, rtol=2e-6, atol=0)


def test_quick_tanh_is_exact_near_zero_and_far_out(dtype):
    a = torch.tensor([1e-7, -1e-4, 1e-2, 60.0, -700.0], dtype=dtype)
    found = QUICK[nn.Tanh](nn.Tanh(), a, 3)
    torch.testing.assert_close(found[0], torch.tanh(a), rtol=4 * torch.finfo(dtype).eps, atol=0)
    assert all(torch.isfinite(entry).all() for entry in found)


@pytest.mark.parametrize("name", ["elu", "celu", "selu"])
def test_gradient_through_the_branch_not_taken_is_finite(name):
    module = SMOOTH[name]()
    a = torch.tensor([500.0, 2000.0], dtype=torch.float64, requires_grad=True)
    total = sum(entry.sum() for entry in TABLES[type(module)](module, a, 3))
    assert torch.equal(torch.autograd.grad(total, a)[0], module_slope(module, a))


def module_slope(module, a):
    return torch.autograd.grad(module(a).sum(), a)[0]
