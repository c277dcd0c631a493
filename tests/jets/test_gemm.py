"""The matrix product of the linear layers, its kernels and derivatives."""

import pytest
import torch

from jet_cases import points
from pullback.jets import gemm


@pytest.mark.parametrize("shape", [(3, 4, 5), (300, 128, 64), (128, 128, 128)])
@pytest.mark.parametrize("layout", ["plain", "transposed"])
def test_product_equals_mm(shape, layout, dtype):
    m, k, n = shape
    a, b = points(m, k, dtype), points(n, k, dtype, seed=2)
    if layout == "transposed":
        a, b = a.T.contiguous().T, b.T.contiguous().T
    expected = a.double() @ b.double().T
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(
        gemm.times_transposed(a, b).double(), expected, rtol=tolerance, atol=tolerance * k
    )


@pytest.mark.parametrize("family", [0, 25, 26])
def test_first_and_second_derivatives_of_the_quick_product(family, monkeypatch):
    monkeypatch.setattr(gemm, "SMALLEST", 0)
    monkeypatch.setattr(gemm, "_amd_family", lambda: family if torch.backends.mkldnn.is_available() else 0)
    a, b = points(6, 5, torch.float32), points(4, 5, torch.float32, seed=2)
    g, u = points(6, 4, torch.float32, seed=3), points(6, 5, torch.float32, seed=4)
    results = []
    for product in (gemm.times_transposed, lambda s, t: s @ t.T):
        s, t = a.clone().requires_grad_(), b.clone().requires_grad_()
        first = torch.autograd.grad((product(s, t).square() * g).sum(), (s, t), create_graph=True)
        second = torch.autograd.grad((first[0] * u).sum(), (s, t))
        results.append([*first, *second])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours.detach(), expected.detach(), rtol=1e-4, atol=1e-4)


def test_what_processors_are_told_apart():
    gemm._amd_family.cache_clear()
    assert 0 <= gemm._amd_family() < 100
    single, double = torch.ones(1), torch.ones(1, dtype=torch.float64)
    assert gemm.float64_cost(double) == 1 < gemm.float64_cost(single) <= 4


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_linear_node_passes_gradient_checks(bias, together):
    stack = points(4, 6).reshape(4, 2, 3)
    value, rows = (stack[0], stack[1:]) if together else (stack[0].clone(), stack[1:].clone())
    assert (gemm.joined(value, rows) is not None) == together
    inputs = [value.requires_grad_(), rows.requires_grad_(), points(5, 3, seed=4).requires_grad_()]
    inputs.append(points(1, 5)[0].requires_grad_() if bias else None)
    assert torch.autograd.gradcheck(gemm.linear_node, inputs)
    assert torch.autograd.gradgradcheck(gemm.linear_node, inputs)
    for k in (0, 1):
        assert torch.autograd.gradcheck(lambda *args, k=k: gemm.linear_node(*args)[k], inputs)


def test_joined_sees_memory_and_nothing_else():
    stack = torch.zeros(4, 2, 3)
    assert torch.equal(gemm.joined(stack[0], stack[1:]), stack)
    assert gemm.joined(stack[0], stack[2:]) is None
    assert gemm.joined(stack[0], stack[1:, :, :2]) is None
    assert gemm.joined(stack[0], torch.zeros(3, 2, 3)) is None
    assert gemm.joined(stack[0], stack[1:, :1]) is None


def test_bias_goes_to_the_value_only():
    value, rows = points(2, 3), points(4, 6).reshape(4, 2, 3)
    weight, bias = points(5, 3), points(1, 5)[0]
    found = gemm.linear_node(value, rows, weight, bias)
    torch.testing.assert_close(found[0], value @ weight.T + bias)
    torch.testing.assert_close(found[1], rows @ weight.T)


@pytest.mark.parametrize("with_value", [False, True])
@pytest.mark.parametrize("zero", [0, 1, 3, 5])
def test_rows_without_an_adjoint_cost_nothing_and_change_nothing(zero, with_value, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    stack = torch.randn(6, 3, 4, dtype=torch.float64, generator=generator)
    weight = torch.randn(7, 4, dtype=torch.float64, generator=generator).requires_grad_()
    value, rows = (part.requires_grad_() for part in (stack[0], stack[1:]))
    weights = torch.randn(6, 3, 7, dtype=torch.float64, generator=generator)
    weights[1 : 1 + zero] = 0.0
    multiplied = []

    def counted(g, w):
        multiplied.append(len(g) if g.ndim == 3 else 0)
        return g @ w.mT

    monkeypatch.setattr(gemm, "linear_rows", counted)
    out = gemm.linear_node(value, rows, weight, None)
    loss = (out[1] * weights[1:]).sum() + (out[0] * weights[0]).sum() * with_value
    found = torch.autograd.grad(loss, (value, rows, weight), allow_unused=True)
    plain = (rows @ weight.mT * weights[1:]).sum() + (value @ weight.mT * weights[0]).sum() * with_value
    for got, wanted in zip(found, torch.autograd.grad(plain, (value, rows, weight)), strict=True):
        torch.testing.assert_close(torch.zeros_like(wanted) if got is None else got, wanted)
    assert max(multiplied) <= max(6 - zero, 1)


def test_a_row_of_nan_is_no_row_of_zeros():
    g = torch.zeros(3, 2, 2)
    g[1, 0, 0] = torch.nan
    assert gemm._leading_zeros(g) == 1
    assert gemm._leading_zeros(torch.zeros(3, 2, 2)) == 2
    assert gemm._leading_zeros(torch.zeros(3, 0, 2)) == 0
