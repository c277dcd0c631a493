"""Metrics: closed forms, the defaults around a tensor, pullbacks through every ambient, and bad input."""

import math

import pytest
import torch
from torch import nn

from metric_cases import AMBIENTS, FACTOR, P, decoder, numbers
from pullback import ambient as A
from pullback.geometry.reference import FisherNormal, PoincareDisk, Sphere, Torus
from pullback.jets import reference_jet
from pullback.metrics import EuclideanMetric, PullbackMetric, as_metric, checked_tensor, from_tensor
from pullback.metrics.pullback import compact


def points(dtype: torch.dtype = torch.float64, n: int = 5, d: int = 2) -> torch.Tensor:
    return numbers(n, d, dtype=dtype)


def formula(name: str, z: torch.Tensor) -> torch.Tensor:
    """Jᵀ W J with the full Jacobian and W applied to its columns."""
    f = decoder(z.dtype)
    state = reference_jet(f, z, 1)
    ambient = AMBIENTS[name]
    at = ambient.at(z) if isinstance(ambient, A.LowRank) else ambient
    return state.jacobian.mT @ at.apply(state.value, state.jacobian)


@pytest.mark.parametrize("name", AMBIENTS)
def test_pullback_is_the_jacobian_squared_in_the_ambient_metric(name, dtype):
    z = points(dtype)
    metric = PullbackMetric(decoder(dtype), AMBIENTS[name])
    g = metric.tensor(z)
    assert g.dtype == dtype
    tolerance = {"rtol": 1e-12, "atol": 1e-13} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(g, formula(name, z), **tolerance)
    torch.testing.assert_close(metric.logdet(z), torch.linalg.slogdet(g)[1], rtol=1e-4, atol=1e-3)
    eye = torch.eye(2, dtype=dtype).expand_as(g)
    loose = 1e-11 if dtype == torch.float64 else 1e-2
    torch.testing.assert_close(metric.inverse(z) @ g, eye, rtol=loose, atol=loose)
    assert metric.dim == 2


def test_gradients_reach_the_decoder_and_the_points():
    f = decoder().requires_grad_(True)
    z = points().requires_grad_()
    metric = PullbackMetric(f, A.LowRank(FACTOR))
    loss = metric.tensor(z).square().sum() + metric.logdet(z).sum()
    gradients = torch.autograd.grad(loss, [z, *f.parameters()], allow_unused=True)
    assert all(g is not None and torch.isfinite(g).all() for g in gradients[:-1])


@pytest.mark.parametrize(
    ("name", "wide"), [("Euclidean", 40), ("Diagonal", 40), ("LowRank", 40), ("Poisson", P), ("Euclidean", 3)]
)
def test_compact_embedding_has_the_same_metric(name, wide):
    ambient = {
        "Euclidean": A.Euclidean(),
        "Diagonal": A.Diagonal(torch.linspace(0.5, 2, wide, dtype=torch.float64)),
        "LowRank": A.LowRank(torch.randn(wide, 5, generator=torch.Generator().manual_seed(2)).double()),
        "Poisson": A.Poisson(),
    }[name]
    f, z = decoder(p=wide), points()
    metric = PullbackMetric(f, ambient)
    small = PullbackMetric(metric.compact_embedding())
    torch.testing.assert_close(small.tensor(z), metric.tensor(z), rtol=1e-12, atol=1e-12)
    assert metric.compact_embedding()(z).shape[1] <= max(7, P)


def test_a_tail_with_hooks_is_left_as_it_is():
    f = decoder(p=40)
    f[-1].register_forward_hook(lambda module, args, output: 2 * output)
    assert compact(f) is f


