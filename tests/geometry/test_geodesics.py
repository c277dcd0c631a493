"""Geodesics against closed forms, their certificates, and what they refuse."""

import math

import pytest
import torch
from torch import nn

from pullback import ambient as A
from pullback.geometry import curve_length, geodesic
from pullback.geometry.reference import (
    Cylinder,
    Ellipsoid,
    FisherNormal,
    PoincareDisk,
    Sphere,
    SurfaceOfRevolution,
    SwissRoll,
    Torus,
)
from pullback.metrics import EuclideanMetric, PullbackMetric, from_tensor

SPHERE = PullbackMetric(Sphere().embedding)


def sphere_pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """20 pairs at great-circle distances from 0.28 to 2.8, away from the pole of the chart."""
    generator = torch.Generator().manual_seed(0)
    a = 0.4 * torch.randn(20, 2, generator=generator, dtype=torch.float64)
    x = Sphere().embedding(a)
    down = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    tangent = (
        down - (x @ down)[:, None] * x + 0.3 * torch.randn(20, 3, generator=generator, dtype=torch.float64)
    )
    tangent = tangent - (tangent * x).sum(-1, keepdim=True) * x
    tangent = tangent / tangent.norm(dim=-1, keepdim=True)
    angle = torch.linspace(0.28, 2.8, 20, dtype=torch.float64)[:, None]
    return a, Sphere().chart(torch.cos(angle) * x + torch.sin(angle) * tangent)


def network(dtype: torch.dtype = torch.float64, d: int = 2, p: int = 20, scale: float = 2.0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(d, 16), nn.Tanh(), nn.Linear(16, p))
        net[0].weight.data *= scale
    return net.to(dtype).requires_grad_(False)


def network_pairs(
    dtype: torch.dtype = torch.float64, m: int = 12, d: int = 2
) -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.randn(2 * m, d, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)
    return z[:m], z[m:]


def test_sphere_distances_to_1e_8_and_nodes_on_the_great_circle():
    """Acceptance 6."""
    a, b = sphere_pairs()
    path = geodesic(SPHERE, a, b)
    assert bool(path.converged.all())
    truth = Sphere().distance(a, b)
    assert truth.min() == pytest.approx(0.28)
    assert truth.max() == pytest.approx(2.8)
    assert ((path.length - truth) / truth).abs().max() <= 1e-8
    normal = torch.linalg.cross(Sphere().embedding(a), Sphere().embedding(b))
    normal = normal / normal.norm(dim=-1, keepdim=True)
    x = Sphere().embedding(path.points.flatten(0, 1)).unflatten(0, (20, 65))
    assert torch.einsum("mnk,mk->mn", x, normal).abs().max() <= 1e-8


def test_closed_forms_of_other_surfaces_to_1e_6():
    """Meridians of an ellipsoid and of a catenoid by arc length, all pairs on a cylinder."""
    up = torch.tensor([[-0.9, 0.0], [0.2, 0.0], [-1.2, math.pi / 2]], dtype=torch.float64)
    down = torch.tensor([[0.7, 0.0], [1.1, 0.0], [0.8, math.pi / 2]], dtype=torch.float64)
    meridians = geodesic(PullbackMetric(Ellipsoid().embedding), up, down)
    round_one = Ellipsoid().meridian_length(up[:, 0], down[:, 0])
    other = Ellipsoid().meridian_length(up[:, 0], down[:, 0], longitude=math.pi / 2)
    cylinder = geodesic(PullbackMetric(Cylinder(2.0).embedding), up, down)
    catenoid = SurfaceOfRevolution(lambda u: torch.sqrt(1 + u * u), lambda u: torch.asinh(u))
    profile = geodesic(PullbackMetric(catenoid.embedding), up, down)
    for path, truth in (
        (meridians, torch.where(up[:, 1] > 0, other, round_one)),
        (cylinder, Cylinder(2.0).distance(up, down)),
        (profile, (down - up)[:, 0]),
    ):
        assert bool(path.converged.all())
        assert ((path.length - truth) / truth).abs().max() <= 1e-6


