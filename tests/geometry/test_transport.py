"""Parallel transport against closed forms: norms, angles, holonomy, and the pole ladder as a check."""

import math
import re

import pytest
import torch
from torch import Tensor

from pullback.geometry import Transport, geodesic, logarithm_map, parallel_transport
from pullback.geometry import transport as module
from pullback.geometry.connections import Magnus, Polar, connection_of
from pullback.geometry.reference import PoincareDisk, Sphere
from pullback.geometry.spline import smooth_through
from pullback.geometry.transport import _products
from pullback.metrics import EuclideanMetric, PullbackMetric, from_tensor
from surfaces import SURFACES, Disk, rows, tanh_network

SPHERE = PullbackMetric(Sphere().embedding)


def latitude_chart(z: Tensor) -> Tensor:
    """The sphere by polar angle θ and longitude φ."""
    theta, phi = z.unbind(1)
    return torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], dim=1)


LATITUDES = PullbackMetric(latitude_chart)


def circle(intervals: int, theta: float = 1.0) -> Tensor:
    phi = torch.linspace(0, 2 * math.pi, intervals + 1, dtype=torch.float64)
    return torch.stack([torch.full_like(phi, theta), phi], dim=1)


def holonomy_error(turn: Tensor, theta: float = 1.0) -> float:
    """Distance of the angle of a rotation from ∓2π cos θ."""
    seen = math.atan2(turn[1, 0], turn[0, 0])
    return abs(math.remainder(seen + 2 * math.pi * math.cos(theta), 2 * math.pi))


def full(*args, **options) -> Transport:
    result = parallel_transport(*args, full=True, **options)
    assert isinstance(result, Transport)
    return result


def gram(metric, z: Tensor, vectors: Tensor) -> Tensor:
    """Inner products of several vectors (k, m, d) at the same points."""
    return torch.einsum("kma,mab,lmb->mkl", vectors, metric.tensor(z), vectors)


@pytest.mark.parametrize("method", ["auto", "tensor"])
@pytest.mark.parametrize("name", SURFACES)
def test_inner_products_are_kept_on_closed_forms(name, method):
    """To 1e-13 on the embedding path, to 1e-8 on the tensor path."""
    surface = SURFACES[name]
    path = geodesic(surface.metric, surface.a, surface.b, starts="line")
    first = torch.stack([rows(4, seed=k) for k in (3, 4, 5)])
    runs = [full(surface.metric, path, v, method=method) for v in first]
    last = torch.stack([run.vectors[:, -1] for run in runs])
    before, after = gram(surface.metric, surface.a, first), gram(surface.metric, surface.b, last)
    assert ((after - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)).max() <= 1e-13
    for run in runs:
        assert run.norm_error.max() <= 1e-13
        assert run.angle_error.max() <= 1e-10
        assert bool(run.converged.all())


@pytest.mark.parametrize("name", [name for name in SURFACES if name != "disk"])
def test_both_paths_agree(name):
    surface = SURFACES[name]
    path = geodesic(surface.metric, surface.a, surface.b, starts="line")
    v = rows(4, seed=3)
    polar, magnus = (full(surface.metric, path, v, method=m) for m in ("embedding", "tensor"))
    assert (polar.method, magnus.method) == ("embedding", "tensor")
    torch.testing.assert_close(polar.vectors, magnus.vectors, rtol=0, atol=1e-9)


