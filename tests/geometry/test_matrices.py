"""Distance matrices: symmetric, each pair once, bounded, interruptible; and their approximation by graphs."""

import logging
from dataclasses import replace

import pytest
import torch

from g1 import digits_decoder
from pullback.geometry import DistanceMatrix, distance, distance_matrix, geodesic, nearest_neighbours
from pullback.geometry import matrices as module
from pullback.geometry import pairs as pairs_module
from pullback.geometry.matrices import ApproximationWarning, finite_squares, graph_distances
from pullback.geometry.pairs import pair_chunks
from pullback.geometry.reference import PoincareDisk, Sphere
from pullback.metrics import EuclideanMetric, PullbackMetric, from_tensor
from surfaces import torn

SPHERE = PullbackMetric(Sphere().embedding)


def points(n: int = 9, d: int = 2) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2


@pytest.mark.parametrize("manifold", [Sphere(), PoincareDisk()])
def test_matrix_of_closed_forms(manifold):
    z = 0.6 * points()
    metric = SPHERE if isinstance(manifold, Sphere) else manifold
    found = distance_matrix(metric, z, full=True)
    i, j = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    expected = manifold.distance(z[i.flatten()], z[j.flatten()]).reshape(9, 9).fill_diagonal_(0)
    torch.testing.assert_close(found.values, expected, rtol=1e-7, atol=1e-9)
    assert torch.equal(found.values, found.values.mT)
    assert (found.values.diagonal() == 0).all()
    assert bool(found.converged.all())
    assert not bool(found.missing.any())
    assert found.message == "all pairs converged"
    assert found.gap.diagonal().abs().max() == 0


def test_rectangular_matrix_is_that_of_distance(dtype):
    z, other = points().to(dtype), points(4).to(dtype) + 0.1
    seen = distance_matrix(SPHERE, z, other)
    assert seen.shape == (9, 4)
    assert seen.dtype == dtype
    for k in range(4):
        tolerance = 1e-9 if dtype == torch.float64 else 1e-4
        with torch.no_grad():
            torch.testing.assert_close(
                seen[:, k], distance(SPHERE, z, other[k]), rtol=tolerance, atol=tolerance
            )


@pytest.mark.parametrize("d", [1, 3])
def test_other_dimensions(d):
    z = points(6, d)
    torch.testing.assert_close(distance_matrix(EuclideanMetric(d), z), torch.cdist(z, z))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7])
def test_every_pair_comes_once(n):
    seen = [torch.stack(pair, dim=1) for pair in pair_chunks(n, None, 4, torch.device("cpu"))]
    assert all(len(part) <= 4 for part in seen)
    listed = torch.cat(seen).tolist() if seen else []
    assert listed == [[i, j] for i in range(n) for j in range(i + 1, n)]
    every = [torch.stack(pair, dim=1) for pair in pair_chunks(n, 2, 4, torch.device("cpu"))]
    assert (torch.cat(every).tolist() if every else []) == [[i, j] for i in range(n) for j in range(2)]


def test_few_points():
    assert distance_matrix(SPHERE, points(0)).shape == (0, 0)
    assert torch.equal(distance_matrix(SPHERE, points(1)), torch.zeros(1, 1, dtype=torch.float64))
    twice = points(1).repeat(2, 1)
    assert torch.equal(distance_matrix(SPHERE, twice), torch.zeros(2, 2, dtype=torch.float64))


def test_chunks_and_progress_change_no_distance(caplog):
    z, seen = points(), []
    whole = distance_matrix(SPHERE, z)
    with caplog.at_level(logging.INFO, logger="pullback.geometry.pairs"):
        parts = distance_matrix(
            SPHERE, z, chunk_size=5, progress=lambda done, total: seen.append((done, total))
        )
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=0)
    assert seen == [(min(5 * k, 36), 36) for k in range(1, 9)]
    assert "36 of 36 done" in caplog.text


def test_one_graph_serves_all_chunks(monkeypatch):
    calls = []

    def counted(*arguments, **options):
        calls.append(1)
        return graph(*arguments, **options)

    graph = pairs_module.latent_graph
    monkeypatch.setattr(pairs_module, "latent_graph", counted)
    distance_matrix(SPHERE, points(), chunk_size=5)
    assert len(calls) == 1


def test_an_interruption_keeps_what_is_done_and_goes_on(monkeypatch):
    z = points()

    def stop(done: int, total: int) -> None:
        if done >= 15:
            raise KeyboardInterrupt

    part = distance_matrix(SPHERE, z, chunk_size=5, full=True, progress=stop)
    assert int(part.missing.sum()) == 2 * (36 - 15)
    assert not bool((part.converged & part.missing).any())
    assert part.message.startswith("interrupted, 42 of 81 entries missing")
    solved = []

    def counted(metric, start, end, **options):
        solved.append(len(start))
        return geodesic(metric, start, end, **options)

    monkeypatch.setattr(pairs_module, "geodesic", counted)
    rest = distance_matrix(SPHERE, z, full=True, known=part)
    assert sum(solved) == 36 - 15
    torch.testing.assert_close(rest.values, distance_matrix(SPHERE, z), rtol=1e-9, atol=0)
    assert torch.equal(rest.values[~part.missing], part.values[~part.missing])
    with pytest.raises(KeyboardInterrupt):
        distance_matrix(SPHERE, z, chunk_size=5, progress=stop)


