"""The logarithm map against closed forms, its refinement by shooting, its gradients."""

import pytest
import torch
from torch import Tensor

from differences import check_gradient
from pullback.geometry import Logarithm, exponential_map, geodesic, logarithm_map
from pullback.geometry import logarithm as module
from pullback.geometry.reference import PoincareDisk, Sphere, Torus
from pullback.metrics import EuclideanMetric, PullbackMetric, from_tensor
from surfaces import SURFACES, Disk, rows, tanh_network


def full(*args, **options) -> Logarithm:
    result = logarithm_map(*args, full=True, **options)
    assert isinstance(result, Logarithm)
    return result


QUICK = ("disk",)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SURFACES]
)
def test_there_and_back_on_closed_forms(name, as_users_run):
    """To 1e-6 on 129 nodes, to 1e-8 after refinement."""
    surface = SURFACES[name]
    plain = full(surface.metric, surface.a, surface.b, nodes=129, starts="line")
    assert bool(plain.converged.all())
    assert plain.norm_error.max() <= 1e-6
    fine = full(surface.metric, surface.a, surface.b, refine=True, starts="line")
    assert bool(fine.converged.all())
    assert fine.miss.max() <= 1e-9
    both = torch.cat([plain.vector, fine.vector])
    ends = exponential_map(surface.metric, surface.a.repeat(2, 1), both)
    miss = (ends - surface.b.repeat(2, 1)).norm(dim=1)
    assert miss[:4].max() <= 1e-6
    assert miss[4:].max() <= 1e-8


@pytest.mark.slow
def test_torus_to_1e_5_on_65_nodes(as_users_run):
    """Acceptance 8, on the pairs of the table of lengths."""
    a = torch.tensor([[0.0, 0.0], [0.3, 2.5], [1.0, -1.0]], dtype=torch.float64)
    b = torch.tensor([[2.0, 1.5], [1.9, -1.0], [2.5, 2.0]], dtype=torch.float64)
    metric = PullbackMetric(Torus().embedding)
    vectors = torch.cat([logarithm_map(metric, a, b, starts="line", nodes=n) for n in (65, 129)])
    miss = (exponential_map(metric, a.repeat(2, 1), vectors) - b.repeat(2, 1)).norm(dim=1)
    assert miss[:3].max() <= 1e-5
    assert miss[3:].max() <= 1e-6


@pytest.mark.parametrize("manifold", [Sphere(), Disk()])
def test_closed_forms(manifold, as_users_run):
    a, b = rows(5, size=0.3), rows(5, size=0.3, seed=2)
    metric = PullbackMetric(manifold.embedding) if isinstance(manifold, Sphere) else manifold
    expected = manifold.logarithm(a, b)
    seen = full(metric, a, b)
    torch.testing.assert_close(seen.vector, expected, rtol=0, atol=1e-6)
    assert seen.norm_error.max() <= 1e-6
    assert bool(torch.isnan(seen.miss).all())
    assert seen.message == "all vectors converged"
    momentum = seen.path.velocity_start
    assert (momentum - expected).norm() > 50 * (seen.vector - expected).norm()


@pytest.mark.slow
def test_both_paths_agree(as_users_run):
    metric = PullbackMetric(tanh_network())
    a, b = rows(4), rows(4, seed=2)
    embedded = logarithm_map(metric, a, b, starts="line", refine=True)
    plain = logarithm_map(from_tensor(metric.tensor, 2), a, b, starts="line", refine=True)
    torch.testing.assert_close(embedded, plain, rtol=0, atol=1e-7)


def test_refinement_mends_a_coarse_mesh_and_says_how_well(as_users_run):
    metric = PullbackMetric(tanh_network(scale=2.0))
    a, b = rows(6, size=0.8), rows(6, size=0.8, seed=2)
    coarse = full(metric, a, b, nodes=9, max_nodes=9, gap_tol=1.0)
    fine = full(metric, a, b, nodes=9, max_nodes=9, gap_tol=1.0, refine=True)
    assert bool(fine.converged.all())
    miss = (exponential_map(metric, a, fine.vector, tol=1e-11) - b).norm(dim=1)
    assert miss.max() <= 1e-8
    assert (exponential_map(metric, a, coarse.vector, tol=1e-11) - b).norm(dim=1).max() > 1e-4