def test_holonomy_of_a_circle_of_latitude():
    """Acceptance 10: 1e-3 with 128 steps, 1e-5 extrapolated; second and fourth order before."""
    errors = {}
    for method, kind in (("auto", Polar), ("tensor", Magnus)):
        connection = connection_of(LATITUDES, method)
        assert type(connection) is kind
        for n in (16, 128):
            turns = connection.turns(smooth_through(circle(n)[None]), 1)
            errors[method, n] = holonomy_error(_products(turns, n)[0, -1])
    assert errors["auto", 16] == pytest.approx(3.1e-2, rel=0.02)
    assert errors["auto", 128] == pytest.approx(4.8e-4, rel=0.02)
    assert errors["tensor", 128] <= 1e-12
    frame = torch.tensor([1.0, math.sin(1)], dtype=torch.float64)
    for method in ("auto", "tensor"):
        carried = full(LATITUDES, circle(16), torch.eye(2, dtype=torch.float64) / frame, method=method)
        assert holonomy_error((carried.vectors[:, -1] * frame).T) <= 1e-10
        assert carried.angle_error.max() <= 1e-10


def test_great_circle_of_the_three_sphere_to_1e_9_on_16_steps():
    """Acceptance 10."""
    sphere = Sphere(3)
    a, b, v = (rows(6, 3, size=0.2, seed=k) for k in (1, 2, 3))
    x, y = sphere.embedding(a).unsqueeze(1), sphere.embedding(b).unsqueeze(1)
    angle = sphere.distance(a, b)[:, None, None]
    t = torch.linspace(0, 1, 17, dtype=torch.float64)[:, None]
    arc = (torch.sin((1 - t) * angle) * x + torch.sin(t * angle) * y) / torch.sin(angle)
    nodes = sphere.chart(arc.flatten(0, 1)).unflatten(0, (6, 17))
    seen = parallel_transport(PullbackMetric(sphere.embedding), nodes, v)
    torch.testing.assert_close(seen, sphere.transport(a, b, v), rtol=0, atol=1e-9)


def test_vectors_at_every_node_are_those_of_the_path_up_to_there():
    a, b, v = rows(3, size=0.3), rows(3, size=0.3, seed=2), rows(3, seed=3)
    path = geodesic(SPHERE, a, b, starts="line")
    seen = full(SPHERE, path, v)
    assert torch.equal(seen.vectors[:, 0], v)
    assert seen.t.shape == (65,)
    for k in (16, 40, 64):
        expected = Sphere().transport(a, path.points[:, k], v)
        torch.testing.assert_close(seen.vectors[:, k], expected, rtol=0, atol=1e-9)
    assert (seen.steps % 64 == 0).all()


def test_a_geodesic_carries_its_own_velocity(as_users_run):
    metric = PullbackMetric(tanh_network())
    a, b = rows(4), rows(4, seed=2)
    path = geodesic(metric, a, b, starts="line", nodes=129)
    out, back = (logarithm_map(metric, *ends, refine=True, starts="line") for ends in ((a, b), (b, a)))
    torch.testing.assert_close(parallel_transport(metric, path, out), -back, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["auto", "tensor"])
def test_there_and_back_is_the_identity(method):
    metric = PullbackMetric(tanh_network())
    curves = rows(2, size=0.7)[:, None] * torch.linspace(0, 1, 21, dtype=torch.float64)[:, None].sin()
    v = rows(2, seed=3)
    there = parallel_transport(metric, curves, v, method=method)
    torch.testing.assert_close(parallel_transport(metric, curves.flip(1), there, method=method), v)


def test_one_curve_may_carry_many_vectors_and_many_curves_one_vector():
    v = rows(3, seed=3)
    many = parallel_transport(LATITUDES, circle(16), v)
    assert many.shape == (3, 2)
    torch.testing.assert_close(parallel_transport(LATITUDES, circle(16), v[1]), many[1:2])
    two = parallel_transport(LATITUDES, torch.stack([circle(16), circle(16, 0.5)]), v[0])
    assert two.shape == (2, 2)
    torch.testing.assert_close(two[:1], many[:1])


@pytest.mark.parametrize("nodes", [2, 3, 5, 7])
def test_few_nodes_are_joined_as_well_as_they_can(nodes):
    curve = circle(nodes - 1) / 4
    seen = full(LATITUDES, curve, torch.eye(2, dtype=torch.float64))
    assert bool(seen.converged.all())
    assert seen.vectors.shape == (2, nodes, 2)


