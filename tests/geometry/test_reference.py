"""The reference manifolds are consistent with themselves and with independent quadrature."""

import math

import numpy as np
import pytest
import torch

from pullback.geometry import curve_length
from pullback.geometry.reference import (
    Catenoid,
    Cylinder,
    Ellipsoid,
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


@pytest.mark.parametrize("d", [1, 2, 3])
def test_sphere_exponential_inverts_the_logarithm_and_transport_is_an_isometry(d):
    sphere = Sphere(d)
    a, b = pairs(d)
    v = sphere.logarithm(a, b)
    torch.testing.assert_close(sphere.exponential(a, v), b, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sphere.exponential(a, 0 * v), a, rtol=1e-14, atol=1e-14)
    _, pushed = torch.func.jvp(sphere.embedding, (a,), (v,))
    torch.testing.assert_close(sphere.push(a, v), pushed, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(sphere.pull(a, pushed), v, rtol=1e-12, atol=1e-12)
    moved = sphere.transport(a, b, v)
    torch.testing.assert_close(moved, -sphere.logarithm(b, a), rtol=1e-12, atol=1e-12)
    other = torch.flip(a, (0,))
    inner = torch.einsum("na,nab,nb->n", v, sphere.tensor(a), other)
    kept = torch.einsum("na,nab,nb->n", moved, sphere.tensor(b), sphere.transport(a, b, other))
    torch.testing.assert_close(kept, inner, rtol=1e-12, atol=1e-12)


def test_hyperbolic_exponential_inverts_the_logarithm():
    disk = PoincareDisk()
    a, b = (z / 2 for z in pairs())
    v = disk.logarithm(a, b)
    torch.testing.assert_close(disk.exponential(a, v), b, rtol=1e-12, atol=1e-12)
    norm = torch.einsum("na,nab,nb->n", v, disk.tensor(a), v).sqrt()
    torch.testing.assert_close(norm, disk.distance(a, b), rtol=1e-12, atol=1e-12)
    from_origin = disk.exponential(torch.zeros_like(v), v)
    torch.testing.assert_close(from_origin, disk.exponential_from_origin(v), rtol=1e-13, atol=1e-13)
    assert disk.exponential(a, 0 * v).equal(a)
    assert disk.exponential_from_origin(0 * v).abs().max() == 0
    assert disk.logarithm(a, a).abs().max() < 1e-15


def test_ellipsoid_agrees_with_its_special_cases_and_with_quadrature():
    z = torch.tensor([[0.4, 0.9], [-1.1, 2.0]], dtype=torch.float64)
    ball = Ellipsoid(2.0, 2.0, 2.0)
    torch.testing.assert_close(ball.gaussian_curvature(z), torch.full_like(z[:, 0], 0.25))
    torch.testing.assert_close(ball.meridian_length(z[:1, 0], z[1:, 0]).item(), 2 * 1.5)
    body = Ellipsoid()
    polar = SurfaceOfRevolution(lambda u: 2 * torch.cos(u / 2), lambda u: 2 * torch.sin(u / 2))
    torch.testing.assert_close(ball.embedding(z), polar.embedding(z * torch.tensor([2.0, 1.0]).double()))
    for longitude in (0.0, math.pi / 2, 0.7):
        u = torch.linspace(-1.2, 1.4, 129, dtype=torch.float64)
        curve = torch.stack([u, torch.full_like(u, longitude)], dim=1)
        length = curve_length(PullbackMetric(body.embedding), curve)
        torch.testing.assert_close(
            body.meridian_length(u[:1], u[-1:], longitude), length, rtol=1e-9, atol=1e-9
        )
    tilted = Ellipsoid(1.0, 1.5, 3.0)
    quarter = tilted.meridian_length(
        torch.zeros(1).double(), torch.full((1,), math.pi / 2, dtype=torch.float64)
    )
    t = torch.linspace(0, math.pi / 2, 100_001, dtype=torch.float64)
    speed = torch.sqrt(torch.sin(t) ** 2 + 9 * torch.cos(t) ** 2)
    assert quarter.item() == pytest.approx(torch.trapezoid(speed, t).item(), rel=1e-10)


def test_total_curvature_of_the_ellipsoid_is_that_of_a_sphere():
    """Gauss-Bonnet: the integral of K over the closed surface is 4π."""
    body, n = Ellipsoid(), 200
    nodes, weights = (torch.as_tensor(x) for x in np.polynomial.legendre.leggauss(n))
    v = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    z = torch.stack(torch.meshgrid(nodes * math.pi / 2, v, indexing="ij"), dim=-1).flatten(0, 1)
    area = torch.exp(PullbackMetric(body.embedding).logdet(z) / 2) * body.gaussian_curvature(z)
    total = (weights.repeat_interleave(n) * area).sum() * (math.pi / 2) * (2 * math.pi / n)
    assert total.item() == pytest.approx(4 * math.pi, rel=1e-12)


def test_cylinder_is_the_plane_rolled_up():
    a, b = pairs()
    cylinder = Cylinder(1.7)
    g = PullbackMetric(cylinder.embedding).tensor(a)
    flat = torch.diag(torch.tensor([1.7**2, 1.0], dtype=torch.float64)).expand_as(g)
    torch.testing.assert_close(g, flat)
    line = torch.lerp(a[:, None], b[:, None], torch.linspace(0, 1, 9, dtype=torch.float64)[:, None])
    length = curve_length(PullbackMetric(cylinder.embedding), line)
    torch.testing.assert_close(cylinder.distance(a, b), length)
