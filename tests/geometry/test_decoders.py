"""Geometry on decoders of every kind: convolutions, normalisations, images, functions; d = 1 to 32."""

import math

import pytest
import torch
from torch import nn

from own_decoders import DECODERS, SIDE, Own, ends, seeded
from pullback import ambient as A
from pullback.geometry import (
    certify,
    christoffel,
    curvature,
    curve_length,
    distance,
    flatness,
    geodesic,
    magnification,
)
from pullback.metrics import PullbackMetric, from_tensor
from pullback.metrics.decoders import _returns_rows


def flat(decoder: object) -> object:
    """The same decoder with its output flattened by hand."""
    return lambda z: decoder(z).flatten(1)


@pytest.mark.parametrize("name", DECODERS)
def test_all_of_geometry_works_on_a_decoder(name):
    decoder = DECODERS[name](2)
    metric, plain = PullbackMetric(decoder), PullbackMetric(flat(decoder))
    a, b = ends(2)
    torch.testing.assert_close(metric.tensor(a), plain.tensor(a), rtol=1e-12, atol=1e-12)
    path = geodesic(metric, a, b)
    assert bool(path.converged.all())
    assert bool(certify(metric, path).converged.all())
    line = torch.lerp(a[:, None], b[:, None], torch.linspace(0, 1, 65, dtype=torch.float64)[:, None])
    assert (path.length <= curve_length(metric, line) * (1 + 1e-9)).all()
    torch.testing.assert_close(geodesic(plain, a, b).length, path.length, rtol=1e-8, atol=0)
    live = b.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(distance(metric, a, live).sum(), live)
    lowered = torch.einsum("nab,nb->na", torch.linalg.inv(metric.tensor(b)), gradient)
    torch.testing.assert_close((gradient * lowered).sum(1), torch.ones(3).double(), rtol=1e-4, atol=0)
    sign, logdet = torch.linalg.slogdet(metric.tensor(a))
    assert bool((sign > 0).all())
    torch.testing.assert_close(2 * magnification(metric, a), logdet, rtol=1e-10, atol=1e-10)
    assert flatness(metric, torch.cat([a, b])).condition_number >= 1
    hidden = from_tensor(metric.tensor, 2)
    torch.testing.assert_close(
        curvature(metric, a).riemann, curvature(hidden, a).riemann, rtol=1e-9, atol=1e-11
    )
    torch.testing.assert_close(christoffel(metric, a), christoffel(hidden, a), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("d", [1, 2, 3, 8, 16, pytest.param(32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["normalised", "own module"])
def test_latent_dimensions_from_1_to_32(name, d):
    decoder = DECODERS[name](d)
    metric, (a, b) = PullbackMetric(decoder), ends(d, 2)
    path = geodesic(metric, a, b, starts="line")
    assert bool(path.converged.all()), path.message
    assert path.points.shape == (2, 65, d)
    assert torch.isfinite(magnification(metric, a)).all()
    live = b.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(distance(metric, a, live, starts="line").sum(), live)
    assert torch.isfinite(gradient).all()
    at, g = curvature(metric, a), metric.tensor(a)
    assert at.riemann.shape == (2, d, d, d, d)
    torch.testing.assert_close(at.metric, g, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(at.scalar, torch.einsum("nab,nab->n", torch.linalg.inv(g), at.ricci))
    first = christoffel(metric, a, first_kind=True)
    torch.testing.assert_close(torch.einsum("nce,neab->ncab", g, christoffel(metric, a)), first)


@pytest.mark.parametrize(
    "ambient",
    [
        A.Euclidean(),
        A.Diagonal(torch.linspace(0.5, 2, 2 * SIDE**2, dtype=torch.float64)),
        A.Gaussian(0.3),
        A.Bernoulli(),
        A.Poisson(),
        A.LowRank(torch.randn(2 * SIDE**2, 5, generator=torch.Generator().manual_seed(0)).double()),
        A.LowRank(lambda z: (1 + z[:, :1, None] ** 2) * torch.ones(2 * SIDE**2, 3, dtype=z.dtype)
                  * torch.arange(6 * SIDE**2, dtype=z.dtype).reshape(-1, 3).cos()),
        A.LearnedGaussian(),
    ],
    ids=["Euclidean", "Diagonal", "Gaussian", "Bernoulli", "Poisson", "LowRank", "LowRank of z", "learned"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["convolutional", "images by a function"])
def test_images_under_every_ambient(name, ambient):
    net = DECODERS["convolutional"](2)
    decoder = net if name == "convolutional" else lambda z: net(z)
    by_hand = PullbackMetric(nn.Sequential(net, nn.Flatten()), ambient)
    metric, (a, b) = PullbackMetric(decoder, ambient), ends(2)
    torch.testing.assert_close(metric.tensor(a), by_hand.tensor(a), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(metric.inverse(a), by_hand.inverse(a), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(metric.logdet(a), by_hand.logdet(a), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(metric.derivative(a), by_hand.derivative(a), rtol=1e-9, atol=1e-10)
    if metric.embedding is not None:
        paths = [geodesic(each, a, b) for each in (metric, by_hand)]
        torch.testing.assert_close(paths[0].length, paths[1].length, rtol=1e-8, atol=0)
        assert metric.embedding(a).ndim == metric.compact_embedding()(a).ndim == 2


def test_classes_along_the_last_axis_of_an_image():
    """A multinomial at every pixel: the metric is the sum of those of the pixels."""
    net = seeded(lambda: nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Unflatten(1, (4, 3))))
    z = ends(2)[0]
    for decoder in (net, lambda z: net(z)):
        pixels = [PullbackMetric(lambda z, k=k: net(z)[:, k], A.Categorical(2)) for k in range(4)]
        expected = sum(pixel.tensor(z) for pixel in pixels)
        torch.testing.assert_close(PullbackMetric(decoder, A.Categorical(2)).tensor(z), expected)


def test_outputs_that_are_rows_already_keep_their_quick_ways():
    wide = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 500))
    rows = [
        wide,
        nn.Sequential(wide, nn.Sigmoid()),
        nn.Sequential(DECODERS["convolutional"](2), nn.Flatten()),
    ]
    for net in rows:
        assert _returns_rows(net)
        assert PullbackMetric(net).embedding is net
    assert PullbackMetric(wide).compact_embedding()(torch.zeros(3, 2)).shape == (3, 8)
    assert not _returns_rows(DECODERS["convolutional"](2))
    assert not _returns_rows(Own(2))
    mixed = nn.Sequential(Own(2), nn.Flatten(), nn.Linear(64, 500))
    assert _returns_rows(mixed)


def test_batch_normalisation_in_train_mode_is_refused_by_all_of_geometry():
    decoder = DECODERS["normalised"](2).train()
    metric, (a, b) = PullbackMetric(decoder), ends(2)
    before = {name: buffer.clone() for name, buffer in decoder.named_buffers()}
    calls = [
        lambda: geodesic(metric, a, b),
        lambda: distance(metric, a, b),
        lambda: magnification(metric, a),
        lambda: flatness(metric, a),
        lambda: curvature(metric, a),
        lambda: christoffel(metric, a),
        lambda: curve_length(metric, torch.stack([a, b], dim=1)),
        lambda: certify(
            metric, torch.lerp(a[:, None], b[:, None], torch.linspace(0, 1, 9).double()[:, None])
        ),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"decoder is in train mode; call decoder\.eval\(\)"):
            call()
    for name, buffer in decoder.named_buffers():
        assert torch.equal(buffer, before[name])


def test_modes_and_parameters_are_left_as_they_were():
    decoder = DECODERS["own module"](2).requires_grad_(True)
    weights = [p.clone() for p in decoder.parameters()]
    a, b = ends(2)
    geodesic(PullbackMetric(decoder), a, b)
    curvature(PullbackMetric(decoder), a)
    assert not decoder.training
    assert all(p.requires_grad and p.grad is None for p in decoder.parameters())
    assert all(torch.equal(p, w) for p, w in zip(decoder.parameters(), weights, strict=True))


def test_single_precision_images(dtype):
    decoder = DECODERS["convolutional"](2).to(dtype)
    a, b = (z.to(dtype) for z in ends(2))
    path = geodesic(PullbackMetric(decoder), a, b)
    assert path.length.dtype == dtype
    assert bool(path.converged.all())
    exact = geodesic(PullbackMetric(DECODERS["convolutional"](2)), *ends(2))
    assert (path.length.double() / exact.length - 1).abs().max() < 1e-4
    assert math.isfinite(flatness(PullbackMetric(decoder), a).variance)
