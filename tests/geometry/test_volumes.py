"""Magnification and volume against closed forms."""

import math

import pytest
import torch

from pullback.geometry import magnification, volume
from pullback.geometry.reference import PoincareDisk, Sphere, Torus
from pullback.metrics import EuclideanMetric, PullbackMetric

PERIOD = torch.tensor([[0.0, 2 * math.pi], [0.0, 2 * math.pi]], dtype=torch.float64)


def test_magnification_is_the_logarithm_of_the_area_element(dtype):
    z = torch.tensor([[0.3, 1.0], [2.0, -2.0]], dtype=dtype)
    seen = magnification(PullbackMetric(Torus().embedding), z)
    torch.testing.assert_close(seen, torch.log(0.7 * (2 + 0.7 * torch.cos(z[:, 1]))))
    torch.testing.assert_close(
        magnification(PoincareDisk(), z / 4), torch.log(4 / (1 - (z / 4).square().sum(1)) ** 2)
    )


def test_magnification_has_a_gradient():
    z = torch.tensor([[0.3, 1.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(magnification(PullbackMetric(Torus().embedding), z).sum(), z)
    expected = -0.7 * math.sin(1.0) / (2 + 0.7 * math.cos(1.0))
    torch.testing.assert_close(gradient, torch.tensor([[0.0, expected]], dtype=torch.float64))


def test_many_points_are_chunked(monkeypatch):
    from pullback.geometry import volumes

    z = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = magnification(PoincareDisk(), z / 9)
    monkeypatch.setattr(volumes, "CHUNK_POINTS", 7)
    torch.testing.assert_close(magnification(PoincareDisk(), z / 9), whole)
    listed, arange = [], torch.arange

    def counted(*arguments, **options):
        listed.append(arange(*arguments, **options))
        return listed[-1]

    monkeypatch.setattr(torch, "arange", counted)
    flat = volume(EuclideanMetric(2), PERIOD, n=10)
    assert flat.value == pytest.approx(4 * math.pi**2, rel=1e-12)
    assert max(len(part) for part in listed) == 10


def test_area_of_the_torus_to_rounding():
    """Acceptance 9: 1e-12 relative."""
    seen = volume(PullbackMetric(Torus().embedding), PERIOD)
    assert seen.value == pytest.approx(Torus().area, rel=1e-12)
    assert seen.error < 1e-12
    assert seen.method == "grid"
    assert seen.points == 200**2 + 100**2


def test_grid_error_is_an_estimate_of_the_error():
    box = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    seen = volume(PullbackMetric(Sphere().embedding), box, n=40)
    truth = volume(PullbackMetric(Sphere().embedding), box, n=400)
    assert 0 < abs(seen.value / truth.value - 1) <= seen.error
    assert seen.error < 1e-2


def test_monte_carlo_error_is_its_standard_error():
    metric = PullbackMetric(Torus().embedding)
    errors = []
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        seen = volume(metric, PERIOD, method="montecarlo", n=500, generator=generator)
        errors.append((seen.value / Torus().area - 1) / seen.error)
    scaled = torch.tensor(errors)
    assert 0.6 < scaled.square().mean().sqrt() < 1.4
    again = volume(metric, PERIOD, method="montecarlo", n=500, generator=torch.Generator().manual_seed(29))
    assert again == seen
    state = torch.get_rng_state()
    runs = [volume(metric, PERIOD, method="montecarlo", n=500) for _ in range(2)]
    assert runs[0] == runs[1]
    assert torch.equal(state, torch.get_rng_state())


def test_huge_volumes_keep_their_logarithm():
    class Huge:
        dim = 2

        def tensor(self, z):
            return torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2) * 1e300

        def logdet(self, z):
            return torch.full_like(z[:, 0], 2000.0)

    seen = volume(Huge(), torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64), n=4)
    assert seen.log == pytest.approx(1000)
    assert seen.value == math.inf


def test_bad_boxes_are_named(as_users_run):
    metric = EuclideanMetric(2)
    with pytest.raises(ValueError, match=r"box: expected \(2, 2\)"):
        volume(metric, torch.zeros(3, 2))
    with pytest.raises(ValueError, match="every upper bound above"):
        volume(metric, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="n: expected an even number"):
        volume(metric, PERIOD, n=5)
    with pytest.raises(ValueError, match=r"n: expected a grid of at most .* got 200 to the power of 8; use"):
        volume(EuclideanMetric(8), torch.tensor([[0.0, 1.0]]).repeat(8, 1))
    with pytest.raises(ValueError, match="method: expected one of 'grid', 'montecarlo', got 'simpson'"):
        volume(metric, PERIOD, method="simpson")
