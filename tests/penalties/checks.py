"""What every penalty of a target is held to."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.functional import hessian

from pullback.penalties import Penalty, TargetPenalty


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest entry."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    found, expected = found.detach(), expected.detach()
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    return float((found - expected).abs().max()) / (scale or 1.0) if found.numel() else 0.0


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def dense(product: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """The matrix of a linear map of tensors in the shape of ``like``."""
    unit = torch.eye(like.numel(), dtype=like.dtype)
    return torch.stack([product(row.view_as(like)).flatten() for row in unit], dim=1)


def smallest(matrix: Tensor) -> float:
    """Smallest eigenvalue over the largest magnitude."""
    values = torch.linalg.eigvalsh((matrix + matrix.mT) / 2)
    return float(values[0] / values.abs().max().clamp_min(1e-300))


def check_derivatives(penalty: Penalty, T: Tensor, rho: Tensor, tolerance: float = 1e-12) -> None:
    """Gradient, Hessian product, diagonal and log-strengths against automatic differentiation."""
    at, log = T.clone().requires_grad_(), rho.clone().requires_grad_()
    v = draw(*T.shape, seed=9)
    value = penalty.value(at, log)
    slope, by_rho = torch.autograd.grad(value, (at, log), create_graph=True)
    (product,) = torch.autograd.grad(slope, at, v)
    assert relative(penalty.grad_target(T, rho), slope) <= tolerance
    assert relative(penalty.hvp(T, v, rho), product) <= tolerance
    assert relative(penalty.grad_rho(T, rho), by_rho) <= tolerance
    diagonal = penalty.hessian_diag(T, rho)
    if diagonal is not None:
        exact = hessian(lambda x: penalty.value(x, rho), T).reshape(T.numel(), T.numel()).diagonal()
        assert relative(diagonal.flatten(), exact) <= tolerance


def check_differentiable(penalty: Penalty, T: Tensor, rho: Tensor) -> None:
    """Value, gradient and Hessian product are differentiable code, to second order."""
    at = T.clone().requires_grad_()
    v = draw(*T.shape, seed=8)
    for function in (
        lambda x: penalty.value(x, rho),
        lambda x: penalty.grad_target(x, rho),
        lambda x: penalty.hvp(x, v, rho),
    ):
        assert gradcheck(function, (at,), eps=1e-6, atol=1e-5, rtol=1e-4)
    assert gradgradcheck(lambda x: penalty.value(x, rho), (at,), eps=1e-6, atol=1e-4, rtol=1e-3)


def check_majorizer(penalty: Penalty, T: Tensor, rho: Tensor, bounds: bool = True) -> None:
    """B ⪰ 0, and B - Hessian ⪰ 0 where it ``bounds``; its diagonal form is the same operator."""
    B = dense(lambda v: penalty.psd_majorizer_hvp(T, v, rho), T)
    H = dense(lambda v: penalty.hvp(T, v, rho), T)
    size = float(B.abs().max())
    assert float((B - B.mT).abs().max()) <= 1e-12 * size
    assert torch.linalg.eigvalsh((B + B.mT) / 2)[0] >= -1e-12 * size
    if bounds:
        gap = B - H
        assert torch.linalg.eigvalsh((gap + gap.mT) / 2)[0] >= -1e-12 * size
    diagonal = penalty.psd_majorizer_diag(T, rho)
    if diagonal is not None:
        assert relative(torch.diag(diagonal.flatten()), B) <= 1e-12


def check_contract(penalty: TargetPenalty, T: Tensor) -> None:
    """Shapes, flat targets, empty targets, precisions, strengths and rows."""
    v = draw(*T.shape, seed=7)
    assert isinstance(penalty, Penalty)
    if penalty.dim is not None:
        flat = T.flatten()
        assert torch.equal(penalty.grad_target(flat), penalty.grad_target(T).flatten())
        assert torch.equal(penalty.hvp(flat, v.flatten()), penalty.hvp(T, v).flatten())
        assert torch.equal(penalty.value(flat), penalty.value(T))
    single = T.float()
    assert penalty.value(single).dtype == torch.float32
    assert penalty.grad_target(single).dtype == torch.float32
    assert penalty.psd_majorizer_hvp(single, v.float()).dtype == torch.float32
    assert relative(penalty.value(single).double(), penalty.value(T)) <= 1e-4
    ones = torch.ones(penalty.rho_count, dtype=torch.float64)
    assert penalty.grad_rho(T, ones).shape == (penalty.rho_count,)
    assert torch.equal(penalty.value(T, None), penalty.value(T))
    if penalty.row_block_diagonal:
        first = torch.zeros_like(v)
        first[0] = v[0]
        assert not penalty.hvp(T, first)[1:].any()
    torch.testing.assert_close(penalty.value(T, ones * 0.3), penalty.value(T, 0.3))
