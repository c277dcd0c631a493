"""The exponential map against closed forms, in its three forms, with its gradients and its refusals."""

import re

import pytest
import torch
from torch import Tensor, nn

from differences import check_gradient
from pullback.geometry import Exponential, exponential_map
from pullback.geometry.motion import EmbeddedMotion, HamiltonianMotion, TensorMotion, motion_of, travel
from pullback.geometry.reference import PoincareDisk, Sphere, Torus
from pullback.jets import PiecewiseLinearWarning
from pullback.metrics import CentroidMetric, EuclideanMetric, PullbackMetric, as_metric, from_tensor
from surfaces import rows, tanh_network

SPHERE = PullbackMetric(Sphere().embedding)


def of_speed(metric, z: Tensor, v: Tensor, speeds: Tensor) -> Tensor:
    g = metric.tensor(z)
    return v * (speeds / torch.einsum("na,nab,nb->n", v, g, v).sqrt())[:, None]


def full(*args, **options) -> Exponential:
    result = exponential_map(*args, full=True, **options)
    assert isinstance(result, Exponential)
    return result


class HalfPlane:
    """Flat above the axis, undefined below."""

    def tensor(self, z: Tensor) -> Tensor:
        inside = torch.where(z[:, 1] > 0, 1.0, torch.nan).to(z)
        return inside[:, None, None] * torch.eye(2, dtype=z.dtype)

    def derivative(self, z: Tensor) -> Tensor:
        return torch.zeros(len(z), 2, 2, 2, dtype=z.dtype) * self.tensor(z)[..., None]


class HamiltonianDisk(PoincareDisk):
    """The disk with its force in closed form, g⁻¹ = (1 - |z|²)²/4: it refuses to be differentiated."""

    def hamiltonian_force(self, z: Tensor, p: Tensor) -> Tensor:
        return (p.square().sum(-1) * (1 - z.square().sum(-1)) / 2)[:, None] * z

    def derivative(self, z: Tensor) -> Tensor:
        raise AssertionError("the Hamiltonian form differentiates nothing")


@pytest.mark.slow
def test_sphere_to_1e_7(as_users_run):
    """Acceptance 8."""
    z, v = rows(8), rows(8, seed=2)
    v = of_speed(SPHERE, z, v, torch.linspace(0.1, 1.8, 8, dtype=torch.float64))
    seen = full(SPHERE, z, v, tol=1e-8)
    assert bool(seen.converged.all())
    assert seen.message == "all motions converged"
    assert (seen.point - Sphere().exponential(z, v)).abs().max() <= 1e-9
    assert seen.drift.max() <= 1e-9
    assert seen.error.max() <= 1e-8
    assert (seen.steps >= 2).all()


def test_tensor_path_and_any_start_on_the_disk():
    z, v = rows(8, size=0.3), rows(8, size=0.4, seed=2)
    torch.testing.assert_close(
        exponential_map(PoincareDisk(), z, v), PoincareDisk().exponential(z, v), rtol=0, atol=1e-9
    )


def test_single_precision_follows_its_input():
    z, v = rows(6).float(), rows(6, seed=2).float() / 2
    seen = full(SPHERE, z, v)
    assert seen.point.dtype == seen.velocity.dtype == seen.drift.dtype == torch.float32
    assert bool(seen.converged.all())
    assert (seen.point - Sphere().exponential(z, v)).abs().max() <= 1e-4


def test_the_three_forms_agree(as_users_run):
    z, v = rows(5, size=0.3), rows(5, size=0.4, seed=2)
    assert isinstance(motion_of(as_metric(HamiltonianDisk())), HamiltonianMotion)
    assert type(motion_of(as_metric(PoincareDisk()))) is TensorMotion
    assert type(motion_of(SPHERE)) is EmbeddedMotion
    force, tensor = full(HamiltonianDisk(), z, v), full(PoincareDisk(), z, v)
    torch.testing.assert_close(force.point, tensor.point, rtol=0, atol=1e-9)
    torch.testing.assert_close(force.velocity, tensor.velocity, rtol=0, atol=1e-8)
    net = PullbackMetric(tanh_network())
    embedded = full(net, z, v)
    plain = full(from_tensor(net.tensor, 2), z, v)
    torch.testing.assert_close(embedded.point, plain.point, rtol=0, atol=1e-9)


