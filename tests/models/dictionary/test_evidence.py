"""Evidence against what it approximates: dense Gaussians given coordinates, sums over labels, integrals."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from pullback.charts import interval, line
from pullback.models.dictionary.alone import fit_chart
from pullback.models.dictionary.evidence import RIDGE, chart_evidence, fit_points, points_evidence


def arc(n: int = 40, p: int = 3, sigma: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    t = torch.rand(n, 1, generator=g, dtype=torch.float64) * 2 - 1
    curve = torch.cat([t, t**2, *[0 * t] * (p - 2)], 1)
    return curve + sigma * torch.randn(n, p, generator=g, dtype=torch.float64), t


def test_given_coordinates_the_evidence_is_that_of_a_gaussian() -> None:
    Z, t = arc()
    chart, lam = interval(3), 0.4
    found = chart_evidence(chart, Z, t, lam)
    X, slope = chart.jet(t, 1).value, chart.jet(t, 1).jacobian
    S = lam * chart.roughness + RIDGE * len(Z) * torch.eye(chart.M, dtype=torch.float64)
    covariance = found.variance * (torch.eye(len(Z), dtype=torch.float64) + X @ torch.linalg.solve(S, X.mT))
    law = multivariate_normal(None, covariance.numpy(), allow_singular=False)
    exact = -sum(float(law.logpdf(Z[:, j].numpy())) for j in range(Z.shape[1]))
    B = torch.linalg.solve(X.mT @ X + S, X.mT @ Z)
    D = torch.einsum("nmd,mp->ndp", slope, B)[:, 0]
    laplace = (D.square().sum(1) / found.variance).log().sum() / 2
    laplace += len(Z) * (math.log(2) - math.log(2 * math.pi) / 2)
    assert found.nats == pytest.approx(exact + float(laplace), rel=1e-6)
    assert found.edf == pytest.approx(float(torch.linalg.solve(X.mT @ X + S, X.mT @ X).trace()))


@settings(max_examples=15, deadline=None)
@given(st.floats(0.01, 100), st.booleans())
def test_differences_do_not_depend_on_units(scale: float, amplitudes: bool) -> None:
    Z, t = arc()
    a = torch.linspace(0.5, 1.5, len(Z), dtype=torch.float64) if amplitudes else None
    first, second = [
        chart_evidence(interval(2), z, t, 0.1, amplitudes=a).nats
        - points_evidence(z, z[:5], rays=amplitudes).nats
        for z in (Z, scale * Z)
    ]
    assert first == pytest.approx(second, rel=1e-6, abs=1e-6)


def test_points_sum_over_labels() -> None:
    g = torch.Generator().manual_seed(0)
    Z = torch.randn(12, 2, generator=g, dtype=torch.float64)
    centres = Z[:3]
    found = points_evidence(Z, centres)
    s2, rho = found.variance, RIDGE * len(Z)
    total = 0.0
    for z in Z:
        density = sum(
            math.exp(-float((z - c).square().sum()) / (2 * s2)) / (2 * math.pi * s2) for c in centres
        )
        total -= math.log(density / 3)
    counts = torch.cdist(Z, centres).argmin(1).bincount(minlength=3)
    total += float((torch.log(counts + rho) - math.log(rho)).sum()) + rho * float(centres.square().sum()) / (
        2 * s2
    )
    assert found.nats == pytest.approx(total)


def test_a_ray_is_a_line_with_an_amplitude() -> None:
    g = torch.Generator().manual_seed(0)
    a = torch.rand(50, generator=g, dtype=torch.float64) + 0.5
    Z = a[:, None] * torch.tensor([0.6, 0.8], dtype=torch.float64)
    Z = Z + 0.02 * torch.randn(50, 2, generator=g, dtype=torch.float64)
    one = fit_points(Z, 1, rays=True)
    fit = fit_chart(line(), Z, Z[:, :0], amplitudes=Z.norm(dim=1))
    other = chart_evidence(line(), Z, fit.t, 0.0, amplitudes=fit.a)
    assert one.evidence.residual == pytest.approx(other.residual, rel=0.05)
    assert one.evidence.variance == pytest.approx(4e-4, rel=0.4)


def test_points_on_rows_that_repeat() -> None:
    found = fit_points(torch.ones(6, 2, dtype=torch.float64), 3)
    assert math.isfinite(found.evidence.nats)
    assert found.labels.shape == (6,)
