"""Curvature as blocks plus low rank, against dense matrices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.functional import hessian

from penalties.checks import dense, draw, relative
from penalties.decoders import CONSTANT, decoder, known, reference
from pullback.jets import Jet
from pullback.penalties import BlockPlusLowRank, IsometryPenalty, SignedLogDet


def dense_hessian(penalty: IsometryPenalty, z: Tensor) -> Tensor:
    return hessian(penalty.value, z).reshape(z.numel(), z.numel())


@pytest.mark.parametrize("weight", [1.3, -0.7])
@pytest.mark.parametrize("with_reference", [False, True], ids=["identity", "reference"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_against_the_dense_hessian(d: int, with_reference: bool, weight: float) -> None:
    n = 5
    W = CONSTANT["LowRank"](n, 6)
    penalty = IsometryPenalty(
        weight, ambient=W, reference=reference(n, d) if with_reference else None, decoder=decoder(d)
    )
    z, v = draw(n, d), draw(n, d, seed=1)
    H = dense_hessian(penalty, z)
    exact = penalty.curvature(z, kind="hessian")
    assert relative(exact.dense(), H) <= 1e-12
    assert relative(exact.diagonal().flatten(), H.diagonal()) <= 1e-12
    assert relative(exact.matvec(v), penalty.hvp(z, v)) <= 1e-12
    upper = penalty.curvature(z, kind="loewner").dense()
    size = upper.abs().max()
    assert torch.linalg.eigvalsh(upper)[0] >= -1e-12 * size
    assert torch.linalg.eigvalsh(upper - H)[0] >= -1e-12 * size
    if weight > 0:
        product = penalty.psd_majorizer_hvp(z, v)
        assert relative(penalty.curvature(z).matvec(v), product) <= 1e-12
    else:
        with pytest.raises(ValueError, match="loewner"):
            penalty.curvature(z)
        with pytest.raises(ValueError, match="loewner"):
            penalty.psd_majorizer_hvp(z, v)


@given(st.integers(0, 300), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_loewner_lies_above_the_hessian(seed: int, d: int) -> None:
    J, H, K = (draw(4, 6, *(d,) * k, seed=seed + k) for k in (1, 2, 3))
    H = (H + H.mT) / 2
    K = sum(
        K.permute(0, 1, *order)
        for order in [(2, 3, 4), (2, 4, 3), (3, 2, 4), (3, 4, 2), (4, 2, 3), (4, 3, 2)]
    )
    target, penalty = Jet(None, J, H, K), IsometryPenalty()
    exact = dense(lambda v: penalty.hvp(target, v), J[:, 0])
    upper = penalty.curvature(target, kind="loewner").dense()
    gap = upper - exact
    assert torch.linalg.eigvalsh(upper)[0] >= -1e-12 * upper.abs().max()
    assert torch.linalg.eigvalsh((gap + gap.mT) / 2)[0] >= -1e-12 * upper.abs().max()


@pytest.mark.parametrize("kind", ["gauss_newton", "hessian", "loewner"])
def test_solves_and_determinants(kind: str) -> None:
    n, d = 6, 2
    penalty = IsometryPenalty(0.8, decoder=decoder(d))
    z, v = draw(n, d), draw(n, d, seed=1)
    data = draw(n, d, d, seed=2)
    B = penalty.curvature(z, kind=kind).add_blocks(data @ data.mT + torch.eye(d))
    whole = B.dense()
    expected = torch.linalg.solve(whole, v.flatten()).view(n, d)
    assert relative(B.solve(v), expected) <= 1e-10
    assert relative(B.solve(v.flatten()), expected.flatten()) <= 1e-10
    assert relative(B.matvec(B.solve(v)), v) <= 1e-10
    sign, size = torch.linalg.slogdet(whole.detach())
    with torch.no_grad():
        found = B.logdet()
    if kind == "hessian":
        assert isinstance(found, SignedLogDet)
        assert found.sign == sign
        found = found.logabsdet
    assert abs(float(found) - float(size)) <= 1e-12 * max(1.0, abs(float(size)))


def test_indefinite_determinants_have_their_sign() -> None:
    for seed in range(8):
        blocks, factors, core = (
            draw(4, 3, 3, seed=seed),
            draw(12, 2, seed=seed + 50),
            draw(2, 2, seed=seed + 90),
        )
        B = BlockPlusLowRank(blocks + blocks.mT, factors, core + core.mT, definite=False)
        sign, size = torch.linalg.slogdet(B.dense())
        found = B.logdet()
        assert found.sign == sign
        assert float(found.logabsdet) == pytest.approx(float(size), abs=1e-10)
        v = draw(4, 3, seed=seed + 7)
        assert relative(B.matvec(B.solve(v)), v) <= 1e-9


def test_singular_blocks_are_named() -> None:
    blocks = torch.eye(2, dtype=torch.float64).repeat(3, 1, 1)
    blocks[1] = 0
    factors, core = torch.zeros(6, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    for definite, message in ((True, "row 1 is not positive"), (False, "row 1 is singular")):
        B = BlockPlusLowRank(blocks, factors, core, definite)
        with pytest.raises(torch.linalg.LinAlgError, match=message):
            B.solve(torch.ones(3, 2, dtype=torch.float64))
        with pytest.raises(torch.linalg.LinAlgError, match="add_blocks"):
            B.logdet()
    negative = BlockPlusLowRank(blocks + torch.eye(2), factors + 1, core - 5)
    with pytest.raises(torch.linalg.LinAlgError, match="positive definite"):
        negative.logdet()


def test_wrong_shapes_are_named(as_users_run: None) -> None:
    B = IsometryPenalty().curvature(Jet(None, draw(3, 4, 2), draw(3, 4, 2, 2)))
    with pytest.raises(ValueError, match="v: expected"):
        B.matvec(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="v: expected"):
        B.solve(torch.zeros(2, 3))
    singular = BlockPlusLowRank(torch.eye(2).repeat(2, 1, 1), torch.ones(4, 1), -torch.ones(1, 1) / 4, False)
    with pytest.raises(torch.linalg.LinAlgError, match="the matrix is singular; add a positive"):
        singular.solve(torch.ones(2, 2))
    with pytest.raises(ValueError, match="blocks: expected"):
        B.add_blocks(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="kind: expected"):
        IsometryPenalty().curvature(Jet(None, draw(3, 4, 2), draw(3, 4, 2, 2)), kind="fisher")


def test_precision_of_the_curvature_follows_the_input(dtype: torch.dtype) -> None:
    z = draw(4, 2).to(dtype)
    B = IsometryPenalty(decoder=decoder(2, dtype=dtype)).curvature(z, kind="loewner")
    assert B.matvec(z).dtype == B.blocks.dtype == dtype
    expected = IsometryPenalty(decoder=decoder(2)).curvature(draw(4, 2), kind="loewner").dense()
    assert relative(B.dense().double(), expected) <= (1e-12 if dtype == torch.float64 else 2e-5)


def test_strength_and_reduction_reach_the_curvature() -> None:
    target, v = known(decoder(2), draw(4, 2)), draw(4, 2, seed=1)
    rho = torch.tensor(0.4, dtype=torch.float64)
    penalty = IsometryPenalty(0.3, reduction="mean")
    for kind, product in (("gauss_newton", penalty.psd_majorizer_hvp), ("hessian", penalty.hvp)):
        assert relative(penalty.curvature(target, rho, kind).matvec(v), product(target, v, rho)) <= 1e-12
