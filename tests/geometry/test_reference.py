"""The reference manifolds are consistent with themselves and with independent quadrature."""

import math

import pytest
import torch

from pullback.geometry.reference import (
    Catenoid,
    FisherNormal,
    PoincareDisk,
    Sphere,
    SphereLine,
    SurfaceOfRevolution,
    SwissRoll,
    Torus,
)
from pullback.metrics import PullbackMetric


def pairs(d: int = 2, n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.randn(2 * n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2
    return z[:n], z[n:]


@pytest.mark.parametrize("d", [2, 3])
def test_sphere_chart_distance_and_logarithm_agree(d):
    sphere = Sphere(d)
    a, b = pairs(d)
    x = sphere.embedding(a)
    torch.testing.assert_close(x.norm(dim=-1), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(sphere.chart(x), a)
    v = sphere.logarithm(a, b)
    norm = torch.einsum("na,nab,nb->n", v, sphere.tensor(a), v).sqrt()
    torch.testing.assert_close(norm, sphere.distance(a, b), rtol=1e-13, atol=1e-13)
    chord = (x - sphere.embedding(b)).norm(dim=-1)
    torch.testing.assert_close(2 * torch.asin(chord / 2), sphere.distance(a, b))
    assert sphere.scalar_curvature(a).unique().item() == d * (d - 1)


def test_surfaces_of_revolution_have_the_curvatures_of_their_special_cases():
    u = torch.tensor([[0.7, 0.2], [1.3, -1.0]], dtype=torch.float64)
    ball = SurfaceOfRevolution(torch.sin, lambda u: -torch.cos(u))
    torch.testing.assert_close(ball.gaussian_curvature(u), torch.ones(2, dtype=torch.float64))
    torus = Torus()
    ring = SurfaceOfRevolution(
        lambda s: torus.major + torus.minor * torch.cos(s / torus.minor),
        lambda s: torus.minor * torch.sin(s / torus.minor),
    )
    turned = torch.stack([u[:, 1], u[:, 0] / torus.minor], dim=1)
    torch.testing.assert_close(ring.embedding(u), torus.embedding(turned))
    torch.testing.assert_close(ring.gaussian_curvature(u), torus.gaussian_curvature(turned))
    arc = PullbackMetric(ring.embedding).tensor(u)
    torch.testing.assert_close(arc[:, 0, 0], torch.ones(2, dtype=torch.float64))


def test_torus_closed_forms():
    torus = Torus()
    z = torch.tensor([[0.4, 0.9]], dtype=torch.float64)
    g = PullbackMetric(torus.embedding).tensor(z)
    radius = torus.major + torus.minor * math.cos(0.9)
    torch.testing.assert_close(g[0], torch.diag(torch.tensor([radius**2, 0.49], dtype=torch.float64)))
    assert torus.clairaut(z, torch.ones_like(z)).item() == pytest.approx(radius**2)
    assert torus.area == pytest.approx(4 * math.pi**2 * 1.4)


def test_catenoid_is_conformal_with_curvature_of_its_factor():
    z = torch.tensor([[0.3, 1.0]], dtype=torch.float64)
    g = PullbackMetric(Catenoid().embedding).tensor(z)
    square = math.cosh(0.3) ** 2
    torch.testing.assert_close(g[0], square * torch.eye(2, dtype=torch.float64))
    assert Catenoid().gaussian_curvature(z).item() == pytest.approx(-(square**-2))


def test_flat_and_product_distances():
    a, b = pairs(3)
    product = SphereLine()
    assert product.embedding(a).shape == (6, 4)
    assert (product.distance(a, b) >= (a - b)[:, 2].abs()).all()
    t = torch.linspace(1.0, 4.0, 200_001, dtype=torch.float64)
    quadrature = torch.trapezoid(torch.sqrt(1 + t**2), t)
    roll = SwissRoll()
    ends = torch.tensor([[1.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
    assert roll.distance(ends[:1], ends[1:]).item() == pytest.approx(quadrature.item(), rel=1e-9)
    assert roll.embedding(ends).shape == (2, 3)


def test_hyperbolic_closed_forms():
    disk = PoincareDisk()
    v = torch.tensor([[0.3, 0.4], [0.01, 0.0]], dtype=torch.float64)
    end = disk.exponential_from_origin(v)
    torch.testing.assert_close(disk.distance(torch.zeros_like(v), end), 2 * v.norm(dim=-1))
    a, b = pairs()
    a, b = a / 2, b / 2
    product = (1 - a.square().sum(-1)) * (1 - b.square().sum(-1))
    textbook = torch.acosh(1 + 2 * (a - b).square().sum(-1) / product)
    torch.testing.assert_close(disk.distance(a, b), textbook)


def test_fisher_distance_is_the_textbook_formula():
    a = torch.tensor([[0.0, 1.0], [1.0, 0.5]], dtype=torch.float64)
    b = torch.tensor([[2.0, 1.5], [1.0, 2.0]], dtype=torch.float64)
    mean, spread = (b - a)[:, 0], (b - a)[:, 1]
    inner = 1 + (mean**2 / 2 + spread**2) / (2 * a[:, 1] * b[:, 1])
    torch.testing.assert_close(FisherNormal().distance(a, b), math.sqrt(2) * torch.acosh(inner))
    # Equal means: the distance is √2 |ln(σ_b/σ_a)|.
    assert FisherNormal().distance(a, b)[1].item() == pytest.approx(math.sqrt(2) * math.log(4))
