"""Contributions at points add up: every layer type, both maps, every reduction, any preprocessing."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from torch import nn

from attribution_cases import (
    FLAT,
    Attention,
    Detached,
    Primitives,
    digits,
    encoder,
    glassbox,
    golden_net,
    golden_pair,
    sum_error,
)
from jet_cases import reference_jacobian, seeded
from pullback.attribution import contributions, local_affine
from pullback.jets import AttributionWarning, HomogeneityWarning


def flat(name: str) -> nn.Module:
    return seeded(FLAT[name]).double().eval()


@pytest.mark.parametrize("method", ["local", "path"])
@pytest.mark.parametrize("name", FLAT)
def test_contributions_of_piecewise_linear_nets_add_up(name, method, dtype):
    net, x = flat(name).to(dtype), digits(9).to(dtype) - 0.3  # zeros would sit on the kink of a first ReLU
    found = contributions(net, x, method=method, baseline=x.mean(0))
    bound = 1e-13 if dtype == torch.float64 else 2e-6
    assert found.values.dtype == found.offset.dtype == found.residual.dtype == dtype
    assert sum_error(found.values, net(x).detach(), found.offset) <= bound
    assert found.exact
    assert found.verification.passed
    assert float(found.residual.max()) == pytest.approx(found.verification.pointwise_error)
    assert found.verification.pointwise_error <= bound
    assert (found.method, found.map) == (method, "derivative")
    if method == "path":
        torch.testing.assert_close(found.offset, net(x.mean(0)[None]).detach().expand(9, -1))
        assert (found.pieces >= 1).all()
        assert found.nodes is None
    else:
        assert found.verification.derivative_error < (1e-6 if dtype == torch.float64 else 5e-2)


def test_local_contributions_are_derivative_times_step():
    net, x = encoder(nn.PReLU), digits(7)
    x0 = digits(31)[-1]
    found = contributions(net, x, baseline=x0)
    expected = reference_jacobian(net, x) * (x - x0).unsqueeze(1)
    torch.testing.assert_close(found.values, expected, rtol=1e-12, atol=1e-12)
    assert found.method == "local"
    assert torch.equal(found.baseline, x0)
    affine = local_affine(net, x)
    torch.testing.assert_close(found.kink_margin, affine.kink_margin)
    torch.testing.assert_close(found.offset, affine.offset.detach() + (affine.linear @ x0).detach())


def test_golden_net():
    net, (a, _) = golden_net(), golden_pair()
    found = contributions(net, a, kink_margin="exact")
    A = [
        [0.6313923818962173, 0.6944833034584544, 0.11906947859483465],
        [-0.009803231160962428, -0.05729133538508228, -0.05210605006868736],
    ]
    f64 = {"dtype": torch.float64}
    torch.testing.assert_close(found.values[0], torch.tensor(A, **f64) * a, rtol=1e-12, atol=1e-15)
    offset = torch.tensor([[-0.23184353669940844, -0.6619338169528097]], **f64)
    torch.testing.assert_close(found.offset, offset, rtol=1e-12, atol=1e-15)
    margin = torch.tensor([0.26784422676216463], **f64)
    torch.testing.assert_close(found.kink_margin, margin, rtol=1e-12, atol=0)


@pytest.mark.parametrize("reduction", ["l2", "mean_l2"])
@pytest.mark.parametrize("groups", [None, {"row": list(range(8)), "column": [8, 16, 24]}])
@pytest.mark.parametrize("method", ["local", "path"])
def test_reductions_are_those_of_the_whole_array(reduction, groups, method):
    net, x = encoder(nn.ReLU), digits(23)
    options = {"method": method, "feature_groups": groups, "chunk_size": 7}
    whole = contributions(net, x, **options).values
    norm = whole.square().sum(1).sqrt()
    found = contributions(net, x, reduction=reduction, **options)
    torch.testing.assert_close(found.values, norm if reduction == "l2" else norm.mean(0))
    assert found.reduction == reduction
    out = torch.full_like(found.values, torch.nan)
    again = contributions(net, x, reduction=reduction, out=out, **options)
    assert again.values.data_ptr() == out.data_ptr()
    torch.testing.assert_close(out, found.values)


def test_groups_add_up_what_they_hold():
    net, x = encoder(nn.ReLU), digits(5)
    whole = contributions(net, x).values
    found = contributions(net, x, feature_groups={"top": [0, 1, 2], "bottom": [63]})
    assert found.feature_names[:3] == ("top", "bottom", "3")
    assert len(found.feature_names) == found.values.shape[2] == 62
    torch.testing.assert_close(found.values[:, :, 0], whole[:, :, :3].sum(-1))
    torch.testing.assert_close(found.values.sum(-1), whole.sum(-1))
    labelled = contributions(net, x, feature_groups=[str(j // 32) for j in range(64)])
    assert labelled.feature_names == ("0", "1")
    torch.testing.assert_close(labelled.values[:, :, 1], whole[:, :, 32:].sum(-1))
    assert found.verification.pointwise_error == contributions(net, x).verification.pointwise_error


def test_writes_the_whole_array_where_it_is_told():
    net, x = encoder(nn.ReLU), digits(33)
    out = torch.empty(33, 2, 64, dtype=torch.float64)
    found = contributions(net, x, out=out, chunk_size=10)
    assert found.values.data_ptr() == out.data_ptr()
    assert torch.equal(out, contributions(net, x).values)


DATA = digits(200).numpy() + np.random.default_rng(0).normal(size=(200, 64))
FRONTS = {
    "scaler": StandardScaler(),
    "no centre": StandardScaler(with_mean=False),
    "range": MinMaxScaler((-1, 2)),
    "largest": MaxAbsScaler(),
    "quartiles": RobustScaler(),
    "axes": PCA(10),
    "whitened": PCA(10, whiten=True),
    "scaler and axes": make_pipeline(StandardScaler(), PCA(10)),
    "axes and scaler": make_pipeline(PCA(10), StandardScaler()),
    "twice": make_pipeline(StandardScaler(), PCA(20), StandardScaler(), PCA(10, whiten=True)),
    "two scalers": make_pipeline(MinMaxScaler(), StandardScaler()),
}


@pytest.mark.parametrize("method", ["local", "path"])
@pytest.mark.parametrize("name", FRONTS)
def test_preprocessing_is_folded_into_the_raw_features(name, method, dtype):
    front = FRONTS[name].fit(DATA)
    x = torch.from_numpy(DATA[:12]).to(dtype)
    width = front.transform(DATA[:1]).shape[1]
    net = seeded(lambda: nn.Sequential(nn.Linear(width, 16), nn.PReLU(), nn.Linear(16, 2))).to(dtype)
    found = contributions(net, x, method=method, preprocessing=front)
    value = net(torch.from_numpy(front.transform(DATA[:12])).to(dtype)).detach()
    assert found.values.shape == (12, 2, 64)
    bound = 1e-11 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(found.value, value, rtol=bound, atol=bound)
    assert sum_error(found.values, value, found.offset) <= (1e-12 if dtype == torch.float64 else 1e-5)
    assert found.exact
    if "axes" in name or name in ("whitened", "twice"):
        assert ((found.retained >= 0) & (found.retained <= 1 + 1e-6)).all()
    else:
        assert found.retained is None
    if method == "local" and dtype == torch.float64:
        J = reference_jacobian(net, torch.from_numpy(front.transform(DATA[:12])))
        scale = torch.from_numpy(front.transform(np.eye(64)) - front.transform(np.zeros((64, 64))))
        expected = (J @ scale.T) * (x - found.baseline).unsqueeze(1)
        torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-11)


def test_share_that_principal_axes_keep():
    pca = PCA(10, whiten=True).fit(DATA)
    x = torch.from_numpy(DATA[:5])
    net = nn.Linear(10, 2).double()
    centred = DATA[:5] - pca.mean_
    kept = (centred @ pca.components_.T) ** 2
    expected = kept.sum(1) / (centred**2).sum(1)
    found = contributions(net, x, preprocessing=pca).retained
    np.testing.assert_allclose(found.numpy(), expected)


def test_layer_norm_leaves_a_choice_of_map():
    net, x = encoder(nn.PReLU, norm=True), digits(9)
    with pytest.raises(
        ValueError, match=re.escape('net contains LayerNorm at layer 1: pass map="derivative"')
    ):
        contributions(net, x)
    for map in ("derivative", "local_linear"):
        found = contributions(net, x, map=map)
        assert found.map == map
        assert sum_error(found.values, net(x).detach(), found.offset) <= 1e-13
        affine = local_affine(net, x, map=map).linear.detach()
        torch.testing.assert_close(found.values, affine * x.unsqueeze(1))


def test_homogeneity():
    with pytest.warns(HomogeneityWarning, match="ignores the magnitude"):
        assert contributions(glassbox(), digits(20), map="local_linear").homogeneity == 0
    bias_free = encoder(nn.PReLU, bias=False)
    assert contributions(bias_free, digits(20)).homogeneity == 1
    assert contributions(encoder(nn.PReLU), digits(20)).homogeneity is None
    # rows without any entry refute nothing
    with_zeros = torch.cat([torch.zeros(10, 64, dtype=torch.float64), digits(20)])
    assert contributions(bias_free, with_zeros).homogeneity == 1


def test_a_path_from_a_point_of_discontinuity_is_refused():
    x = digits(20)
    with pytest.raises(ValueError, match="ignores the magnitude of x - baseline"):
        contributions(glassbox(), x, method="path")
    front = (x.mean(0), torch.ones(64))
    with pytest.raises(ValueError, match="ignores the magnitude of x - baseline"):
        contributions(glassbox(), x, method="path", preprocessing=front)
    with pytest.warns(HomogeneityWarning):
        assert contributions(glassbox(), x, method="path", baseline=x[3]).verification.passed


@pytest.mark.parametrize("build", [Attention, Primitives, lambda: encoder(nn.GELU), lambda: encoder(nn.SiLU)])
def test_other_nets_are_integrated_with_a_measured_error(build, dtype):
    net, x = seeded(build).to(dtype).eval(), digits(6).to(dtype) / 8
    found = contributions(net, x)
    assert (found.method, found.map) == ("path", "derivative")
    assert not found.piecewise_linear
    assert not found.exact
    assert (found.nodes >= 16).all()
    assert found.verification.passed
    assert found.verification.tolerance == (1e-6 if dtype == torch.float64 else 1e-5)
    assert sum_error(found.values, net(x).detach(), found.offset) <= found.verification.tolerance
    with pytest.raises(ValueError, match='is not piecewise linear; use method="path"'):
        contributions(net, x, method="local")


def test_a_detached_net_is_flagged():
    net, x = seeded(Detached).double(), digits(6)
    with pytest.warns(AttributionWarning, match="the sum of the contributions differs from the network by"):
        found = contributions(net, x, max_pieces=50)
    assert not found.verification.passed
    assert not found.exact
    assert sum_error(found.values, net(x).detach(), found.offset) > 1e-2
    with pytest.raises(ValueError, match="the sum of the contributions differs"):
        contributions(net, x, strict=True, max_pieces=50)


def test_tolerance_decides_the_number_of_nodes():
    net, x = encoder(nn.GELU), digits(6)
    coarse, fine = contributions(net, x, tol=1e-3), contributions(net, x, tol=1e-10)
    assert (coarse.nodes <= fine.nodes).all()
    assert coarse.nodes.sum() < fine.nodes.sum()
    assert fine.verification.pointwise_error <= 1e-10


@pytest.mark.parametrize("reduction", [None, "l2", "mean_l2"])
@pytest.mark.parametrize("method", ["local", "path"])
def test_no_rows(reduction, method):
    net = encoder(nn.ReLU)
    found = contributions(net, torch.empty(0, 64, dtype=torch.float64), method=method, reduction=reduction)
    assert found.values.shape == {None: (0, 2, 64), "l2": (0, 64), "mean_l2": (64,)}[reduction]
    assert found.value.shape == found.offset.shape == (0, 2)
    assert found.verification.passed


def test_leaves_net_rows_and_gradients_alone():
    net, x = encoder(nn.ReLU), digits(5).requires_grad_()
    before = x.detach().clone()
    found = contributions(net, x, method="path")
    assert not found.values.requires_grad
    assert torch.equal(x.detach(), before)
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("name", ["prelu", "convolutional", "residual first"])
def test_kink_margin_is_the_radius_of_one_piece(name):
    net, x = flat(name), digits(4) / 4
    r = contributions(net, x, kink_margin="exact").kink_margin
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(4, 250, 64, generator=generator, dtype=torch.float64)
    moved = x.unsqueeze(1) + 0.999 * r.view(-1, 1, 1) * v / v.norm(dim=-1, keepdim=True)
    here = local_affine(net, x).linear
    there = local_affine(net, moved.flatten(0, 1)).linear.view(4, 250, *here.shape[1:])
    torch.testing.assert_close(there, here.unsqueeze(1).expand_as(there), rtol=1e-12, atol=1e-12)
    assert contributions(net, x, kink_margin=None).kink_margin is None


def test_a_step_across_the_nearest_kink_changes_the_piece():
    net, x = encoder(nn.PReLU), digits(30) / 4
    r = contributions(net, x, kink_margin="exact").kink_margin
    for k in range(30):
        units, normals = [], []
        for depth in (1, 3, 5):  # in front of each activation
            part = net[:depth]
            units.append(part(x[k]).detach())
            normals.append(reference_jacobian(part, x[k : k + 1])[0])
        a, n = torch.cat(units), torch.cat(normals)
        size = n.norm(dim=1)
        nearest = int((a.abs() / size).argmin())
        torch.testing.assert_close(a[nearest].abs() / size[nearest], r[k])
        across = x[k] - 1.001 * r[k] * a[nearest].sign() * n[nearest] / size[nearest]
        here, there = local_affine(net, torch.stack([x[k], across])).linear.detach()
        assert float((here - there).abs().max()) > 1e-6


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**20), st.floats(0.1, 10.0))
def test_units_of_the_features_do_not_matter(seed, unit):
    """f(x) = net(x / s): contributions in units s are those in units 1."""
    net, x = encoder(nn.ReLU, h=8), digits(3)
    g = torch.Generator().manual_seed(seed)
    s = unit * torch.exp(torch.randn(64, generator=g, dtype=torch.float64))
    scaled = contributions(net, x * s, preprocessing=(torch.zeros(64), 1 / s)).values
    torch.testing.assert_close(scaled, contributions(net, x).values, rtol=1e-10, atol=1e-10)


@settings(max_examples=5, deadline=None)
@given(st.permutations(list(range(12))))
def test_order_of_rows_and_features_does_not_matter(order):
    net = seeded(lambda: nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2))).double()
    x = digits(12)[:, 20:32]
    whole = contributions(net, x, chunk_size=5).values
    torch.testing.assert_close(contributions(net, x[order], chunk_size=5).values, whole[order])
    other = nn.Sequential(nn.Linear(12, 8), *net[1:]).double()
    other[0].load_state_dict({"weight": net[0].weight[:, order], "bias": net[0].bias})
    torch.testing.assert_close(contributions(other, x[:, order]).values, whole[:, :, order])
