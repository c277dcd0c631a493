"""Jets of dense networks and plain functions: exactness, layout, chunks, modes."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from jet_cases import (
    PIECEWISE,
    SMOOTH,
    dense,
    golden_layer,
    jet_difference,
    points,
    relative,
)
from pullback.jets import Jet, PackedJet, PiecewiseLinearWarning, jet, reference_jet
from pullback.jets.indices import _kept, count, indices


def _cut(full, order):
    """The jet without the entries above ``order``."""
    hessian, third = (full.hessian if order > 1 else None), (full.third if order > 2 else None)
    return Jet(full.value, full.jacobian, hessian, third)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("d", [1, 3])
def test_every_activation_equals_brute_force(name, d):
    f, x = dense(SMOOTH[name], d), points(4, d)
    expected = reference_jet(f, x, 3)
    for order in (1, 2, 3):
        found = jet(f, x, order)
        assert found.method == "layerwise"
        assert jet_difference(found, _cut(expected, order)) <= 1e-12
    with torch.no_grad():
        assert jet_difference(jet(f, x, 3), expected) <= 1e-12


@pytest.mark.parametrize("d", [1, 2, 3, 8])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_depths_and_dimensions_equal_brute_force(d, depth):
    f, x = dense(nn.Tanh, d, p=3, h=5, depth=depth), points(2, d)
    expected = reference_jet(f, x, 3)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for order in (1, 2, 3):
                assert jet_difference(jet(f, x, order), _cut(expected, order)) <= 1e-12


@pytest.mark.parametrize("name", PIECEWISE)
def test_piecewise_linear_nets_have_a_jacobian_and_no_curvature(name):
    f, x = dense(PIECEWISE[name], 3), points(5, 3)
    with pytest.warns(PiecewiseLinearWarning, match="smooth activation"):
        found = jet(f, x, 3)
    assert jet_difference(found, reference_jet(f, x, 3)) <= 1e-12
    assert not found.hessian.any()
    assert not found.third.any()


def test_no_warning_at_first_order_or_beside_a_smooth_layer():
    x = points(3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jet(dense(nn.ReLU, 2), x, 1)
        jet(nn.Sequential(dense(nn.ReLU, 2), nn.Tanh()), x, 2)
        jet(nn.Linear(2, 3).double(), x, 2)


def test_warning_comes_once_a_call():
    with pytest.warns(PiecewiseLinearWarning) as record:
        jet(dense(nn.ReLU, 2), points(9, 2), 2, chunk_size=2)
    assert len(record) == 1


@pytest.mark.parametrize("activation", [nn.Tanh, nn.SiLU, nn.GELU, nn.Softplus])
@pytest.mark.parametrize("grad", [True, False])
def test_single_precision_is_close_to_double(activation, grad):
    f, x = dense(activation, 3, p=60, h=256), points(16, 3)
    with torch.set_grad_enabled(grad):
        double = jet(f, x, 3)
        single = jet(f.float(), x.float(), 3)
    assert single.third.dtype == torch.float32
    pairs = zip(
        (single.value, single.jacobian, single.hessian, single.third),
        (double.value, double.jacobian, double.hessian, double.third),
        strict=True,
    )
    assert max(relative(a.double(), b) for a, b in pairs) <= 5e-6


GOLDEN = {
    "value": [-0.24631459625375407, -1.3569809909296522],
    "jacobian": [[0.26444665888062097, 0.17188096794252417], [-0.2154635525141941, -0.2315712166004949]],
    "second": [
        [-0.00024216920144460674, -0.0073932842532572025, 0.005327019922105185],
        [0.1175126311316918, 0.023958887675681696, -0.07562566319583942],
    ],
    "third": [
        [-0.21893673302161124, -0.3631872193898422, -0.41888522753508406, -0.2642143676020911],
        [0.06292474409703103, 0.2286063873141904, 0.2278404663451185, 0.22336727115015806],
    ],
}


@pytest.mark.parametrize("grad", [True, False])
def test_closed_form_decoder(grad):
    layers = [golden_layer(2, 3, 1, 1.0), nn.Tanh(), golden_layer(3, 2, 2, 0.7), nn.Softplus()]
    f = nn.Sequential(*layers, golden_layer(2, 2, 3, 1.3))
    with torch.set_grad_enabled(grad):
        rows = jet(f, torch.tensor([[0.3, -0.8]], dtype=torch.float64), 3, packed=True).rows[:, 0].T
    expected = [
        torch.tensor(GOLDEN[key], dtype=torch.float64) for key in ("value", "jacobian", "second", "third")
    ]
    expected[0] = expected[0].unsqueeze(1)
    torch.testing.assert_close(rows.detach(), torch.cat(expected, 1), rtol=1e-11, atol=1e-14)


def _sphere(z):
    a, b = z.unbind(1)
    return torch.stack([torch.cos(b) * torch.sin(a), torch.sin(b) * torch.sin(a), torch.cos(a)], 1)


def _torus(z):
    a, b = z.unbind(1)
    return torch.stack(
        [(2 + torch.cos(a)) * torch.cos(b), (2 + torch.cos(a)) * torch.sin(b), torch.sin(a)], 1
    )


def test_sphere_and_torus_have_their_metrics():
    z = points(6, 2)
    for surface, metric in (
        (_sphere, lambda a: (torch.ones_like(a), torch.sin(a) ** 2)),
        (_torus, lambda a: (torch.ones_like(a), (2 + torch.cos(a)) ** 2)),
    ):
        found = jet(surface, z, 2)
        assert found.method == "nested"
        g = found.jacobian.mT @ found.jacobian
        torch.testing.assert_close(
            g, torch.diag_embed(torch.stack(metric(z[:, 0]), 1)), rtol=1e-13, atol=1e-13
        )


def test_exponential_of_a_linear_map():
    z, A = points(4, 2), points(3, 2, seed=5)
    found = jet(lambda z: torch.exp(z @ A.T), z, 3)
    y = torch.exp(z @ A.T)
    for k, array in enumerate((found.jacobian, found.hessian, found.third), start=1):
        letters = "abc"[:k]
        expected = torch.einsum("ni," + ",".join(f"i{c}" for c in letters) + f"->ni{letters}", y, *[A] * k)
        torch.testing.assert_close(array, expected, rtol=1e-13, atol=1e-14)


def test_cubic_has_a_constant_third_derivative():
    found = jet(lambda z: z[:, :1] ** 2 * z[:, 1:], points(5, 2), 3)
    expected = torch.zeros(5, 1, 2, 2, 2, dtype=torch.float64)
    expected[:, :, 0, 0, 1] = expected[:, :, 0, 1, 0] = expected[:, :, 1, 0, 0] = 2
    torch.testing.assert_close(found.third, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("f", [dense(nn.Tanh, 3), lambda z: torch.sin(z) * z.prod(1, keepdim=True)])
def test_derivatives_are_symmetric_to_the_last_bit(f):
    found = jet(f, points(4, 3), 3)
    assert torch.equal(found.hessian, found.hessian.mT)
    assert torch.equal(found.third, found.third.mT)
    assert torch.equal(found.third, found.third.transpose(2, 4))


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_entries_above_the_order_are_none(order):
    found = jet(dense(nn.Tanh, 2), points(3, 2), order)
    entries = (found.jacobian, found.hessian, found.third)
    assert [entry is not None for entry in entries] == [order >= k for k in (1, 2, 3)]
    assert [tuple(e.shape) for e in entries if e is not None] == [
        (3, 5, *(2,) * k) for k in range(1, order + 1)
    ]
    torch.testing.assert_close(found.value, dense(nn.Tanh, 2)(points(3, 2)), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("d", [1, 2, 4])
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_packed_rows_unpack_to_the_jet(d, order, dtype):
    f, x = dense(nn.SiLU, d).to(dtype), points(3, d, dtype)
    with torch.no_grad():
        packed, full = jet(f, x, order, packed=True), jet(f, x, order)
    assert isinstance(packed, PackedJet)
    assert isinstance(full, Jet)
    assert packed.rows.shape == (1 + count(d, order), 3, 5)
    assert packed.rows.is_contiguous()
    assert packed.rows.dtype == dtype
    assert jet_difference(packed.unpack(), full) == 0
    assert packed.method == full.method == packed.unpack().method


def test_order_of_multi_indices():
    at = indices(3, torch.device("cpu"))
    assert list(zip(at.i.tolist(), at.j.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 1),
        (1, 2),
        (2, 2),
    ]
    assert at.full2.reshape(3, 3).equal(at.full2.reshape(3, 3).T)
    assert count(8, 3) + 1 == 165


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_chunks_do_not_change_the_result(order, grad, dtype):
    f, x = dense(nn.GELU, 3, p=9, h=16).to(dtype), points(17, 3, dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    with torch.set_grad_enabled(grad):
        whole = jet(f, x, order)
        for size in (1, 7):
            assert jet_difference(jet(f, x, order, chunk_size=size), whole) <= tolerance


@pytest.mark.parametrize("f", [dense(nn.Tanh, 2), lambda z: torch.cat([z.sin(), z[:, :1]], 1)])
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_no_points_give_empty_tensors(f, order):
    found = jet(f, torch.empty(0, 2, dtype=torch.float64), order)
    p = 5 if isinstance(f, nn.Module) else 3
    shapes = [
        tuple(e.shape) for e in (found.value, found.jacobian, found.hessian, found.third) if e is not None
    ]
    assert shapes == [(0, p, *(2,) * k) for k in range(order + 1)]


def test_global_state_stays_as_it_was():
    f = dense(nn.Tanh, 2)
    f.train()
    before = torch.get_rng_state()
    with torch.no_grad():
        jet(f, points(3, 2), 3)
        jet(lambda z: z.tanh(), points(3, 2), 2)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert torch.equal(before, torch.get_rng_state())
    assert f.training
    assert torch.get_default_dtype() == torch.float32


def test_autocast_is_off_inside_and_back_outside():
    f, x = dense(nn.Tanh, 2).float(), points(4, 2, torch.float32)
    expected = jet(f, x, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = jet(f, x, 2)
        assert torch.is_autocast_enabled("cpu")
    assert found.hessian.dtype == torch.float32
    assert jet_difference(found, expected) == 0


def test_grad_mode_decides_whether_results_carry_a_graph():
    f, x = dense(nn.Tanh, 2), points(3, 2)
    assert jet(f, x, 2).hessian.requires_grad
    with torch.no_grad():
        assert not jet(f, x, 2).hessian.requires_grad
    with torch.inference_mode():
        assert jet(f, x, 2).hessian.is_inference()


def test_first_order_of_a_net_that_is_wider_than_a_chunk():
    f, x = dense(nn.Tanh, 2, p=3000, h=8).float(), points(700, 2, torch.float32)
    with torch.no_grad():
        found = jet(f, x, 2)
        assert jet_difference(found, jet(f, x, 2, chunk_size=100)) <= 1e-6


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), d=st.integers(1, 4))
def test_jets_of_a_rotated_input_rotate(seed, d):
    """f∘R has derivatives J R, Rᵀ H R and so on."""
    f, x = dense(nn.Softplus, d), points(2, d, seed=seed)
    R = torch.linalg.qr(points(d, d, seed=seed + 1))[0]
    rotated = nn.Linear(d, d, bias=False, dtype=torch.float64)
    with torch.no_grad():
        rotated.weight.copy_(R)
        inner, outer = jet(f, x @ R.T, 3), jet(nn.Sequential(rotated, f), x, 3)
    torch.testing.assert_close(outer.jacobian, inner.jacobian @ R, rtol=1e-11, atol=1e-12)
    second = torch.einsum("niab,ac,bd->nicd", inner.hessian, R, R)
    torch.testing.assert_close(outer.hessian, second, rtol=1e-11, atol=1e-12)
    third = torch.einsum("niabc,ad,be,cf->nidef", inner.third, R, R, R)
    torch.testing.assert_close(outer.third, third, rtol=1e-11, atol=1e-12)


def test_golden_jets_share_axes_and_symmetry():
    import numpy as np

    with np.load("tests/golden/gam.npz") as golden:
        for k in range(4):
            J, H, K = (torch.from_numpy(golden[f"iso{k}_{name}"]) for name in "JHK")
            n, p, d = J.shape
            assert Jet(None, J, H, K).hessian.shape == (n, p, d, d)
            assert K.shape == (n, p, d, d, d)
            torch.testing.assert_close(H, H.mT)
            torch.testing.assert_close(K, K.transpose(2, 4))


def test_value_of_a_saturated_net_is_finite():
    f = dense(nn.Tanh, 2)
    with torch.no_grad():
        found = jet(f, torch.full((2, 2), 1e4, dtype=torch.float64), 3)
    assert all(
        torch.isfinite(entry).all() for entry in (found.value, found.jacobian, found.hessian, found.third)
    )
    assert math.isclose(found.jacobian.abs().max().item(), 0.0, abs_tol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_device_follows_the_points(dtype):
    f, x = dense(nn.Tanh, 3).to("cuda", dtype), points(5, 3, dtype).to("cuda")
    with torch.no_grad():
        found = jet(f, x, 3)
    assert found.third.device == x.device
    atol = 1e-12 if dtype == torch.float64 else 1e-4
    expected = reference_jet(f.double(), x.double(), 3).third.detach()
    torch.testing.assert_close(found.third.double(), expected, rtol=0, atol=atol)


def test_index_vectors_first_needed_inside_a_transform_do_not_end_with_it():
    f = nn.Sequential(dense(nn.Tanh, 5), nn.Softmax(-1), nn.Linear(5, 3, dtype=torch.float64))
    x = points(2, 5)
    _kept.cache_clear()
    with torch.no_grad():
        for order in (2, 3):  # a second-order jet needs them first in the layer without a rule
            assert jet_difference(jet(f, x, order), _cut(reference_jet(f, x, 3), order)) <= 1e-12
