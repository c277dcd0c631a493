"""Starting curves: lines and graph paths."""

import pytest
import torch

from pullback.geometry import graphs as module
from pullback.geometry.reference import Sphere
from pullback.geometry.route import Extrinsic, Intrinsic, resample, respace, route_of
from pullback.geometry.starts import graph_paths, straight_lines
from pullback.metrics import EuclideanMetric, PullbackMetric, as_metric, from_tensor

FLAT = Extrinsic(lambda z: z)


def ends(m: int = 6, d: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.randn(2 * m, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return z[:m], z[m:]


def wall(z: torch.Tensor) -> torch.Tensor:
    """Embedding with a ridge along the second axis that ends at height 1."""
    height = 8 * torch.exp(-20 * z[:, :1] ** 2) * torch.sigmoid(20 * (1 - z[:, 1:]))
    return torch.cat([z, height], dim=1)


def test_lines_end_exactly_where_they_should(dtype):
    a, b = (z.to(dtype) for z in ends())
    line = straight_lines(a, b, 9)
    assert torch.equal(line[:, 0], a)
    assert torch.equal(line[:, -1], b)
    torch.testing.assert_close(line.diff(dim=1), ((b - a) / 8).unsqueeze(1).expand(-1, 8, -1))


def test_graph_paths_in_flat_space_are_nearly_straight():
    a, b = ends()
    for curves in graph_paths(FLAT, a, b, 33, None):
        assert torch.equal(curves[:, 0], a)
        assert torch.equal(curves[:, -1], b)
        lengths = curves.diff(dim=1).norm(dim=-1).sum(1)
        assert (lengths <= 1.06 * (b - a).norm(dim=-1) + 0.2).all()


def test_graph_paths_go_around_a_ridge():
    a = torch.tensor([[-1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    data = torch.tensor([[-1.0, -2.0], [1.0, 3.0]], dtype=torch.float64)
    for route in (Extrinsic(wall), Intrinsic(as_metric(from_tensor(PullbackMetric(wall).tensor, 2)))):
        for curves in graph_paths(route, a, b, 33, data):
            assert curves[0, :, 1].max() > 1
            assert route.chords(curves).sum() < 0.5 * route.chords(straight_lines(a, b, 33)).sum()


def test_paths_are_the_same_whichever_end_is_the_source():
    a, b = ends()
    many, one = a, b[:1].expand(6, -1)
    for forth, back in zip(
        graph_paths(Extrinsic(wall), many, one, 17, a),
        graph_paths(Extrinsic(wall), one, many, 17, a),
        strict=True,
    ):
        torch.testing.assert_close(forth, back.flip(1), rtol=1e-9, atol=1e-9)


def test_bands_of_the_grid_make_the_same_graph(monkeypatch):
    a, b = ends()
    whole = graph_paths(Extrinsic(wall), a, b, 17, None)
    monkeypatch.setattr(module, "PROBE_BUDGET", 3 * 4 * module.GRID * 3)
    for one, other in zip(whole, graph_paths(Extrinsic(wall), a, b, 17, None), strict=True):
        torch.testing.assert_close(one, other)


def test_what_the_graph_cannot_connect_gets_its_line():
    def torn(z: torch.Tensor) -> torch.Tensor:
        return torch.where((z[:, :1].abs() < 0.3), torch.nan, z)

    a = torch.tensor([[-1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    for curves in graph_paths(Extrinsic(torn), a, b, 9, None):
        torch.testing.assert_close(curves[:1], straight_lines(a, b, 9)[:1])
        assert torch.isfinite(curves).all()


def test_neighbour_graphs_reach_every_pair_and_thin_their_data(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    (curves,) = graph_paths(FLAT, data[:5], data[5:10], 17, data)
    assert torch.equal(curves[:, 0], data[:5])
    assert torch.equal(curves[:, -1], data[5:10])
    monkeypatch.setattr(module, "MOST_GRAPH_POINTS", 100)
    assert len(module._thinned(data)) == 100
    (fewer,) = graph_paths(FLAT, data[:5], data[5:10], 17, data)
    assert torch.isfinite(fewer).all()


@pytest.mark.parametrize("path", ["embedding", "tensor"])
def test_respacing_makes_equal_steps(path):
    metric = PullbackMetric(Sphere().embedding) if path == "embedding" else from_tensor(Sphere().tensor, 2)
    route = route_of(metric)
    t = torch.linspace(0, 1, 65, dtype=torch.float64)[:, None] ** 2
    curve = (t * torch.tensor([1.5, 0.4], dtype=torch.float64))[None]
    even = respace(route, curve)
    assert torch.equal(even[:, 0], curve[:, 0])
    assert torch.equal(even[:, -1], curve[:, -1])
    steps = route.chords(even)
    before = route.chords(curve)
    assert steps.max() / steps.min() < 1.05
    assert before.max() / before.min() > 20


def test_a_curve_without_length_keeps_its_own_steps():
    points = torch.linspace(0, 1, 5)[None, :, None]
    for lengths in (torch.zeros(1, 4), torch.full((1, 4), torch.nan)):
        torch.testing.assert_close(resample(points, lengths, 9)[0, :, 0], torch.linspace(0, 1, 9))


def test_single_precision_copies_leave_the_original_alone():
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh()).double()
    route = route_of(PullbackMetric(net))
    rough = route.cast(torch.float32)
    assert rough.probe(torch.zeros(1, 2)).dtype == torch.float32
    assert net[0].weight.dtype == torch.float64
    assert route.cast(torch.float64) is route
    plain = route_of(PullbackMetric(Sphere().embedding))
    assert plain.cast(torch.float32) is plain
    flat = route_of(EuclideanMetric(2))
    assert flat.cast(torch.float32).probe(torch.zeros(1, 2)).dtype == torch.float32