def test_a_centroid_metric_moves_in_hamiltonian_form():
    centroids, factors = rows(6), torch.eye(2, dtype=torch.float64) + 0.1 * rows(24).reshape(-1, 2, 2)[:6]
    metric = CentroidMetric(centroids, factors, temperature=0.8, regularization=0.1)
    z, v = rows(5, size=0.3), rows(5, seed=2)
    assert isinstance(motion_of(metric), HamiltonianMotion)
    seen = full(metric, z, v)
    assert bool(seen.converged.all())
    plain = travel(TensorMotion(metric), z, v, tol=1e-9, max_steps=1000)
    torch.testing.assert_close(seen.point, z + plain.moved, rtol=0, atol=1e-8)
    torch.testing.assert_close(seen.velocity, plain.velocity, rtol=0, atol=1e-7)


def test_clairaut_constant_is_kept_to_1e_7():
    """Acceptance 8."""
    torus, z, v = Torus(), rows(4, size=1.0), rows(4, seed=2)
    seen = full(PullbackMetric(torus.embedding), z, v)
    before, after = torus.clairaut(z, v), torus.clairaut(seen.point, seen.velocity)
    assert ((after - before) / v.norm(dim=1)).abs().max() <= 1e-7


@pytest.mark.parametrize("d", [1, 2, 5, 12])
def test_going_back_leads_home(d, as_users_run):
    metric = PullbackMetric(tanh_network(d, 3 * d))
    z, v = rows(4, d), rows(4, d, seed=2)
    there = full(metric, z, v)
    back = full(metric, there.point, -there.velocity)
    assert bool((there.converged & back.converged).all())
    torch.testing.assert_close(back.point, z, rtol=0, atol=1e-7)
    torch.testing.assert_close(back.velocity, -v, rtol=0, atol=1e-6)


def test_half_the_way_twice_is_the_way():
    metric = PullbackMetric(tanh_network())
    z, v = rows(5), rows(5, seed=2)
    middle = full(metric, z, v / 2)
    twice = exponential_map(metric, middle.point, middle.velocity)
    torch.testing.assert_close(twice, exponential_map(metric, z, v), rtol=0, atol=1e-8)


def test_leaving_the_domain_is_data_not_an_error(as_users_run):
    z = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    v = torch.tensor([[1.0, -2.0], [1.0, 2.0], [0.0, -0.5]], dtype=torch.float64)
    seen = full(HalfPlane(), z, v)
    assert seen.converged.tolist() == [False, True, True]
    assert torch.isfinite(seen.point).all()
    torch.testing.assert_close(seen.point[0], torch.tensor([0.5, 0.0]).double(), rtol=0, atol=1e-6)
    assert seen.point[0, 1] > 0
    torch.testing.assert_close(seen.point[1:], (z + v)[1:], rtol=0, atol=1e-12)
    assert seen.error[0] == torch.inf
    assert (
        "1 of 3 motions not converged: 1 left the domain of the metric, the first at t = 0.5" in seen.message
    )


def test_a_decoder_that_saturates_has_an_edge_at_a_finite_distance(as_users_run):
    """Where tanh saturates, the chart's infinity is reached in finite time: no overflow, no endless loop."""
    metric = PullbackMetric(tanh_network(scale=3.0))
    seen = full(metric, rows(10, size=1.0), rows(10, size=4.0, seed=2))
    assert not bool(seen.converged.all())
    assert torch.isfinite(seen.point).all()
    assert "left the domain" in seen.message
    assert seen.steps.max() < 600


def test_running_out_of_steps_is_said():
    seen = full(SPHERE, rows(2), rows(2, size=20.0, seed=2), max_steps=3)
    assert not bool(seen.converged.any())
    assert "2 ran out of steps" in seen.message
    assert "raise max_steps" in seen.message


@pytest.mark.parametrize(
    ("dtype", "tol"), [(torch.float32, 1e-6), pytest.param(torch.float64, 1e-15, marks=pytest.mark.slow)]
)
def test_a_tolerance_below_rounding_still_moves(dtype, tol):
    z, v = torch.zeros(1, 2, dtype=dtype), torch.tensor([[0.5, 0.2]], dtype=dtype)
    seen = full(SPHERE, z, v, tol=tol)
    assert int(seen.steps) >= 2
    assert (seen.point - Sphere().exponential(z, v)).abs().max() <= 20 * torch.finfo(dtype).eps
    assert seen.converged.tolist() == ((seen.error <= tol) & (seen.drift <= 10 * tol)).tolist()


def test_motions_that_do_not_converge_are_logged_where_points_alone_are_asked_for(caplog):
    z, v = rows(2), rows(2, size=20.0, seed=2)
    exponential_map(SPHERE, z, v / 40)
    full(SPHERE, z, v, max_steps=3)
    assert not caplog.records
    exponential_map(SPHERE, z, v, max_steps=3)
    assert "2 ran out of steps" in caplog.text


