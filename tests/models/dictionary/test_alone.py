"""One chart alone against the golden manifolds, dense algebra and changes of units."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pullback import charts
from pullback.models.dictionary.alone import fit_chart

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "manifold_dictionary.npz")
NAMES = ["circle", "interval", "sphere", "plane", "torus"]


def golden(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.tensor(GOLDEN[f"one_{name}_{part}"]).double() for part in "Zt")  # type: ignore[return-value]


def start(name: str, t: torch.Tensor) -> torch.Tensor:
    """Coordinates near the truth."""
    draw = torch.Generator().manual_seed(1)
    chart = charts.as_chart(name)
    return chart.retract(t, 0.2 * torch.randn(len(t), chart.d, generator=draw, dtype=torch.float64))


@pytest.mark.parametrize("free", [False, True], ids=["fixed", "amplitudes"])
@pytest.mark.parametrize("name", NAMES)
def test_golden_manifolds_are_fitted_with_their_noise(name: str, free: bool) -> None:
    Z, t = golden(name)
    chart = charts.as_chart(name)
    ones = torch.ones(len(Z), dtype=torch.float64)
    fit = fit_chart(chart, Z, start(name, t), amplitudes=ones if free else None, sweeps=25)
    fvu = fit.rss / float((Z - Z.mean(0)).square().sum())
    assert fvu <= {"circle": 0.071, "interval": 0.104, "sphere": 0.074, "plane": 0.103, "torus": 0.065}[name]
    assert fit.s2**0.5 == pytest.approx(0.05, rel=0.03)
    assert chart.align(fit.t, t).score >= 0.98
    assert fit.definite


@pytest.mark.parametrize("free", [False, True], ids=["fixed", "amplitudes"])
def test_decoders_solve_their_regression_in_the_units_of_the_rows(free: bool) -> None:
    Z, t = golden("circle")
    ones = torch.ones(len(Z), dtype=torch.float64) if free else None
    fit = fit_chart(charts.circle(), Z, t, amplitudes=ones, sweeps=1)
    X = fit.a.unsqueeze(1) * fit.chart.jet(fit.t, 0).value
    A = X.mT @ X + fit.lam * fit.chart.roughness + fit.rho * torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(fit.A, A)
    torch.testing.assert_close(A @ fit.B, X.mT @ Z)
    rss = float((Z - X @ fit.B).square().sum())
    edf = float(torch.linalg.solve(A, X.mT @ X).trace())
    assert fit.rss == pytest.approx(rss)
    assert fit.edf == pytest.approx(edf)
    latents = len(Z) * (2 if free else 1)
    assert fit.s2 == pytest.approx(rss / (Z.numel() - 32 * edf - latents))
    assert fit.path[0] == pytest.approx((rss + float(((A - X.mT @ X) * (fit.B @ fit.B.mT)).sum())) / 2)


@pytest.mark.parametrize("free", [False, True], ids=["fixed", "amplitudes"])
def test_objective_does_not_rise_at_fixed_smoothness(free: bool) -> None:
    Z, t = golden("interval")
    ones = torch.ones(len(Z), dtype=torch.float64) if free else None
    path = fit_chart(
        charts.interval(), Z, start("interval", t), amplitudes=ones, smoothness=0.1, tol=0.0
    ).path
    rises = np.diff(path) / path[0]
    # with amplitudes the smoothness is that of atoms of unit size, and moves with them
    assert rises.max() <= (1e-3 if free else 1e-12)


@pytest.mark.parametrize("free", [False, True], ids=["fixed", "amplitudes"])
def test_fits_follow_scales_and_rotations(free: bool) -> None:
    Z, t = golden("circle")
    Q = torch.linalg.qr(
        torch.randn(32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ).Q
    ones = torch.ones(len(Z), dtype=torch.float64) if free else None
    one = fit_chart(charts.circle(), Z, t, amplitudes=ones, sweeps=12)
    for c in (1e-3, 70.0):
        other = fit_chart(
            charts.circle(), c * Z @ Q, t, amplitudes=None if ones is None else c * ones, sweeps=12
        )
        assert other.rss == pytest.approx(c**2 * one.rss, rel=1e-8)
        assert other.edf == pytest.approx(one.edf, rel=1e-8)
        torch.testing.assert_close(other.t, one.t, atol=1e-7, rtol=0.0)
        torch.testing.assert_close(
            other.decode(), one.decode() @ Q * (1 if free else c), atol=1e-7 * c + 1e-8, rtol=0
        )


def test_points_are_found_as_by_k_means() -> None:
    draw = torch.Generator().manual_seed(3)
    centres = torch.randn(4, 6, generator=draw, dtype=torch.float64)
    label = torch.arange(200) % 4
    Z = centres[label] + 0.05 * torch.randn(200, 6, generator=draw, dtype=torch.float64)
    chart = charts.points(4)
    fit = fit_chart(chart, Z, chart.from_embedding(Z))
    assert chart.align(fit.t, label.double().unsqueeze(1)).score == 1
    assert fit.edf == pytest.approx(4, rel=1e-3)
    assert fit.converged


def test_a_noiseless_straight_line_and_float32_rows() -> None:
    s = torch.linspace(-1, 1, 40, dtype=torch.float64).unsqueeze(1)
    Z = s @ torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64)
    fit = fit_chart(charts.interval(), Z, s)
    assert fit.rss <= 1e-6 * float(Z.square().sum())
    assert fit.B.dtype == torch.float64
    rounded = fit_chart(charts.interval(), Z.float(), s.float())
    assert rounded.rss <= 1e-6 * float(Z.square().sum())


def test_weighted_rows_count_like_repeated_ones() -> None:
    Z, t = golden("circle")
    weights = 1.0 + (torch.arange(len(Z)) % 2)
    again = torch.arange(len(Z)).repeat_interleave(weights.long())
    # units and ridge are those of the rows as given: a short fit differs by these alone
    weighted = fit_chart(charts.circle(), Z, t, row_weights=weights, smoothness=0.0, sweeps=2)
    repeated = fit_chart(charts.circle(), Z[again], t[again], smoothness=0.0, sweeps=2)
    assert weighted.rss == pytest.approx(repeated.rss, rel=1e-4)
    torch.testing.assert_close(weighted.B, repeated.B, atol=1e-4, rtol=0.0)
