"""Tangent principal components: ordinary ones in flat space, round trips on curved ones."""

import pytest
import torch

import pullback as pb
from pullback.geometry.reference import Sphere
from pullback.metrics import from_tensor
from surfaces import torn

SPHERE = pb.PullbackMetric(Sphere().embedding)


def cloud(d: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(2)
    return 0.4 * torch.randn(15, d, generator=g, dtype=torch.float64) * torch.arange(1, d + 1)


def test_flat_space_has_ordinary_components():
    z = cloud(3)
    found = pb.tangent_pca(pb.EuclideanMetric(3), z)
    values, vectors = torch.linalg.eigh(torch.cov(z.mT, correction=0))
    torch.testing.assert_close(found.variances, values.flip(0), rtol=1e-8, atol=0)
    overlap = (found.components @ vectors.flip(1)).abs()
    torch.testing.assert_close(overlap, torch.eye(3).double(), rtol=0, atol=1e-8)
    torch.testing.assert_close(found.explained.sum(), torch.tensor(1.0).double())


def test_components_are_orthonormal_and_scores_go_back_to_the_points():
    z = 0.4 * cloud(2)
    found = pb.tangent_pca(SPHERE, z)
    g = SPHERE.tensor(found.mean[None])[0]
    torch.testing.assert_close(
        found.components @ g @ found.components.mT, torch.eye(2).double(), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(found.inverse(found.scores), z, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.transform(z), found.scores, rtol=0, atol=1e-8)
    torch.testing.assert_close(
        found.scores.square().sum(1).sqrt(), Sphere().distance(found.mean.expand_as(z), z), rtol=1e-6, atol=0
    )


@pytest.mark.slow
def test_scores_do_not_depend_on_the_chart():
    z = 0.4 * cloud(2)
    angle = torch.tensor(0.9).double()
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).reshape(2, 2)
    a, b = pb.tangent_pca(SPHERE, z), pb.tangent_pca(SPHERE, z @ turn.mT)
    torch.testing.assert_close(a.variances, b.variances, rtol=1e-8, atol=0)
    torch.testing.assert_close(a.scores.abs(), b.scores.abs(), rtol=0, atol=1e-7)


def test_fewer_components_keep_the_largest():
    found = pb.tangent_pca(SPHERE, 0.4 * cloud(2), n_components=1)
    assert found.scores.shape == (15, 1)
    assert 0.5 < float(found.explained[0]) < 1


def test_options_of_the_mean_stay_with_the_mean(as_users_run):
    z = 0.4 * cloud(2)
    found = pb.tangent_pca(SPHERE, z, start=z[0], tol=1e-7, max_iter=20, nodes=33)
    assert set(found.options) == {"nodes", "tol", "max_iter"}
    assert found.options["tol"] is None
    torch.testing.assert_close(found.transform(z), found.scores, rtol=0, atol=1e-7)
    again = pb.tangent_pca(SPHERE, z, mean=found.mean, path_tol=1e-5)
    torch.testing.assert_close(again.variances, found.variances, rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="start: expected mean=None with this argument"):
        pb.tangent_pca(SPHERE, z, mean=found.mean, start=z[0])


def test_points_out_of_reach_do_not_count():
    z = torch.tensor([[-1.0, 0.0], [-1.0, 0.5], [-1.2, 0.2], [1.0, 0.0]]).double()
    found = pb.tangent_pca(from_tensor(torn, 2), z, mean=z[:3].mean(0))
    assert not found.converged
    assert torch.isnan(found.scores).all(1).tolist() == [False, False, False, True]
    values = torch.linalg.eigvalsh(torch.cov(z[:3].mT, correction=0)).flip(0)
    torch.testing.assert_close(found.variances, 3 / 4 * values)
