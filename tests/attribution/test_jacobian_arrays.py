"""The names kept from glass-box-umap: signatures, shapes, numbers."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from attribution_cases import Detached, digits, encoder, glassbox
from jet_cases import reference_jacobian, seeded
from pullback import attribution
from pullback.attribution import (
    JacobianVerification,
    compute_jacobian,
    project_jacobian,
    reduce_contributions,
    verify_jacobian,
)
from pullback.jets import AttributionWarning, local_affine

POSITIONAL = {
    "compute_jacobian": ["model", "x", "batch_size"],
    "project_jacobian": ["jacobian", "proj_tensor"],
    "reduce_contributions": ["contributions", "method"],
    "verify_jacobian": ["Z", "J", "X", "offset"],
    "JacobianVerification": [
        "z_range", "reconstruction_range", "max_error", "mean_error", "relative_error",
        "pointwise_error", "tolerance", "passed", "derivative_error",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", POSITIONAL)
def test_signatures(name):
    parameters = inspect.signature(getattr(attribution, name)).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD,)
    assert [p.name for p in parameters if p.kind in kinds] == POSITIONAL[name]
    assert inspect.signature(compute_jacobian).parameters["batch_size"].default == 1024
    assert inspect.signature(reduce_contributions).parameters["method"].default == "l2"


@pytest.mark.parametrize("batch_size", [3, 1024])
@pytest.mark.parametrize("outputs", [2, 100])
def test_jacobian_is_the_derivative(dtype, batch_size, outputs):
    net = seeded(lambda: nn.Sequential(nn.Linear(64, 8), nn.PReLU(), nn.LayerNorm(8), nn.Linear(8, outputs)))
    x = digits(7)
    expected = reference_jacobian(net.double(), x)
    found = compute_jacobian(net.to(dtype), x.to(dtype), batch_size)
    assert found.dtype == dtype
    atol = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=atol)
    assert not found.requires_grad


def test_images_keep_their_shape_and_models_their_mode():
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)
        )
    ).double()
    net.train()
    net[2].eval()
    x = digits(5).view(5, 1, 8, 8)
    before = net[1].running_mean.clone()
    found = compute_jacobian(net, x)
    assert found.shape == (5, 3, 1, 8, 8)
    assert [part.training for part in net] == [True, True, False, True, True]
    assert torch.equal(net[1].running_mean, before)
    flat = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), net).eval()
    expected = reference_jacobian(flat, x.flatten(1))
    torch.testing.assert_close(found.flatten(2), expected, rtol=0, atol=1e-12)


def test_both_maps_of_a_layer_norm():
    net, x = encoder(nn.PReLU, norm=True), digits(5)
    for map in ("derivative", "local_linear"):
        expected = local_affine(net, x, map=map).linear.detach()
        torch.testing.assert_close(compute_jacobian(net, x, map=map), expected)
    torch.testing.assert_close(compute_jacobian(net, x), reference_jacobian(net, x), rtol=0, atol=1e-12)


def test_the_derivative_predicts_small_moves_and_the_local_map_does_not():
    net, x = encoder(nn.PReLU, norm=True), digits(40)
    g = torch.Generator().manual_seed(0)
    move = 1e-4 * torch.randn(x.shape, generator=g, dtype=torch.float64)
    change = (net(x + move) - net(x)).detach()
    errors = []
    for map in ("derivative", "local_linear"):
        predicted = torch.einsum("ndp,np->nd", compute_jacobian(net, x, map=map), move)
        errors.append(float((predicted - change).norm() / change.norm()))
    assert errors[0] <= 1e-3
    assert errors[1] >= 100 * errors[0]


def test_a_module_that_detaches_is_flagged():
    net, x = seeded(Detached).double(), digits(5)
    with pytest.warns(AttributionWarning, match="not the derivative"):
        found = compute_jacobian(net, x)
    a = net.first(x)
    scale = a.square().mean(1).sqrt()
    expected = (net.second.weight @ net.first.weight) / scale.view(-1, 1, 1)
    torch.testing.assert_close(found, expected.detach())


class DetachedNorm(nn.Module):
    """A layer norm whose scale gradients do not see, as the encoder of glass-box-umap has in eval mode."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.scale = norm.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        variance = x.detach().var(dim=-1, keepdim=True, unbiased=False)
        return self.scale * (x - x.mean(dim=-1, keepdim=True)) / torch.sqrt(variance + 1e-12)


def test_detached_norms_by_their_map_and_by_differentiation(dtype):
    net, x = glassbox().to(dtype), digits(20).to(dtype)
    detached = nn.Sequential(*(DetachedNorm(m) if isinstance(m, nn.LayerNorm) else m for m in net)).eval()
    with pytest.warns(AttributionWarning, match="not the derivative"):
        expected = compute_jacobian(detached, x)
    found = compute_jacobian(net, x, map="local_linear")
    atol = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(found, expected, rtol=0, atol=atol * float(expected.abs().max()))
    rebuilt = torch.einsum("ndp,np->nd", found, x)
    torch.testing.assert_close(rebuilt, net(x).detach(), rtol=1e-4, atol=1e-5)


def test_projection():
    g = torch.Generator().manual_seed(0)
    J, P = torch.randn(4, 2, 3, generator=g), torch.randn(3, 5, generator=g)
    expected = torch.einsum("nik,kj->nij", J, P)
    torch.testing.assert_close(project_jacobian(J, P), expected)
    np.testing.assert_allclose(project_jacobian(J.numpy(), P.numpy()), expected.numpy(), rtol=1e-5)


def test_norm_over_outputs():
    C = np.random.default_rng(0).normal(size=(4, 3, 5))
    np.testing.assert_allclose(reduce_contributions(C), np.linalg.norm(C, axis=1))
    found = reduce_contributions(torch.from_numpy(C))
    np.testing.assert_allclose(found.numpy(), np.linalg.norm(C, axis=1))


@pytest.mark.parametrize("wrap", [torch.from_numpy, np.asarray])
def test_verification_measures_what_is_missing(wrap):
    rng = np.random.default_rng(0)
    J, X, b = rng.normal(size=(6, 2, 5)), rng.normal(size=(6, 5)), rng.normal(size=(6, 2))
    Z = np.einsum("ndp,np->nd", J, X) + b
    good = verify_jacobian(wrap(Z), wrap(J), wrap(X), wrap(b))
    assert good.passed
    assert good.pointwise_error < 1e-14
    bad = verify_jacobian(wrap(Z), wrap(J), wrap(X))
    error = np.abs(b)
    assert not bad.passed
    assert bad.max_error == pytest.approx(error.max())
    assert bad.mean_error == pytest.approx(error.mean())
    assert bad.relative_error == pytest.approx(error.max() / (np.abs(Z).max() + 1e-8))
    assert bad.z_range == pytest.approx((Z.min(), Z.max()))
    assert bad.reconstruction_range == pytest.approx(((Z - b).min(), (Z - b).max()))
    assert verify_jacobian(wrap(Z), wrap(J), wrap(X), tolerance=10.0).passed
    assert JacobianVerification((0.0, 0.0), (0.0, 0.0), 0.0, 0.0, 0.0).passed
