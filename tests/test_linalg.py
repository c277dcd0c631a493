"""Spectra, angles and low-rank solves against the dense truth."""

import math

import pytest
import torch

from pullback.linalg import (
    ScaledIdentityPlus,
    gram_spectrum,
    leading_singular,
    principal_angles,
)


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 1e-11, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (4, 4), (2, 6, 3)])
def test_spectrum_of_a_factor_is_that_of_the_matrix(shape, dtype, generator):
    U = torch.randn(shape, generator=generator, dtype=dtype)
    values, vectors = gram_spectrum(U)
    k = min(shape[-2:])
    expected = torch.linalg.eigvalsh(U.double() @ U.double().mT).flip(-1)[..., :k]
    torch.testing.assert_close(values.double(), expected, **tolerance(dtype))
    rebuilt = (vectors * values.unsqueeze(-2)) @ vectors.mT
    torch.testing.assert_close(rebuilt, U @ U.mT, **tolerance(dtype))
    assert values.dtype == dtype
    few_values, few = gram_spectrum(U, 2)
    assert torch.equal(few_values, values)
    torch.testing.assert_close(few, vectors[..., :2])


def test_directions_without_variance_are_zero_not_noise():
    U = torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]], dtype=torch.float64)
    values, vectors = gram_spectrum(U)
    assert values[1] < 1e-12
    assert vectors[:, 1].abs().max() == 0


@pytest.mark.parametrize("angle", [1e-12, 1e-5, 0.3, 1.2, math.pi / 2 - 1e-9])
def test_angles_are_accurate_at_both_ends(angle):
    a = torch.eye(4, dtype=torch.float64)[:, :2]
    b = torch.zeros(4, 2, dtype=torch.float64)
    b[0, 0] = 1
    b[1, 1], b[2, 1] = math.cos(angle), math.sin(angle)
    seen = principal_angles(a, 3 * b)
    assert seen[0].item() == pytest.approx(0, abs=1e-15)
    assert seen[1].item() == pytest.approx(angle, rel=1e-6, abs=1e-15)
    assert math.pi / 2 - seen[1].item() == pytest.approx(math.pi / 2 - angle, rel=1e-6, abs=1e-14)


def test_angles_do_not_depend_on_the_order_or_the_basis(generator):
    a = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    b = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    mixed = b @ torch.randn(5, 5, generator=generator, dtype=torch.float64)
    seen = principal_angles(a, b)
    assert seen.shape == (3,)
    assert (seen.diff() >= 0).all()
    torch.testing.assert_close(principal_angles(mixed, a), seen)


@pytest.mark.parametrize("batch", [(), (4,)])
def test_low_rank_plus_identity_is_solved_without_forming_it(batch, dtype, generator):
    U = torch.randn(*batch, 9, 2, generator=generator, dtype=dtype)
    x = torch.randn(*batch, 9, generator=generator, dtype=dtype)
    A = ScaledIdentityPlus(U, 0.7)
    dense = U @ U.mT + 0.7 * torch.eye(9, dtype=dtype)
    torch.testing.assert_close(A.apply(x), (dense @ x.unsqueeze(-1)).squeeze(-1), **tolerance(dtype))
    torch.testing.assert_close(A.apply(A.solve(x)), x, **tolerance(dtype))
    torch.testing.assert_close(A.logdet(), torch.linalg.slogdet(dense)[1], **tolerance(dtype))


def test_leading_singular_vectors_of_a_batch_are_those_of_each(generator):
    matrices = torch.randn(4, 9, 6, generator=generator, dtype=torch.float64)
    whole = leading_singular(matrices, 3)
    for i, matrix in enumerate(matrices):
        for of_batch, alone in zip(whole, leading_singular(matrix, 3), strict=True):
            torch.testing.assert_close(of_batch[i].abs(), alone.abs())
