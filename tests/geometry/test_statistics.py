"""Flatness, stress and stability: what each number is, and what it does not depend on."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from torch import nn

from pullback.geometry import distance_stability, flatness, geodesic_stress
from pullback.geometry.reference import PoincareDisk, Sphere, SwissRoll
from pullback.metrics import EuclideanMetric, PullbackMetric, from_tensor


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 9)).double().requires_grad_(False)


def points(n: int = 40, d: int = 3) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_constant_multiple_of_the_identity_is_flat_in_every_measure(dtype):
    seen = flatness(
        from_tensor(lambda z: 4 * torch.eye(3, dtype=z.dtype).expand(len(z), 3, 3), 3), points().to(dtype)
    )
    assert seen.condition_number == pytest.approx(1, abs=1e-6)
    assert seen.distortion == pytest.approx(1, abs=1e-6)
    assert seen.scale == pytest.approx(4)
    assert seen.points == 40
    for value in (seen.variance, seen.variance_published_code, seen.logdet_variance):
        assert value == pytest.approx(0, abs=1e-10)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(0.1, 10))
def test_variance_is_unchanged_by_linear_maps_of_the_latent_space(seed, stretch):
    """Acceptance 14: to 1e-10."""
    A = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    U, _, V = torch.linalg.svd(A)
    A = U @ torch.diag(torch.tensor([stretch, 1.0, 1 / stretch], dtype=torch.float64)) @ V
    z, f = points(), net()
    plain = flatness(PullbackMetric(f), z)
    mapped = flatness(PullbackMetric(lambda w: f(w @ torch.linalg.inv(A).mT)), z @ A.mT)
    assert mapped.variance == pytest.approx(plain.variance, rel=1e-10, abs=1e-10)
    assert mapped.logdet_variance == pytest.approx(plain.logdet_variance, rel=1e-9)


def test_the_published_code_depends_on_the_coordinates():
    z, f = points(), net()
    scale = torch.tensor([10.0, 1.0, 1.0], dtype=torch.float64)
    plain = flatness(PullbackMetric(f), z)
    mapped = flatness(PullbackMetric(lambda w: f(w / scale)), z * scale)
    assert abs(mapped.variance_published_code / plain.variance_published_code - 1) > 0.05


def test_distortion_is_the_relative_isometry_error():
    """Acceptance 14: distortion - 1 = Σ|g/ḡ - I|²/(n d) with ḡ = E tr g / d, to 1e-12."""
    z = points()
    metric = PullbackMetric(net())
    g, seen = metric.tensor(z), flatness(metric, z)
    excess = (g / seen.scale - torch.eye(3, dtype=z.dtype)).square().sum() / g[..., 0].numel()
    assert seen.distortion - 1 == pytest.approx(excess.item(), abs=1e-12)


def test_what_each_number_sees():
    stretched = from_tensor(lambda z: torch.diag(z.new_tensor([9.0, 1.0])).expand(len(z), 2, 2), 2)
    seen = flatness(stretched, points(d=2))
    assert seen.condition_number == pytest.approx(9)
    assert seen.variance == pytest.approx(0, abs=1e-20)
    assert seen.logdet_variance == pytest.approx(0, abs=1e-20)
    disk = flatness(PoincareDisk(), torch.tensor([[0.0, 0.0], [0.5, 0.0]]).double())
    logs = torch.log(torch.tensor([4.0, 4 / 0.75**2]) / (2 + 2 / 0.75**2))
    assert disk.variance == pytest.approx(2 * logs.square().mean().item(), rel=1e-6)
    roll = flatness(PullbackMetric(SwissRoll().embedding), torch.tensor([[1.0, 0.0], [3.0, 0.0]]).double())
    assert roll.condition_number == pytest.approx((2 + 10) / 2)


def test_mixing_evaluates_between_and_around_the_points():
    seen = []
    z = points(200, 2)

    def record(w: torch.Tensor) -> torch.Tensor:
        seen.append(w)
        return torch.eye(2, dtype=w.dtype).expand(len(w), 2, 2)

    flatness(from_tensor(record, 2), z, mix=0.2, generator=torch.Generator().manual_seed(0))
    flatness(from_tensor(record, 2), z, mix=0.2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], z)
    assert math.isclose(seen[0].mean().item(), z.mean().item(), abs_tol=0.2)


def test_bad_points_are_named(as_users_run):
    with pytest.raises(ValueError, match="at least one point"):
        flatness(EuclideanMetric(2), torch.zeros(0, 2))
    with pytest.raises(ValueError, match="mix: expected a finite number >= 0"):
        flatness(EuclideanMetric(2), torch.zeros(3, 2), mix=-0.1)
    with pytest.raises(ValueError, match="not positive definite at row 1"):
        flatness(from_tensor(lambda z: torch.diag_embed(1 - z), 2), torch.tensor([[0.0, 0.0], [2.0, 0.0]]))


def every_pair(n: int) -> torch.Tensor:
    return torch.triu_indices(n, n, 1).T


def test_stress_is_zero_where_the_map_is_true_to_scale(dtype):
    z = points(12, 3).to(dtype)
    net = nn.Linear(3, 7, bias=False, dtype=dtype).requires_grad_(False)
    net.weight.data = (
        2 * torch.linalg.qr(torch.randn(7, 3, dtype=dtype, generator=torch.Generator().manual_seed(0)))[0]
    )
    seen = geodesic_stress(PullbackMetric(net), z, every_pair(12))
    assert seen.stress == pytest.approx(0, abs=1e-4 if dtype == torch.float32 else 1e-9)
    assert seen.pearson == pytest.approx(1, abs=1e-6)
    assert seen.spearman == pytest.approx(1, abs=1e-3)
    assert seen.scale == pytest.approx(4, rel=1e-6)
    assert seen.distances.dtype == dtype
    assert bool(seen.converged.all())


def test_stress_is_its_formula():
    z = points(10, 2) / 2
    pairs = every_pair(10).numpy()
    seen = geodesic_stress(PullbackMetric(Sphere().embedding), z, pairs)
    i, j = pairs.T
    d = Sphere().distance(z[i], z[j]).numpy()
    ruler = (z[i] - z[j]).norm(dim=1).numpy()
    scale = float(Sphere().tensor(z).diagonal(dim1=1, dim2=2).sum() / 20)
    assert seen.scale == pytest.approx(scale)
    expected = np.sqrt(((d - np.sqrt(scale) * ruler) ** 2).sum() / (d**2).sum())
    assert seen.stress == pytest.approx(expected, rel=1e-6)
    assert seen.pearson == pytest.approx(pearsonr(d, ruler).statistic, rel=1e-6)
    assert seen.spearman == pytest.approx(spearmanr(d, ruler).statistic, rel=1e-6)


def test_correlations_of_equal_distances_are_not_defined():
    z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    seen = geodesic_stress(EuclideanMetric(2), z, [(0, 1), (0, 2)])
    assert math.isnan(seen.pearson)
    assert math.isnan(seen.spearman)


def test_variation_of_distances_over_trainings():
    metrics = [
        from_tensor(lambda z, c=c: c**2 * torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2), 2)
        for c in (1, 2, 3)
    ]
    a, b = points(4, 2), points(8, 2)[4:]
    b[0] = a[0]
    seen = distance_stability(metrics, [a, a, a], [b, b, b], data=[a, a, None])
    torch.testing.assert_close(seen.distances[2], 3 * (a - b).norm(dim=1))
    torch.testing.assert_close(seen.per_pair, torch.tensor([0, 0.5, 0.5, 0.5], dtype=torch.float64))
    assert seen.variation == pytest.approx(0.375)
    assert bool(seen.converged.all())


def test_a_pair_that_one_training_does_not_join_is_not_called_stable():
    def wall(z: torch.Tensor) -> torch.Tensor:
        inside = (z[:, 0] > 1) & (z[:, 0] < 2)
        return torch.where(inside[:, None, None], torch.nan, torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2))

    a, b = torch.zeros(2, 2).double(), torch.tensor([[0.0, 1.0], [3.0, 0.0]]).double()
    seen = distance_stability([from_tensor(wall, 2), EuclideanMetric(2)], [a, a], [b, b])
    assert torch.isnan(seen.per_pair).tolist() == [False, True]
    assert seen.variation == pytest.approx(0, abs=1e-9)
    assert seen.converged.all(0).tolist() == [True, False]
    lost = distance_stability([from_tensor(wall, 2), EuclideanMetric(2)], [a[1:], a[1:]], [b[1:], b[1:]])
    assert math.isnan(lost.variation)


def test_charts_of_trainings_need_not_agree():
    """The same surface in another chart has the same distances: no variation."""
    f, z = net(), points(8)
    A = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.5, 0.0], [0.3, 0.0, 1.5]], dtype=torch.float64)
    metrics = [PullbackMetric(f), PullbackMetric(lambda w: f(w @ torch.linalg.inv(A).mT))]
    seen = distance_stability(metrics, [z[:4], z[:4] @ A.mT], [z[4:], z[4:] @ A.mT])
    assert seen.variation < 1e-6


def test_bad_pairs_and_trainings_are_named(as_users_run):
    metric, z = EuclideanMetric(2), points(5, 2)
    for pairs, message in (
        ([(0.5, 1.0)], "as whole numbers"),
        ([0, 1], "pairs: expected rows"),
        ([(0, 1), (2, -1)], "rows from 0 to 4, got -1 to 2"),
        ([(1, 1), (2, 2)], "at least one pair of different points"),
    ):
        with pytest.raises(ValueError, match=message):
            geodesic_stress(metric, z, pairs)
    with pytest.raises(ValueError, match=r"ends\[1\]: expected \(5, 2\) like starts\[1\]"):
        distance_stability([metric, metric], [z, z], [z, z[:4]])
    with pytest.raises(ValueError, match="the same pairs for every metric"):
        distance_stability([metric, metric], [z, z[:4]], [z, z[:4]])
    with pytest.raises(ValueError, match="at least one pair"):
        distance_stability([metric, metric], [z[:0], z], [z[:0], z])
    with pytest.raises(ValueError, match="data: expected codes for each of 2"):
        distance_stability([metric, metric], [z, z], [z, z], data=[z])
