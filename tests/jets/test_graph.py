"""Training through jets: gradients of penalties and of the hand-written nodes."""

import pytest
import torch
from torch import nn

from jet_cases import BLOCKS, SMOOTH, block, dense, points
from pullback.jets import jet, reference_jet
from pullback.jets.graph import elementwise_node, spread
from pullback.jets.indices import count, indices
from pullback.jets.quick import QUICK
from pullback.jets.rules import LEAVES
from pullback.jets.state import JetState


def _penalties(result):
    J = result.jacobian
    g = J.mT @ J
    losses = [(g - torch.eye(J.shape[2], dtype=J.dtype)).square().mean(), result.value.square().mean()]
    if result.hessian is not None:
        losses.append(result.hessian.square().mean())
    if result.third is not None:
        losses.append(result.third.square().mean())
    return losses


def _gradients(loss, tensors):
    found = torch.autograd.grad(loss, tensors, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, tensors, strict=True)]


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", ["tanh", "softplus beta", "gelu", "mish", "elu", "sine"])
def test_gradients_of_penalties_equal_those_of_brute_force(name, order):
    f, x = dense(SMOOTH[name], 3, h=6), points(4, 3).requires_grad_()
    tensors = [x, *f.parameters()]
    ours, reference = _penalties(jet(f, x, order)), _penalties(reference_jet(f, x, order))
    for loss, expected in zip(ours, reference, strict=True):
        for a, b in zip(_gradients(loss, tensors), _gradients(expected, tensors), strict=True):
            scale = max(b.abs().max().item(), 1e-6)
            torch.testing.assert_close(a, b, rtol=0, atol=1e-11 * scale)


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_of_blocks_equal_those_of_brute_force(name):
    f, x = block(name), points(3, 3).requires_grad_()
    tensors = [x, *f.parameters()]
    ours, reference = _penalties(jet(f, x, 2)), _penalties(reference_jet(f, x, 2))
    for loss, expected in zip(ours, reference, strict=True):
        for a, b in zip(_gradients(loss, tensors), _gradients(expected, tensors), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-11 * max(b.abs().max().item(), 1e-3))


@pytest.mark.parametrize("packed", [True, False])
def test_second_derivatives_of_a_penalty(packed):
    """Hessian-vector products of a penalty differentiate the backward pass itself."""
    f, x = dense(nn.Tanh, 2, p=3, h=4), points(3, 2)
    tensors = list(f.parameters())
    directions = [points(1, t.numel(), seed=k).reshape(t.shape) for k, t in enumerate(tensors)]

    def product(result):
        rows = (
            result.rows[1:]
            if packed
            else torch.cat([result.jacobian.flatten(1), result.hessian.flatten(1)], 1)
        )
        first = torch.autograd.grad(rows.square().sum(), tensors, create_graph=True, allow_unused=True)
        inner = sum((g * v).sum() for g, v in zip(first, directions, strict=True) if g is not None)
        return _gradients(inner, tensors)

    full = reference_jet(f, x, 2)
    if packed:
        at = indices(2, x.device)
        full_rows = torch.cat(
            [full.value[None], full.jacobian.permute(2, 0, 1), full.hessian[..., at.i, at.j].permute(2, 0, 1)]
        )
        full = type("Packed", (), {"rows": full_rows})()
    for a, b in zip(product(jet(f, x, 2, packed=packed)), product(full), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [nn.Tanh, nn.SiLU, nn.Softplus])
@pytest.mark.parametrize(
    ("order", "level", "constant"), [(1, 1, True), (1, 1, False), (2, 1, True), (2, 1, False), (2, 2, False)]
)
def test_activation_node_passes_gradient_checks(kind, order, level, constant):
    d, n, h = 2, 2, 3
    value = points(n, h).requires_grad_()
    rows = points(count(d, level), (1 if constant else n) * h, seed=3).reshape(-1, 1 if constant else n, h)
    rows.requires_grad_()
    rule = LEAVES[kind]

    def node(v, r):
        state = JetState(v, r, d, order, level)
        behind = elementwise_node(state, lambda a, k: rule.derivatives(kind(), a, k))
        return behind.value, behind.rows

    assert torch.autograd.gradcheck(node, (value, rows))
    assert torch.autograd.gradgradcheck(node, (value, rows))
    assert torch.autograd.gradcheck(lambda v, r: node(v, r)[1], (value, rows))
    assert torch.autograd.gradcheck(lambda v, r: node(v, r)[0], (value, rows))


def test_unpacking_node_passes_gradient_checks():
    at = indices(3, torch.device("cpu"))
    for positions, m in ((at.full2, 6), (at.full3, 10)):
        rows = points(m, 4).reshape(m, 2, 2).requires_grad_()
        assert torch.autograd.gradcheck(lambda r, p=positions: spread(r, p), rows)
        assert torch.autograd.gradgradcheck(lambda r, p=positions: spread(r, p), rows)


def test_points_alone_and_parameters_alone():
    f, x = dense(nn.Tanh, 2), points(3, 2)
    frozen = dense(nn.Tanh, 2).requires_grad_(False)
    z = points(3, 2).requires_grad_()
    (to_points,) = torch.autograd.grad(jet(frozen, z, 2).hessian.square().sum(), z)
    reference = torch.autograd.grad(
        reference_jet(f, z, 2).hessian.square().sum(), [z, *f.parameters()], allow_unused=True
    )
    torch.testing.assert_close(to_points, reference[0], rtol=1e-11, atol=1e-13)
    ours = torch.autograd.grad(jet(f, x, 2).hessian.square().sum(), list(f.parameters()), allow_unused=True)
    assert ours[-1] is None or not ours[-1].any()
    torch.testing.assert_close(ours[0], reference[1], rtol=1e-11, atol=1e-13)
    assert not jet(frozen, x, 2).hessian.requires_grad


def test_learned_dispersion_receives_its_gradient():
    from pullback.ambient import NegativeBinomialFlattening

    dispersion = torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64, requires_grad=True)
    flattening = NegativeBinomialFlattening(torch.ones(3, dtype=torch.float64))
    flattening.dispersion = dispersion
    f = nn.Sequential(dense(nn.Tanh, 2, p=3), flattening)
    (ours,) = torch.autograd.grad(jet(f, points(3, 2), 2).hessian.square().sum(), dispersion)
    (expected,) = torch.autograd.grad(reference_jet(f, points(3, 2), 2).hessian.square().sum(), dispersion)
    assert expected.abs().max() > 0
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-13)


def test_single_precision_gradients_are_close_to_double():
    f, x = dense(nn.Tanh, 2, p=64, h=128), points(64, 2)
    double = torch.autograd.grad(jet(f, x, 2).hessian.square().mean(), f[2].weight)[0]
    g = f.float()
    single = torch.autograd.grad(jet(g, x.float(), 2).hessian.square().mean(), g[2].weight)[0]
    assert (single.double() - double).abs().max() <= 2e-5 * double.abs().max()


def test_quick_tables_cover_only_known_activations():
    assert set(QUICK) <= set(LEAVES)
