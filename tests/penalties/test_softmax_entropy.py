"""The entropy of softmax assignments: values, row methods, majorizers, fused pass."""

from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from penalties.checks import draw, relative
from pullback.penalties import SoftmaxAssignmentSparsityPenalty
from pullback.penalties.gershgorin import _sorted_sums, absolute_row_sums, soft_row_sums
from pullback.penalties.softmax_rows import assign

GOLDEN = Path(__file__).parents[1] / "golden" / "gam.npz"
INF = float("inf")


def entropy(z: Tensor, tau: float) -> Tensor:
    """The definition."""
    a = torch.softmax(z / tau, -1)
    return -(a * torch.log(a)).sum()


@pytest.mark.parametrize("number", range(5))
def test_equals_the_peer(number: int) -> None:
    with np.load(GOLDEN, allow_pickle=False) as file:
        g = {
            k.split("_", 1)[1]: torch.from_numpy(file[k])
            for k in file.files
            if k.startswith(f"soft{number}_")
        }
    penalty, z, v = SoftmaxAssignmentSparsityPenalty(float(g["temperature"])), g["logits"], g["v"]
    once = penalty.evaluate(z, v)
    assert relative(penalty.value(z).reshape(1), g["out_value"]) <= 1e-12
    assert relative(penalty.hvp(z, v), g["out_hvp"]) <= 1e-12
    assert relative(once.value.reshape(1), g["out_value"]) <= 1e-12
    assert relative(once.product, g["out_hvp"]) <= 1e-12
    for slope in (penalty.grad_target(z), once.gradient):
        if number == 4:
            assert slope.abs().max() <= 1e-14
        else:
            assert relative(slope, g["out_grad"]) <= 1e-12
    if number == 3:
        torch.testing.assert_close(penalty.grad_target(z), g["out_grad"], rtol=1e-9, atol=0)


@pytest.mark.parametrize("tau", [1.0, 0.4])
@pytest.mark.parametrize("K", [1, 2, 3, 8, 50])
def test_rows_against_automatic_differentiation(K: int, tau: float) -> None:
    penalty, z, lam = SoftmaxAssignmentSparsityPenalty(tau, 1.7), draw(K), 1.7
    scale = lam / tau**2
    H = lam * hessian(lambda x: entropy(x, tau), z)
    tolerance = 1e-12
    found = penalty.row_dense_hessian(z, scale)
    assert relative(found, H) <= tolerance
    assert (found.sum(1).abs() <= 1e-14 * found.abs().max()).all()
    assert relative(penalty.hessian_diag(z[None])[0], H.diagonal()) <= tolerance
    D = penalty.psd_majorizer_abs_row_sums(z, scale)
    assert relative(D, H.abs().sum(1)) <= tolerance
    assert torch.equal(penalty.row_psd_majorizer(z, scale), torch.diag(D))
    a = torch.softmax(z / tau, 0)
    G = scale * (torch.diag(a) - torch.outer(a, a))
    assert relative(penalty.row_fisher_metric(z, scale), G) <= tolerance
    w = K // 2
    dH = jacobian(lambda x: penalty.row_dense_hessian(x, scale), z)[..., w]
    assert relative(penalty.row_dense_hessian_logit_derivative(z, scale, w), dH) <= tolerance
    dD = jacobian(lambda x: penalty.row_psd_majorizer(x, scale), z)[..., w]
    assert relative(penalty.row_psd_majorizer_logit_derivative(z, scale, w), dD) <= tolerance
    dG = jacobian(lambda x: penalty.row_fisher_metric(x, scale), z)[..., w]
    assert relative(penalty.row_fisher_metric_logit_derivative(z, scale, w), dG) <= tolerance


def test_row_methods_take_any_batch() -> None:
    penalty, z = SoftmaxAssignmentSparsityPenalty(0.7), draw(2, 3, 5)
    for method in (
        penalty.row_dense_hessian,
        penalty.psd_majorizer_abs_row_sums,
        penalty.row_psd_majorizer,
        penalty.row_fisher_metric,
        lambda x, s: penalty.row_dense_hessian_logit_derivative(x, s, 1),
        lambda x, s: penalty.row_psd_majorizer_logit_derivative(x, s, 1),
        lambda x, s: penalty.row_fisher_metric_logit_derivative(x, s, 1),
    ):
        assert torch.allclose(method(z, 1.3)[1, 2], method(z[1, 2], 1.3), rtol=1e-12)


