"""Unit speed: on warped curves and sheets, against the length of the truth."""

import math

import numpy as np
import pytest
import torch

from pullback import charts
from pullback.models.dictionary.alone import fit_chart, spread
from pullback.models.dictionary.gauge import arc_length, isometric, isometry_residual, speed_variation

N, P, SIGMA = 600, 32, 0.05


def frame(seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(P, 6, generator=g, dtype=torch.float64)).Q.mT


def noise(seed: int = 1) -> torch.Tensor:
    return SIGMA * torch.randn(N, P, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_warped_circle_is_laid_out_by_arc_length() -> None:
    g = torch.Generator().manual_seed(2)
    t = 2 * math.pi * torch.rand(N, 1, generator=g, dtype=torch.float64)
    F = frame()
    Z = torch.cat([t.cos(), t.sin()], 1) @ F[:2] + 0.5 * F[5] + noise()
    warped = (t + 0.6 * t.sin()).remainder(2 * math.pi)
    chart = charts.circle(4)
    fit = fit_chart(chart, Z, warped, sweeps=6, reencode=())
    assert speed_variation(chart, fit.B) > 0.15
    before = fit.rss / float((Z - Z.mean(0)).square().sum())
    for _ in range(3):
        fit = fit_chart(chart, Z, arc_length(chart, fit.B, fit.t), sweeps=3, reencode=())
    gauged = fit_chart(chart, Z, arc_length(chart, fit.B, fit.t), sweeps=1)
    assert speed_variation(chart, gauged.B) <= 0.10
    assert chart.align(gauged.t, t).score >= 0.995
    gap = chart.align(gauged.t, t)(gauged.t) - t
    unwrapped = t + torch.atan2(gap.sin(), gap.cos())
    assert float(torch.corrcoef(torch.cat([t, unwrapped], 1).mT)[0, 1]) >= 0.9995
    assert gauged.rss / float((Z - Z.mean(0)).square().sum()) - before <= 0.001


def test_an_interval_and_a_plane_are_made_isometric() -> None:
    g = torch.Generator().manual_seed(3)
    F = frame()
    s = 2 * torch.rand(N, 1, generator=g, dtype=torch.float64) - 1
    Z = torch.cat([(1.75 * s).cos(), (1.75 * s).sin()], 1) @ F[:2] + 0.5 * F[5] + noise()
    chart = charts.interval(6)
    warped = (s + 0.35 * (1 - s**2)).clamp(-1, 1)
    fit = fit_chart(chart, Z, warped, sweeps=6, reencode=())
    size = spread(Z)
    found = isometric(
        chart, fit.B / size, fit.t, Z / size, torch.ones(N).double(), strength=0.1, lam=fit.lam, rho=fit.rho
    )
    assert speed_variation(chart, found.B) <= 0.02
    assert chart.align(found.t, s).score >= 0.998
    missed = Z / size - chart.jet(found.t, 0).value @ found.B
    assert float(missed.square().sum()) / N - fit.rss / size**2 / N <= 0.001

    uv = 2 * torch.rand(N, 2, generator=g, dtype=torch.float64) - 1
    flat = uv @ F[:2] + 0.5 * F[5] + noise()
    chart = charts.plane(4)
    warped = (uv + 0.25 * torch.sin(2 * uv.flip(1))).clamp(-1, 1)
    fit = fit_chart(chart, flat, warped, sweeps=6, reencode=())
    size = spread(flat)
    found = isometric(
        chart,
        fit.B / size,
        fit.t,
        flat / size,
        torch.ones(N).double(),
        strength=0.1,
        lam=fit.lam,
        rho=fit.rho,
    )
    assert isometry_residual(chart, fit.B, fit.t) > 0.02
    assert isometry_residual(chart, found.B, found.t) <= 0.005
    assert chart.align(found.t, uv).score >= 0.99


def test_arc_length_of_a_known_curve() -> None:
    chart = charts.interval(2)
    B = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    t = torch.linspace(-1, 1, 21, dtype=torch.float64).unsqueeze(1)
    # |g'| = sqrt(1 + 9 t²)
    s = t / 2 * (1 + 9 * t**2).sqrt() + torch.asinh(3 * t) / 6
    torch.testing.assert_close(arc_length(chart, B, t), s / s[-1], atol=1e-6, rtol=0)
    assert bool((arc_length(chart, torch.zeros_like(B), t) == t).all())


@pytest.mark.parametrize("kind", ["line", "points", "sphere", "torus", "circle"])
def test_speed_of_charts_with_a_known_metric(kind: str) -> None:
    chart = charts.points(3) if kind == "points" else charts.as_chart(kind)
    B = torch.zeros(chart.M, 9, dtype=torch.float64)
    B[:, : chart.M] = torch.eye(chart.M, dtype=torch.float64)[:, :9]
    if kind == "circle":
        B[3:] = 0
    value = speed_variation(chart, B)
    assert np.isfinite(value)
    assert value <= (0.5 if kind == "torus" else 1e-9)


@pytest.mark.parametrize("size", [0.0, 5e-324, 1e-169, 1e-30])
def test_an_atom_lost_in_the_rounding_of_its_rows_stays_as_it_is(size: float) -> None:
    t = torch.linspace(-1, 1, N).double().unsqueeze(1)
    chart = charts.interval(6)
    B = size * torch.ones(6, 4).double()
    rows = 1e-6 * torch.ones(N, 4).double()
    found = isometric(chart, B, t, rows, size * torch.ones(N).double(), strength=0.1, rho=1e-5)
    assert torch.equal(found.B, B)
    assert torch.equal(found.t, t)


def test_an_atom_without_rows_stays_as_it_is() -> None:
    none = torch.empty(0, 1).double()
    B = torch.ones(6, 4).double()
    found = isometric(charts.interval(6), B, none, torch.empty(0, 4).double(), none[:, 0], strength=0.1)
    assert torch.equal(found.B, B)
    assert found.t.shape == (0, 1)
