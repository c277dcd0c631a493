"""Block-tridiagonal solves: band, dense and elimination agree with a full matrix, indefinite ones too."""

import pytest
import torch

from pullback.geometry.tridiagonal import _banded, _dense, _eliminated, solve_block_tridiagonal


def system(m: int, K: int, d: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(K + d)
    D = torch.randn(m, K, d, d, generator=generator, dtype=torch.float64)
    U = torch.randn(m, K - 1, d, d, generator=generator, dtype=torch.float64)
    right = torch.randn(m, K, d, generator=generator, dtype=torch.float64)
    return (D + D.mT).to(dtype), U.to(dtype), right.to(dtype)


def full(D: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
    m, K, d, _ = D.shape
    matrix = D.new_zeros(m, K * d, K * d)
    for k in range(K):
        matrix[:, k * d : (k + 1) * d, k * d : (k + 1) * d] = D[:, k]
        if k < K - 1:
            matrix[:, k * d : (k + 1) * d, (k + 1) * d : (k + 2) * d] = U[:, k]
            matrix[:, (k + 1) * d : (k + 2) * d, k * d : (k + 1) * d] = U[:, k].mT
    return matrix


@pytest.mark.parametrize("solve", [_banded, _dense, _eliminated])
@pytest.mark.parametrize(("m", "K", "d"), [(1, 1, 1), (3, 5, 1), (4, 7, 2), (2, 6, 5), (3, 2, 3)])
def test_every_method_solves_an_indefinite_system(solve, m, K, d):
    D, U, right = system(m, K, d)
    matrix = full(D, U)
    assert K * d == 1 or (torch.linalg.eigvalsh(matrix)[:, 0] < 0).any()
    x = solve(D, U, right)
    residual = (matrix @ x.reshape(m, -1, 1)).reshape(right.shape) - right
    assert residual.abs().max() < 1e-10


@pytest.mark.parametrize("entry", [0, torch.nan, torch.inf])
@pytest.mark.parametrize("solve", [_banded, _dense])
def test_a_curve_without_solution_is_nan_and_leaves_the_others_alone(solve, entry):
    D, U, right = system(3, 4, 2)
    D[1], U[1] = entry, 0
    x = solve(D, U, right)
    assert torch.isnan(x[1]).all()
    torch.testing.assert_close(x[[0, 2]], solve(D[[0, 2]], U[[0, 2]], right[[0, 2]]))


def test_precision_follows_the_input(dtype):
    D, U, right = system(2, 3, 2, dtype)
    x = solve_block_tridiagonal(D, U, right)
    assert x.dtype == dtype
    expected = torch.linalg.solve(full(D, U).double(), right.double().reshape(2, -1)).reshape(2, 3, 2)
    torch.testing.assert_close(
        x.double(), expected, rtol=1e-4 if dtype == torch.float32 else 1e-11, atol=1e-6
    )
