"""Metrics that are none somewhere: every function gives a defined result or names what is wrong."""

import math

import pytest
import torch
from torch import Tensor

from pullback.geometry import (
    certify,
    christoffel,
    curvature,
    curve_energy,
    curve_length,
    distance,
    distance_matrix,
    exponential_map,
    flatness,
    geodesic,
    logarithm_map,
    magnification,
    parallel_transport,
    volume,
)
from pullback.geometry.reference import PoincareDisk
from pullback.metrics import PullbackMetric, from_tensor

BOX = torch.tensor([[-0.5, 0.5], [-0.5, 0.5]], dtype=torch.float64)


def ends(m: int = 3) -> tuple[Tensor, Tensor]:
    z = 0.5 * torch.randn(2 * m, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return z[:m], z[m:]


def rank_one(z: Tensor) -> Tensor:
    return torch.cat([z[:, :1], z[:, :1].square(), z[:, :1].sin()], dim=1)


def constant(z: Tensor) -> Tensor:
    return torch.ones(len(z), 3, dtype=z.dtype)


def saturated(z: Tensor) -> Tensor:
    return torch.sigmoid(1e3 * torch.cat([z, z.flip(1)], dim=1) + 5e3)


BOTTLENECK = [
    torch.randn(*shape, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
    for k, shape in enumerate([(2, 1), (1, 16), (16, 30)])
]


def narrow(z: Tensor) -> Tensor:
    """A network through one hidden unit: of rank one, but for rounding."""
    for weight in BOTTLENECK:
        z = torch.tanh(z @ weight.to(z))
    return z


def nowhere(z: Tensor) -> Tensor:
    return torch.cat([z, z], dim=1) * math.nan


def overflowing(z: Tensor) -> Tensor:
    return torch.exp(1e4 * (1 + z.square()))


LINES = {"rank one": rank_one, "narrow": narrow}
NONE = LINES | {"constant": constant, "saturated": saturated}
NOT_FINITE = {"NaN": nowhere, "overflow": overflowing}
MESSAGE = dict.fromkeys(NONE, r"tensor\(z\) is not positive definite at row 0 \(smallest eigenvalue 0\)")
MESSAGE["narrow"] = r"tensor\(z\) is not positive definite at row 0 \(smallest eigenvalue (0|-?\S+e-1[678])\)"
MESSAGE |= dict.fromkeys(NOT_FINITE, r"tensor\(z\) is not finite at row 0; check the decoder")


@pytest.mark.parametrize("name", MESSAGE)
def test_what_needs_a_metric_names_the_point_where_there_is_none(name):
    metric, (a, b) = PullbackMetric((NONE | NOT_FINITE)[name]), ends()
    for call in (
        lambda: geodesic(metric, a, b),
        lambda: distance(metric, a.clone().requires_grad_(), b),
        lambda: distance_matrix(metric, a),
        lambda: flatness(metric, a),
        lambda: curvature(metric, a),
        lambda: christoffel(metric, a),
        lambda: metric.inverse(a),
        lambda: exponential_map(metric, a, b),
        lambda: logarithm_map(metric, a, b),
        lambda: parallel_transport(metric, torch.stack([a, b], dim=1), b),
        lambda: geodesic(from_tensor(metric.tensor, 2), a, b),
        lambda: magnification(from_tensor(metric.tensor, 2), a),
    ):
        with pytest.raises(ValueError, match=MESSAGE[name]):
            call()


@pytest.mark.parametrize("name", NONE)
def test_a_map_without_rank_magnifies_nothing_and_its_curves_have_the_length_of_their_image(name, caplog):
    metric, (a, b) = PullbackMetric(NONE[name]), ends()
    with caplog.at_level("WARNING", logger="pullback"):
        assert magnification(metric, a).tolist() == [-math.inf] * 3
    assert "rank below 2 at 3 points" in caplog.text
    for method in ("grid", "montecarlo"):
        seen = volume(metric, BOX, n=16, method=method, generator=torch.Generator().manual_seed(0))
        assert (seen.value, seen.error) == (0.0, 0.0)
    t = torch.linspace(0, 1, 33, dtype=torch.float64)[:, None]
    line = torch.lerp(a[:, None], b[:, None], t)
    length = curve_length(metric, line)
    if name in LINES:
        image = LINES[name](
            torch.lerp(a[:, None], b[:, None], torch.linspace(0, 1, 4001).double()[:, None])[0]
        )
        assert float(length[0]) == pytest.approx(float(image.diff(dim=0).norm(dim=1).sum()), rel=1e-6)
    else:
        assert length.tolist() == curve_energy(metric, line).tolist() == [0.0] * 3


@pytest.mark.parametrize("name", NOT_FINITE)
def test_a_map_that_is_not_finite_is_reported(name, caplog):
    metric, (a, b) = PullbackMetric(NOT_FINITE[name]), ends()
    with caplog.at_level("WARNING", logger="pullback"):
        assert torch.isnan(magnification(metric, a)).all()
    assert "not finite at 3 points, first at row 0" in caplog.text
    for method in ("grid", "montecarlo"):
        with pytest.raises(
            ValueError, match=r"metric: expected a finite tensor in the box, got none at z = \["
        ):
            volume(metric, BOX, n=16, method=method)
    assert not bool(torch.isfinite(curve_length(metric, torch.stack([a, b], dim=1))).any())
    line = torch.lerp(a[:, None], b[:, None], torch.linspace(0, 1, 9).double()[:, None])
    assert not bool(certify(metric, line).converged.any())


def test_coincident_ends_have_distance_zero_and_a_zero_gradient(dtype):
    """The distance has a kink there; zero is the smallest of its subgradients."""

    def bowl(z: Tensor) -> Tensor:
        return torch.cat([z, z.square()], dim=1)

    a = ends()[0].to(dtype).requires_grad_()
    b = a.detach().clone()
    b[1] += 0.3
    b.requires_grad_()
    for metric in (PullbackMetric(bowl), from_tensor(PullbackMetric(bowl).tensor, 2)):
        d = distance(metric, a, b)
        gradients = torch.autograd.grad(d.sum(), [a, b])
        assert d[[0, 2]].tolist() == [0.0, 0.0]
        assert float(d[1].detach()) > 0.4
        for gradient in gradients:
            assert gradient[[0, 2]].abs().max() == 0
            assert gradient[1].norm() > 0.5
        alone = geodesic(metric, a[0].detach(), a[0].detach())
        assert bool(alone.converged)
        assert bool((alone.points == a[0].detach()).all())


def test_ends_far_from_the_data_are_joined(dtype):
    """The decoder is nearly flat out there; the graph grows to reach the ends."""

    def tails(z: Tensor) -> Tensor:
        return torch.cat([torch.tanh(z), 0.1 * z, torch.exp(-z.square().sum(1, keepdim=True))], dim=1)

    metric, (a, b) = PullbackMetric(tails), (z.to(dtype) for z in ends())
    data = 0.3 * torch.randn(200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(
        dtype
    )
    far = b + torch.tensor([12.0, -7.0], dtype=dtype)
    path = geodesic(metric, a, far, data=data)
    assert bool(path.converged.all()), path.message
    line = torch.lerp(a[:, None], far[:, None], torch.linspace(0, 1, 257, dtype=dtype)[:, None])
    assert (path.length <= curve_length(metric, line) * (1 + 1e-4)).all()
    assert (path.length >= (tails(far) - tails(a)).norm(dim=1)).all()


def test_a_geodesic_goes_around_a_hole_in_the_domain():
    """Only the graph over the data leads around; without them the line is returned, without a certificate."""

    def ring(z: Tensor) -> Tensor:
        return torch.cat([torch.sqrt(z.square().sum(1, keepdim=True) - 0.25), z], dim=1)

    metric = PullbackMetric(ring)
    a, b = torch.tensor([[-1.0, 0.0]]).double(), torch.tensor([[1.0, 0.1]]).double()
    angle = torch.linspace(0, 2 * math.pi, 60, dtype=torch.float64)
    data = torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)
    path = geodesic(metric, a, b, data=data)
    assert bool(path.converged), path.message
    assert path.start_names[int(path.start)] == "graph"
    assert float(path.points.norm(dim=-1).min()) > 0.5
    assert float(path.length) < math.pi
    line = geodesic(metric, a, b)
    assert not bool(line.converged)
    assert torch.isnan(line.length).all()
    assert torch.isfinite(line.points).all()
    assert "left the domain of the metric: give a start that stays inside it" in line.message


def test_one_pair_outside_the_domain_does_not_stop_the_others():
    def half(z: Tensor) -> Tensor:
        gap = torch.where((z[:, :1] - 0.1).abs() < 0.05, math.nan, z[:, :1])
        return torch.cat([gap, z[:, 1:], z.square()], dim=1)

    a = torch.tensor([[-0.5, 0.0], [-0.5, 0.2]], dtype=torch.float64)
    b = torch.tensor([[0.5, 0.0], [-0.1, -0.3]], dtype=torch.float64)
    path = geodesic(PullbackMetric(half), a, b)
    assert path.converged.tolist() == [False, True]
    assert torch.isfinite(path.points).all()
    assert path.message.startswith("1 of 2 curves not converged: 1 left the domain")
    alone = geodesic(PullbackMetric(half), a[1:], b[1:])
    torch.testing.assert_close(path.length[1:], alone.length, rtol=1e-4, atol=0)


@pytest.mark.parametrize("power", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_fold_that_the_metric_does_not_see(power):
    """x -> x² or x³: the rank drops on a line between the ends. The result is near the truth or flagged."""

    def fold(z: Tensor) -> Tensor:
        return torch.stack([z[:, 0] ** power, z[:, 1]], dim=1)

    metric = PullbackMetric(fold)
    a = torch.tensor([[-0.8, 0.1], [-0.5, -0.3], [0.4, 0.2]], dtype=torch.float64)
    b = torch.tensor([[0.7, 0.5], [0.6, -0.2], [0.9, -0.3]], dtype=torch.float64)
    path = geodesic(metric, a, b)
    image = (fold(b) - fold(a)).norm(dim=1)
    through = image if power == 3 else torch.hypot(a[:, 0] ** 2 + b[:, 0] ** 2, b[:, 1] - a[:, 1])
    through = torch.where(a[:, 0] * b[:, 0] > 0, image, through)
    assert torch.isfinite(path.points).all()
    assert (path.length >= image * (1 - 1e-6)).all()
    assert bool(path.converged[2])
    right = (path.length / through - 1).abs() < 1e-2
    assert bool((right | ~path.converged).all())


def test_an_end_where_the_rank_drops_is_refused():
    fold = PullbackMetric(lambda z: torch.stack([z[:, 0] ** 3, z[:, 1]], dim=1))
    a = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"not positive definite at row 1 \(smallest eigenvalue 0\)"):
        geodesic(fold, a, a.flip(1) + 1)


@pytest.mark.slow
def test_the_edge_of_the_disk_is_never_crossed():
    disk = PoincareDisk()
    a = torch.tensor([[0.999, 0.0], [0.9999999, 0.0]], dtype=torch.float64)
    path = geodesic(disk, a, -a)
    truth = disk.distance(a, -a)
    assert (path.points.norm(dim=-1) <= 1).all()
    off = (path.length / truth - 1).abs()
    assert bool(((off < 1e-2) | ~path.converged).all())
    with pytest.raises(ValueError, match=r"not positive definite at row 2"):
        geodesic(from_tensor(lambda z: disk.tensor(z) * (z.norm(dim=1) < 1)[:, None, None], 2), a, 2 * a)


@pytest.mark.slow
def test_motion_that_leaves_the_domain_stops_at_its_edge():
    """g = diag(1 + 1/(4 (1/2 - x)), 1), the metric of (√(1/2 - x), x, y): the edge is at x = 1/2."""

    def tensor(z: Tensor) -> Tensor:
        first = torch.sqrt(0.5 - z[:, 0]) ** -2 / 4 + 1
        return torch.diag_embed(torch.stack([first, torch.ones_like(first)], dim=1))

    half = from_tensor(tensor, 2)
    z = torch.zeros(2, 2, dtype=torch.float64)
    v = torch.tensor([[3.0, 1.0], [-0.5, 0.3]], dtype=torch.float64)
    seen = exponential_map(half, z, v, full=True, max_steps=16)
    assert seen.converged.tolist() == [False, True]
    assert torch.isfinite(seen.point).all()
    assert torch.isfinite(seen.velocity).all()
    assert float(seen.point[0, 0]) <= 0.5
    assert seen.message.startswith("1 of 2 motions not converged: 1 ")
    torch.testing.assert_close(exponential_map(half, z[1:], v[1:]), seen.point[1:])


def test_transport_across_a_place_without_metric_names_it():
    t = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    across = torch.lerp(torch.tensor([[-1.0, 0.0]]).double(), torch.tensor([[1.0, 0.3]]).double(), t)
    v = torch.ones(1, 2, dtype=torch.float64)
    fold = PullbackMetric(lambda z: torch.stack([z[:, 0] ** 3, z[:, 1]], dim=1))
    with pytest.raises(ValueError, match="not positive definite at row 4"):
        parallel_transport(fold, across, v)
    half = PullbackMetric(lambda z: torch.cat([torch.sqrt(0.4 - z[:, :1]), z], dim=1))
    with pytest.raises(ValueError, match="not finite at row 6"):
        parallel_transport(half, across, v)


def test_maps_between_coincident_points():
    a, v = ends()
    bowl = PullbackMetric(lambda z: torch.cat([z, z.square()], dim=1))
    assert logarithm_map(bowl, a, a).abs().max() == 0
    assert torch.equal(exponential_map(bowl, a, torch.zeros_like(a)), a)
    torch.testing.assert_close(parallel_transport(bowl, geodesic(bowl, a, a), v), v, rtol=1e-13, atol=1e-13)
