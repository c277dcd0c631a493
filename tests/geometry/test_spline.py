"""Splines through equally spaced nodes."""

import pytest
import torch

from pullback.geometry.spline import LOBATTO_INNER, LOBATTO_WEIGHTS, spline_through


def cubic(t: torch.Tensor) -> torch.Tensor:
    return torch.stack([t**3 - t, 2 - t**2], dim=-1)


@pytest.mark.parametrize("nodes", [4, 5, 33])
def test_a_cubic_is_reproduced_with_its_velocity(nodes):
    t = torch.linspace(0, 1, nodes, dtype=torch.float64)
    curve = spline_through(cubic(t)[None])
    s = torch.tensor([[0.0, 0.11, 0.5, 0.987, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(curve.at(s), cubic(s), rtol=1e-13, atol=1e-13)
    slope = torch.stack([3 * s**2 - 1, -2 * s], dim=-1)
    torch.testing.assert_close(curve.velocity(s), slope, rtol=1e-11, atol=1e-11)
    fine = torch.linspace(0, 1, 2 * nodes - 1, dtype=torch.float64)
    torch.testing.assert_close(curve.doubled(), cubic(fine)[None], rtol=1e-12, atol=1e-12)


def test_doubling_keeps_the_nodes_exactly():
    points = torch.randn(3, 9, 2, generator=torch.Generator().manual_seed(0))
    doubled = spline_through(points).doubled()
    assert doubled.shape == (3, 17, 2)
    assert torch.equal(doubled[:, ::2], points)


@pytest.mark.parametrize("nodes", [2, 3])
def test_few_nodes_are_joined_by_straight_lines(nodes):
    points = torch.randn(2, nodes, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    curve = spline_through(points)
    position, velocity = curve.inside((0.25,))
    torch.testing.assert_close(position[:, :, 0], torch.lerp(points[:, :-1], points[:, 1:], 0.25))
    torch.testing.assert_close(velocity[:, :, 0], points.diff(dim=1) * (nodes - 1))


def test_quadrature_is_exact_to_degree_seven():
    t = torch.tensor([0.0, *LOBATTO_INNER, 1.0], dtype=torch.float64)
    weights = torch.tensor(LOBATTO_WEIGHTS, dtype=torch.float64)
    for degree in range(8):
        assert (weights * t**degree).sum().item() == pytest.approx(1 / (degree + 1), rel=1e-14)
