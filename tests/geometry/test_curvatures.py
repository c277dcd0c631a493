"""Christoffel symbols and curvature: closed forms, three independent formulas, symmetries, invariance."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from differences import check_gradient
from pullback import ambient as A
from pullback.geometry import curvatures as module
from pullback.geometry.curvatures import christoffel, curvature
from pullback.geometry.reference import (
    Catenoid,
    Cylinder,
    Ellipsoid,
    FisherNormal,
    PoincareDisk,
    Sphere,
    SphereLine,
    SurfaceOfRevolution,
    SwissRoll,
    Torus,
)
from pullback.jets import PiecewiseLinearWarning, jet
from pullback.metrics import (
    BaseMetric,
    ConformalMetric,
    EuclideanMetric,
    PullbackMetric,
    as_metric,
    from_tensor,
)

EXACT = {"rtol": 0, "atol": 1e-12}


def points(d: int = 2, n: int = 8, scale: float = 0.5) -> Tensor:
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def net(d: int = 2, p: int = 9, activation: type[nn.Module] = nn.Tanh, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Linear(d, 8), activation(), nn.Linear(8, 7), activation(), nn.Linear(7, p))
    return layers.double().requires_grad_(False)


def intrinsic(metric: object, d: int) -> object:
    """The same metric, its embedding hidden."""
    known = as_metric(metric)
    return from_tensor(known.tensor, d)


def by_third_derivatives(F: object, z: Tensor) -> tuple[Tensor, Tensor]:
    """R from ∂_e Γ_{c,ab} = <H_ce, H_ab> + <J_c, K_abe>, and g."""
    at = jet(F, z, 3)
    J, H, K = at.jacobian, at.hessian, at.third
    g = J.mT @ J
    first = torch.einsum("npc,npab->ncab", J, H)
    slope = torch.einsum("npce,npab->ncabe", H, H) + torch.einsum("npc,npabe->ncabe", J, K)
    second = torch.einsum("nce,neab->ncab", torch.linalg.inv(g), first)
    product = torch.einsum("nlac,nldb->nabcd", first, second)
    return (
        slope.permute(0, 1, 3, 4, 2) - slope.permute(0, 1, 3, 2, 4) - product + product.transpose(3, 4)
    ), g


SURFACES = {
    "sphere": (Sphere(), lambda z: torch.ones_like(z[:, 0])),
    "torus": (Torus(), Torus().gaussian_curvature),
    "catenoid": (Catenoid(), Catenoid().gaussian_curvature),
    "ellipsoid": (Ellipsoid(), Ellipsoid().gaussian_curvature),
    "cylinder": (Cylinder(1.7), lambda z: torch.zeros_like(z[:, 0])),
    "swiss roll": (SwissRoll(), lambda z: torch.zeros_like(z[:, 0])),
    "surface of revolution": (
        SurfaceOfRevolution(lambda u: 2 * torch.cos(u / 2), lambda u: 2 * torch.sin(u / 2)),
        lambda z: torch.full_like(z[:, 0], 0.25),
    ),
}


@pytest.mark.parametrize("path", ["embedding", "tensor"])
@pytest.mark.parametrize("name", SURFACES)
def test_surfaces_have_the_curvature_of_their_closed_form(name, path):
    surface, truth = SURFACES[name]
    z = points() + torch.tensor([2.0, 0.0]) * (name == "swiss roll")
    metric = PullbackMetric(surface.embedding)
    at = curvature(metric if path == "embedding" else intrinsic(metric, 2), z)
    assert at.method == path
    torch.testing.assert_close(at.gaussian, truth(z), **EXACT)
    torch.testing.assert_close(at.scalar, 2 * truth(z), **EXACT)
    torch.testing.assert_close(at.ricci, truth(z)[:, None, None] * metric.tensor(z), **EXACT)
    torch.testing.assert_close(at.sectional(z, z.flip(1)), truth(z), rtol=0, atol=1e-11)


@pytest.mark.parametrize("path", ["embedding", "tensor"])
@pytest.mark.parametrize("d", [2, 3])
def test_spheres(d, path):
    z, sphere = points(d), Sphere(d)
    at = curvature(
        PullbackMetric(sphere.embedding) if path == "embedding" else from_tensor(sphere.tensor, d), z
    )
    g = sphere.tensor(z)
    product = torch.einsum("nac,nbd->nabcd", g, g)
    torch.testing.assert_close(at.riemann, product - product.transpose(3, 4), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(at.ricci, (d - 1) * g, **EXACT)
    torch.testing.assert_close(at.scalar, sphere.scalar_curvature(z), **EXACT)
    assert (at.gaussian is None) == (d == 3)
    assert len(at) == 8


def test_hyperbolic_spaces():
    for d in (2, 3):
        z = points(d, scale=0.25)
        at = curvature(PoincareDisk(), z)
        assert at.method == "tensor"
        torch.testing.assert_close(at.scalar, torch.full_like(z[:, 0], -d * (d - 1)), **EXACT)
    z = torch.tensor([[0.3, 0.5], [-1.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(curvature(FisherNormal(), z).gaussian, torch.full_like(z[:, 0], -0.5), **EXACT)


def test_product_of_a_sphere_and_a_line():
    at = curvature(PullbackMetric(SphereLine().embedding), points(3))
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(at.sectional(eye[0], eye[1]), torch.ones(8, dtype=torch.float64), **EXACT)
    torch.testing.assert_close(at.sectional(eye[0], eye[2]), torch.zeros(8, dtype=torch.float64), **EXACT)
    torch.testing.assert_close(at.scalar, torch.full((8,), 2.0, dtype=torch.float64), **EXACT)
    tilted = at.sectional(eye[0] + eye[2], points(3) + eye[1])
    assert bool(((tilted > 0) & (tilted < 1)).all())


def test_gauss_bonnet_on_the_torus():
    """∫K √det g = 2πχ = 0 and the area 4π²Rr, on a periodic grid of 200 x 200."""
    n, torus = 200, Torus()
    axis = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    z = torch.cartesian_prod(axis, axis)
    at = curvature(PullbackMetric(torus.embedding), z)
    area = torch.linalg.det(at.metric).sqrt() * (2 * math.pi / n) ** 2
    assert abs(float((at.gaussian * area).sum())) <= 1e-12
    assert float(area.sum()) == pytest.approx(torus.area, rel=1e-12)


@pytest.mark.parametrize("d", [2, 3, 5])
def test_three_formulas_agree_on_a_network(d):
    z, metric = points(d), PullbackMetric(net(d))
    gauss, tensor = curvature(metric, z), curvature(intrinsic(metric, d), z)
    third, g = by_third_derivatives(metric.embedding, z)
    torch.testing.assert_close(gauss.metric, g, **EXACT)
    for other in (tensor.riemann, third):
        torch.testing.assert_close(gauss.riemann, other, **EXACT)
    torch.testing.assert_close(gauss.ricci, tensor.ricci, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gauss.scalar, tensor.scalar, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "ambient",
    [A.Gaussian(0.3), A.Bernoulli(), A.Poisson(), A.NegativeBinomial(3.0), A.Categorical()],
    ids=repr,
)
def test_paths_agree_under_the_likelihoods(ambient):
    z, metric = points(), PullbackMetric(net(), ambient)
    gauss, tensor = curvature(metric, z), curvature(intrinsic(metric, 2), z)
    scale = gauss.riemann.abs().max()
    torch.testing.assert_close(gauss.riemann / scale, tensor.riemann / scale, **EXACT)


def test_the_tensor_is_the_commutator_of_covariant_derivatives():
    """The definition R^l_kij = ∂_iΓ^l_jk - ∂_jΓ^l_ik + Γ^l_im Γ^m_jk - Γ^l_jm Γ^m_ik, by autograd."""
    z, metric = points(3, 4), PullbackMetric(net(3))
    G = christoffel(metric, z)
    rows = [torch.autograd.functional.jacobian(lambda x: christoffel(metric, x[None])[0], row) for row in z]
    slope = torch.stack(rows)  # [n, l, j, k, i]
    product = torch.einsum("nlim,nmjk->nlkij", G, G)
    mixed = slope.permute(0, 1, 3, 4, 2) - slope.permute(0, 1, 3, 2, 4) + product - product.transpose(3, 4)
    at = curvature(metric, z)
    torch.testing.assert_close(torch.einsum("nal,nlbcd->nabcd", at.metric, mixed), at.riemann, **EXACT)


@pytest.mark.parametrize("path", ["embedding", "tensor"])
def test_symmetries_and_the_first_bianchi_identity(path):
    z, metric = points(4), PullbackMetric(net(4))
    R = curvature(metric if path == "embedding" else intrinsic(metric, 4), z).riemann
    torch.testing.assert_close(R, -R.transpose(1, 2), **EXACT)
    torch.testing.assert_close(R, -R.transpose(3, 4), **EXACT)
    torch.testing.assert_close(R, R.permute(0, 3, 4, 1, 2), **EXACT)
    cyclic = R + R.permute(0, 1, 3, 4, 2) + R.permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(cyclic, torch.zeros_like(R), **EXACT)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-1, 1), min_size=9, max_size=9),
    st.floats(-0.3, 0.3),
    st.integers(0, 2**16),
)
def test_curvature_does_not_depend_on_the_chart(entries, bend, seed):
    """z = Ay + bend · sin(y): scalar curvature is the same number, Ricci and Riemann are tensors."""
    A_ = torch.tensor(entries, dtype=torch.float64).reshape(3, 3) / 3 + torch.eye(3, dtype=torch.float64)
    f = net(3, seed=seed)

    def chart(y: Tensor) -> Tensor:
        return y @ A_.T + bend * torch.sin(y.roll(1, -1))

    y = points(3, 3)
    D = torch.stack([torch.autograd.functional.jacobian(lambda x: chart(x[None])[0], row) for row in y])
    if bool((torch.linalg.cond(D) > 20).any()):
        return
    here, there = curvature(PullbackMetric(lambda y: f(chart(y))), y), curvature(PullbackMetric(f), chart(y))
    scale = there.scalar.abs().max().clamp_min(1e-3)
    torch.testing.assert_close(here.scalar / scale, there.scalar / scale, rtol=0, atol=1e-9)
    moved = torch.einsum("nabcd,nai,nbj,nck,ndl->nijkl", there.riemann, D, D, D, D)
    torch.testing.assert_close(here.riemann, moved, rtol=1e-9, atol=1e-10)
    u, v = y + 1, y.flip(1) - 2
    pushed = there.sectional((D @ u.unsqueeze(-1)).squeeze(-1), (D @ v.unsqueeze(-1)).squeeze(-1))
    torch.testing.assert_close(here.sectional(u, v) / scale, pushed / scale, rtol=0, atol=1e-8)


def test_an_isometry_of_data_space_changes_nothing():
    f, z = net(p=6), points()
    Q = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).double()).Q
    plain, turned = curvature(PullbackMetric(f), z), curvature(PullbackMetric(lambda z: f(z) @ Q + 3), z)
    torch.testing.assert_close(plain.riemann, turned.riemann, **EXACT)


def test_christoffel_of_closed_forms():
    z = points() + torch.tensor([2.0, 0.0], dtype=torch.float64)
    u = z[:, 0]
    roll = christoffel(PullbackMetric(SwissRoll().embedding), z)
    expected = torch.zeros_like(roll)
    expected[:, 0, 0, 0] = u / (1 + u**2)
    torch.testing.assert_close(roll, expected, **EXACT)
    torus = Torus()
    v, radius = z[:, 1], torus.major + torus.minor * torch.cos(z[:, 1])
    expected = torch.zeros_like(roll)
    expected[:, 0, 0, 1] = expected[:, 0, 1, 0] = -torus.minor * torch.sin(v) / radius
    expected[:, 1, 0, 0] = radius * torch.sin(v) / torus.minor
    torch.testing.assert_close(christoffel(PullbackMetric(torus.embedding), z), expected, **EXACT)
    assert christoffel(EuclideanMetric(2), z).abs().max() == 0
    assert christoffel(PullbackMetric(Cylinder().embedding), z).abs().max() < 1e-14


@pytest.mark.parametrize("d", [1, 2, 4])
def test_christoffel_is_the_same_by_both_paths_and_by_autograd(d, dtype):
    z, metric = points(d), PullbackMetric(net(d))
    D = torch.stack(
        [torch.autograd.functional.jacobian(lambda x: metric.tensor(x[None])[0], row) for row in z]
    )
    first = (torch.einsum("neba->neab", D) + D - torch.einsum("nabe->neab", D)) / 2
    second = torch.einsum("nce,neab->ncab", torch.linalg.inv(metric.tensor(z)), first)
    used = PullbackMetric(net(d).to(dtype))
    tolerance = {"rtol": 1e-11, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-3, "atol": 2e-3}
    for kind, truth in ((True, first), (False, second)):
        for each in (used, intrinsic(used, d)):
            seen = christoffel(each, z.to(dtype), first_kind=kind)
            assert seen.dtype == dtype
            torch.testing.assert_close(seen.double(), truth, **tolerance)


def test_single_precision_is_near_double(dtype):
    z, metric = points(3), PullbackMetric(net(3).to(dtype))
    truth = curvature(PullbackMetric(net(3)), z)
    seen = curvature(metric, z.to(dtype))
    assert seen.scalar.dtype == seen.riemann.dtype == dtype
    torch.testing.assert_close(seen.riemann.double(), truth.riemann, rtol=1e-3, atol=1e-5)


def test_one_dimension_has_no_curvature(dtype):
    at = curvature(PullbackMetric(net(1).to(dtype)), points(1).to(dtype))
    assert at.method == "line"
    assert at.riemann.shape == (8, 1, 1, 1, 1)
    assert at.scalar.dtype == dtype
    assert float(at.riemann.abs().max() + at.ricci.abs().max() + at.scalar.abs().max()) == 0
    assert at.gaussian is None
    with pytest.raises(ValueError, match="parallel"):
        at.sectional(torch.ones(1), torch.ones(1))


@pytest.mark.parametrize("path", ["embedding", "tensor"])
def test_chunks_make_no_difference(path, monkeypatch):
    z, metric = points(3, 20), PullbackMetric(net(3))
    used = metric if path == "embedding" else intrinsic(metric, 3)
    whole, symbols = curvature(used, z), christoffel(used, z)
    monkeypatch.setattr(module, "CHUNK_BYTES", 3 * 8 * module._floats(metric.embedding, z))
    torch.testing.assert_close(curvature(used, z).riemann, whole.riemann, **EXACT)
    torch.testing.assert_close(christoffel(used, z), symbols, **EXACT)
    live = z.clone().requires_grad_()
    (parts,) = torch.autograd.grad(curvature(used, live).scalar.sum(), live)
    monkeypatch.undo()
    (once,) = torch.autograd.grad(curvature(used, live).scalar.sum(), live)
    torch.testing.assert_close(parts, once, rtol=1e-10, atol=1e-12)
    none = curvature(used, z[:0])
    assert none.riemann.shape == (0, 3, 3, 3, 3)
    assert christoffel(used, z[:0]).shape == (0, 3, 3, 3)


@pytest.mark.parametrize("path", ["embedding", "tensor"])
def test_gradients_are_those_of_central_differences(path):
    f, z = net().requires_grad_(True), points(n=3)
    metric = PullbackMetric(f)

    def value(at: Tensor) -> Tensor:
        used = metric if path == "embedding" else intrinsic(metric, 2)
        return curvature(used, at).scalar.sum() + christoffel(used, at).square().sum()

    live = z.clone().requires_grad_()
    for tensor in (live, f[0].weight):
        check_gradient(lambda: value(live), tensor, [(0, 0)])


@pytest.mark.parametrize("kinked", [nn.ReLU, nn.LeakyReLU])
def test_nets_with_kinks_are_warned_of_and_refused(kinked):
    metric = PullbackMetric(net(activation=kinked))
    with pytest.warns(PiecewiseLinearWarning, match=f"{kinked.__name__} at layer 1 has kinks"):
        at = curvature(metric, points())
    assert float(at.riemann.abs().max()) == 0
    torch.testing.assert_close(at.metric, metric.tensor(points()))
    with pytest.warns(PiecewiseLinearWarning, match="kinks"):
        christoffel(metric, points())
    with pytest.raises(ValueError, match=r"metric: .*ReLU at layer 1 has kinks.*Softplus"):
        curvature(metric, points(), strict=True)


def test_a_mixed_net_and_a_learned_scale_are_warned_of_too():
    mixed = net()
    mixed[1] = nn.ReLU()
    with pytest.warns(PiecewiseLinearWarning, match="ReLU at layer 1"):
        assert float(curvature(PullbackMetric(mixed), points()).riemann.abs().max()) > 0
    learned = PullbackMetric(net(p=8, activation=nn.ReLU), A.LearnedGaussian())
    with pytest.warns(PiecewiseLinearWarning, match="ReLU at layer 1"):
        assert curvature(learned, points()).method == "tensor"


def bent(metric: BaseMetric) -> ConformalMetric:
    return ConformalMetric(metric, lambda z: z.square().sum(-1) / 2)


@pytest.mark.parametrize(
    "wrap",
    [
        bent,
        lambda metric: bent(metric) + 0.5 * EuclideanMetric(2),
        lambda metric: ConformalMetric(EuclideanMetric(2), nn.Sequential(*net(p=1, activation=nn.ReLU))),
    ],
)
def test_kinks_of_a_part_are_those_of_the_whole(wrap):
    metric = wrap(PullbackMetric(net(activation=nn.ReLU)))
    with pytest.warns(PiecewiseLinearWarning, match="ReLU at layer 1 has kinks"):
        curvature(metric, points())
    with pytest.raises(ValueError, match="ReLU at layer 1"):
        curvature(metric, points(), strict=True)


def test_wide_outputs_cost_no_more_than_the_last_hidden_layer(monkeypatch):
    f, seen = net(p=5000), []
    plain = module.jet

    def watched(F, z, order, **options):
        state = plain(F, z, order, **options)
        seen.append(state.rows.shape[-1])
        return state

    truth = curvature(PullbackMetric(f), points())
    monkeypatch.setattr(module, "jet", watched)
    torch.testing.assert_close(curvature(PullbackMetric(f), points()).scalar, truth.scalar)
    assert seen == [7]
    live = curvature(PullbackMetric(f.requires_grad_(True)), points())
    torch.testing.assert_close(live.scalar, truth.scalar)
    assert seen == [7, 7]
    live.scalar.sum().backward()
    assert all(p.grad is not None for name, p in f.named_parameters() if name != "4.bias")


def test_degenerate_metrics_are_named():
    flat = PullbackMetric(lambda z: torch.cat([z.sum(1, keepdim=True).sin(), z.sum(1, keepdim=True)], dim=1))
    for call in (curvature, christoffel):
        with pytest.raises(ValueError, match=r"not positive definite at row 0"):
            call(flat, points())
    with pytest.raises(ValueError, match="not positive definite at row 0"):
        curvature(PullbackMetric(lambda z: z[:, :1].sin()), points())
    z = points().clamp(-0.9, 0.9)
    z[5, 0] = -2.0
    for root in (torch.sqrt, torch.log):  # the derivative of log does not see that its value is none
        holes = PullbackMetric(lambda z, root=root: root(torch.cat([z + 1, z.square() + z + 1], dim=1)))
        with pytest.raises(ValueError, match="not finite at row 5"):
            curvature(holes, z)
    with pytest.raises(ValueError, match="not finite at row 5"):
        christoffel(PullbackMetric(lambda z: torch.sqrt(torch.cat([z + 1, z.square() + 1], dim=1))), z)
    with pytest.raises(ValueError, match="not positive definite at row 0"):
        curvature(from_tensor(lambda z: torch.zeros(len(z), 2, 2, dtype=z.dtype), 2), z)


def test_directions_are_checked(as_users_run):
    at = curvature(PullbackMetric(Sphere().embedding), points())
    with pytest.raises(ValueError, match=r"u: expected \(8, 2\) or \(2,\), got \(3,\)"):
        at.sectional(torch.ones(3), torch.ones(2))
    with pytest.raises(TypeError, match=r"v: expected a torch\.Tensor"):
        at.sectional(torch.ones(2), [1.0, 0.0])
    with pytest.raises(ValueError, match="u: expected a direction, got zero at row 0"):
        at.sectional(torch.zeros(2), torch.ones(2))
    with pytest.raises(ValueError, match="v: expected a direction that is not parallel to u, row 0"):
        at.sectional(torch.ones(2), 3 * torch.ones(2))
    with pytest.raises(ValueError, match="v: expected finite"):
        at.sectional(torch.ones(2), torch.tensor([math.nan, 1.0]))
