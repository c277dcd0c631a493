"""Exponential and logarithm map and transport on decoders of every kind, d = 1 to 32."""

import pytest
import torch

from own_decoders import DECODERS, ends
from pullback.geometry import exponential_map, geodesic, logarithm_map, parallel_transport
from pullback.metrics import PullbackMetric

SLOW = [
    pytest.param(name, d, marks=pytest.mark.slow)
    for name, d in (("normalised", 32), ("own module", 3), ("function", 8))
]


@pytest.mark.parametrize("name", DECODERS)
def test_maps_work_on_a_decoder(name):
    metric = PullbackMetric(DECODERS[name](2))
    a, b = ends(2, 1)
    path = geodesic(metric, a, b)
    v = logarithm_map(metric, a, b)
    end = exponential_map(metric, a, v)
    gap = torch.einsum("na,nab,nb->n", end - b, metric.tensor(b), end - b).sqrt()
    assert (gap / path.length).max() < 1e-4
    w = torch.ones_like(a)
    moved = parallel_transport(metric, path, w)
    norms = [torch.einsum("na,nab,nb->n", x, metric.tensor(z), x) for x, z in ((w, a), (moved, b))]
    torch.testing.assert_close(norms[0], norms[1], rtol=1e-11, atol=0)


@pytest.mark.parametrize(("name", "d"), [*(("normalised", d) for d in (1, 2, 3, 8, 16)), *SLOW])
def test_maps_work_in_dimensions_from_1_to_32(name, d):
    metric, (a, b) = PullbackMetric(DECODERS[name](d)), ends(d, 1)
    path = geodesic(metric, a, b, starts="line")
    v = logarithm_map(metric, a, b, starts="line")
    gap = exponential_map(metric, a, v) - b
    assert (torch.einsum("na,nab,nb->n", gap, metric.tensor(b), gap).sqrt() / path.length).max() < 1e-3
    moved = parallel_transport(metric, path, v)
    assert moved.shape == (1, d)
    off = moved - path.velocity_end
    assert (torch.einsum("na,nab,nb->n", off, metric.tensor(b), off).sqrt() / path.length).max() < 2e-2


def test_train_mode_is_refused_by_the_maps():
    metric, (a, b) = PullbackMetric(DECODERS["normalised"](2).train()), ends(2)
    for call in (
        lambda: exponential_map(metric, a, b),
        lambda: logarithm_map(metric, a, b),
        lambda: parallel_transport(metric, torch.stack([a, b], dim=1), b),
    ):
        with pytest.raises(ValueError, match=r"decoder is in train mode; call decoder\.eval\(\)"):
            call()