@pytest.mark.parametrize("d", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_other_dimensions(d):
    metric = PullbackMetric(tanh_network(d, 3 * d))
    a, b = rows(4, d), rows(4, d, seed=2)
    seen = full(metric, a, b, refine=True)
    assert bool(seen.converged.all())
    torch.testing.assert_close(exponential_map(metric, a, seen.vector), b, rtol=0, atol=1e-8)


def test_single_precision_follows_its_input():
    a, b = rows(4, size=0.3).float(), rows(4, size=0.3, seed=2).float()
    for refine in (False, True):
        seen = full(Disk(), a, b, refine=refine)
        assert seen.vector.dtype == seen.norm_error.dtype == torch.float32
        assert bool(seen.converged.all())
        assert (seen.vector - PoincareDisk().logarithm(a, b)).abs().max() <= 1e-3


def test_an_unconverged_path_is_passed_on():
    metric = PullbackMetric(tanh_network(scale=4.0))
    a, b = rows(6, size=1.0), rows(6, size=1.0, seed=2)
    seen = full(metric, a, b, starts="line", max_iter=1, max_nodes=65)
    assert not bool(seen.converged.all())
    assert torch.equal(seen.converged, seen.path.converged)
    assert "vectors not converged" in seen.message
    assert "by residual" in seen.message


def test_a_vector_of_the_wrong_length_is_flagged():
    """On nine nodes the momentum of a strongly bent decoder is off, though the path passes."""
    metric = PullbackMetric(tanh_network(scale=4.0))
    a, b = rows(8, size=1.0), rows(8, size=1.0, seed=2)
    seen = full(metric, a, b, nodes=9, max_nodes=9, gap_tol=1.0)
    wrong = seen.norm_error > 1e-2
    assert bool(wrong.any())
    assert not bool(seen.converged[wrong].any())
    assert "the length is off by up to" in seen.message


def test_shots_that_miss_are_flagged(monkeypatch):
    monkeypatch.setattr(module, "SHOTS", 1)
    metric = PullbackMetric(tanh_network(scale=2.0))
    seen = full(metric, rows(4), rows(4, seed=2), refine=True, nodes=9, max_nodes=9, gap_tol=1.0)
    assert not bool(seen.converged.any())
    assert (seen.miss > 1e-9).all()
    assert torch.isfinite(seen.vector).all()
    assert "4 of 4 vectors not converged; exp misses by up to" in seen.message


def test_equal_points_single_points_and_empty_batches(dtype):
    a, b = rows(4).to(dtype), rows(4, seed=2).to(dtype)
    b[1] = a[1]
    flat = EuclideanMetric(2)
    for refine in (False, True):
        seen = full(flat, a, b, refine=refine)
        torch.testing.assert_close(seen.vector, b - a, rtol=1e-5, atol=1e-6)
        assert torch.equal(seen.vector[1], torch.zeros(2, dtype=dtype))
        assert bool(seen.converged.all())
    torch.testing.assert_close(logarithm_map(flat, a[0], b), b - a[0], rtol=1e-5, atol=1e-6)
    assert logarithm_map(flat, a[0], b[0]).shape == (1, 2)
    assert logarithm_map(flat, a[:0], b[:0], refine=True).shape == (0, 2)


def test_chunks_do_not_matter():
    metric = PullbackMetric(tanh_network())
    a, b = rows(5), rows(5, seed=2)
    whole = logarithm_map(metric, a, b, data=torch.cat([a, b]))
    parts = logarithm_map(metric, a, b, data=torch.cat([a, b]), chunk_size=2)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-8)


