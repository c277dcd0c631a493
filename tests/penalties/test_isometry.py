"""The isometry penalty: against autograd, numbers of another package, and its invariances."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from penalties.checks import dense, draw, relative
from penalties.decoders import CONSTANT, MOVING, decoder, known, plain_value, reference
from pullback.ambient import Diagonal, Euclidean, Gaussian, LowRank
from pullback.jets import Jet
from pullback.penalties import IsometryPenalty, Penalty

GOLDEN = Path(__file__).parents[1] / "golden" / "gam.npz"
CHECKED = {**CONSTANT, **MOVING}


@pytest.mark.parametrize("number", range(4))
def test_equals_the_peer(number: int) -> None:
    with np.load(GOLDEN, allow_pickle=False) as file:
        g = {
            k.split("_", 1)[1]: torch.from_numpy(file[k]) for k in file.files if k.startswith(f"iso{number}_")
        }
    penalty = IsometryPenalty(float(g["weight"]))
    target = Jet(None, g["J"], g["H"], g["K"])
    once = penalty.evaluate(target)
    for found, name in [
        (penalty.value(target).reshape(1), "value"),
        (penalty.grad_target(target), "grad_t"),
        (penalty.grad_jacobian(target), "grad_J"),
        (penalty.hvp(target, g["v"]), "hvp"),
        (penalty.curvature(target, kind="hessian").matvec(g["v"]), "hvp"),
        (once.value.reshape(1), "value"),
        (once.grad_target, "grad_t"),
        (once.grad_jacobian, "grad_J"),
    ]:
        assert relative(found, g[f"out_{name}"]) <= 1e-12
    assert torch.equal(penalty.value(g["t"], jet=target), penalty.value(target))


@pytest.mark.parametrize("with_reference", [False, True], ids=["identity", "reference"])
@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_derivatives_through_a_decoder(d: int, name: str, with_reference: bool) -> None:
    n, net = 5, decoder(d)
    W, wanted = CHECKED[name](n, 6), reference(n, d) if with_reference else None
    penalty = IsometryPenalty(1.7, ambient=W, reference=wanted, decoder=net)
    z, v = draw(n, d).requires_grad_(), draw(n, d, seed=1)
    value = 1.7 * plain_value(net, z, W, wanted)
    (slope,) = torch.autograd.grad(value, z, create_graph=True)
    (product,) = torch.autograd.grad(slope, z, v)
    points = z.detach()
    assert relative(penalty.value(points), value) <= 1e-12
    assert relative(penalty.grad_target(points), slope) <= 1e-12
    assert relative(penalty.hvp(points, v), product) <= 1e-12
    once = penalty.evaluate(points)
    assert relative(once.grad_target, slope) <= 1e-12
    assert relative(once.grad_jacobian, penalty.grad_jacobian(points)) <= 1e-13
    assert relative(penalty.penalize(net, points), value) <= 1e-12


@pytest.mark.parametrize("with_reference", [False, True], ids=["identity", "reference"])
@pytest.mark.parametrize("name", CONSTANT)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_given_jets_agree_with_the_decoder(d: int, name: str, with_reference: bool) -> None:
    n, net = 5, decoder(d)
    W, wanted = CONSTANT[name](n, 6), reference(n, d) if with_reference else None
    z, v = draw(n, d), draw(n, d, seed=1)
    target = known(net, z)
    given = IsometryPenalty(1.7, ambient=W, reference=wanted)
    inside = IsometryPenalty(1.7, ambient=W, reference=wanted, decoder=net)
    for method in ("value", "grad_target", "grad_jacobian", "grad_rho", "pullback_metric"):
        assert relative(getattr(given, method)(target), getattr(inside, method)(z)) <= 1e-12
    for method in ("hvp", "psd_majorizer_hvp"):
        assert relative(getattr(given, method)(target, v), getattr(inside, method)(z, v)) <= 1e-12
    for kind in ("gauss_newton", "hessian", "loewner"):
        found, expected = given.curvature(target, kind=kind), inside.curvature(z, kind=kind)
        assert relative(found.dense(), expected.dense()) <= 1e-11


@pytest.mark.parametrize("name", CONSTANT)
def test_gradient_by_the_jacobian(name: str) -> None:
    n, p, d = 5, 6, 2
    W, wanted = CONSTANT[name](n, p), reference(n, d)
    penalty = IsometryPenalty(0.6, ambient=W, reference=wanted)
    J = draw(n, p, d).requires_grad_()
    (slope,) = torch.autograd.grad(penalty.value(Jet(None, J)), J)
    found = penalty.grad_jacobian(Jet(None, J.detach()))
    assert relative(found, slope) <= 1e-12
    # P does not change with the scale of J
    assert (J * slope).sum().abs() <= 1e-12 * slope.abs().max() * J.abs().sum()


@pytest.mark.parametrize("with_reference", [False, True], ids=["identity", "reference"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_gauss_newton_is_the_square_of_the_residual(d: int, with_reference: bool) -> None:
    n, z = 4, draw(4, d)
    wanted = reference(n, d) if with_reference else torch.eye(d, dtype=z.dtype)
    penalty = IsometryPenalty(1.3, reference=wanted if with_reference else None, decoder=decoder(d))

    def residual(points: Tensor) -> Tensor:
        g = penalty.pullback_metric(points)
        return g / g.diagonal(dim1=1, dim2=2).mean() - wanted

    DR = torch.autograd.functional.jacobian(residual, z).reshape(n * d * d, n * d)
    expected = 1.3 * DR.mT @ DR
    assert relative(dense(lambda v: penalty.psd_majorizer_hvp(z, v), z), expected) <= 1e-12
    assert torch.linalg.eigvalsh(expected)[0] >= -1e-12 * expected.abs().max()


def test_differentiable_to_points_and_parameters() -> None:
    net, z, v = decoder(2, h=4), draw(3, 2).requires_grad_(), draw(3, 2, seed=1)
    penalty = IsometryPenalty(decoder=net)
    for function in (
        penalty.value,
        penalty.grad_target,
        lambda at: penalty.hvp(at, v),
        penalty.grad_jacobian,
    ):
        assert gradcheck(function, (z,), eps=1e-6, atol=1e-6, rtol=1e-5)
    assert gradgradcheck(penalty.value, (z,), eps=1e-6, atol=1e-5, rtol=1e-4)
    parameters = tuple(net.parameters())

    def by_parameters(*values: Tensor) -> Tensor:
        names = [name for name, _ in net.named_parameters()]

        class Fixed(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (x,))

        return penalty.penalize(Fixed(), z.detach())

    found = torch.autograd.grad(penalty.value(z.detach()), parameters, allow_unused=True)
    at = tuple(value.detach().clone().requires_grad_() for value in parameters)
    expected = torch.autograd.grad(by_parameters(*at), at, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        assert one is None or relative(one, other) <= 1e-12


def test_differentiable_to_given_jets() -> None:
    J, H, K = (draw(2, 3, *(2,) * k, seed=k).requires_grad_() for k in (1, 2, 3))
    v = draw(2, 2)
    penalty = IsometryPenalty(ambient=LowRank(draw(3, 3, seed=4)))
    assert gradcheck(lambda a: penalty.value(Jet(None, a)), (J,))
    assert gradgradcheck(lambda a: penalty.value(Jet(None, a)), (J,))
    assert gradcheck(lambda a, b: penalty.grad_target(Jet(None, a, b)), (J, H))
    assert gradcheck(lambda a, b, c: penalty.hvp(Jet(None, a, b, c), v), (J, H, K))
    assert penalty.evaluate(Jet(None, J, H)).grad_target.requires_grad


def test_precision_follows_the_input(dtype: torch.dtype) -> None:
    n, d = 6, 3
    wide, narrow = decoder(d), decoder(d, dtype=dtype)
    z, v = draw(n, d), draw(n, d, seed=1)
    exact, found = IsometryPenalty(decoder=wide), IsometryPenalty(decoder=narrow)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    for method in ("value", "grad_target", "grad_jacobian"):
        result = getattr(found, method)(z.to(dtype))
        assert result.dtype == dtype
        assert relative(result.double(), getattr(exact, method)(z)) <= tolerance
    for method in ("hvp", "psd_majorizer_hvp"):
        result = getattr(found, method)(z.to(dtype), v.to(dtype))
        assert result.dtype == dtype
        assert relative(result.double(), getattr(exact, method)(z, v)) <= tolerance
    once = found.evaluate(known(narrow, z.to(dtype)))
    assert once.grad_target.dtype == once.value.dtype == dtype


@given(st.floats(-6, 6), st.integers(1, 4), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_scale_of_the_jacobian_does_not_matter(power: float, d: int, seed: int) -> None:
    J, H = draw(5, 6, d, seed=seed), draw(5, 6, d, d, seed=seed + 1)
    penalty, c = IsometryPenalty(), 10.0**power
    once, scaled = penalty.evaluate(Jet(None, J, H)), penalty.evaluate(Jet(None, c * J, c * H))
    assert relative(scaled.value, once.value) <= 1e-12
    assert relative(scaled.grad_target, once.grad_target) <= 1e-11
    assert relative(c * scaled.grad_jacobian, once.grad_jacobian) <= 1e-11


@pytest.mark.parametrize("c", [1e-200, 1e-6, 3.7, 1e6, 1e200])
def test_scales_whose_squares_leave_the_range(c: float) -> None:
    J, H, K = (draw(5, 6, *(2,) * k, seed=k) for k in (1, 2, 3))
    v = draw(5, 2)
    for penalty in (IsometryPenalty(), IsometryPenalty(reference=reference(5, 2))):
        plain, scaled = Jet(None, J, H, K), Jet(None, c * J, c * H, c * K)
        assert relative(penalty.value(scaled), penalty.value(plain)) <= 1e-12
        assert relative(penalty.grad_target(scaled), penalty.grad_target(plain)) <= 1e-12
        assert relative(penalty.hvp(scaled, v), penalty.hvp(plain, v)) <= 1e-12
        once = penalty.evaluate(scaled)
        assert relative(once.grad_target, penalty.grad_target(plain)) <= 1e-12
        assert relative(once.grad_jacobian * c, penalty.grad_jacobian(plain)) <= 1e-12


def test_decoders_whose_squares_leave_the_range() -> None:
    net = decoder(2, dtype=torch.float32)
    z = draw(4, 2, dtype=torch.float32)
    expected = IsometryPenalty(decoder=net).evaluate(z)
    with torch.no_grad():
        net[-1].weight.mul_(1e-18)
    found = IsometryPenalty(decoder=net).evaluate(z)
    assert relative(found.value, expected.value) <= 1e-5
    assert relative(found.grad_target, expected.grad_target) <= 1e-5


@given(st.integers(0, 200), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_rotations_of_data_and_orders_of_rows_do_not_matter(seed: int, d: int) -> None:
    J, H = draw(5, 6, d, seed=seed), draw(5, 6, d, d, seed=seed + 1)
    Q = torch.linalg.qr(draw(6, 6, seed=seed + 2)).Q
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    penalty = IsometryPenalty()
    once = penalty.evaluate(Jet(None, J, H))
    turned = penalty.evaluate(Jet(None, Q @ J, torch.einsum("ij,njab->niab", Q, H)))
    assert relative(turned.value, once.value) <= 1e-12
    assert relative(turned.grad_target, once.grad_target) <= 1e-11
    mixed = penalty.evaluate(Jet(None, J[order], H[order]))
    assert relative(mixed.value, once.value) <= 1e-12
    assert relative(mixed.grad_target, once.grad_target[order]) <= 1e-11


@given(st.integers(0, 200), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_gauss_newton_is_positive(seed: int, d: int) -> None:
    target = Jet(None, draw(4, 6, d, seed=seed), draw(4, 6, d, d, seed=seed + 1))
    B = IsometryPenalty().curvature(target).dense()
    assert torch.linalg.eigvalsh(B)[0] >= -1e-12 * B.abs().max()


def test_isometries_cost_nothing() -> None:
    plane = nn.Linear(2, 5).double()
    with torch.no_grad():
        plane.weight.copy_(3 * torch.linalg.qr(draw(5, 2)).Q)
    penalty = IsometryPenalty(decoder=plane)
    assert penalty.value(draw(7, 2)).item() < 1e-28
    sheared = IsometryPenalty(decoder=plane, reference=torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
    assert sheared.value(draw(7, 2)).item() == pytest.approx(7.0)


@pytest.mark.parametrize(("n", "p", "d"), [(3000, 4, 2), (200, 30, 2), (40, 40, 3), (300, 800, 6)], ids=str)
def test_kernels_for_many_rows_equal_the_plain_ones(n: int, p: int, d: int) -> None:
    J, H = draw(n, p, d), draw(n, p, d, d, seed=1)
    quick = IsometryPenalty(0.7).evaluate(Jet(None, J, H))
    slow = IsometryPenalty(0.7).evaluate(Jet(None, J.requires_grad_(), H))
    assert relative(quick.value, slow.value) <= 1e-12
    assert relative(quick.grad_target, slow.grad_target) <= 1e-12
    assert relative(quick.grad_jacobian, slow.grad_jacobian) <= 1e-12
    assert quick.mean == pytest.approx(slow.mean, rel=1e-12)


def test_asymmetric_second_derivatives_are_taken_as_they_are() -> None:
    J, H = draw(4, 6, 2), draw(4, 6, 2, 2, seed=1)
    penalty = IsometryPenalty()
    slope = penalty.grad_jacobian(Jet(None, J))
    expected = torch.einsum("nia,niac->nc", slope, H)
    assert relative(penalty.grad_target(Jet(None, J, H)), expected) <= 1e-13


def test_reduction_and_strength() -> None:
    target = Jet(None, draw(4, 6, 2), draw(4, 6, 2, 2, seed=1), draw(4, 6, 2, 2, 2, seed=2))
    v = draw(4, 2)
    total, mean = IsometryPenalty(), IsometryPenalty(reduction="mean")
    assert relative(4 * mean.value(target), total.value(target)) <= 1e-14
    assert relative(4 * mean.evaluate(target).grad_target, total.grad_target(target)) <= 1e-14
    assert relative(4 * mean.hvp(target, v), total.hvp(target, v)) <= 1e-14
    rho = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    value = total.value(target, rho)
    (by_rho,) = torch.autograd.grad(value, rho)
    assert relative(by_rho, total.grad_rho(target, rho)) <= 1e-14
    assert relative(total.evaluate(target, rho).value, value) <= 1e-14
    assert relative(total.value(target, 0.3), value) <= 1e-14
    zero = IsometryPenalty(0.0)
    assert zero.value(target).item() == zero.grad_rho(target).item() == 0
    assert isinstance(total, Penalty)
    assert total.hessian_diag(target) is None
    assert total.psd_majorizer_diag(target) is None


def test_flat_targets() -> None:
    net, z, v = decoder(2), draw(4, 2), draw(4, 2, seed=1)
    flat = IsometryPenalty(decoder=net, latent_dim=2)
    plain = IsometryPenalty(decoder=net)
    assert torch.equal(flat.grad_target(z.flatten()), plain.grad_target(z).flatten())
    assert torch.equal(flat.hvp(z.flatten(), v.flatten()), plain.hvp(z, v).flatten())
    by_jet = IsometryPenalty().grad_target(z.flatten(), jet=known(net, z, 2))
    assert relative(by_jet, plain.grad_target(z).flatten()) <= 1e-12


def test_empty_targets_are_zero() -> None:
    penalty = IsometryPenalty(decoder=decoder(2))
    empty = torch.zeros(0, 2, dtype=torch.float64)
    assert penalty.value(empty).item() == 0
    assert penalty.grad_target(empty).shape == penalty.hvp(empty, empty).shape == (0, 2)
    assert penalty.pullback_metric(empty).shape == (0, 2, 2)
    assert penalty.evaluate(empty).value.item() == penalty.penalize(decoder(2), empty).item() == 0
    nothing = Jet(None, torch.zeros(0, 5, 2))
    assert penalty.grad_jacobian(nothing).shape == (0, 5, 2)
    assert penalty.curvature(empty).matvec(empty).shape == (0, 2)


def test_no_array_of_all_second_derivatives_is_made() -> None:
    n, p, d = 16, 500, 8
    net = decoder(d, p=p, h=16)
    z = draw(n, d)
    penalty = IsometryPenalty(decoder=net)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.untyped_storage().nbytes() // 8)
            return result

    with Watch(), torch.no_grad():
        penalty.evaluate(z)
        penalty.hvp(z, z)
        penalty.curvature(z, kind="loewner")
    assert largest < n * p * d * d / 4


def test_one_weight_for_all_features_changes_no_shape() -> None:
    net, z = decoder(2, p=3), draw(5, 2)
    plain = IsometryPenalty(decoder=net)
    for space in (Diagonal(4.0), Gaussian(0.5)):
        found = IsometryPenalty(decoder=net, ambient=space)
        torch.testing.assert_close(found.pullback_metric(z), 4 * plain.pullback_metric(z))
        torch.testing.assert_close(found.value(z), plain.value(z))
        torch.testing.assert_close(space.row_traces(5, 3), torch.full((5,), 12.0, dtype=torch.float64))


def test_the_likelihoods_ambient_is_the_gauges() -> None:
    W = LowRank(draw(6, 3))
    assert IsometryPenalty(ambient=W).ambient is W
    assert isinstance(IsometryPenalty().ambient, Euclidean)
    assert "LowRank" in repr(IsometryPenalty(ambient=W))
