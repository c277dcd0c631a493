"""The normaliser of the entropy prior."""

import math

import pytest
import torch
from torch import Tensor

from pullback.penalties import SoftmaxAssignmentSparsityPenalty, log_partition

TABLE = [
    (2, 2.0, -0.922753357, 0.41955596),
    (3, 2.0, -2.272452264, 0.74077268),
    (8, 2.0, -11.903897637, 1.65785777),
    (16, 8.0, -46.281684735, 2.18015089),
    (16, 30.0, -73.714562299, 0.62869690),
    (64, 8.0, -230.810770239, 3.70495033),
    (256, 8.0, -1202.670344409, None),
]


def at(lam: float) -> Tensor:
    return torch.tensor(lam, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("K", "lam", "value", "mean_entropy"), TABLE)
def test_table(K: int, lam: float, value: float, mean_entropy: float | None) -> None:
    x = at(lam)
    found = log_partition(x, K)
    assert found.item() == pytest.approx(value, abs=1e-8)
    if mean_entropy is not None:
        (slope,) = torch.autograd.grad(found, x)
        assert -slope.item() == pytest.approx(mean_entropy, abs=1e-7)


def test_numbers_and_what_is_no_number_of_atoms(as_users_run: None) -> None:
    assert log_partition(2.0, 3).item() == pytest.approx(-2.272452264, abs=1e-8)
    with pytest.raises(ValueError, match="atoms: expected a whole number >= 1"):
        log_partition(2.0, 0)
    with pytest.raises(ValueError, match="0 <= λ <= 50"):
        log_partition(51.0, 3)


def test_two_atoms_by_quadrature() -> None:
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    h = -u * u.log() - (1 - u) * torch.log1p(-u)
    for lam in (0.0, 1.0, 10.0, 50.0):
        assert log_partition(at(lam), 2).item() == pytest.approx(
            torch.exp(-lam * h).mean().log().item(), abs=1e-6
        )


@pytest.mark.parametrize("K", [1, 2, 5, 20])
def test_bounds_convexity_and_the_flat_prior(K: int) -> None:
    lam = torch.linspace(0, 50, 101, dtype=torch.float64)
    found = log_partition(lam, K)
    top = -math.lgamma(K)
    assert found[0].item() == pytest.approx(top, abs=1e-9)
    mean = sum(1 / j for j in range(2, K + 1))
    assert (found <= top + 1e-9).all()
    assert (found >= top - lam * mean - 1e-9).all()
    assert (found[2:] - 2 * found[1:-1] + found[:-2] >= -1e-9).all()


def draw_simplex(n: int, K: int, lam: float, seed: int) -> Tensor:
    """Exact draws by the recursion's own stick-breaking factors, inverted on a grid of cells."""
    generator = torch.Generator().manual_seed(seed)
    cells, table = 1000, torch.linspace(0, lam, 4001, dtype=torch.float64)
    u = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    h2 = -u * u.log() - (1 - u) * torch.log1p(-u)
    strength, left = torch.full((n,), float(lam), dtype=torch.float64), torch.ones(n, dtype=torch.float64)
    rows = []
    for k in range(K, 1, -1):
        known = log_partition(table, k - 1)
        place = strength.unsqueeze(1) * (1 - u) * (len(table) - 1) / lam
        low = place.long().clamp(max=len(table) - 2)
        log = (k - 2) * torch.log1p(-u) - strength.unsqueeze(1) * h2
        log = log + torch.lerp(known[low], known[low + 1], place - low)
        chance = torch.softmax(log, 1).cumsum(1)
        cell = torch.searchsorted(chance, torch.rand(n, 1, generator=generator, dtype=torch.float64))
        within = torch.rand(n, generator=generator, dtype=torch.float64)
        share = (cell.squeeze(1).clamp(max=cells - 1) + within) / cells
        rows.append(left * share)
        left, strength = left * (1 - share), strength * (1 - share)
    return torch.stack([*rows, left], 1)


def test_a_fitted_strength_finds_the_true_one() -> None:
    n, K, lam = 10_000, 4, 6.0
    a = draw_simplex(n, K, lam, seed=0)
    logits = a.log()
    penalty = SoftmaxAssignmentSparsityPenalty(k_atoms=K)
    rho = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for _ in range(30):  # Newton: neg_log_prior is convex in λ and smooth in its logarithm
        (slope,) = torch.autograd.grad(penalty.neg_log_prior(logits, rho), rho, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, rho)
        with torch.no_grad():
            rho -= (slope / curvature.abs()).clamp(-1, 1)
    error = 1 / math.sqrt(float(curvature))
    assert abs(float(rho.detach()) - math.log(lam)) <= 3 * error
    entropy = penalty.value(logits) / n
    x = at(float(rho.detach().exp()))
    (mean,) = torch.autograd.grad(log_partition(x, K), x)
    assert -mean.item() == pytest.approx(entropy.item(), rel=1e-6)


def test_rows_of_unequal_weight() -> None:
    weights = torch.tensor([0.5, 1.0, 2.0])
    penalty = SoftmaxAssignmentSparsityPenalty(weight=3.0, k_atoms=5, row_weights=weights)
    expected = log_partition(3.0 * weights.double(), 5).sum()
    assert torch.allclose(penalty.log_normalizer(0.0, 3), expected)
    logits = torch.zeros(3, 5, dtype=torch.float64)
    total = penalty.neg_log_prior(logits, 0.0)
    assert total.item() == pytest.approx(3 * 3.5 * math.log(5) + expected.item())
    assert penalty.grad_rho(logits).item() == pytest.approx(penalty.value(logits).item())