@pytest.mark.parametrize("refine", [False, True])
def test_gradients_of_both_points_are_those_of_the_closed_form(refine, as_users_run):
    disk = Disk()
    live = [rows(4, size=0.3).requires_grad_(), rows(4, size=0.3, seed=2).requires_grad_()]
    weights = rows(4, seed=3)
    seen = torch.autograd.grad((weights * logarithm_map(disk, *live, refine=refine)).sum(), live)
    expected = torch.autograd.grad((weights * disk.logarithm(*live)).sum(), live)
    for got, want in zip(seen, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_gradient_of_decoder_weights_is_that_of_differences(as_users_run):
    net = tanh_network().requires_grad_(True)
    a, b, weights = rows(3), rows(3, seed=2), rows(3, seed=3)
    metric = PullbackMetric(net)

    def value() -> Tensor:
        return (weights * logarithm_map(metric, a, b, refine=True, starts="line")).sum()

    check_gradient(value, net[0].weight, [(0, 0), (3, 1)], step=1e-4)


def test_gradient_at_equal_points_and_without_anything_live():
    a = rows(2, size=0.3).requires_grad_()
    b = a.detach().clone().requires_grad_()
    weights = rows(2, seed=3)
    seen = torch.autograd.grad((weights * logarithm_map(PoincareDisk(), a, b)).sum(), [a, b])
    torch.testing.assert_close(seen[0], -weights)
    torch.testing.assert_close(seen[1], weights)
    assert not logarithm_map(PullbackMetric(tanh_network()), rows(2), rows(2, seed=2)).requires_grad
    with torch.no_grad():
        assert not logarithm_map(PoincareDisk(), a, b).requires_grad


def test_rows_without_a_gradient_are_said_and_spare_the_others(monkeypatch, caplog, as_users_run):
    a, b = rows(3, size=0.3), rows(3, size=0.3, seed=2)
    live = a.clone().requires_grad_()
    (whole,) = torch.autograd.grad(logarithm_map(Disk(), live, b).sum(), live)
    assert not caplog.records
    plain, keep = module.follow, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)[:, None]

    def conjugate(*args):
        """The second row ends where it does whatever its velocity."""
        moved, companion = plain(*args)
        return keep * moved, companion

    monkeypatch.setattr(module, "follow", conjugate)
    vectors = logarithm_map(Disk(), live, b)
    (seen,) = torch.autograd.grad(vectors.sum(), live)
    torch.testing.assert_close(vectors.detach(), logarithm_map(Disk(), a, b), rtol=0, atol=0)
    torch.testing.assert_close(seen, keep * whole)
    assert "1 of 3 vectors carry no gradient" in caplog.text


@pytest.mark.parametrize("few", [1, 3])
def test_shots_that_run_out_of_steps_carry_no_gradient(few, monkeypatch, caplog):
    monkeypatch.setattr(module, "MOST_STEPS", few)
    metric = PullbackMetric(tanh_network(scale=4.0))
    a, b = rows(4).requires_grad_(), rows(4, seed=2)
    (seen,) = torch.autograd.grad(logarithm_map(metric, a, b, starts="line").sum(), a)
    lost = (seen == 0).all(1)
    assert bool(lost.any())
    assert f"{int(lost.sum())} of 4 vectors carry no gradient" in caplog.text


def test_vectors_that_did_not_converge_are_logged(caplog):
    metric = PullbackMetric(tanh_network(scale=4.0))
    a, b = rows(6, size=1.0), rows(6, size=1.0, seed=2)
    full(metric, a, b, starts="line", max_iter=1, max_nodes=65)
    assert not caplog.records
    logarithm_map(metric, a, b, starts="line", max_iter=1, max_nodes=65)
    assert "vectors not converged" in caplog.text


def test_the_length_is_the_distance(as_users_run):
    metric = PullbackMetric(tanh_network())
    a, b = rows(4), rows(4, seed=2)
    v = logarithm_map(metric, a, b, refine=True, nodes=129)
    size = torch.einsum("na,nab,nb->n", v, metric.tensor(a), v).sqrt()
    torch.testing.assert_close(size, geodesic(metric, a, b, nodes=129).length, rtol=1e-6, atol=0)


def test_bad_input_is_named(as_users_run):
    a = rows(5)
    with pytest.raises(ValueError, match=r"b: expected \(5, 2\) like a, got \(5, 1\)"):
        logarithm_map(PoincareDisk(), a, a[:, :1])
    with pytest.raises(ValueError, match=r"a: expected finite numbers, got .* at row 2"):
        logarithm_map(PoincareDisk(), a / (torch.arange(5) != 2)[:, None], a)
    with pytest.raises(ValueError, match="nodes: expected an odd number"):
        logarithm_map(PoincareDisk(), a, a, nodes=8)
    with pytest.raises(TypeError, match="wrap a decoder in PullbackMetric"):
        logarithm_map(tanh_network(), a, a)
