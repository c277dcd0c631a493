"""Fréchet means against closed forms, and what they must not depend on."""

import pytest
import torch

import pullback as pb
from pullback.geometry.reference import PoincareDisk, Sphere
from pullback.metrics import from_tensor
from surfaces import torn

SPHERE = pb.PullbackMetric(Sphere().embedding)


def cloud(n: int = 12, d: int = 2, scale: float = 0.5) -> torch.Tensor:
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def closed_form(X: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean on the unit sphere by the fixed-point iteration in the ambient space."""
    mean = (weights[:, None] * X).sum(0)
    mean = mean / mean.norm()
    for _ in range(500):
        cosine = (X @ mean).clamp(-1, 1)
        angle = cosine.arccos().clamp_min(1e-300)
        step = (weights[:, None] * (angle / angle.sin())[:, None] * (X - cosine[:, None] * mean)).sum(0)
        length = step.norm()
        if length < 1e-15:
            break
        mean = length.cos() * mean + length.sin() * step / length
    return mean


@pytest.mark.parametrize("weighted", [False, True])
def test_mean_on_the_sphere_is_the_closed_form(weighted):
    z = cloud()
    weights = torch.linspace(1, 3, 12, dtype=torch.float64) if weighted else torch.ones(12).double()
    mean = pb.frechet_mean(SPHERE, z, weights if weighted else None)
    X = Sphere().embedding(z)
    truth = closed_form(X, weights / weights.sum())
    assert mean.converged
    assert mean.iterations <= 6
    torch.testing.assert_close(Sphere().embedding(mean.point[None])[0], truth, rtol=0, atol=1e-6)
    square = Sphere().distance(mean.point.expand_as(z), z).square()
    torch.testing.assert_close(mean.variance, (weights * square).sum() / weights.sum(), rtol=1e-6, atol=0)
    assert float(mean.residual) <= 1e-6


def test_all_weight_on_one_point_returns_it():
    z = cloud()
    weights = torch.zeros(12).double()
    weights[0] = 1
    torch.testing.assert_close(pb.frechet_mean(SPHERE, z, weights).point, z[0], rtol=0, atol=1e-7)


def test_a_turned_chart_turns_the_mean():
    z, angle = cloud(), torch.tensor(0.7).double()
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).reshape(2, 2)
    torch.testing.assert_close(
        pb.frechet_mean(SPHERE, z @ turn.mT).point,
        pb.frechet_mean(SPHERE, z).point @ turn.mT,
        atol=1e-8,
        rtol=0,
    )


@pytest.mark.slow
def test_tensor_path_and_embedding_path_agree():
    z = cloud()
    torch.testing.assert_close(
        pb.frechet_mean(Sphere(), z).point, pb.frechet_mean(SPHERE, z).point, rtol=0, atol=1e-6
    )


def test_symmetric_points_of_the_disk_meet_in_its_centre():
    z = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.6], [0.0, -0.6]]).double()
    mean = pb.frechet_mean(PoincareDisk(), z)
    assert mean.converged
    torch.testing.assert_close(mean.point, torch.zeros(2).double(), rtol=0, atol=1e-8)
    assert float(mean.convexity) >= 1 - 1e-6  # negative curvature


@pytest.mark.parametrize("d", [1, 3])
def test_flat_space_has_the_ordinary_mean(d, dtype):
    z = cloud(7, d).to(dtype)
    mean = pb.frechet_mean(pb.EuclideanMetric(d), z)
    assert mean.point.dtype == dtype
    assert mean.converged
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(mean.point, z.mean(0), rtol=0, atol=tolerance)


@pytest.mark.slow
def test_points_around_a_great_circle_say_that_the_mean_is_one_of_several():
    angle = torch.arange(3).double() * 2 * torch.pi / 3
    z = torch.stack([angle.cos(), angle.sin()], 1)  # the equator: both poles are means
    mean = pb.frechet_mean(SPHERE, z + 1e-3)
    assert bool(torch.isfinite(mean.point).all())
    assert bool(mean.far.any()) or not mean.converged
    assert mean.message != "converged"


@pytest.mark.parametrize(
    ("weights", "told"),
    [(torch.ones(3), "weights"), (-torch.ones(12), "weights"), (torch.zeros(12), "weights")],
)
def test_bad_weights(weights, told, as_users_run):
    with pytest.raises(ValueError, match=told):
        pb.frechet_mean(SPHERE, cloud(), weights.double())


@pytest.mark.slow
def test_many_small_doubts_are_one_large():
    angle = torch.linspace(0, 1, 1500)
    z = torch.stack([angle.cos(), angle.sin()], dim=1)
    mean = pb.frechet_mean(SPHERE, z, nodes=5, max_nodes=5, gap_tol=1e-9, starts="line")
    assert not mean.converged
    assert "geodesics that matter are not certified: raise max_nodes, path_max_iter" in mean.message


def test_points_out_of_reach_have_no_logarithm():
    z = torch.tensor([[-1.0, 0.0], [-1.0, 0.5], [-1.2, 0.2], [1.0, 0.0]]).double()
    mean = pb.frechet_mean(from_tensor(torn, 2), z)
    assert not mean.converged
    assert mean.variance == torch.inf
    assert mean.residual == torch.inf
    lost = torch.isinf(mean.distances)
    assert int(lost.sum()) == 1
    assert torch.equal(torch.isnan(mean.logarithms).all(1), lost)
    assert "1 points are reached by no curve" in mean.message
    assert "residual" not in mean.message
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0]).double()
    assert pb.frechet_mean(from_tensor(torn, 2), z, weights).converged


@pytest.mark.slow
def test_geodesics_have_limits_of_their_own():
    z = cloud()[:3]
    mean = pb.frechet_mean(SPHERE, z, path_tol=1e-30)
    assert float(mean.residual) <= 1e-6
    assert "3 geodesics that matter are not certified" in mean.message


def test_limits_of_geodesics_are_checked(as_users_run):
    z = cloud()
    with pytest.raises(ValueError, match="path_tol: expected a finite number > 0"):
        pb.frechet_mean(SPHERE, z, path_tol=0)
    with pytest.raises(ValueError, match="path_max_iter: expected a whole number >= 1"):
        pb.frechet_mean(SPHERE, z, path_max_iter=0)
