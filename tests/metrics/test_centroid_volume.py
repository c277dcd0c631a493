"""log det of a centroid metric at many points against autograd through the metric itself."""

import pytest
import torch
from torch import Tensor

from pullback.metrics import CentroidMetric
from pullback.metrics.centroid_volume import CentroidVolume


def centroid_metric(d: int, *, n: int = 30, dtype: torch.dtype = torch.float64, **options) -> CentroidMetric:
    draw = torch.Generator().manual_seed(d)
    c = torch.randn(n, d, generator=draw, dtype=torch.float64)
    L = torch.randn(n, d, d, generator=draw, dtype=torch.float64).tril()
    settings = {"temperature": 0.9 * d**0.5, "regularization": 0.01} | options
    # rounded first, so that both precisions see the same numbers
    return CentroidMetric(c.float().to(dtype), L.float().to(dtype), **settings)


def points(d: int, n: int = 25) -> Tensor:
    return 1.5 * torch.randn(n, d, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("d", [1, 2, 3, 4, 7, 8, 10])
def test_value_and_gradient_are_those_of_autograd(d: int, reduction: str, dtype: torch.dtype) -> None:
    metric, z = centroid_metric(d, reduction=reduction), points(d)
    point = z.clone().requires_grad_()
    found = metric.logdet(point)
    (slope,), wanted = torch.autograd.grad(found.sum(), point), found.detach()
    value, gradient = CentroidVolume(centroid_metric(d, reduction=reduction, dtype=dtype))(z.to(dtype))
    tolerance = 1e-13 if dtype == torch.float64 else 3e-6
    assert value.dtype == gradient.dtype == dtype
    assert float((value - wanted).abs().max()) <= tolerance * float(wanted.abs().max())
    assert float((gradient - slope).abs().max()) <= tolerance * float(slope.abs().max())


@pytest.mark.parametrize("d", [2, 3, 5])
def test_blocks_agree_with_the_whole(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    metric, z = centroid_metric(d), points(d)
    whole = CentroidVolume(metric)
    monkeypatch.setattr("pullback.metrics.centroid_volume.BLOCK_BYTES", 4 * 30 * 8)
    parts = CentroidVolume(metric)
    assert parts._rows_at_once == 4
    for a, b in zip(whole(z), parts(z), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(whole.nearest(z), torch.cdist(z, metric.centroids).amin(1))
    torch.testing.assert_close(parts.nearest(z), whole.nearest(z))


@pytest.mark.parametrize("d", [2, 4, 9])
def test_a_shift_of_everything_changes_nothing(d: int) -> None:
    metric, z = centroid_metric(d), points(d)
    far = CentroidMetric(
        metric.centroids + 1e6,
        metric.factors,
        temperature=metric.temperature,
        regularization=metric.regularization,
    )
    for a, b in zip(CentroidVolume(metric)(z), CentroidVolume(far)(z + 1e6), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_far_away_the_metric_is_flat(d: int, dtype: torch.dtype) -> None:
    value, gradient = CentroidVolume(centroid_metric(d, dtype=dtype))(torch.full((2, d), 1e4, dtype=dtype))
    torch.testing.assert_close(value, torch.full_like(value, -d * torch.tensor(0.01).log().item()))
    assert bool((gradient == 0).all())


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_one_bad_point_spoils_no_other(d: int) -> None:
    z = points(d)
    volume = CentroidVolume(centroid_metric(d))
    wanted = volume(z)
    z[3] = torch.nan
    value, gradient = volume(z)
    assert bool(value[3].isnan())
    assert bool(gradient[3].isnan().all())
    kept = torch.arange(len(z)) != 3
    torch.testing.assert_close(value[kept], wanted[0][kept])
    torch.testing.assert_close(gradient[kept], wanted[1][kept])