def test_torus_lengths_of_the_table():
    """Acceptance 6: lengths from the straight chart line, 1e-7 relative."""
    start = torch.tensor([[0.0, 0.0], [0.3, 2.5], [1.0, -1.0]], dtype=torch.float64)
    end = torch.tensor([[2.0, 1.5], [1.9, -1.0], [2.5, 2.0]], dtype=torch.float64)
    path = geodesic(PullbackMetric(Torus().embedding), start, end, starts="line")
    expected = torch.tensor([4.40452786, 4.08031128, 3.96689399], dtype=torch.float64)
    assert ((path.length - expected) / expected).abs().max() <= 1e-7
    assert path.start_names == ("line",)


@pytest.mark.parametrize("manifold", [PoincareDisk(), FisherNormal()])
def test_tensor_path_distances_to_1e_8(manifold):
    """Acceptance 6."""
    generator = torch.Generator().manual_seed(0)
    a, b = (0.4 * torch.randn(20, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    a, b = a.clamp(-0.6, 0.6), b.clamp(-0.6, 0.6)
    if isinstance(manifold, FisherNormal):
        a, b = (torch.stack([z[:, 0], z[:, 1].exp()], dim=1) for z in (a, b))
    path = geodesic(manifold, a, b)
    assert bool(path.converged.all())
    truth = manifold.distance(a, b)
    assert ((path.length - truth) / truth).abs().max() <= 1e-8
    assert torch.isnan(path.defect).all()


def test_swiss_roll_is_unrolled():
    generator = torch.Generator().manual_seed(0)
    a, b = (2 + 4 * torch.rand(10, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    path = geodesic(PullbackMetric(SwissRoll().embedding), a, b)
    truth = SwissRoll().distance(a, b)
    assert ((path.length - truth) / truth).abs().max() <= 1e-7


@pytest.mark.parametrize("kind", ["sphere", "network"])
def test_both_paths_find_the_same_distances(kind):
    """Acceptance 7: to 1e-6."""
    if kind == "sphere":
        embedded, tensor = SPHERE, from_tensor(Sphere().tensor, 2)
        a, b = (z[:8] for z in sphere_pairs())
    else:
        embedded = PullbackMetric(network())
        tensor = from_tensor(embedded.tensor, 2)
        a, b = (z[:4] for z in network_pairs())
    along, across = geodesic(embedded, a, b, starts="line"), geodesic(tensor, a, b, starts="line")
    assert bool(along.converged.all())
    assert bool(across.converged.all())
    assert ((along.length - across.length) / along.length).abs().max() <= 1e-6


@pytest.mark.parametrize(
    "ambient",
    [
        A.LowRank(torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).double()),
        A.Poisson(),
        A.Bernoulli(),
    ],
)
def test_every_ambient_makes_certified_geodesics_no_longer_than_the_line(ambient):
    metric = PullbackMetric(network(scale=1.0), ambient)
    a, b = network_pairs()
    path = geodesic(metric, a, b)
    t = torch.linspace(0, 1, 65, dtype=torch.float64)[:, None]
    line = torch.lerp(a[:, None], b[:, None], t)
    assert bool(path.converged.all())
    assert (path.length <= curve_length(metric, line) * (1 + 1e-9)).all()
    torch.testing.assert_close(path.length, curve_length(metric, path.points), rtol=1e-5, atol=0)


def test_learned_gaussian_takes_the_tensor_path():
    metric = PullbackMetric(network(p=6, scale=0.5), A.LearnedGaussian())
    a, b = network_pairs(m=2)
    path = geodesic(metric, a, b, nodes=17, starts="line")
    assert bool(path.converged.all())
    assert torch.isnan(path.defect).all()


def test_the_fields_of_a_geodesic_belong_together():
    a, b = sphere_pairs()
    path = geodesic(SPHERE, a, b)
    assert torch.equal(path.points[:, 0], a)
    assert torch.equal(path.points[:, -1], b)
    torch.testing.assert_close(path.energy, path.length**2, rtol=1e-6, atol=0)
    assert (path.energy >= path.length**2 * (1 - 1e-12)).all()
    assert path.message == "all curves converged"
    assert set(path.start.tolist()) <= {0, 1}
    assert (path.iterations > 0).all()
    assert (path.residual <= 1e-6).all()
    assert (path.gap.abs() <= 1e-2).all()
    assert (path.defect < 0.02).all()
    assert len(path) == 20
    assert [len(curve) for curve in path.finest] == path.mesh.tolist()
    t = torch.linspace(0, 1, 65, dtype=torch.float64)
    torch.testing.assert_close(path.at(t), path.points, rtol=1e-12, atol=1e-12)
    steps = Sphere().embedding(path.points.flatten(0, 1)).unflatten(0, (20, 65)).diff(dim=1).norm(dim=-1)
    assert (steps / steps.mean(1, keepdim=True) - 1).abs().max() < 1e-5


def test_velocities_at_the_ends_are_the_logarithms_to_second_order():
    a, b = sphere_pairs()
    errors = []
    for nodes in (33, 65):
        path = geodesic(SPHERE, a, b, nodes=nodes, max_nodes=nodes)
        truth = Sphere().logarithm(a, b)
        errors.append(((path.velocity_start - truth).norm(dim=-1) / truth.norm(dim=-1)).max().item())
        back = Sphere().logarithm(b, a)
        assert ((path.velocity_end + back).norm(dim=-1) / back.norm(dim=-1)).max() < 5e-3
        spline = path.velocity(0.0)[:, 0]
        torch.testing.assert_close(spline, truth, rtol=2e-2, atol=1e-3)
    assert errors[1] < 5e-4
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_tensor_path_momenta_give_the_logarithm():
    a, b = (z[:6] for z in sphere_pairs())
    path = geodesic(from_tensor(Sphere().tensor, 2), a, b, starts="line")
    torch.testing.assert_close(path.velocity_start, Sphere().logarithm(a, b), rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(path.velocity_end, -Sphere().logarithm(b, a), rtol=2e-3, atol=1e-4)


def test_equal_points_are_joined_by_nothing():
    a, b = sphere_pairs()
    b = b.clone()
    b[3] = a[3]
    path = geodesic(SPHERE, a, b)
    assert path.length[3] == 0
    assert bool(path.converged.all())
    assert path.velocity_start[3].abs().max() == 0
    assert (path.points[3] == a[3]).all()
    alone = geodesic(SPHERE, a[:1], a[:1])
    assert alone.length.tolist() == [0.0]
    assert alone.message == "all curves converged"


def test_near_points_keep_their_relative_accuracy():
    a = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    for step in (1e-3, 1e-6, 1e-9):
        b = a + torch.tensor([[step, 0.0]], dtype=torch.float64)
        path = geodesic(PullbackMetric(network()), a, b)
        metric = PullbackMetric(network()).tensor((a + b) / 2)
        assert path.length.item() == pytest.approx(step * metric[0, 0, 0].sqrt().item(), rel=1e-5)


def test_single_points_are_broadcast():
    a, b = sphere_pairs()
    many = geodesic(SPHERE, a[0], b)
    assert many.points.shape == (20, 65, 2)
    one = geodesic(SPHERE, a[0], b[5])
    assert one.length.item() == pytest.approx(many.length[5].item(), rel=1e-9)


def test_a_path_that_was_stopped_early_is_flagged():
    a, b = network_pairs()
    metric = PullbackMetric(network(scale=4.0))
    path = geodesic(metric, a, b, starts="line", max_iter=1, max_nodes=65)
    assert not bool(path.converged.all())
    assert (path.residual[~path.converged] > 1e-6).all()
    assert "by residual" in path.message
    assert "raise max_iter (1)" in path.message
    assert torch.isfinite(path.points).all()


def test_a_mesh_that_is_too_coarse_is_flagged_and_then_doubled():
    a, b = network_pairs()
    metric = PullbackMetric(network(scale=4.0))
    coarse = geodesic(metric, a, b, nodes=9, max_nodes=9)
    assert not bool(coarse.converged.all())
    assert "raise max_nodes (9)" in coarse.message
    fine = geodesic(metric, a, b, nodes=9, max_nodes=257)
    assert bool(fine.converged.all())
    assert fine.points.shape == (12, 9, 2)
    assert fine.mesh.max() > 9
    truth = geodesic(metric, a, b, nodes=129)
    assert (fine.length / truth.length - 1).abs().max() < 0.03


def test_leaving_the_domain_is_data_not_an_error():
    def tensor(z: torch.Tensor) -> torch.Tensor:
        inside = z[:, 1] > 0
        scale = torch.where(inside, 1 / z[:, 1].clamp_min(1e-3) ** 2, torch.nan)
        return scale[:, None, None] * torch.eye(2, dtype=z.dtype)

    a = torch.tensor([[-1.0, 0.5]], dtype=torch.float64)
    b = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    t = torch.linspace(0, 1, 33, dtype=torch.float64)[:, None]
    dip = torch.lerp(a, b, t) - 2 * torch.sin(math.pi * t) * torch.tensor([0.0, 1.0], dtype=torch.float64)
    path = geodesic(from_tensor(tensor, 2), a, b, starts=dip[None])
    assert not bool(path.converged.any())
    assert "left the domain" in path.message
    assert torch.isfinite(path.points).all()
    good = geodesic(from_tensor(tensor, 2), a, b, starts=["line", dip[None]])
    assert bool(good.converged.all())
    assert good.start_names == ("line", "given")
    assert good.length.item() == pytest.approx(2 * math.asinh(2), rel=1e-6)


def test_a_given_start_leads_to_the_longer_geodesic():
    torus = PullbackMetric(Torus().embedding)
    a = torch.tensor([[0.0, math.pi]], dtype=torch.float64)
    b = torch.tensor([[1.5, math.pi]], dtype=torch.float64)
    t = torch.linspace(0, 1, 41, dtype=torch.float64)[:, None]
    around = torch.lerp(a, b, t) + torch.sin(math.pi * t) * torch.tensor([0.0, -2.5], dtype=torch.float64)
    short = geodesic(torus, a, b, starts="line")
    other = geodesic(torus, a, b, starts=around[None])
    assert bool(other.converged.all())
    assert short.length.item() == pytest.approx(1.3 * 1.5, rel=1e-6)
    assert other.length.item() > short.length.item() - 1e-9


@pytest.mark.parametrize("d", [1, 3, 8])
def test_other_dimensions(d):
    metric = PullbackMetric(network(d=d, scale=0.7))
    a, b = network_pairs(m=6, d=d)
    path = geodesic(metric, a, b)
    assert bool(path.converged.all())
    assert path.start_names == ("line",)
    if d == 1:
        t = torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None]
        line = torch.lerp(a[:, None], b[:, None], t)
        torch.testing.assert_close(path.length, curve_length(metric, line[:, ::4]), rtol=1e-6, atol=0)


def test_neighbour_graph_in_three_dimensions():
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    metric = PullbackMetric(network(d=3, scale=1.5))
    path = geodesic(metric, data[:6], data[6:12], starts=("line", "graph"), data=data)
    line = geodesic(metric, data[:6], data[6:12], starts="line")
    assert bool(path.converged.all())
    assert path.start_names == ("line", "graph")
    assert (path.length <= line.length * (1 + 1e-6)).all()


def test_float32_is_certified_too_and_close_to_float64():
    a, b = network_pairs()
    exact = geodesic(PullbackMetric(network(scale=4.0)), a, b)
    path = geodesic(PullbackMetric(network(torch.float32, scale=4.0)), a.float(), b.float())
    for name in ("points", "length", "energy", "residual", "gap", "velocity_start"):
        assert getattr(path, name).dtype == torch.float32
    assert bool(path.converged.all())
    assert (path.length.double() / exact.length - 1).abs().max() < 1e-4


@pytest.mark.parametrize("chunk_size", [1, 5])
def test_chunks_and_company_do_not_matter(chunk_size):
    """Acceptance 18: 1e-9, with the same data."""
    a, b = network_pairs()
    metric = PullbackMetric(network(scale=3.0))
    data = torch.cat([a, b])
    whole = geodesic(metric, a, b, data=data)
    parts = geodesic(metric, a, b, data=data, chunk_size=chunk_size)
    alone = geodesic(metric, a[4:5], b[4:5], data=data)
    torch.testing.assert_close(parts.length, whole.length, rtol=1e-9, atol=0)
    torch.testing.assert_close(alone.length, whole.length[4:5], rtol=1e-9, atol=0)
    assert torch.equal(parts.start, whole.start)


def test_scaling_the_metric_scales_lengths_and_nothing_else():
    a, b = network_pairs()
    plain = geodesic(PullbackMetric(network()), a, b)
    scaled = geodesic(PullbackMetric(network(), A.Gaussian(0.01)), a, b)
    torch.testing.assert_close(scaled.length, 100 * plain.length, rtol=1e-9, atol=0)
    torch.testing.assert_close(scaled.points, plain.points, rtol=1e-6, atol=1e-6)


def test_no_graph_is_recorded_and_no_global_state_changes():
    f = network().requires_grad_(True)
    a, b = network_pairs(m=2)
    state = torch.get_rng_state()
    path = geodesic(PullbackMetric(f), a.requires_grad_(), b)
    assert not path.length.requires_grad
    assert torch.equal(state, torch.get_rng_state())
    assert torch.is_grad_enabled()


BAD = [
    (lambda a: geodesic(SPHERE, a, a[:, :1]), r"end: expected \(5, 2\) like start, got \(5, 1\)"),
    (lambda a: geodesic(EuclideanMetric(3), a, a), r"start: expected \(n, 3\), got \(5, 2\)"),
    (lambda a: geodesic(SPHERE, a, a.float()), "end: expected torch.float64 like start, got torch.float32"),
    (lambda a: geodesic(SPHERE, a, a / 0), "end: expected finite numbers, got .* at row 0"),
    (lambda a: geodesic(SPHERE, a, a, nodes=64), "nodes: expected an odd number >= 5, got 64"),
    (lambda a: geodesic(SPHERE, a, a, nodes=3), "nodes: expected a whole number >= 5, got 3"),
    (lambda a: geodesic(SPHERE, a, a, max_nodes=33), "max_nodes: expected a whole number >= 65, got 33"),
    (lambda a: geodesic(SPHERE, a, a, gap_tol=0), "gap_tol: expected a finite number > 0"),
    (lambda a: geodesic(SPHERE, a, a, tol=-1.0), "tol: expected a finite number > 0"),
    (
        lambda a: geodesic(SPHERE, a, a, starts="grid"),
        "starts: expected 'line', 'graph' or curves .* got 'grid'",
    ),
    (lambda a: geodesic(SPHERE, a, a, starts=()), "starts: expected at least one"),
    (lambda a: geodesic(SPHERE, a, a, starts=a[:2, None]), r"starts: expected curves \(5, N >= 3, 2\)"),
    (lambda a: geodesic(SPHERE, a, a, chunk_size=0), "chunk_size: expected a whole number >= 1"),
    (lambda a: geodesic(SPHERE, a, a, data=a[:, :1]), r"data: expected \(n, 2\), got \(5, 1\)"),
    (
        lambda a: geodesic(EuclideanMetric(4), a.repeat(1, 2), a.repeat(1, 2), starts="graph"),
        r"graph start in 4 dimensions needs data=\(n, 4\)",
    ),
    (
        lambda a: geodesic(from_tensor(lambda z: -torch.eye(2).to(z).expand(len(z), 2, 2), 2), a, a),
        r"not positive definite at row 0 \(smallest eigenvalue -1\)",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message, as_users_run):
    a = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        call(a)


def test_what_is_no_metric_or_no_tensor_is_a_type_error(as_users_run):
    a = torch.zeros(2, 2)
    with pytest.raises(TypeError, match="got Linear; wrap a decoder in PullbackMetric"):
        geodesic(nn.Linear(2, 3), a, a)
    with pytest.raises(TypeError, match=r"start: expected a torch\.Tensor, got list"):
        geodesic(EuclideanMetric(2), [[0.0, 0.0]], a)


def test_parameters_outside_the_curve_are_refused(as_users_run):
    a, b = sphere_pairs()
    path = geodesic(SPHERE, a[:2], b[:2], starts="line")
    with pytest.raises(ValueError, match=r"t: expected parameters in \[0, 1\]"):
        path.at(1.5)
    with pytest.raises(ValueError, match=r"t: expected \(T,\) or \(2, T\), got \(3, 4\)"):
        path.at(torch.zeros(3, 4))
    assert path.at(torch.tensor([[0.0, 0.5], [0.2, 1.0]])).shape == (2, 2, 2)
