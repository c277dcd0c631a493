"""Every operation of softmax rows against arithmetic with as many digits as it takes, uniform to one-hot."""

from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

from penalties.checks import draw
from pullback.penalties import SoftmaxAssignmentSparsityPenalty

GAPS = [0.0, 1e-8, 1e-3, 1.0, 5.0, 20.0, 40.0, 100.0, 300.0, 700.0]


def difference(found: Any, exact: Any) -> float:
    """Largest difference relative to the largest entry of the row."""
    found, exact = _flat(found.tolist() if isinstance(found, Tensor) else found), _flat(exact)
    size = max(map(abs, exact))
    if size < mpmath.mpf(10) ** (15 - mpmath.mp.dps):  # an exact zero
        return float(max(map(abs, found)))
    return float(max(abs(x - y) for x, y in zip(found, exact, strict=True)) / size)


def _flat(nested: Any) -> list[Any]:
    return [x for part in nested for x in _flat(part)] if isinstance(nested, list) else [nested]


class Exact:
    """The definitions, at λ = 1, with scale 1/τ² as a float like the penalty takes it."""

    def __init__(self, row: Tensor, tau: float, w: int):
        x = [mpmath.mpf(z) / mpmath.mpf(tau) for z in row.tolist()]
        log_total = mpmath.log(mpmath.fsum(map(mpmath.exp, x)))
        ln, at = [y - log_total for y in x], range(len(x))
        a = [mpmath.exp(y) for y in ln]
        self.value = -mpmath.fsum(p * q for p, q in zip(a, ln, strict=True))
        u = [-(y + self.value) for y in ln]
        self.slope = [p * q / tau for p, q in zip(a, u, strict=True)]
        delta = [[int(k == j) for j in at] for k in at]
        da = [a[k] * (delta[k][w] - a[w]) / tau for k in at]
        du = [-(delta[k][w] - a[w] + a[w] * u[w]) / tau for k in at]
        scale = mpmath.mpf(1 / tau**2)

        def pair(k: int, j: int) -> Any:
            return delta[k][j] * (u[k] - 1) + a[j] * (1 - u[k] - u[j])

        def pair_change(k: int, j: int) -> Any:
            return delta[k][j] * du[k] + da[j] * (1 - u[k] - u[j]) - a[j] * (du[k] + du[j])

        self.hessian = [[scale * a[k] * pair(k, j) for j in at] for k in at]
        self.change = [[scale * (da[k] * pair(k, j) + a[k] * pair_change(k, j)) for j in at] for k in at]
        self.fisher = [[scale * a[k] * (delta[k][j] - a[j]) for j in at] for k in at]
        self.fisher_change = [[scale * (da[k] * (delta[k][j] - a[j]) - a[k] * da[j]) for j in at] for k in at]
        self.size = max(abs(entry) for row in self.hessian for entry in row)

    def product(self, v: Tensor) -> list[Any]:
        return [mpmath.fsum(h * x for h, x in zip(row, v.tolist(), strict=True)) for row in self.hessian]

    @property
    def diagonal(self) -> list[Any]:
        return [row[k] for k, row in enumerate(self.hessian)]

    @property
    def row_sums(self) -> list[Any]:
        return [mpmath.fsum(map(abs, row)) for row in self.hessian]

    @property
    def row_sum_changes(self) -> list[Any]:
        return [
            mpmath.fsum(mpmath.sign(h) * c for h, c in zip(row, change, strict=True))
            for row, change in zip(self.hessian, self.change, strict=True)
        ]