def test_a_piecewise_linear_decoder_is_warned_of():
    net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8)).double()
    with pytest.warns(PiecewiseLinearWarning, match="linear piece by piece"):
        end = exponential_map(PullbackMetric(net), rows(2), rows(2, seed=2, size=0.01))
    torch.testing.assert_close(end.detach(), rows(2) + rows(2, seed=2, size=0.01))


def test_no_velocity_single_points_and_empty_batches(dtype):
    z, v = rows(3).to(dtype), rows(3, seed=2).to(dtype)
    still = full(PoincareDisk(), z, torch.zeros_like(z))
    assert torch.equal(still.point, z)
    assert bool(still.converged.all())
    assert still.steps.tolist() == [0, 0, 0]
    flat = EuclideanMetric(2)
    torch.testing.assert_close(exponential_map(flat, z[0], v), z[0] + v)
    torch.testing.assert_close(exponential_map(flat, z, v[0]), z + v[0])
    assert exponential_map(flat, z[0], v[0]).shape == (1, 2)
    none = full(flat, z[:0], v[:0])
    assert none.point.shape == (0, 2)
    assert len(none) == 0


def test_chunks_and_company_do_not_matter(as_users_run):
    metric = PullbackMetric(tanh_network(scale=2.0))
    z, v = rows(7), rows(7, seed=2)
    whole = exponential_map(metric, z, v)
    torch.testing.assert_close(exponential_map(metric, z, v, chunk_size=2), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(exponential_map(metric, z[3:4], v[3:4]), whole[3:4], rtol=0, atol=1e-12)


def test_gradients_of_start_and_velocity_are_those_of_the_closed_form():
    disk = PoincareDisk()
    live = [rows(4, size=0.3).requires_grad_(), rows(4, size=0.4, seed=2).requires_grad_()]
    weights = rows(4, seed=3)
    seen = torch.autograd.grad((weights * exponential_map(disk, *live)).sum(), live)
    expected = torch.autograd.grad((weights * disk.exponential(*live)).sum(), live)
    for got, want in zip(seen, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-8)


def test_gradient_of_decoder_weights_is_that_of_differences(as_users_run):
    net = tanh_network().requires_grad_(True)
    z, v, weights = rows(3), rows(3, seed=2), rows(3, seed=3)
    metric = PullbackMetric(net)

    def value() -> Tensor:
        return (weights * exponential_map(metric, z, v, tol=1e-11)).sum()

    check_gradient(value, net[0].weight, [(0, 0), (3, 1), (7, 0)])


def test_gradient_at_no_velocity_is_the_identity():
    z, v = rows(2).requires_grad_(), torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    weights = rows(2, seed=3)
    seen = torch.autograd.grad((weights * exponential_map(PoincareDisk(), 0.3 * z, v)).sum(), [z, v])
    torch.testing.assert_close(seen[0], 0.3 * weights)
    torch.testing.assert_close(seen[1], weights)


def test_a_graph_is_recorded_only_where_something_is_live():
    z, v = rows(2), rows(2, seed=2)
    frozen, live = PullbackMetric(tanh_network()), PullbackMetric(tanh_network().requires_grad_(True))
    assert not exponential_map(frozen, z, v).requires_grad
    assert full(live, z, v).velocity.requires_grad
    with torch.no_grad():
        assert not exponential_map(live, z, v).requires_grad


def test_rows_that_left_carry_no_gradient(as_users_run):
    z = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    v = torch.tensor([[1.0, -2.0], [1.0, 2.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(exponential_map(HalfPlane(), z, v).sum(), z)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double())


BAD = [
    (lambda z: exponential_map(SPHERE, z, z[:, :1]), r"v: expected (5, 2) like z, got (5, 1)"),
    (lambda z: exponential_map(EuclideanMetric(3), z, z), r"z: expected (n, 3), got (5, 2)"),
    (lambda z: exponential_map(SPHERE, z, z.float()), "v: expected torch.float64 like z, got torch.float32"),
    (lambda z: exponential_map(SPHERE, z / 0, z), "z: expected finite numbers, got"),
    (lambda z: exponential_map(SPHERE, z, z, tol=-1.0), "tol: expected a finite number > 0"),
    (lambda z: exponential_map(SPHERE, z, z, max_steps=0), "max_steps: expected a whole number >= 1"),
    (lambda z: exponential_map(SPHERE, z, z, chunk_size=0), "chunk_size: expected a whole number >= 1"),
    (
        lambda z: exponential_map(from_tensor(lambda x: -torch.eye(2).to(x).expand(len(x), 2, 2), 2), z, z),
        "tensor(z) is not positive definite at row 0 (smallest eigenvalue -1)",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message, as_users_run):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(rows(5))
