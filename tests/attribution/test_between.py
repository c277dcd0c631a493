"""Contributions to differences and distances of two points: exact integrals, quadrature, invariances."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attribution_cases import (
    FLAT,
    Attention,
    digit_pairs,
    digits,
    encoder,
    golden_net,
    golden_pair,
    rotation,
    sum_error,
)
from jet_cases import reference_jacobian, seeded
from pullback.attribution import contributions_between
from pullback.attribution.breakpoints import breakpoints
from pullback.jets import AttributionWarning
from pullback.jets.taylor import layers_of

GOLDEN_BREAKS = [0.0, 0.4902086304834405, 0.5028543451089773, 1.0]
GOLDEN_PATH = [
    [0.17684982097596613, -0.08444838864346849, -0.06897007918357477],
    [0.29449280283363055, -0.2162439953544204, 0.021341094191737343],
]
GOLDEN_DISTANCE = [0.3271683564964444, -0.2298371337674256, 0.004977998874991704]
GOLDEN_LOCAL = [
    [-0.37810403520726144, -0.3981953825727874, 0.14923560553065363],
    [0.4619685275597387, -0.11990657001470123, -0.06835460741909971],
]
GOLDEN_OFFSET = [0.650495165398318, -0.17411744845499033]


def test_golden_net():
    net, (a, b) = golden_net(), golden_pair()

    def close(found: Tensor, expected: list) -> None:
        torch.testing.assert_close(found, torch.tensor(expected).to(found), rtol=0, atol=1e-14)

    torch.set_default_dtype(torch.float64)
    try:
        path = contributions_between(net, a, b)
        close(path.values[0], GOLDEN_PATH)
        assert path.pieces.tolist() == [3]
        assert (path.method, path.map, path.exact) == ("path", "derivative", True)
        assert not path.offset.any()
        distance = contributions_between(net, a, b, reduction="distance")
        close(distance.values[0], GOLDEN_DISTANCE)
        close(distance.value.norm(dim=1), [0.10230922160401026])
        local = contributions_between(net, a, b, method="local")
        close(local.values[0], GOLDEN_LOCAL)
        close(local.offset[0], GOLDEN_OFFSET)
        close(breakpoints(layers_of(net), b, a, 100).t.detach(), GOLDEN_BREAKS)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", FLAT)
def test_paths_are_exact_in_every_layer_type(name):
    net, (a, b) = seeded(FLAT[name]).double().eval(), digit_pairs(6)
    found = contributions_between(net, a, b)
    assert sum_error(found.values, (net(a) - net(b)).detach()) <= 1e-12
    assert found.exact
    nodes = 512
    t = (torch.arange(nodes, dtype=torch.float64) + 0.5) / nodes
    points = b[:2].unsqueeze(1) + t.view(1, -1, 1) * (a - b)[:2].unsqueeze(1)
    J = reference_jacobian(net, points.flatten(0, 1)).unflatten(0, (2, nodes)).mean(1)
    expected = J * (a - b)[:2].unsqueeze(1)
    size = expected.abs().sum(-1).amax()
    assert float((found.values[:2] - expected).abs().sum(-1).amax() / size) < 2e-2


def test_two_hundred_pairs_of_digits_are_exact():
    net, (a, b) = encoder(nn.PReLU, h=128), digit_pairs(200)
    found = contributions_between(net, a, b)
    assert sum_error(found.values, found.value) <= 1e-12
    assert found.exact
    assert 20 < int(found.pieces.median()) < 400
    assert not found.values[(a == b).unsqueeze(1).expand_as(found.values)].any()


@pytest.mark.slow
def test_a_fine_midpoint_rule_agrees():
    net, (a, b) = encoder(nn.PReLU, h=128), digit_pairs(3)
    found = contributions_between(net, a, b).values
    t = (torch.arange(4096, dtype=torch.float64) + 0.5) / 4096
    for k in range(3):
        points = b[k] + t.unsqueeze(1) * (a - b)[k]
        expected = reference_jacobian(net, points).mean(0) * (a - b)[k]
        assert float((found[k] - expected).abs().sum() / expected.abs().sum()) <= 1e-3


@pytest.mark.parametrize("activation", [nn.GELU, nn.SiLU, nn.Tanh])
@pytest.mark.parametrize("norm", [False, True])
def test_smooth_nets_converge_with_few_nodes(activation, norm):
    net, (a, b) = encoder(activation, norm=norm), digit_pairs(20)
    found = contributions_between(net, a / 4, b / 4, tol=1e-8)
    assert sum_error(found.values, (net(a / 4) - net(b / 4)).detach()) <= 1e-8
    assert int(found.nodes.max()) <= 128
    assert found.verification.passed
    assert not found.exact


def test_kinks_and_layer_norms_together_are_cut_at_the_kinks():
    net, (a, b) = encoder(nn.PReLU, norm=True, h=16), digit_pairs(8)
    found = contributions_between(net, a, b)
    assert sum_error(found.values, (net(a) - net(b)).detach()) <= 1e-6
    assert found.verification.passed
    assert found.piecewise_linear
    assert not found.exact
    assert (found.pieces > 4).all()
    # halving alone takes some twenty cuts for each kink
    assert int((found.nodes / found.pieces).max()) < 40


def test_attention_is_integrated():
    net, (a, b) = seeded(Attention).double(), digit_pairs(5)
    found = contributions_between(net, a / 8, b / 8)
    assert found.verification.passed
    assert sum_error(found.values, (net(a / 8) - net(b / 8)).detach()) <= 1e-6


def test_float32_paths_are_integrated_in_float64():
    net, (a, b) = encoder(nn.PReLU), digit_pairs(20)
    wide = contributions_between(net, a, b)
    narrow = contributions_between(net.float(), a.float(), b.float())
    assert narrow.values.dtype == torch.float32
    assert narrow.exact
    assert sum_error(narrow.values.double(), wide.value) <= 1e-6
    assert next(net.parameters()).dtype == torch.float32


@pytest.mark.parametrize("method", ["path", "local"])
def test_distance_adds_up_and_knows_no_axes(method):
    net, (a, b) = encoder(nn.PReLU), digit_pairs(12)
    found = contributions_between(net, a, b, method=method, reduction="distance")
    distance = (net(a) - net(b)).norm(dim=1).detach()
    u = found.value / found.value.norm(dim=1, keepdim=True)
    total = found.values.sum(-1) + (u * found.offset).sum(1)
    torch.testing.assert_close(total, distance, rtol=1e-12, atol=1e-12)
    turned = nn.Sequential(*net, nn.Linear(2, 2).double())
    turned[-1].load_state_dict({"weight": rotation(2), "bias": torch.tensor([3.0, -1.0])})
    again = contributions_between(turned, a, b, method=method, reduction="distance")
    torch.testing.assert_close(again.values, found.values, rtol=1e-11, atol=1e-12)
    swapped = contributions_between(net, b, a, method=method, reduction="distance")
    torch.testing.assert_close(swapped.values, found.values, rtol=1e-11, atol=1e-12)


def test_paths_know_no_origin_of_the_input():
    net, (a, b) = encoder(nn.PReLU), digit_pairs(12)
    shift = 5 * torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    front = (shift, torch.ones(64))
    moved = contributions_between(net, a + shift, b + shift, preprocessing=front, reduction="distance")
    plain = contributions_between(net, a, b, reduction="distance")
    torch.testing.assert_close(moved.values, plain.values, rtol=1e-11, atol=1e-11)
    local = contributions_between(net, a, b, method="local", reduction="distance").values
    assert float((local - plain.values).abs().sum() / plain.values.abs().sum()) > 0.05


def test_pairs_without_direction_are_flagged():
    net, (a, b) = encoder(nn.PReLU), digit_pairs(5)
    b[2] = a[2]
    found = contributions_between(net, a, b, reduction="distance")
    assert found.degenerate.tolist() == [False, False, True, False, False]
    assert not found.values[2].any()
    assert found.verification.passed


def test_one_point_stands_against_all():
    net, x = encoder(nn.PReLU), digits(6)
    found = contributions_between(net, x, x[0])
    torch.testing.assert_close(found.values, contributions_between(net, x, x[:1].expand(6, -1)).values)
    single = contributions_between(net, x[3], x[0])
    torch.testing.assert_close(single.values, found.values[3:4])


def test_a_line_with_too_many_pieces_becomes_a_quadrature():
    net, (a, b) = encoder(nn.PReLU), digit_pairs(6)
    exact = contributions_between(net, a, b)
    some = int(exact.pieces.sort().values[2])
    with pytest.warns(AttributionWarning, match="tolerance 1e-05"):
        found = contributions_between(net, a, b, max_pieces=some, tol=1e-5)
    full = exact.pieces > some
    assert bool(full.any())
    assert ((found.nodes > 0) == full).all()
    assert not found.exact
    torch.testing.assert_close(found.values[~full], exact.values[~full])
    error = (found.values - exact.values).abs().sum(-1) / exact.values.abs().sum(-1)
    assert float(error.max()) < 0.1


def test_what_does_not_converge_is_said():
    net, (a, b) = encoder(nn.PReLU, norm=True), digit_pairs(4)
    with pytest.warns(AttributionWarning, match="the sum of the contributions differs"):
        found = contributions_between(net, a, b, max_pieces=3)
    assert not found.verification.passed
    assert float(found.residual.max()) == pytest.approx(found.verification.pointwise_error)
    with pytest.raises(ValueError, match=re.escape("the sum of the contributions differs")):
        contributions_between(net, a, b, max_pieces=3, strict=True)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**20))
def test_a_detour_adds_up(seed):
    """Along one line: contributions from b to m and from m to a are those from b to a."""
    net = encoder(nn.LeakyReLU, h=12)
    g = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(1, 64, generator=g, dtype=torch.float64) for _ in range(2))
    m = b + float(torch.rand((), generator=g)) * (a - b)
    whole = contributions_between(net, a, b).values
    parts = contributions_between(net, a, m).values + contributions_between(net, m, b).values
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-12)