def errors(z: Tensor, tau: float, w: int) -> dict[str, float]:
    """Of every operation of one row of logits."""
    penalty, scale, exact = SoftmaxAssignmentSparsityPenalty(tau), 1 / tau**2, Exact(z, tau, w)
    one, v = z[None], draw(len(z), seed=3)
    once, B = penalty.evaluate(one, v[None]), penalty.curvature(one)
    found = {
        "value": (penalty.value(one), exact.value),
        "gradient": (penalty.grad_target(one)[0], exact.slope),
        "product": (penalty.hvp(one, v[None])[0], exact.product(v)),
        "fused value": (once.value, exact.value),
        "fused gradient": (once.gradient[0], exact.slope),
        "fused product": (once.product[0], exact.product(v)),
        "dense": (penalty.row_dense_hessian(z, scale), exact.hessian),
        "diagonal": (penalty.hessian_diag(one)[0], exact.diagonal),
        "low rank, dense": (B.dense()[0], exact.hessian),
        "low rank, diagonal": (B.diagonal()[0], exact.diagonal),
        "low rank, product": (B.matvec(v[None])[0], exact.product(v)),
        "row sums": (penalty.psd_majorizer_abs_row_sums(z, scale), exact.row_sums),
        "Fisher": (penalty.row_fisher_metric(z, scale), exact.fisher),
        "change": (penalty.row_dense_hessian_logit_derivative(z, scale, w), exact.change),
        "row sums' change": (
            penalty.row_psd_majorizer_logit_derivative(z, scale, w).diagonal(),
            exact.row_sum_changes,
        ),
        "Fisher's change": (penalty.row_fisher_metric_logit_derivative(z, scale, w), exact.fisher_change),
    }
    if len(z) <= 4:
        # data that dominate the Hessian but do not hide it
        data = float(7 * exact.size)
        whole = mpmath.matrix(exact.hessian) + data * mpmath.eye(len(z))
        C = B.add_diagonal(data)
        solution = mpmath.lu_solve(whole, mpmath.matrix(v.tolist()))
        found["solve"] = (C.solve(v[None])[0], list(solution))
        found["determinant"] = (C.logdet().logabsdet[0], mpmath.log(abs(mpmath.det(whole))))
    return {name: difference(*pair) for name, pair in found.items()}


def row(K: int, gap: float, seed: int = 0) -> Tensor:
    """Logits whose differences are exact, the middle one ahead of the others."""
    z = (draw(K, seed=seed) * min(gap, 1.0) * 2**30).round() / 2**30
    z[K // 2] += round(gap * 2**30) / 2**30
    return z


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize(("K", "tau"), [(2, 1.0), (3, 0.5), (8, 1.0)])
def test_rows_from_uniform_to_one_hot_keep_all_digits(K: int, tau: float, gap: float) -> None:
    with mpmath.workdps(60 + int(gap)):
        for w in (0, K // 2):
            for name, error in errors(row(K, gap * tau), tau, w).items():
                assert error <= 1e-14, name


@pytest.mark.parametrize("tau", [0.05, 0.7])
@pytest.mark.parametrize("gap", [0.3, 30.0, 650.0])
def test_any_logits_cost_what_rounding_them_costs(gap: float, tau: float) -> None:
    """z - max and its quotient by τ are rounded, which moves e^x by gap · eps, half of it each."""
    z = draw(5, seed=2) * 0.3 * tau
    z[3] += gap * tau
    with mpmath.workdps(60 + int(gap)):
        for name, error in errors(z, tau, 3).items():
            assert error <= 1e-14 + gap * torch.finfo(torch.float64).eps, name


def test_many_atoms_and_many_rows_keep_all_digits() -> None:
    """The sorted sums, and blocks where only some rows are nearly one-hot."""
    z = torch.stack([row(50, gap, seed) for seed, gap in enumerate((0.0, 1.0, 40.0, 2.0, 100.0))])
    v, penalty = draw(5, 50, seed=3), SoftmaxAssignmentSparsityPenalty()
    once, sums = penalty.evaluate(z, v), penalty.psd_majorizer_diag(z)
    with mpmath.workdps(160):
        for k in range(5):
            exact = Exact(z[k], 1.0, 0)
            assert difference(once.gradient[k], exact.slope) <= (1e-14 if k else 1e-16)
            assert difference(once.product[k], exact.product(v[k])) <= 1e-14
            assert difference(sums[k], exact.row_sums) <= 1e-14


def test_a_one_hot_row_is_solved_like_the_data_alone() -> None:
    """-1 and 1 at the largest atom would cancel: with data 1 the diagonal alone would be singular there."""
    z = torch.tensor([[0.0, 60.0, 1.0]], dtype=torch.float64)
    v = draw(1, 3)
    found = SoftmaxAssignmentSparsityPenalty().curvature(z).add_diagonal(1.0)
    assert torch.allclose(found.solve(v), v, rtol=1e-15, atol=0)
    assert found.logdet().logabsdet.abs() <= 1e-15
