"""Rules of layers other than dense ones, and who gets which rule."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from jet_cases import BLOCKS, block, dense, jet_difference, points, seeded
from pullback import ambient
from pullback.jets import Product, Residual, jet, reference_jet, register_jet_rule
from pullback.jets.taylor import layers_of


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_equal_nested_differentiation(name):
    f, x = block(name), points(4, 3)
    expected = reference_jet(f, x, 3)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for order in (1, 2, 3):
                found = jet(f, x, order)
                assert found.method == "layerwise"
                part = replace(
                    expected,
                    hessian=expected.hessian if order > 1 else None,
                    third=expected.third if order > 2 else None,
                )
                assert jet_difference(found, part) <= 1e-11


POOLED = {
    "conv1d": lambda: (nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"), nn.AdaptiveAvgPool1d(2)),
    "transposed 1d": lambda: (nn.ConvTranspose1d(2, 3, 3, stride=2), nn.AvgPool1d(2)),
    "grouped": lambda: (nn.Conv1d(2, 4, 3, groups=2, dilation=2, bias=False), nn.Upsample(scale_factor=2)),
    "padded": lambda: (nn.ConstantPad1d(2, 1.5), nn.ReflectionPad1d(1), nn.Conv1d(2, 1, 3)),
    "channel norm": lambda: (nn.GroupNorm(1, 2), nn.InstanceNorm1d(2, track_running_stats=True)),
    "max pool": lambda: (nn.MaxPool1d(3, stride=2, padding=1),),
    "layer norm over two axes": lambda: (nn.LayerNorm((2, 6)), nn.LayerNorm(6, bias=False)),
}


@pytest.mark.parametrize("name", POOLED)
def test_layers_on_images_equal_nested_differentiation(name):
    def build():
        layers = POOLED[name]()
        for layer in layers:
            if isinstance(layer, nn.InstanceNorm1d):
                layer.running_mean.normal_()
        return nn.Sequential(
            nn.Linear(3, 12), nn.Tanh(), nn.Unflatten(1, (2, 6)), *layers, nn.SiLU(), nn.Flatten(1)
        )

    f, x = seeded(build).double().eval(), points(3, 3)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            found = jet(f, x, 3)
        assert found.method == "layerwise"
        assert jet_difference(found, reference_jet(f, x, 3)) <= 1e-11


@pytest.mark.parametrize(
    "flattening",
    [
        ambient.Diagonal(torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64)),
        ambient.Gaussian(0.3),
        ambient.LowRank(points(3, 2)),
        ambient.Bernoulli(),
        ambient.Poisson(),
        ambient.NegativeBinomial(torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)),
        ambient.Categorical(5),
        ambient.Euclidean(),
    ],
    ids=lambda a: type(a).__name__,
)
def test_flattening_maps_have_rules(flattening):
    f = nn.Sequential(dense(nn.Tanh, 2, p=3), flattening.flattening().double())
    x = points(4, 2)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            found = jet(f, x, 3, fallback="error")
        assert jet_difference(found, reference_jet(f, x, 3)) <= 1e-12


def test_weight_read_through_a_parametrization():
    f = dense(nn.Tanh, 2)
    nn.utils.parametrizations.weight_norm(f[0])
    nn.utils.parametrizations.spectral_norm(f[2])
    assert parametrize.is_parametrized(f[2])
    found = jet(f.eval(), points(3, 2), 2)
    assert found.method == "layerwise"
    assert jet_difference(found, reference_jet(f, points(3, 2), 2)) <= 1e-12


def test_a_layer_that_occurs_twice_counts_twice():
    activation = nn.Tanh()
    shared = nn.Linear(3, 3)
    f = nn.Sequential(nn.Linear(2, 3), activation, shared, activation, shared, activation).double()
    x = points(3, 2)
    assert len(layers_of(f)) == 6
    assert jet_difference(jet(f, x, 3), reference_jet(f, x, 3)) <= 1e-12
    ours = torch.autograd.grad(jet(f, x, 2).hessian.square().sum(), shared.weight)[0]
    expected = torch.autograd.grad(reference_jet(f, x, 2).hessian.square().sum(), shared.weight)[0]
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-13)


class DoubledLinear(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def test_subclass_with_its_own_forward_is_unknown():
    f = nn.Sequential(DoubledLinear(2, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    found = jet(f, points(3, 2), 3)
    assert found.method == "mixed"
    assert jet_difference(found, reference_jet(f, points(3, 2), 3)) <= 1e-12


def test_hooks_and_replaced_forwards_are_seen():
    x = points(3, 2)
    hooked = dense(nn.Tanh, 2)
    hooked[0].register_forward_hook(lambda module, args, output: output * 3)
    replaced = dense(nn.Tanh, 2)
    replaced[1].forward = lambda a: torch.sin(a)
    container = dense(nn.Tanh, 2)
    container.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    for f, method in ((hooked, "mixed"), (replaced, "mixed"), (container, "nested")):
        found = jet(f, x, 2)
        assert found.method == method
        assert jet_difference(found, reference_jet(f, x, 2)) <= 1e-12


class Decoder(nn.Module):
    def __init__(self, listed):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 6), nn.SiLU())
        self.head = nn.Linear(6, 3)
        if listed:
            self.jet_layers = lambda: [self.body, self.head]

    def forward(self, x):
        return self.head(self.body(x))


class Plain(nn.Sequential):
    """A named Sequential without a forward of its own."""


def test_containers_list_their_layers_or_are_one_unknown_module():
    x = points(3, 2)
    for listed, method in ((True, "layerwise"), (False, "nested")):
        f = seeded(lambda listed=listed: Decoder(listed)).double()
        found = jet(f, x, 3)
        assert found.method == method
        assert jet_difference(found, reference_jet(f, x, 3)) <= 1e-12
    assert [layer.path for layer in layers_of(Decoder(True))] == ["body.0", "body.1", "head"]
    assert [layer.path for layer in layers_of(Plain(nn.Linear(2, 2), nn.Tanh()))] == ["0", "1"]


class Cube(nn.Module):
    def forward(self, x):
        return x**3


def test_registered_rule_is_used_by_jets_and_contractions():
    from pullback.jets import JetState, contract_hessian
    from pullback.jets.elementwise import elementwise

    calls = []

    def rule(module: Cube, state: JetState) -> JetState:
        calls.append(state.order)
        v = state.value
        return elementwise(state, (v**3, 3 * v**2, 6 * v, torch.full_like(v, 6))[: state.order + 1])

    class Registered(Cube):
        pass

    register_jet_rule(Registered, rule)
    f = nn.Sequential(nn.Linear(2, 4), Registered(), nn.Linear(4, 3)).double()
    x, covectors = points(3, 2), points(3, 3).unsqueeze(1)
    expected = reference_jet(f, x, 3)
    found = jet(f, x, 3)
    assert calls == [3]
    assert found.method == "layerwise"
    assert jet_difference(found, expected) <= 1e-12
    contracted = torch.einsum("nqi,niab->nqab", covectors, expected.hessian)
    torch.testing.assert_close(contract_hessian(f, x, covectors), contracted, rtol=1e-12, atol=1e-13)


def test_registering_needs_a_class_and_a_function(as_users_run):
    with pytest.raises(TypeError, match=r"module_type: expected a subclass of nn\.Module, got 3"):
        register_jet_rule(3, lambda module, state: state)
    with pytest.raises(TypeError, match="rule: expected a function"):
        register_jet_rule(Cube, 3)


def test_in_place_activations_leave_the_input_of_a_residual_alone():
    f = nn.Sequential(
        nn.Linear(2, 4),
        Residual(nn.Sequential(nn.SiLU(inplace=True), nn.Linear(4, 4))),
        Product(nn.Tanh(), nn.Sequential(nn.Flatten(), nn.Sigmoid())),
    ).double()
    g = nn.Sequential(
        nn.Linear(2, 4),
        Residual(nn.Sequential(nn.SiLU(), nn.Linear(4, 4))),
        Product(nn.Tanh(), nn.Sequential(nn.Flatten(), nn.Sigmoid())),
    ).double()
    g.load_state_dict(f.state_dict())
    x = points(3, 2)
    kept = x.clone()
    with torch.no_grad():
        assert jet_difference(jet(f, x, 3), reference_jet(g, x, 3)) <= 1e-12
        torch.testing.assert_close(jet(f, x, 3).value, g(x), rtol=1e-13, atol=1e-14)
    assert torch.equal(x, kept)


def test_modules_compute_what_they_say():
    x = points(3, 4)
    assert torch.equal(Residual(nn.Tanh())(x), x + torch.tanh(x))
    assert torch.equal(Product(nn.Tanh(), nn.Identity())(x), torch.tanh(x) * x)