def test_one_dimension_only_rescales(dtype):
    metric = from_tensor(lambda z: (1 + z * z).unsqueeze(-1), 1)
    curve = torch.linspace(0, 1, 9, dtype=dtype)[:, None]
    seen = full(metric, curve, torch.tensor([1.5], dtype=dtype))
    assert seen.vectors.dtype == dtype
    expected = 1.5 / (1 + curve.square()).sqrt()
    torch.testing.assert_close(seen.vectors[0], expected, rtol=1e-5, atol=0)
    assert bool(seen.converged.all())


def test_single_precision_follows_its_input():
    exact = parallel_transport(LATITUDES, circle(32), rows(2, seed=3))
    seen = full(LATITUDES, circle(32).float(), rows(2, seed=3).float())
    assert seen.vectors.dtype == seen.norm_error.dtype == seen.angle_error.dtype == torch.float32
    assert bool(seen.converged.all())
    assert (seen.vectors[:, -1].double() - exact).abs().max() <= 1e-4
    assert seen.norm_error.max() <= 1e-5


def test_chunks_do_not_matter():
    metric = PullbackMetric(tanh_network())
    curves = rows(5)[:, None] * torch.linspace(0, 1, 17, dtype=torch.float64)[:, None]
    v = rows(5, seed=3)
    whole = parallel_transport(metric, curves, v)
    torch.testing.assert_close(parallel_transport(metric, curves, v, chunk_size=2), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [Polar, Magnus])
def test_every_halved_mesh_is_within_the_bound(kind, monkeypatch):
    """Not only the first: on the last of them a curve takes 256 times as much."""
    metric = PullbackMetric(tanh_network())
    curves = rows(6, size=1.0)[:, None] * torch.linspace(0, 1, 9, dtype=torch.float64)[:, None].sin()
    method, v, sizes = "auto" if kind is Polar else "tensor", rows(6, seed=3), []
    whole = full(metric, curves, v, method=method, tol=1e-12)
    plain = kind.turns

    def watched(self, curve, parts):
        sizes.append((len(curve.points), len(curve.points) * 8 * parts * self.numbers(curve.points[:, 0])))
        return plain(self, curve, parts)

    monkeypatch.setattr(kind, "turns", watched)
    monkeypatch.setattr(module, "CHUNK_NUMBERS", 2048)
    seen = full(metric, curves, v, method=method, tol=1e-12)
    assert max(numbers for curves, numbers in sizes if curves > 1) <= 2048
    assert torch.equal(seen.steps, whole.steps)
    torch.testing.assert_close(seen.vectors, whole.vectors, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["auto", "tensor"])
def test_no_curves_no_vectors(method):
    none = full(LATITUDES, circle(8).expand(1, -1, -1)[:0], torch.zeros(0, 2).double(), method=method)
    assert none.vectors.shape == (0, 9, 2)
    assert none.message == "all vectors converged"


def test_vectors_that_do_not_converge_are_logged(caplog):
    full(LATITUDES, circle(8), torch.ones(2).double(), tol=1e-20)
    assert not caplog.records
    parallel_transport(LATITUDES, circle(8), torch.ones(2).double(), tol=1e-20)
    assert "1 of 1 vectors not converged" in caplog.text


def test_a_flat_metric_moves_nothing():
    v = rows(2, seed=3)
    seen = full(EuclideanMetric(2), circle(8), v)
    torch.testing.assert_close(seen.vectors, v[:, None].expand(-1, 9, -1))
    zero = full(SPHERE, circle(8) / 9, torch.zeros(2, dtype=torch.float64))
    assert torch.equal(zero.vectors, torch.zeros(1, 9, 2, dtype=torch.float64))
    assert zero.norm_error.item() == 0


