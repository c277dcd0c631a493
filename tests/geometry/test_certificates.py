"""The certificate flags every path that was spoiled on purpose, and no other."""

import math
from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pullback.geometry import Geodesic, geodesic
from pullback.geometry.certificates import certify
from pullback.geometry.reference import PoincareDisk, Sphere
from pullback.metrics import EuclideanMetric, PullbackMetric, from_tensor


def net(scale: float = 1.5) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(a, b) for a, b in pairwise((2, 24, 24, 12))]
    layers[0].weight.data *= scale
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2]).double().requires_grad_(False)


METRICS = {
    "embedding": PullbackMetric(net()),
    "tensor": PoincareDisk(),
    "hidden embedding": from_tensor(PullbackMetric(net()).tensor, 2),
}


def pairs(m: int = 6) -> tuple[Tensor, Tensor]:
    z = 0.5 * torch.randn(2 * m, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z = z.clamp(-0.6, 0.6)
    return z[:m], z[m:]


@cache
def solved(name: str) -> Geodesic:
    return geodesic(METRICS[name], *pairs())


def times(nodes: int = 65) -> Tensor:
    return torch.linspace(0, 1, nodes, dtype=torch.float64)[:, None]


def one_node(path: Tensor) -> Tensor:
    path = path.clone()
    path[:, 31, 0] += 1e-3
    return path


def all_nodes(path: Tensor) -> Tensor:
    noise = torch.randn(path.shape, generator=torch.Generator().manual_seed(0), dtype=path.dtype)
    return path + 1e-4 * noise * torch.sin(math.pi * times(path.shape[1]))


def bulge(path: Tensor) -> Tensor:
    return path + 1e-3 * torch.sin(math.pi * times(path.shape[1]))


def other_speed(path: Tensor) -> Tensor:
    t = times(path.shape[1])[:, 0]
    at = (t + 0.05 * torch.sin(2 * math.pi * t)) * (path.shape[1] - 1)
    low = at.long().clamp(max=path.shape[1] - 2)
    return torch.lerp(path[:, low], path[:, low + 1], (at - low)[:, None])


def straight(path: Tensor) -> Tensor:
    return torch.lerp(path[:, :1], path[:, -1:], times(path.shape[1]))


def detour(path: Tensor) -> Tensor:
    path = path.clone()
    path[:, 20:45] = path[:, 20:21] + 0.5 * (path[:, 44:45] - path[:, 20:21])
    return path


def swapped(path: Tensor) -> Tensor:
    path = path.clone()
    path[:, [30, 34]] = path[:, [34, 30]]
    return path


SPOILINGS = [one_node, all_nodes, bulge, other_speed, straight, detour, swapped]


@pytest.mark.parametrize("name", METRICS)
def test_geodesics_pass_and_keep_what_was_measured_of_them(name):
    path = solved(name)
    assert bool(path.converged.all())
    for curves in (path, path.points, path.points.flip(1)):
        seen = certify(METRICS[name], curves)
        assert bool(seen.converged.all()), seen.message
        assert seen.message == "all curves are geodesics"
        torch.testing.assert_close(seen.length, path.length, rtol=1e-9, atol=0)
        torch.testing.assert_close(seen.energy, path.energy, rtol=1e-9, atol=0)
        torch.testing.assert_close(seen.gap, path.gap, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(seen.defect, path.defect, rtol=1e-6, atol=1e-9, equal_nan=True)
        assert len(seen) == 6


@pytest.mark.parametrize("spoil", SPOILINGS)
@pytest.mark.parametrize("name", METRICS)
def test_every_spoiled_path_is_flagged(name, spoil):
    path = solved(name)
    seen = certify(METRICS[name], spoil(path.points))
    assert not bool(seen.converged.any())
    assert seen.message.startswith("6 of 6 curves are no geodesics: 6 by residual")


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 63), st.floats(0, 2 * math.pi), st.floats(-4.5, -0.5))
def test_moving_any_node_anywhere_is_flagged(node, angle, exponent):
    metric, points = METRICS["embedding"], solved("embedding").points[:1].clone()
    points[0, node] += 10**exponent * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    assert not bool(certify(metric, points).converged.any())


def test_the_geodesics_of_another_metric_are_flagged():
    path = solved("embedding")
    assert not bool(certify(METRICS["tensor"], path).converged.any())
    assert not bool(certify(PullbackMetric(net(2.0)), path).converged.any())