@given(st.integers(2, 60), st.floats(0.05, 3.0), st.sampled_from([1.0, -1.0]), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_majorizers_lie_above_the_hessian(K: int, tau: float, sign: float, seed: int) -> None:
    z, scale = draw(K, seed=seed), sign / tau**2
    penalty = SoftmaxAssignmentSparsityPenalty(tau, sign)
    H = penalty.row_dense_hessian(z, scale)
    hard = penalty.psd_majorizer_abs_row_sums(z, scale)
    soft = SoftmaxAssignmentSparsityPenalty(tau, sign, majorizer="soft").psd_majorizer_diag(z[None])[0]
    split = SoftmaxAssignmentSparsityPenalty(tau, sign, majorizer="split")
    S = torch.stack([split.psd_majorizer_hvp(z[None], row[None])[0] for row in torch.eye(K).double()])
    for B in (torch.diag(hard), torch.diag(soft), (S + S.mT) / 2):
        size = max(H.abs().max(), B.abs().max())
        assert torch.linalg.eigvalsh(B)[0] >= -1e-13 * size
        assert torch.linalg.eigvalsh(B - H)[0] >= -1e-13 * size
    assert (soft >= hard * (1 - 1e-14)).all()
    assert (soft <= hard * (1 + 1e-8)).all()
    assert split.psd_majorizer_diag(z[None]) is None


@given(st.integers(1, 40), st.floats(0.05, 3.0), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_shift_of_all_logits_changes_nothing(K: int, tau: float, seed: int) -> None:
    z, ones = draw(3, K, seed=seed), torch.ones(3, K, dtype=torch.float64)
    penalty = SoftmaxAssignmentSparsityPenalty(tau)
    dense = penalty.row_dense_hessian(z, 1 / tau**2) @ ones.unsqueeze(-1)
    for product in (penalty.hvp(z, ones), penalty.evaluate(z, ones).product, dense):
        assert product.abs().max() <= 1e-14 / tau**2
    assert relative(penalty.value(z + 5), penalty.value(z)) <= 1e-12
    assert (penalty.grad_target(z).sum(1).abs() <= 1e-13 / tau).all()


@pytest.mark.parametrize("K", [3, 33, 200])
@pytest.mark.parametrize("tau", [2.0, 0.5, 0.05])
def test_sorted_sums_equal_the_pairs(K: int, tau: float) -> None:
    at = assign(torch.cat([draw(6, K), torch.zeros(1, K).double()]), tau)
    pairs = (1 - at.u[:, :, None] - at.u[:, None, :]).abs() * (1 - torch.eye(K))
    rest = at.a.sum(1, keepdim=True) - at.a
    rest = torch.where(at.a < 0.5, 1 - at.a, rest)
    expected = (pairs @ at.a.unsqueeze(-1)).squeeze(-1) + ((1 - 2 * at.a) * at.u - rest).abs()
    assert relative(_sorted_sums(at), expected) <= 1e-12


@pytest.mark.parametrize("sums", [absolute_row_sums, lambda at, s: at.a * _sorted_sums(at) * s])
def test_majorizer_keeps_its_small_entries(sums) -> None:
    tau, z = 0.05, draw(12, 8)
    found = sums(assign(z, tau), 1 / tau**2)
    with mpmath.workdps(50):
        for row, D in zip(z.tolist(), found.tolist(), strict=True):
            e = [mpmath.exp(mpmath.mpf(x) / mpmath.mpf(tau)) for x in row]
            a = [x / sum(e) for x in e]
            h = -sum(x * mpmath.log(x) for x in a)
            u = [-(mpmath.log(x) + h) for x in a]
            for k in range(8):
                terms = [a[k] * ((u[k] - 1 if j == k else 0) + a[j] * (1 - u[k] - u[j])) for j in range(8)]
                exact = sum(map(abs, terms)) / mpmath.mpf(tau) ** 2
                assert abs(D[k] - exact) <= 1e-12 * exact


def test_the_fisher_metric_is_no_majorizer() -> None:
    z = torch.log(torch.tensor([0.95, 0.05], dtype=torch.float64))
    penalty = SoftmaxAssignmentSparsityPenalty()
    assert penalty.row_fisher_metric(z, 1.0)[0, 0].item() == pytest.approx(0.0475)
    assert penalty.row_dense_hessian(z, 1.0)[0, 0].item() == pytest.approx(0.0784, abs=1e-4)


@pytest.mark.parametrize("majorizer", ["gershgorin", "soft"])
@pytest.mark.parametrize("K", [4, 40])
def test_majorizer_adjoint(K: int, majorizer: str) -> None:
    z, s = draw(3, K).requires_grad_(), draw(3, K, seed=1)
    penalty = SoftmaxAssignmentSparsityPenalty(0.8, majorizer=majorizer)
    (slope,) = torch.autograd.grad((penalty.psd_majorizer_diag(z) * s).sum(), z)
    step = 1e-6
    for w in range(0, K, 3):
        moved = z.detach().clone()
        moved[:, w] += step
        back = z.detach().clone()
        back[:, w] -= step
        change = (penalty.psd_majorizer_diag(moved) - penalty.psd_majorizer_diag(back)) / (2 * step)
        assert torch.allclose((change * s).sum(1), slope[:, w], atol=1e-7)


def test_curvature_solves_and_determinants() -> None:
    penalty, z, v = SoftmaxAssignmentSparsityPenalty(0.7, 1.3), draw(5, 6), draw(5, 6, seed=1)
    B = penalty.curvature(z)
    dense = penalty.row_dense_hessian(z, 1.3 / 0.49)
    assert relative(B.dense(), dense) <= 1e-13
    assert relative(B.matvec(v), penalty.hvp(z, v)) <= 1e-13
    assert relative(B.diagonal(), penalty.hessian_diag(z)) <= 1e-13
    data = B.add_diagonal(3.0)
    whole = dense + 3 * torch.eye(6)
    assert relative(data.solve(v), torch.linalg.solve(whole, v)) <= 1e-11
    sign, size = torch.linalg.slogdet(whole)
    assert torch.equal(data.logdet().sign, sign)
    assert relative(data.logdet().logabsdet, size) <= 1e-12
    weights = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])
    singular = SoftmaxAssignmentSparsityPenalty(row_weights=weights).curvature(z)
    with pytest.raises(torch.linalg.LinAlgError, match="row 2 has a zero"):
        singular.solve(v)


