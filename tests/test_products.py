"""Products of columns and their derivatives against plain products."""

import pytest
import torch

from pullback.products import column_products, gram, row_products


def columns(A: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return gram(A)


def rows(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    return row_products(A.permute(2, 0, 1), B.permute(2, 0, 1))


def same_rows(A: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    stack = A.permute(2, 0, 1)
    return row_products(stack, stack)


@pytest.mark.parametrize("product", [columns, column_products, rows, same_rows])
def test_products_of_columns_have_the_derivatives_of_the_plain_product(product, generator):
    A = torch.randn(3, 7, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    B = torch.randn(3, 7, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    plain = torch.einsum("npa,npb->nab", A, A if product in (columns, same_rows) else B)
    torch.testing.assert_close(product(A, B), plain)
    assert torch.autograd.gradcheck(product, (A, B))
    assert torch.autograd.gradgradcheck(product, (A, B))
    of_one = torch.autograd.grad(product(A, B.detach()).square().sum(), A)[0]
    assert of_one.mT.is_contiguous()


@pytest.mark.parametrize("product", [columns, column_products])
def test_products_of_columns_under_transforms_and_without_a_batch(product, generator):
    A = torch.randn(3, 7, 2, generator=generator, requires_grad=True)
    B = torch.randn(3, 7, 2, generator=generator, requires_grad=True)
    each = torch.vmap(product)(A, B)
    torch.testing.assert_close(each, product(A, B))
    torch.testing.assert_close(product(A[0], B[0]), each[0])
    forward = torch.func.jacfwd(lambda at: product(at, B))(A)
    reverse = torch.func.jacrev(lambda at: product(at, B))(A)
    torch.testing.assert_close(forward, reverse)


@pytest.mark.parametrize("product", [columns, column_products, rows, same_rows])
@pytest.mark.parametrize("d", [2, 6])
def test_products_of_columns_go_back_through_autocast(product, d, generator):
    A = torch.randn(3, 40, d, generator=generator, requires_grad=True)
    B = torch.randn(3, 40, d, generator=generator, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = product(A, B)
    assert found.dtype == torch.bfloat16
    found.float().square().sum().backward()
    seen = A.grad
    A.grad = None
    product(A, B).square().sum().backward()
    assert seen.dtype == torch.float32
    assert (seen - A.grad).norm() < 0.02 * A.grad.norm()
