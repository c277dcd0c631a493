"""Geodesic k-means: known clusters, flat space, repeatability."""

import pytest
import torch

import pullback as pb
from pullback.geometry.reference import Sphere
from pullback.metrics import from_tensor
from surfaces import torn

SPHERE = pb.PullbackMetric(Sphere().embedding)


def blobs() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    centres = torch.tensor([[0.8, 0.0], [-0.6, 0.5]]).double()
    labels = torch.arange(2).repeat_interleave(8)
    return centres[labels] + 0.08 * torch.randn(16, 2, generator=g, dtype=torch.float64), labels


def test_two_clusters_of_the_sphere_are_found():
    z, labels = blobs()
    found = pb.geodesic_kmeans(SPHERE, z, 2)
    assert found.converged
    assert found.sizes.tolist() == [8, 8]
    same = found.labels[:, None] == found.labels[None]
    assert torch.equal(same, labels[:, None] == labels[None])
    for k in range(2):
        members = z[found.labels == k]
        mean = pb.frechet_mean(SPHERE, members)
        torch.testing.assert_close(found.centres[k], mean.point, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        found.inertia, pb.distance(SPHERE, z, found.centres[found.labels]).square().sum(), rtol=1e-6, atol=0
    )


def test_flat_space_has_ordinary_clusters():
    z, _ = blobs()
    found = pb.geodesic_kmeans(pb.EuclideanMetric(2), z, 2)
    for k in range(2):
        torch.testing.assert_close(found.centres[k], z[found.labels == k].mean(0), rtol=0, atol=1e-8)
    assert list(found.history) == sorted(found.history, reverse=True)


def test_the_same_generator_gives_the_same_clusters():
    z, _ = blobs()
    flat, runs = pb.EuclideanMetric(2), []
    for _ in range(2):
        generator = torch.Generator().manual_seed(5)
        runs.append(pb.geodesic_kmeans(flat, z, 3, generator=generator))
    assert torch.equal(runs[0].labels, runs[1].labels)


@pytest.mark.slow
def test_one_cluster_is_the_mean():
    z, _ = blobs()
    found = pb.geodesic_kmeans(SPHERE, z, 1)
    torch.testing.assert_close(found.centres[0], pb.frechet_mean(SPHERE, z).point, rtol=0, atol=1e-6)


def test_more_clusters_than_points(as_users_run):
    with pytest.raises(ValueError, match="n_clusters"):
        pb.geodesic_kmeans(SPHERE, blobs()[0], 17)


def banks() -> tuple[pb.metrics.BaseMetric, torch.Tensor]:
    """A plane that a strip without metric parts, and points on both sides, one of them far out."""

    z = torch.tensor([[-1.0, 0.0], [-1.0, 0.5], [-1.2, 0.2], [1.0, 0.0], [1.0, 3.0]]).double()
    return from_tensor(torn, 2), z


def test_points_that_reach_no_centre_are_counted_and_move_none():
    torn, z = banks()
    found = pb.geodesic_kmeans(torn, z, 1)
    assert not found.converged
    assert "2 points reach no centre" in found.message
    assert found.inertia == torch.inf
    torch.testing.assert_close(found.centres[0], z[:3].mean(0), rtol=0, atol=1e-8)
    assert torch.isinf(found.distances).tolist() == [False, False, False, True, True]
    assert bool((found.seed_inertias == torch.inf).all())


def test_seeds_reach_every_side():
    torn, z = banks()
    found = pb.geodesic_kmeans(torn, z, 2)
    assert found.converged
    assert (found.labels == found.labels[0]).tolist() == [True, True, True, False, False]
    assert bool(torch.isfinite(found.seed_inertias).all())


@pytest.mark.slow
def test_geodesics_have_limits_of_their_own():
    z, _ = blobs()
    found = pb.geodesic_kmeans(SPHERE, z, 2, path_tol=1e-30)
    assert not found.converged
    assert "path_tol" in found.message
