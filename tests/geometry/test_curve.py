"""Length and energy of curves against closed forms."""

import math

import pytest
import torch

from pullback.geometry import curve_energy, curve_length
from pullback.geometry.reference import PoincareDisk, Sphere, Torus
from pullback.metrics import EuclideanMetric, PullbackMetric, from_tensor

SPHERE = PullbackMetric(Sphere().embedding)


def great_circle(nodes: int) -> torch.Tensor:
    """A tilted great circle arc of 2.5 radians in the stereographic chart, at constant speed."""
    angle = torch.linspace(0, 2.5, nodes, dtype=torch.float64)
    u = torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64)
    v = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    x = torch.cos(angle)[:, None] * u + torch.sin(angle)[:, None] * v
    return Sphere().chart(x)[None]


@pytest.mark.parametrize(("n", "error"), [(32, 1e-8), (64, 5e-11)])
def test_length_of_a_great_circle(n, error):
    assert curve_length(SPHERE, great_circle(n + 1)).item() == pytest.approx(2.5, rel=error)
    assert curve_energy(SPHERE, great_circle(n + 1)).item() == pytest.approx(2.5**2, rel=10 * error)


@pytest.mark.parametrize(("n", "error"), [(32, 5e-9), (64, 3e-10)])
def test_length_in_the_poincare_disk_by_the_tensor_path(n, error):
    radius = torch.linspace(0, 1, n + 1, dtype=torch.float64) * 0.9
    ray = torch.stack([0.6 * radius, 0.8 * radius], dim=-1)[None]
    assert curve_length(PoincareDisk(), ray).item() == pytest.approx(2 * math.atanh(0.9), rel=100 * error)
    distance = torch.linspace(0, 1, n + 1, dtype=torch.float64) * 2 * math.atanh(0.9)
    even = torch.tanh(distance / 2)
    ray = torch.stack([0.6 * even, 0.8 * even], dim=-1)[None]
    assert curve_length(PoincareDisk(), ray).item() == pytest.approx(2 * math.atanh(0.9), rel=error)


def test_both_paths_measure_the_same():
    curve = great_circle(33)
    tensor = from_tensor(Sphere().tensor, 2)
    torch.testing.assert_close(curve_length(tensor, curve), curve_length(SPHERE, curve), rtol=1e-12, atol=0)


@pytest.mark.parametrize("nodes", [2, 3, 4, 9])
def test_straight_lines_in_flat_space(nodes, dtype):
    line = torch.linspace(0, 1, nodes, dtype=dtype)[:, None] * torch.tensor([3.0, 4.0], dtype=dtype)
    length, energy = curve_length(EuclideanMetric(2), line), curve_energy(EuclideanMetric(2), line)
    assert length.dtype == dtype
    torch.testing.assert_close(length, torch.tensor([5.0], dtype=dtype))
    torch.testing.assert_close(energy, torch.tensor([25.0], dtype=dtype))


def test_a_corner_is_measured_on_both_sides():
    corner = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]]])
    assert curve_length(EuclideanMetric(2), corner).item() == pytest.approx(3.0)


def test_length_has_a_gradient_and_a_constant_curve_has_none():
    curve = great_circle(17).requires_grad_()
    (gradient,) = torch.autograd.grad(curve_length(SPHERE, curve).sum(), curve)
    step = torch.zeros_like(curve)
    step[0, 5, 1] = 1e-5
    with torch.no_grad():
        change = curve_length(SPHERE, curve + step) - curve_length(SPHERE, curve - step)
    assert gradient[0, 5, 1].item() == pytest.approx(change.item() / 2e-5, rel=1e-6, abs=1e-8)
    still = torch.ones(1, 5, 2, requires_grad=True)
    length = curve_length(EuclideanMetric(2), still)
    length.sum().backward()
    assert length.item() == 0
    assert still.grad.abs().max() == 0


def test_chords_are_too_short_where_the_spline_is_not():
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    curve = torch.stack([2 * t, 1.5 * t], dim=-1)[None]
    torus = PullbackMetric(Torus().embedding)
    fine = torch.stack([2 * t.new_tensor(range(4001)) / 4000, 1.5 * t.new_tensor(range(4001)) / 4000], dim=-1)
    truth = Torus().embedding(fine).diff(dim=0).norm(dim=1).sum()
    chords = Torus().embedding(curve[0]).diff(dim=0).norm(dim=1).sum()
    assert chords / truth < 1 - 1e-3
    assert curve_length(torus, curve).item() == pytest.approx(truth.item(), rel=1e-6)


def test_bad_curves_are_named(as_users_run):
    with pytest.raises(ValueError, match="at least two nodes"):
        curve_length(EuclideanMetric(2), torch.zeros(3, 1, 2))
    with pytest.raises(ValueError, match=r"curves in 2 dimensions, got shape \(4, 5, 3\)"):
        curve_length(EuclideanMetric(2), torch.zeros(4, 5, 3))
    with pytest.raises(ValueError, match="points: expected finite numbers"):
        curve_energy(EuclideanMetric(2), torch.full((1, 4, 2), math.nan))
    with pytest.raises(TypeError, match=r"points: expected a torch\.Tensor"):
        curve_energy(EuclideanMetric(2), [[0.0, 1.0]])
    with pytest.raises(TypeError, match="wrap a decoder in PullbackMetric"):
        curve_length(torch.nn.Linear(2, 3), torch.zeros(1, 4, 2))
