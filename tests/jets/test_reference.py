"""Brute force is right where plain nesting is not."""

import pytest
import torch
from torch import nn

from jet_cases import SMOOTH, block, dense, jet_difference, points, seeded
from pullback.jets import jet, reference_jet


@pytest.mark.parametrize(
    "name", ["layer norm", "layer norm first", "instance norm", "group norm", "rms norm"]
)
def test_hessian_equals_central_differences_of_the_jacobian(name):
    f, x = block(name), points(4, 3)
    with torch.no_grad():
        found = reference_jet(f, x, 2).hessian
        step = 1e-5
        for a in range(3):
            shift = step * torch.eye(3, dtype=torch.float64)[a]
            ahead, behind = reference_jet(f, x + shift, 1), reference_jet(f, x - shift, 1)
            difference = (ahead.jacobian - behind.jacobian) / (2 * step)
            torch.testing.assert_close(found[..., a], difference, rtol=0, atol=1e-8)


def test_plain_nesting_through_layer_norm_is_wrong():
    """The reason for evaluating layer norm by primitives; if this fails, torch has been repaired."""
    f, x = block("layer norm"), points(3, 3)
    plain = torch.func.vmap(torch.func.jacfwd(torch.func.jacfwd(lambda z: f(z.unsqueeze(0)).squeeze(0))))(x)
    assert (plain - reference_jet(f, x, 2).hessian).abs().max() > 1e-2


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["silu", "mish", "tanh", "gelu"])
def test_modes_do_not_change_the_result(name, mode):
    f, x = dense(SMOOTH[name], 2), points(4, 2)
    expected = reference_jet(f, x, 3)
    with mode():
        for found in (jet(f, x, 3), reference_jet(f, x, 3), jet(f, x, 3, fallback="nested")):
            assert jet_difference(found, expected) <= 1e-13
            assert not found.third.requires_grad


def test_points_made_in_inference_mode_are_welcome():
    f = dense(nn.SiLU, 2)
    with torch.inference_mode():
        x = points(4, 2) * 1
        assert x.is_inference()
        inside = reference_jet(f, x, 2), jet(f, x, 2), jet(lambda z: torch.sin(z), x, 2)
    outside = reference_jet(f, points(4, 2), 2)
    assert jet_difference(inside[0], outside) <= 1e-14
    assert jet_difference(inside[1], outside) <= 1e-13
    torch.testing.assert_close(inside[2].jacobian, torch.diag_embed(torch.cos(points(4, 2))))


def test_reference_is_differentiable():
    f, x = dense(nn.Tanh, 2, h=3), points(2, 2)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: reference_jet(f, z, 2).hessian, x)


def test_order_zero_is_the_value():
    f, x = dense(nn.Tanh, 2), points(2, 2)
    found = reference_jet(f, x, 0)
    assert torch.equal(found.value, f(x))
    assert found.jacobian is None


def test_activations_that_vmap_refuses():
    f = seeded(lambda: nn.Sequential(nn.Linear(2, 4), nn.PReLU(4), nn.Linear(4, 8), nn.GLU())).double()
    found = reference_jet(f, points(3, 2), 2)
    assert found.hessian.shape == (3, 4, 2, 2)
    assert found.hessian.abs().max() > 0
