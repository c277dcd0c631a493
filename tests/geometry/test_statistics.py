"""Flatness: what each number is, and what it does not depend on."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pullback.geometry import flatness
from pullback.geometry.reference import PoincareDisk, SwissRoll
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