def test_logdet_keeps_its_digits_where_columns_are_nearly_parallel():
    """In float32 the determinant of JᵀJ is off by 0.7 here and Cholesky fails."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(50, 1, generator=generator, dtype=torch.float64)
    J = torch.cat([first, first + 1e-4 * torch.randn(50, 1, generator=generator, dtype=torch.float64)], dim=1)
    truth = 2 * torch.log(torch.linalg.qr(J).R.diagonal().abs()).sum()
    layer = nn.Linear(2, 50, bias=False)
    layer.weight = nn.Parameter(J.float(), requires_grad=False)
    stored = 2 * torch.log(torch.linalg.qr(J.float().double()).R.diagonal().abs()).sum()
    seen = PullbackMetric(layer).logdet(torch.zeros(1, 2))
    assert seen.item() == pytest.approx(stored.item(), abs=5e-3)
    assert stored.item() == pytest.approx(truth.item(), abs=5e-3)


def test_rank_deficiency_is_minus_infinity_and_logged(caplog):
    flat = PullbackMetric(lambda z: z[:, :1] * torch.ones(3))
    with caplog.at_level("WARNING"):
        assert flat.logdet(torch.ones(2, 2)).tolist() == [-math.inf, -math.inf]
    assert "rank below 2 at 2 points" in caplog.text


def test_euclidean_metric_is_flat(dtype):
    metric, z = EuclideanMetric(3), points(dtype, d=3)
    torch.testing.assert_close(metric.tensor(z), torch.eye(3, dtype=dtype).expand(5, 3, 3))
    assert metric.logdet(z).abs().max() == 0
    assert metric.derivative(z).abs().max() == 0
    assert metric.second_derivative(z).shape == (5, 3, 3, 3, 3)
    assert metric.hamiltonian_force(z, z).abs().max() == 0
    torch.testing.assert_close(metric.embedding(z), z)


@pytest.mark.parametrize("manifold", [PoincareDisk(), FisherNormal()])
def test_any_object_with_a_tensor_gets_the_rest(manifold, dtype):
    z = torch.tensor([[0.1, 0.4], [-0.3, 0.5]], dtype=dtype)
    metric = as_metric(manifold)
    g = manifold.tensor(z)
    torch.testing.assert_close(metric.inverse(z), torch.linalg.inv(g))
    torch.testing.assert_close(metric.logdet(z), torch.linalg.slogdet(g)[1])
    assert metric.embedding is None
    assert as_metric(metric) is metric
    assert metric.derivative(z).dtype == dtype


def test_own_methods_of_an_object_win_over_the_defaults():
    class Scaled:
        dim = 2

        def tensor(self, z):
            return 4 * torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2)

        def logdet(self, z):
            return torch.full_like(z[:, 0], 7.0)

    metric = as_metric(Scaled())
    assert metric.logdet(points()).tolist() == [7.0] * 5
    assert metric.dim == 2
    torch.testing.assert_close(metric.inverse(points()), torch.eye(2).double().expand(5, 2, 2) / 4)


def test_embedding_and_tensor_of_the_reference_sphere_agree():
    z = points(d=3)
    sphere = Sphere(3)
    torch.testing.assert_close(
        PullbackMetric(sphere.embedding).tensor(z), sphere.tensor(z), rtol=1e-13, atol=1e-14
    )


def test_train_mode_is_refused_and_eval_mode_works():
    f = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.1), nn.Linear(4, 3))
    metric = PullbackMetric(f)
    with pytest.raises(ValueError, match=r"decoder is in train mode; call decoder\.eval\(\)"):
        metric.tensor(points(torch.float32))
    f.eval()
    assert metric.tensor(points(torch.float32)).shape == (5, 2, 2)


def test_low_rank_factors_that_cannot_make_a_metric_are_refused(as_users_run):
    with pytest.raises(ValueError, match=r"expected a factor \(p, r\) = \(6, 3\).*10 rows"):
        PullbackMetric(decoder(), A.LowRank(torch.ones(10, 6, 3)))
    thin = PullbackMetric(decoder(), A.LowRank(torch.ones(6, 1).double()))
    with pytest.raises(ValueError, match=r"rank r >= d .* d=2 .*p=6, r=1 at n=5"):
        thin.tensor(points())


def test_what_is_no_metric_is_refused(as_users_run):
    with pytest.raises(TypeError, match=r"got Linear; wrap a decoder in PullbackMetric"):
        as_metric(nn.Linear(2, 3))
    with pytest.raises(TypeError, match="got Tensor"):
        as_metric(torch.eye(2))
    with pytest.raises(TypeError, match="decoder: expected a map"):
        PullbackMetric(3)
    with pytest.raises(TypeError, match="function: expected a callable"):
        from_tensor(torch.eye(2), 2)


def test_tensors_are_checked_where_they_enter(as_users_run):
    z = points(n=3)
    eye = torch.eye(2, dtype=torch.float64).expand(3, 2, 2)
    with pytest.raises(ValueError, match=r"expected shape \(3, 2, 2\).*got \(3, 2\)"):
        checked_tensor(from_tensor(lambda z: z, 2), z)
    crooked = eye + torch.tensor([[0.0, 1e-3], [0.0, 0.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"symmetric tensor, got relative asymmetry 0\.001 at row 0"):
        checked_tensor(from_tensor(lambda z: crooked, 2), z)
    bad = eye.clone()
    bad[1, 1, 1] = -2e-9
    with pytest.raises(ValueError, match=r"not positive definite at row 1 \(smallest eigenvalue -2e-09\)"):
        checked_tensor(from_tensor(lambda z: bad, 2), z)
    holes = eye.clone()
    holes[2, 0, 0] = math.nan
    with pytest.raises(ValueError, match="not finite at row 2"):
        checked_tensor(from_tensor(lambda z: holes, 2), z)
    with pytest.raises(ValueError, match=r"expected torch\.float64 like z, got torch\.float32; let the"):
        checked_tensor(from_tensor(lambda z: eye.float(), 2), z)
    with pytest.raises(ValueError, match=r"z: expected float32 or float64 points, got torch\.float16"):
        checked_tensor(EuclideanMetric(2), z.half())
    with pytest.raises(ValueError, match="not positive definite at row 1"):
        from_tensor(lambda z: bad, 2).logdet(z)


def test_torus_through_a_module_and_through_a_function_agree():
    class Module(nn.Module):
        def forward(self, z):
            return Torus().embedding(z)

    z = points()
    torch.testing.assert_close(
        PullbackMetric(Module(), A.Gaussian(0.5)).tensor(z), 4 * PullbackMetric(Torus().embedding).tensor(z)
    )