@pytest.mark.parametrize("shape", [(5, 4), (3000, 16), (3, 40_000)], ids=str)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_fused_pass_equals_the_methods(
    shape: tuple[int, int], reduction: str, dtype: torch.dtype
) -> None:
    z, v = draw(*shape).to(dtype), draw(*shape, seed=1).to(dtype)
    penalty = SoftmaxAssignmentSparsityPenalty(0.6, 1.7, reduction=reduction)
    once = penalty.evaluate(z, v, 0.2)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    assert once.value.dtype == once.gradient.dtype == dtype
    assert relative(once.value, penalty.value(z, 0.2)) <= tolerance
    assert relative(once.gradient, penalty.grad_target(z, 0.2)) <= tolerance
    assert relative(once.product, penalty.hvp(z, v, 0.2)) <= tolerance
    assert penalty.evaluate(z).product is None
    at = z.clone().requires_grad_()
    assert penalty.evaluate(at, v).gradient.requires_grad
    assert torch.equal(z, draw(*shape).to(dtype))


def test_masked_atoms_contribute_nothing() -> None:
    z, v = draw(4, 5), draw(4, 5, seed=1)
    masked = torch.cat([z, torch.full((4, 1), -INF).double()], 1)
    wide = torch.cat([v, torch.ones(4, 1).double()], 1)
    for majorizer in ("gershgorin", "soft", "split"):
        penalty = SoftmaxAssignmentSparsityPenalty(0.7, majorizer=majorizer)
        once = penalty.evaluate(masked, wide)
        assert relative(once.value, penalty.value(z)) <= 1e-14
        for found, expected in [
            (once.gradient, penalty.grad_target(z)),
            (once.product, penalty.hvp(z, v)),
            (penalty.hvp(masked, wide), penalty.hvp(z, v)),
            (penalty.hessian_diag(masked), penalty.hessian_diag(z)),
            (penalty.psd_majorizer_hvp(masked, wide), penalty.psd_majorizer_hvp(z, v)),
        ]:
            # the width of the soft majorizer depends on the number of atoms
            assert relative(found[:, :5], expected) <= (1e-8 if majorizer == "soft" else 1e-13)
            assert not found[:, 5].any()
    at = masked.clone().requires_grad_()
    (slope,) = torch.autograd.grad(SoftmaxAssignmentSparsityPenalty().value(at), at)
    assert torch.isfinite(slope).all()


