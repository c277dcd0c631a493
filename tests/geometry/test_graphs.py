"""Graphs over the latent space: made once, used often, read for distances."""

import numpy as np
import pytest
import torch

from pullback.geometry import geodesic
from pullback.geometry.graphs import LatentGraph
from pullback.geometry.reference import PoincareDisk, Sphere, SwissRoll
from pullback.geometry.route import Extrinsic, route_of
from pullback.metrics import PullbackMetric, as_metric

FLAT = Extrinsic(lambda z: z)
SPHERE = PullbackMetric(Sphere().embedding)


def points(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_distances_in_flat_space(d):
    z = points(60, d)
    seen = LatentGraph.through(FLAT, z).distances(z, z[:7])
    expected = (z[:, None] - z[:7]).norm(dim=2)
    assert (seen >= expected - 1e-9).all()
    assert (seen <= 1.1 * expected + 1e-9).all()
    assert (seen[torch.arange(7), torch.arange(7)] == 0).all()


@pytest.mark.parametrize("manifold", [Sphere(), PoincareDisk(), SwissRoll()])
def test_distances_are_about_those_of_geodesics(manifold):
    z = points(40, 2)
    z = z / (1.2 * z.norm(dim=1, keepdim=True).max())
    if isinstance(manifold, SwissRoll):
        z = z + torch.tensor([3.0, 0.0], dtype=torch.float64)
    metric = as_metric(manifold) if isinstance(manifold, PoincareDisk) else PullbackMetric(manifold.embedding)
    i, j = torch.triu_indices(40, 40, 1)
    seen = LatentGraph.through(route_of(metric), z).distances(z, z)[i, j]
    ratio = seen / manifold.distance(z[i], z[j])
    assert ratio.min() > 0.99
    assert ratio.median() < 1.03
    assert ratio.max() < 1.2


def test_a_graph_through_two_clusters_leaves_them_apart_in_many_dimensions():
    z = torch.cat([points(200, 3), points(200, 3) + 50])
    graph = LatentGraph.over(FLAT, z)
    seen = graph.distances(z[:1], z[[1, 300]])
    assert torch.isfinite(seen[0, 0])
    assert torch.isinf(seen[0, 1])


def test_equal_points_are_one_node_and_precision_follows_the_input(dtype):
    z = torch.cat([points(5, 3), points(5, 3)]).to(dtype)
    graph = LatentGraph.over(FLAT, z, z)
    assert len(graph.nodes) == 5
    seen = graph.distances(z, z)
    assert seen.dtype == dtype
    assert (seen[torch.arange(5), torch.arange(5) + 5] == 0).all()


def test_a_prepared_graph_gives_the_geodesics_of_its_data():
    z = points(12, 2) / 2
    graph = LatentGraph.over(route_of(SPHERE), z)
    prepared = geodesic(SPHERE, z[:6], z[6:], starts=("line", graph))
    usual = geodesic(SPHERE, z[:6], z[6:])
    assert prepared.start_names == ("line", "graph")
    torch.testing.assert_close(prepared.length, usual.length, rtol=1e-9, atol=0)
    alone = geodesic(SPHERE, z[:6], z[6:], starts=graph)
    torch.testing.assert_close(alone.length, usual.length, rtol=1e-9, atol=0)


def test_a_graph_of_other_dimensions_is_refused(as_users_run):
    graph = LatentGraph.over(FLAT, points(9, 3))
    with pytest.raises(ValueError, match="starts: expected a graph in 2 dimensions, got 3"):
        geodesic(SPHERE, points(2, 2), points(2, 2), starts=graph)


def test_distances_block_by_block(monkeypatch):
    z = points(30, 2)
    graph = LatentGraph.through(FLAT, z)
    whole = graph.distances(z, z)
    monkeypatch.setattr("pullback.geometry.graphs.DISTANCE_BUDGET", 4 * len(graph.nodes))
    np.testing.assert_array_equal(graph.distances(z, z).numpy(), whole.numpy())


def test_the_grid_of_given_data_does_not_depend_on_the_points_among_them():
    """A pair alone and among others starts from one graph, and so comes to one curve."""
    route = route_of(SPHERE)
    data = torch.randn(80, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    alone, many = (LatentGraph.over(route, points, data) for points in (data[:2], data[:60]))
    np.testing.assert_array_equal(alone.nodes, many.nodes)
    for one, other in zip(alone.graphs, many.graphs, strict=True):
        np.testing.assert_allclose(one.data, other.data, rtol=1e-12)
