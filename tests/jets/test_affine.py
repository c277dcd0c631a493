"""Networks as affine maps: golden numbers, both maps, kink margins, checks."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from jet_cases import PIECEWISE, dense, golden_layer, points, reference_jacobian, seeded
from pullback.jets import (
    AttributionWarning,
    HomogeneityWarning,
    Product,
    Residual,
    local_affine,
)


def golden_net():
    return nn.Sequential(
        golden_layer(3, 3, 1, 1.0), nn.PReLU(init=0.25, dtype=torch.float64), golden_layer(3, 2, 2, 0.7)
    )


GOLDEN_POINTS = [[0.5, -1.0, 2.0], [-1.5, 0.5, -0.5]]
GOLDEN_LINEAR = [
    [
        [0.6313923818962173, 0.6944833034584544, 0.11906947859483465],
        [-0.009803231160962428, -0.05729133538508228, -0.05210605006868736],
    ],
    [
        [-0.46253348410358003, -0.592575841771334, -0.17780670331803133],
        [0.31124676209347996, 0.354395810799567, 0.07171498543655004],
    ],
]
GOLDEN_OFFSET = [[-0.23184353669940844, -0.6619338169528097], [-0.8823387020977265, -0.4878163684978194]]
GOLDEN_VALUE = [[-0.3724916920200851, -0.7137561972855834], [-0.39592304516900784, -0.8133460989565306]]
GOLDEN_MARGIN = [0.26784422676216463, 0.2709198640572105]


def test_closed_form_net():
    f64 = {"dtype": torch.float64}
    found = local_affine(golden_net(), torch.tensor(GOLDEN_POINTS, **f64), kink_margin="exact")
    for ours, expected in (
        (found.linear, GOLDEN_LINEAR),
        (found.offset, GOLDEN_OFFSET),
        (found.value, GOLDEN_VALUE),
        (found.kink_margin, GOLDEN_MARGIN),
    ):
        torch.testing.assert_close(ours.detach(), torch.tensor(expected, **f64), rtol=1e-13, atol=1e-15)
    assert found.map == "derivative"
    assert found.piecewise_linear
    assert found.homogeneity is None
    assert found.verification.passed
    assert found.verification.derivative_error < 1e-8


def _image_net():
    net = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 3, 3, padding=1, stride=2),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.ConvTranspose2d(3, 2, 3, padding=1),
        nn.Hardtanh(-0.5, 0.5),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.AvgPool2d(2),
        nn.Dropout(0.3),
        nn.Flatten(),
        Residual(nn.Sequential(nn.Linear(8, 8), nn.ReLU6())),
        nn.Linear(8, 3),
    )
    net[2].running_mean.normal_()
    net[2].running_var.uniform_(0.5, 2.0)
    nn.init.normal_(net[2].weight)
    nn.init.normal_(net[2].bias)
    return net


def _signal_net(*layers, width=12):
    return nn.Sequential(nn.Unflatten(1, (2, 6)), *layers, nn.Flatten(), nn.Linear(width, 2))


FLAT = {
    **{name: (lambda name=name: dense(PIECEWISE[name], 6, p=2)) for name in PIECEWISE},
    "residual": lambda: nn.Sequential(nn.Linear(6, 6), Residual(nn.Sequential(nn.ReLU(), nn.Linear(6, 6)))),
    "residual inside": lambda: Residual(
        Residual(nn.Sequential(nn.Linear(6, 6), nn.LeakyReLU(), nn.Linear(6, 6)))
    ),
    "padded": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.ConstantPad1d(1, 2.0), nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten()
    ),
    "linear": lambda: nn.Linear(6, 2),
}
"""Nets in which the two maps coincide."""
NORMED = {
    "layer norm": lambda: nn.Sequential(nn.Linear(12, 8), nn.PReLU(), nn.LayerNorm(8), nn.Linear(8, 2)),
    "two layer norms": lambda: nn.Sequential(
        nn.LayerNorm(12), nn.Linear(12, 8), nn.ReLU(), nn.LayerNorm(8, bias=False), nn.Linear(8, 2)
    ),
    "rms norm": lambda: nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.RMSNorm(8, eps=1.0), nn.Linear(8, 2)),
    "group norm": lambda: _signal_net(nn.GroupNorm(2, 2), nn.ReLU()),
    "instance norm": lambda: _signal_net(
        nn.Conv1d(2, 2, 3, padding=1), nn.InstanceNorm1d(2, affine=True), nn.ReLU()
    ),
    "layer norm of an image": lambda: _signal_net(
        nn.Conv1d(2, 2, 3, padding=1), nn.LayerNorm((2, 6)), nn.ReLU()
    ),
    "layer norm in a branch": lambda: nn.Sequential(
        nn.Linear(12, 8),
        Residual(nn.Sequential(nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 8))),
        nn.Linear(8, 2),
    ),
}
CURVED = {
    "gelu": lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 2)),
    "softmax": lambda: nn.Sequential(nn.Linear(6, 8), nn.Softmax(dim=-1), nn.Linear(8, 2)),
    "product": lambda: nn.Sequential(nn.Linear(6, 4), Product(nn.ReLU(), nn.Linear(4, 4)), nn.Linear(4, 2)),
    "glu": lambda: nn.Sequential(nn.Linear(6, 8), nn.GLU(), nn.ReLU(), nn.Linear(4, 2)),
}


def net_of(table, name):
    return seeded(table[name]).double().eval()


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("map", [None, "derivative", "local_linear"])
@pytest.mark.parametrize("name", FLAT)
def test_matrix_is_the_derivative_and_adds_up(name, map, grad):
    f, x = net_of(FLAT, name), points(7, 6)
    with torch.set_grad_enabled(grad):
        found = local_affine(f, x, map=map)
    torch.testing.assert_close(found.linear.detach(), reference_jacobian(f, x), rtol=1e-12, atol=1e-13)
    rebuilt = torch.einsum("ndp,np->nd", found.linear, x) + found.offset
    torch.testing.assert_close(rebuilt, f(x), rtol=1e-12, atol=1e-13, check_stride=False)
    assert found.piecewise_linear
    assert found.map == (map or "derivative")
    assert found.verification.passed
    assert found.verification.pointwise_error <= 1e-14
    assert (found.verification.derivative_error is None) == (map == "local_linear")


def test_convolutional_net_in_both_precisions(dtype):
    f, x = seeded(_image_net).double().eval(), points(5, 64)
    expected = reference_jacobian(f, x)
    found = local_affine(f.to(dtype), x.to(dtype), chunk_size=2)
    atol = 1e-13 if dtype == torch.float64 else 1e-5
    assert found.linear.dtype == found.offset.dtype == found.value.dtype == found.kink_margin.dtype == dtype
    torch.testing.assert_close(found.linear.detach().double(), expected, rtol=0, atol=atol)
    assert found.verification.passed
    assert found.verification.tolerance == (1e-12 if dtype == torch.float64 else 1e-5)


@pytest.mark.filterwarnings("ignore::pullback.jets.HomogeneityWarning")
@pytest.mark.parametrize("name", NORMED)
def test_norms_split_the_two_maps(name):
    f, x = net_of(NORMED, name), points(7, 12)
    J = reference_jacobian(f, x)
    derivative, linear = local_affine(f, x, map="derivative"), local_affine(f, x, map="local_linear")
    torch.testing.assert_close(derivative.linear.detach(), J, rtol=1e-11, atol=1e-12)
    assert derivative.verification.derivative_error < 1e-7
    assert linear.verification.derivative_error is None
    for found in (derivative, linear):
        assert found.piecewise_linear
        rebuilt = torch.einsum("ndp,np->nd", found.linear, x) + found.offset
        torch.testing.assert_close(rebuilt, f(x), rtol=1e-11, atol=1e-12, check_stride=False)
        assert found.verification.passed
    assert (linear.linear - J).abs().max() > 1e-3 * J.abs().max()


@pytest.mark.filterwarnings("ignore::pullback.jets.HomogeneityWarning")
def test_local_linear_map_is_the_derivative_with_the_scale_held():
    f, x = net_of(NORMED, "two layer norms"), points(4, 12)

    class Held(nn.Module):
        def __init__(self, norm):
            super().__init__()
            self.norm = norm

        def forward(self, v):
            c = v - v.mean(-1, keepdim=True)
            r = torch.rsqrt(c.square().mean(-1, keepdim=True) + self.norm.eps).detach()
            y = c * r * self.norm.weight
            return y if self.norm.bias is None else y + self.norm.bias

    held = nn.Sequential(*(Held(layer) if isinstance(layer, nn.LayerNorm) else layer for layer in f))
    z = x.clone().requires_grad_()
    rows = [torch.autograd.grad(held(z)[:, i].sum(), z)[0] for i in range(2)]
    found = local_affine(f, x, map="local_linear").linear
    torch.testing.assert_close(found.detach(), torch.stack(rows, 1), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CURVED)
def test_curved_nets_have_a_derivative_only(name):
    f, x = net_of(CURVED, name), points(5, 6)
    found = local_affine(f, x)
    assert found.map == "derivative"
    assert not found.piecewise_linear
    torch.testing.assert_close(found.linear.detach(), reference_jacobian(f, x), rtol=1e-11, atol=1e-12)
    assert found.verification.derivative_error < 1e-7
    with pytest.raises(ValueError, match=r"at layer 1 is not piecewise linear; use method=\"path\""):
        local_affine(f, x, map="local_linear")


def _constant_radius(f, x, found, factor):
    """Largest change of A on the sphere of ``factor`` times the margin around each point."""
    v = torch.randn(60, *x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype)
    v = v / v.norm(dim=-1, keepdim=True)
    moved = (x + factor * found.kink_margin.unsqueeze(1) * v).flatten(0, 1)
    change = local_affine(f, moved).linear.unflatten(0, v.shape[:2]) - found.linear
    return change.abs().amax((0, 2, 3))


@pytest.mark.parametrize("name", ["relu", "hardtanh", "residual", "residual inside", "prelu per channel"])
def test_matrix_is_constant_inside_the_exact_margin(name):
    f, x = net_of(FLAT, name), points(5, 6)
    with torch.no_grad():
        found = local_affine(f, x, kink_margin="exact")
        assert torch.isfinite(found.kink_margin).all()
        assert not _constant_radius(f, x, found, 0.999).any()


def test_matrix_is_constant_inside_the_exact_margin_of_a_pooling():
    f, x = seeded(_image_net).double().eval(), points(2, 64)
    with torch.no_grad():
        found = local_affine(f, x, kink_margin="exact")
        assert (found.kink_margin > 0).all()
        assert not _constant_radius(f, x, found, 0.999).any()


def test_exact_margin_is_reached_in_the_direction_of_the_nearest_kink():
    f, x = net_of(FLAT, "relu"), points(3, 6)
    with torch.no_grad():
        found = local_affine(f, x, kink_margin="exact")
        v = torch.randn(20_000, 1, 6, generator=torch.Generator().manual_seed(5), dtype=x.dtype)
        v = v / v.norm(dim=-1, keepdim=True)
        moved = (x + 1.3 * found.kink_margin.unsqueeze(1) * v).flatten(0, 1)
        change = local_affine(f, moved, chunk_size=4096).linear.unflatten(0, (20_000, 3)) - found.linear
    assert (change.abs().amax((0, 2, 3)) > 0).all()


@pytest.mark.parametrize(
    "pool", [nn.MaxPool1d(3), nn.MaxPool1d(3, stride=2, padding=1, ceil_mode=True, dilation=1)]
)
def test_exact_margin_of_a_pooling_alone(pool):
    """For a pooling of the input itself, two entries of a window meet after half their distance, over √2."""
    f = nn.Sequential(nn.Unflatten(1, (1, 6)), pool, nn.Flatten()).double()
    x = torch.tensor([[0.0, 1.0, 3.0, 7.0, 7.5, 20.0]], dtype=torch.float64)
    found = local_affine(f, x, kink_margin="exact").kink_margin
    windows = [[0, 1, 2], [3, 4, 5]] if pool.padding == 0 else [[0, 1], [1, 2, 3], [3, 4, 5], [5]]
    gaps = [sorted(x[0, w].tolist())[-1] - v for w in windows for v in sorted(x[0, w].tolist())[:-1]]
    assert found.item() == pytest.approx(min(gaps) / 2**0.5)
    relative = local_affine(f, x).kink_margin
    assert relative.item() == pytest.approx(min(gaps) / x.square().mean().sqrt().item())


def test_relative_margin():
    f = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Hardtanh(-1.0, 2.0)).double()
    with torch.no_grad():
        f[0].weight.copy_(torch.eye(2))
    x = torch.tensor([[0.5, 1.5], [-1.0, 0.0]], dtype=torch.float64)
    found = local_affine(f, x).kink_margin
    torch.testing.assert_close(found, torch.tensor([0.5 / 1.25**0.5, 0.0], dtype=torch.float64))
    assert torch.isinf(local_affine(nn.Linear(2, 3).double(), x).kink_margin).all()


def test_saturated_units_before_a_pooling_do_not_hide_the_margin():
    f = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten()).double()
    x = torch.tensor([[-1.0, -2.0, 1.0, 3.0]], dtype=torch.float64)
    assert local_affine(f, x).kink_margin.item() > 0.1
    assert local_affine(f, x, kink_margin="exact").kink_margin.item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("bias", "norm", "expected"), [(False, False, 1), (True, False, None), (False, True, 0)]
)
def test_homogeneity(bias, norm, expected):
    layers = [nn.Linear(6, 8, bias=bias), nn.ReLU(), nn.Linear(8, 2, bias=bias)]
    if norm:
        layers.insert(2, nn.LayerNorm(8, eps=1e-12))
    f, x = seeded(lambda: nn.Sequential(*layers)).double(), points(5, 6)
    if expected == 0:
        with pytest.warns(HomogeneityWarning, match="encoder ignores the magnitude"):
            found = local_affine(f, x, map="derivative")
        product = torch.einsum("ndp,np->nd", found.linear, x)
        assert product.abs().max() < 1e-9
    else:
        found = local_affine(f, x)
    assert found.homogeneity == expected


class Detaching(nn.Module):
    def forward(self, x):
        return x * x.detach()


class Shifted(nn.Sequential):
    """Its list of layers leaves out what its forward adds."""

    def forward(self, x):
        return super().forward(x) + 1

    def jet_layers(self):
        return list(self)


def test_a_result_that_is_not_the_derivative_warns():
    f, x = nn.Sequential(nn.Linear(3, 4), Detaching()).double(), points(5, 3)
    with pytest.warns(AttributionWarning, match=r"not the derivative.*layers: Linear, Detaching"):
        found = local_affine(f, x)
    assert found.verification.derivative_error == pytest.approx(0.5, abs=1e-6)
    assert not found.piecewise_linear
    with pytest.raises(ValueError, match="not the derivative"):
        local_affine(f, x, strict=True)


def test_the_check_uses_the_networks_own_forward():
    f = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    x = points(5, 3)
    shifted = Shifted(*f)
    with pytest.warns(AttributionWarning, match="A x \\+ b differs from the network by"):
        found = local_affine(shifted, x)
    assert not found.verification.passed
    assert found.verification.max_error == pytest.approx(1.0)
    with pytest.raises(ValueError, match="differs from the network"):
        local_affine(shifted, x, strict=True)


def test_verification_numbers():
    f, x = golden_net(), torch.tensor(GOLDEN_POINTS, dtype=torch.float64)
    check = local_affine(f, x).verification
    assert check.z_range == pytest.approx((min(map(min, GOLDEN_VALUE)), max(map(max, GOLDEN_VALUE))))
    assert check.reconstruction_range == pytest.approx(check.z_range)
    assert 0 <= check.mean_error <= check.max_error <= 1e-15
    assert check.relative_error == pytest.approx(check.max_error / (max(map(abs, check.z_range)) + 1e-8))


def test_no_points():
    f = seeded(_image_net).double().eval()
    for mode in ("relative", "exact"):
        found = local_affine(f, torch.zeros(0, 64, dtype=torch.float64), kink_margin=mode)
        assert found.linear.shape == (0, 3, 64)
        assert found.offset.shape == (0, 3)
        assert found.kink_margin.shape == (0,)
        assert found.verification.passed
        assert found.homogeneity is None


def test_chunks_modes_and_gradients():
    f, x = net_of(FLAT, "residual"), points(9, 6)
    whole = local_affine(f, x)
    assert whole.linear.requires_grad
    gradient = torch.autograd.grad(whole.linear.square().sum(), f[0].weight)[0]
    assert gradient.abs().max() > 0
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            parts = local_affine(f, x, chunk_size=4)
        torch.testing.assert_close(parts.linear, whole.linear.detach(), rtol=1e-13, atol=1e-14)
        assert not parts.linear.requires_grad


def test_global_state_stays_as_it_was():
    before = torch.get_rng_state()
    f = net_of(FLAT, "relu")
    f.train()
    local_affine(f, points(4, 6))
    assert f.training
    assert torch.equal(before, torch.get_rng_state())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_units_of_the_input_do_not_change_the_sum(seed):
    """Scaling the input and the first weights inversely leaves A x where it was."""
    f, x = net_of(FLAT, "relu"), points(3, 6, seed=seed)
    scale = points(1, 6, seed=seed + 1).exp()
    rescaled = nn.Sequential(nn.Linear(6, 6, bias=False, dtype=torch.float64), f)
    with torch.no_grad():
        rescaled[0].weight.copy_(torch.diag(1 / scale[0]))
        a, b = local_affine(f, x), local_affine(rescaled, x * scale)
    torch.testing.assert_close(
        a.linear * x.unsqueeze(1), b.linear * (x * scale).unsqueeze(1), rtol=1e-10, atol=1e-12
    )
    torch.testing.assert_close(a.offset, b.offset, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("as_users_run")
class TestMessages:
    def test_norm_without_a_map(self):
        text = (
            'net contains LayerNorm at layer 2: pass map="derivative" (predicts moves) or map="local_linear" '
            "(exact sum)"
        )
        with pytest.raises(ValueError, match=re.escape(text)):
            local_affine(net_of(NORMED, "layer norm"), points(3, 12))

    def test_options(self):
        f, x = net_of(FLAT, "relu"), points(3, 6)
        with pytest.raises(
            ValueError, match="map: expected one of None, 'derivative', 'local_linear', got 'no'"
        ):
            local_affine(f, x, map="no")
        with pytest.raises(ValueError, match="kink_margin: expected one of 'relative', 'exact', got 'no'"):
            local_affine(f, x, kink_margin="no")
        with pytest.raises(ValueError, match="chunk_size: expected a whole number >= 1, got 0"):
            local_affine(f, x, chunk_size=0)

    def test_inputs(self):
        f = net_of(FLAT, "relu")
        with pytest.raises(TypeError, match=r"net: expected an nn\.Module, got function"):
            local_affine(lambda x: x, points(3, 6))
        with pytest.raises(ValueError, match=r"x: expected \(n, d\) floating point, got shape \(6,\)"):
            local_affine(f, points(1, 6)[0])
        with pytest.raises(TypeError, match=r"call f\.float\(\) or x\.double\(\)"):
            local_affine(f, points(3, 6, torch.float32))
        with pytest.raises(
            ValueError, match=r"Dropout\) couples or randomises rows in train mode; call net\.eval\(\)"
        ):
            local_affine(nn.Sequential(nn.Linear(6, 2), nn.Dropout(0.5)).double(), points(3, 6))
        with pytest.raises(ValueError, match="residual branch: expected shape"):
            local_affine(Residual(nn.Linear(6, 5)).double(), points(3, 6))