def test_what_is_not_certified_is_said(caplog):
    z = points()
    found = distance_matrix(SPHERE, z, full=True, nodes=5, max_nodes=5, gap_tol=1e-9)
    assert not bool(found.converged.all())
    assert "not certified" in found.message
    with caplog.at_level(logging.WARNING, logger="pullback.geometry.pairs"):
        distance_matrix(SPHERE, z, nodes=5, max_nodes=5, gap_tol=1e-9)
    assert "not certified" in caplog.text


def test_no_curve_inside_the_domain_is_infinitely_far():
    z = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    found = distance_matrix(from_tensor(torn, 2), z, full=True)
    assert not bool(found.missing.any())
    assert not bool(found.converged[0, 1])
    assert found.values[0, 1] == torch.inf
    assert bool(found.converged[1, 2])
    rough = graph_distances(from_tensor(torn, 2), z)
    assert torch.isinf(rough).tolist() == [[False, True, True], [True, False, False], [True, False, False]]
    square = finite_squares(rough)
    assert bool(torch.isfinite(square).all())
    assert float(square[0, 1]) > float(square[1].sum() - square[0, 1])
    assert torch.equal(square[1:, 1:], rough[1:, 1:].square())


@pytest.mark.parametrize("d", [1, 2, 3])
def test_graph_distances_warn_and_come_close(d):
    z = points(30, d)
    with pytest.warns(ApproximationWarning, match="approximation without certificates"):
        found = distance_matrix(EuclideanMetric(d), z, method="graph", full=True)
    assert torch.equal(found.values, found.values.mT)
    assert (found.values.diagonal() == 0).all()
    expected = torch.cdist(z, z)
    assert (found.values <= 1.1 * expected + 1e-6).all()
    assert (found.values >= 0.999 * expected - 1e-6).all()
    assert int(found.converged.sum()) == 30
    assert found.method == "graph"


def test_graph_distances_of_what_is_not_connected_are_those_of_lines():
    z = torch.cat([points(200, 3), points(200, 3) + 50])
    seen = graph_distances(EuclideanMetric(3), z, data=None)
    straight = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.isfinite(seen).all()
    assert (seen >= 0.999 * straight).all()
    rectangular = graph_distances(EuclideanMetric(3), z[:5], z[300:], data=z)
    assert rectangular.shape == (5, 100)
    assert graph_distances(EuclideanMetric(3), z[:0]).shape == (0, 0)


def test_bad_arguments_are_named(as_users_run):
    z = points()
    curves = torch.zeros(9, 5, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="starts: expected 'line' or 'graph' for all pairs"):
        distance_matrix(SPHERE, z, starts=["line", curves])
    with pytest.raises(ValueError, match=r"other: expected torch\.float64 like z"):
        distance_matrix(SPHERE, z, z.float())
    with pytest.raises(ValueError, match="nodes: expected method='geodesic'"):
        distance_matrix(SPHERE, z, method="graph", nodes=33)
    part = distance_matrix(SPHERE, z, full=True)
    assert isinstance(part, DistanceMatrix)
    with pytest.raises(ValueError, match=r"known: expected geodesic distances \(3, 3\)"):
        distance_matrix(SPHERE, z[:3], known=part)
    for other in ({"z": z + 0.1}, {"z": z, "other": z}):
        with pytest.raises(ValueError, match="known: expected distances of the same points"):
            distance_matrix(SPHERE, **other, known=part)
    z.add_(0.1)
    with pytest.raises(ValueError, match="known: expected distances of the same points"):
        distance_matrix(SPHERE, z, known=part)
    z = part.z
    with pytest.raises(ValueError, match="got graph distances"):
        distance_matrix(SPHERE, z, known=replace(part, method="graph"))
    assert module.ApproximationWarning.__mro__[1] is UserWarning


@pytest.mark.slow
def test_all_pairs_of_digits_and_their_neighbours():
    """All 1225 pairs of 50 digits in one call; five neighbours from under half of the geodesics."""
    model = digits_decoder().double()
    metric, z = model.metric(), model.codes[:50]
    found = distance_matrix(metric, z, data=model.codes, full=True)
    assert bool(found.converged.all())
    i, j = torch.triu_indices(50, 50, 1)
    path = geodesic(metric, z[i], z[j], data=model.codes)
    torch.testing.assert_close(found.values[i, j], path.length, rtol=1e-9, atol=0)
    near = nearest_neighbours(metric, z, k=5, data=model.codes)
    distance, index = found.values.clone().fill_diagonal_(torch.inf).sort(dim=1)
    assert torch.equal(near.index, index[:, :5])
    torch.testing.assert_close(near.distance, distance[:, :5], rtol=1e-9, atol=0)
    assert bool(near.exact.all())
    assert near.geodesics < 1225 / 2