@pytest.mark.parametrize("nodes", [33, 34])
@pytest.mark.parametrize("tensor", [False, True])
def test_a_jump_over_a_fold_is_flagged_by_the_gap(tensor, nodes):
    """A ridge that is narrower than the steps of the mesh. Whether a node stands on it or none, the discrete
    energy of one path or the other does not see it, and no force is felt.
    """

    def ridge(z: Tensor) -> Tensor:
        return torch.cat([z, 0.5 * torch.exp(-((z[:, :1] / 0.006) ** 2))], dim=1)

    metric = PullbackMetric(ridge)
    used = from_tensor(metric.tensor, 2) if tensor else metric
    a, b = torch.tensor([[-1.0, 0.0]]).double(), torch.tensor([[1.0, 0.0]]).double()
    line = torch.lerp(a[:, None], b[:, None], times(nodes))
    seen = certify(used, line)
    assert not bool(seen.converged)
    assert float(seen.gap) > 0.01
    if tensor == (nodes == 33):
        assert float(seen.residual) <= 1e-6
        assert seen.message.startswith("1 of 1 curves are no geodesics: 1 by gap")
    coarse = geodesic(used, a, b, starts=line, nodes=33, max_nodes=33)
    assert not bool(coarse.converged.any())


def test_too_few_iterations_and_too_coarse_a_mesh_are_flagged():
    a, b = pairs()
    metric = PullbackMetric(net(4.0))
    hasty = geodesic(metric, a, b, starts="line", max_iter=1, max_nodes=65)
    assert not bool(hasty.converged.all())
    seen = certify(metric, hasty)
    assert torch.equal(seen.converged, hasty.converged)
    coarse = geodesic(metric, a, b, nodes=9, max_nodes=9)
    truth = geodesic(metric, a, b, nodes=129)
    off = (coarse.length / truth.length - 1).abs() > 0.01
    assert not bool((off & certify(metric, coarse).converged).any())
    thinned = certify(metric, truth.points[:, ::16])
    assert not bool(thinned.converged.any())


def test_single_precision_and_meshes_of_several_sizes(dtype):
    a, b = (z.to(dtype) for z in pairs())
    metric = PullbackMetric(net(6.0).to(dtype))
    path = geodesic(metric, a, b, nodes=9, gap_tol=2e-3)
    assert len(path.mesh.unique()) > 1
    seen = certify(metric, path, gap_tol=2e-3)
    assert torch.equal(seen.converged, path.converged)
    assert seen.length.dtype == dtype
    torch.testing.assert_close(seen.length, path.length, rtol=1e-5, atol=0)


def test_resting_curves_pass_and_those_outside_the_domain_do_not():
    a, _ = pairs(2)
    rest = certify(METRICS["embedding"], a[:, None].repeat(1, 9, 1))
    assert rest.converged.tolist() == [True, True]
    assert rest.length.tolist() == rest.residual.tolist() == [0.0, 0.0]
    equal = geodesic(METRICS["embedding"], a, a)
    assert bool(certify(METRICS["embedding"], equal).converged.all())
    for metric in (
        PullbackMetric(lambda z: torch.cat([torch.sqrt(z[:, :1]), z], dim=1)),
        from_tensor(lambda z: z[:, 0, None, None].sqrt() * torch.eye(2, dtype=z.dtype), 2),
    ):
        ends = torch.tensor([[[0.5, 0.0]], [[0.5, 1.0]]], dtype=torch.float64)
        line = torch.lerp(ends[:1], ends[1:], times(17))
        dip = line - 2 * torch.sin(math.pi * times(17)) * torch.tensor([1.0, 0.0]).double()
        lost = certify(metric, dip)
        assert not bool(lost.converged.any())
        assert lost.residual.tolist() == [math.inf]


def test_what_is_no_curve_is_refused(as_users_run):
    flat = EuclideanMetric(2)
    line = torch.zeros(1, 9, 2)
    with pytest.raises(ValueError, match="path: expected at least 5 nodes a curve, got 4"):
        certify(flat, line[:, :4])
    with pytest.raises(ValueError, match="path: expected curves in 3 dimensions"):
        certify(EuclideanMetric(3), line)
    with pytest.raises(ValueError, match="path: expected curves in 3 dimensions"):
        certify(EuclideanMetric(3), geodesic(flat, line[0, :2], line[0, :2] + 1))
    with pytest.raises(TypeError, match=r"path: expected a torch\.Tensor"):
        certify(flat, [[0.0, 0.0]])
    with pytest.raises(ValueError, match="path: expected finite"):
        certify(flat, line * math.nan)
    with pytest.raises(ValueError, match="tol: expected"):
        certify(flat, line, tol=0.0)
    with pytest.raises(ValueError, match="gap_tol: expected"):
        certify(flat, line, gap_tol=-1.0)
    assert len(certify(PullbackMetric(Sphere().embedding), line[:0])) == 0