def test_a_hole_between_the_nodes_is_flagged():
    """Where halving meets a metric that is not finite, the last rotations that were known stand."""

    def tensor(z: Tensor) -> Tensor:
        hole = (z[:, 0] > 0.26) & (z[:, 0] < 0.29)
        return torch.where(hole, torch.nan, 1 + z[:, 1] ** 2)[:, None, None] * torch.eye(2).to(z)

    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    seen = full(from_tensor(tensor, 2), torch.stack([t, t * t], dim=1), torch.ones(2).double())
    assert not bool(seen.converged.any())
    assert torch.isfinite(seen.vectors).all()
    assert seen.angle_error.item() == math.inf
    assert "1 of 1 vectors not converged (angle_error inf" in seen.message


def test_a_pole_ladder_is_exact_in_symmetric_spaces(as_users_run):
    a, b, v = rows(3, size=0.3), rows(3, size=0.3, seed=2), rows(3, seed=3)
    path = geodesic(Disk(), a, b, starts="line", nodes=65)
    seen = full(Disk(), path, v, method="pole_ladder")
    assert bool(seen.converged.all())
    assert (seen.method, seen.t.shape, seen.vectors.shape) == ("pole_ladder", (9,), (3, 9, 2))
    torch.testing.assert_close(seen.vectors[:, -1], parallel_transport(Disk(), path, v), rtol=0, atol=1e-6)
    assert seen.norm_error.max() <= 1e-5


def test_a_pole_ladder_comes_near_on_other_metrics(as_users_run):
    metric = PullbackMetric(tanh_network())
    a, b, v = rows(2), rows(2, seed=2), rows(2, seed=3)
    path = geodesic(metric, a, b, starts="line")
    seen = full(metric, path, v, method="pole_ladder")
    assert bool(seen.converged.all())
    apart = seen.vectors[:, -1] - parallel_transport(metric, path, v)
    assert 1e-9 < (apart.norm(dim=1) / v.norm(dim=1)).max() <= 2 * seen.angle_error.max() <= 1e-2


BAD = [
    (lambda c, v: parallel_transport(SPHERE, c[:1], v), "path: expected at least two nodes a curve, got 1"),
    (
        lambda c, v: parallel_transport(SPHERE, c, v[:1]),
        "v: expected (1, 2) like the path's start, got (1, 1)",
    ),
    (lambda c, v: parallel_transport(SPHERE, c, v.float()), "v: expected torch.float64 like the path"),
    (lambda c, v: parallel_transport(SPHERE, c, v / 0), "v: expected finite numbers, got inf at row 0"),
    (lambda c, v: parallel_transport(SPHERE, c, v, tol=0), "tol: expected a finite number > 0"),
    (lambda c, v: parallel_transport(SPHERE, c, v, chunk_size=0), "chunk_size: expected a whole number >= 1"),
    (
        lambda c, v: parallel_transport(SPHERE, c, v, method="schild"),
        "'embedding', 'tensor', 'pole_ladder', got",
    ),
    (
        lambda c, v: parallel_transport(SPHERE, c, v, method="pole_ladder"),
        "expected a Geodesic, got a Tensor",
    ),
    (
        lambda c, v: parallel_transport(PoincareDisk(), c / 9, v, method="embedding"),
        "method: 'embedding' needs a metric with an embedding; use 'tensor'",
    ),
    (
        lambda c, v: parallel_transport(from_tensor(lambda z: torch.diag_embed(1.5 - z), 2), c, v),
        "tensor(z) is not positive definite at row 2",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message, as_users_run):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(circle(8), torch.ones(2, dtype=torch.float64))


def test_derivatives_of_the_quick_disk_are_right():
    z, exact = rows(4, size=0.3), from_tensor(PoincareDisk().tensor, 2)
    torch.testing.assert_close(Disk().derivative(z), exact.derivative(z))
    torch.testing.assert_close(Disk().second_derivative(z), exact.second_derivative(z))