def test_one_atom_has_no_entropy() -> None:
    penalty, z = SoftmaxAssignmentSparsityPenalty(k_atoms=1), draw(3, 1)
    assert penalty.value(z).item() == 0
    assert not penalty.grad_target(z).any()
    assert not penalty.psd_majorizer_diag(z).any()
    assert not SoftmaxAssignmentSparsityPenalty(majorizer="soft").psd_majorizer_diag(z).any()


Z = torch.zeros(2, 3)
S = SoftmaxAssignmentSparsityPenalty
BAD = [
    (lambda: S(k_atoms=0), ValueError, "k_atoms"),
    (lambda: S(0.0), ValueError, "temperature"),
    (lambda: S(lambda step: 1.0 - step).apply_schedule(1), ValueError, "temperature"),
    (lambda: S(majorizer="fisher"), ValueError, "majorizer: expected one of 'gershgorin', 'soft', 'split'"),
    (lambda: S(reduction="max"), ValueError, "reduction"),
    (lambda: S(row_weights=-torch.ones(2)), ValueError, "row_weights"),
    (lambda: S(row_weights=torch.ones(3)).value(Z), ValueError, r"row_weights: expected \(2,\)"),
    (lambda: S(k_atoms=4).value(Z), ValueError, r"expected \(n, 4\)"),
    (lambda: S(k_atoms=4).evaluate(Z), ValueError, "K=4"),
    (lambda: S().value(Z + float("nan")), ValueError, "logits.*row 0"),
    (lambda: S().evaluate(Z + INF), ValueError, "logits.*row 0"),
    (lambda: S().value(Z - INF), ValueError, "-inf only in row 0"),
    (lambda: S().evaluate(torch.cat([Z, Z - INF])), ValueError, "-inf only in row 2"),
    (lambda: S().evaluate(Z, torch.zeros(2, 2)), ValueError, "v: expected"),
    (lambda: S(row_weights=[1.0, 2.0]), TypeError, "row_weights: expected a torch.Tensor"),
    (lambda: S().evaluate([[0.0]]), TypeError, "target: expected a torch.Tensor"),
    (lambda: S().row_dense_hessian(Z, torch.ones(2)), ValueError, "scale: expected one number"),
    (lambda: S().row_fisher_metric_logit_derivative(Z, 1.0, 0.5), TypeError, "w: expected a whole"),
    (lambda: S().curvature(Z).add_diagonal(1.0).solve(Z.mT), ValueError, r"v: expected \(2, 3\)"),
    (lambda: S().row_dense_hessian(Z, INF), ValueError, "scale: expected a finite"),
    (lambda: S().row_dense_hessian_logit_derivative(Z, 1.0, 3), IndexError, "w: expected an atom in 0 .. 2"),
    (lambda: S().row_psd_majorizer_logit_derivative(Z, 1.0, -1), IndexError, "w: expected"),
    (lambda: S().row_fisher_metric(3.0, 1.0), ValueError, "row_logits"),
    (lambda: S(k_atoms=2).row_fisher_metric(Z, 1.0), ValueError, "K=2"),
    (lambda: S().value(Z, torch.zeros(2)), ValueError, "rho"),
    (lambda: S().log_normalizer(0.0, 3), ValueError, "k_atoms"),
    (lambda: S(weight=60.0, k_atoms=3).log_normalizer(0.0, 3), ValueError, "<= 50"),
    (lambda: S(weight=-1.0, k_atoms=3).log_normalizer(0.0, 3), ValueError, "0 <= λ"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_input_is_named(as_users_run: None, number: int) -> None:
    call, error, message = BAD[number]
    with pytest.raises(error, match=message):
        call()


def test_soft_sums_of_small_tables_and_large_ones_agree() -> None:
    at = assign(draw(300, 70), 0.5)
    one = torch.cat([soft_row_sums(assign(row[None], 0.5), 1.0) for row in draw(300, 70)[:3]])
    assert relative(soft_row_sums(at, 1.0)[:3], one) <= 1e-13
