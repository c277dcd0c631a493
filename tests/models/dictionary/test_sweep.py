"""Whole fits from starts near the truth: noise, units, monotony, ends of all kinds."""

from dataclasses import replace

import pytest
import torch

from planted import planted
from pullback.models.dictionary.iterate import SweepState
from pullback.models.dictionary.restarts import fit_dictionary
from pullback.models.dictionary.scores import effective_atoms, support_f1
from pullback.models.dictionary.sweep import alternate
from pullback.models.dictionary.sweep_options import SweepOptions
from sums import aligned, codes_of, dense, golden_rows, layout_of, unexplained

SOFT = SweepOptions(gate="softmax", max_sweeps=12)


def test_a_mixture_is_fitted_to_its_noise() -> None:
    rows = golden_rows("mix_train")
    layout = layout_of(rows.kinds)
    fit = alternate(layout, rows.Z, codes_of(layout, rows, softmax=True, noise=0.3), SOFT)
    assert fit.s2**0.5 == pytest.approx(0.05, rel=0.03)
    scores = aligned(layout, fit.codes, rows)
    assert min(scores[:5]) >= 0.995
    assert scores[5] >= 0.99
    assert effective_atoms(fit.codes.weights) <= 1.02
    assert unexplained(rows.Z, fit.reconstruction()) <= 0.112
    assert fit.decoders.rss == pytest.approx(float((rows.Z - fit.reconstruction()).square().sum()), rel=1e-6)


def test_sums_are_fitted_to_their_noise() -> None:
    rows = golden_rows("add_train")
    layout = layout_of(rows.kinds)
    fit = alternate(layout, rows.Z, codes_of(layout, rows, noise=0.3), SweepOptions(max_sweeps=14))
    assert fit.s2**0.5 == pytest.approx(0.05, rel=0.03)
    weights, _ = dense(layout, fit.codes)
    assert support_f1(rows.A, weights) >= 0.99
    assert min(aligned(layout, fit.codes, rows)) >= 0.98
    for k, chart in enumerate(layout.charts):
        value = chart.jet(chart.grid(), 0).value @ fit.B[layout.block(k)]
        assert float(value.square().sum(1).mean()) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("gate", ["softmax", "amplitude"])
def test_the_objective_falls_while_nothing_else_moves(gate: str) -> None:
    rows = planted(300, "single" if gate == "softmax" else "additive", seed=2)
    layout = layout_of(rows.kinds)
    options = SweepOptions(gate=gate, smoothness=0.01, max_sweeps=8, regauge_every=99, reencode_every=99)  # type: ignore[arg-type]
    start = codes_of(layout, rows, softmax=gate == "softmax", noise=0.3)
    path = torch.tensor(alternate(layout, rows.Z, start, options).path)
    slack = 1e-9 if gate == "softmax" else 1e-4
    assert float((path.diff() / path[0]).max()) <= slack


@pytest.mark.parametrize("gate", ["softmax", "amplitude"])
def test_fits_follow_scales_and_rotations(gate: str) -> None:
    rows = planted(240, "single" if gate == "softmax" else "additive", seed=1)
    layout = layout_of(rows.kinds)
    options = SweepOptions(gate=gate, max_sweeps=5, isometry=0.0)  # type: ignore[arg-type]
    start = codes_of(layout, rows, softmax=gate == "softmax", noise=0.2)
    one = alternate(layout, rows.Z, start, options)
    g = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(64, 64, generator=g, dtype=torch.float64)).Q
    for c in (1e-4 if gate == "softmax" else 300.0,):
        moved = start if gate == "softmax" else replace(start, weights=c * start.weights)
        two = alternate(layout, c * rows.Z @ Q, moved, options)
        assert two.path == pytest.approx([c**2 * value for value in one.path], rel=1e-8)
        torch.testing.assert_close(two.codes.coords, one.codes.coords, atol=1e-6, rtol=0)
        torch.testing.assert_close(two.reconstruction(), c * one.reconstruction() @ Q, atol=1e-7 * c, rtol=0)


@pytest.mark.slow
def test_entropy_decides_how_many_atoms_a_row_uses() -> None:
    rows = planted(500, "single", seed=5)
    layout = layout_of(rows.kinds)
    used, clean = [], []
    for entropy in (0.0, 0.002, 0.005, 0.02, 0.1):
        start = codes_of(layout, rows, softmax=True, noise=0.3)
        options = SweepOptions(gate="softmax", entropy=entropy, max_sweeps=14, isometry=0.0)
        fit = alternate(layout, rows.Z, start, options)
        used.append(effective_atoms(fit.codes.weights))
        clean.append(unexplained(rows.clean, fit.reconstruction()))
    assert used == sorted(used, reverse=True)
    assert used[-1] <= 1.01
    assert clean[-1] <= clean[0]


def test_the_best_so_far_survives_whatever_ends_a_fit() -> None:
    rows = planted(200, "additive", seed=6)
    layout = layout_of(rows.kinds)
    start = codes_of(layout, rows, noise=0.3)
    told: list[SweepState] = []

    def stop(state: SweepState) -> None:
        told.append(state)
        if state.sweep == 3:
            raise KeyboardInterrupt

    broken = alternate(layout, rows.Z, start, SweepOptions(isometry=0.0), callback=stop)
    assert not broken.converged
    assert "interrupted" in broken.message
    assert broken.sweeps == len(told) == 4
    assert [state.sweep for state in told] == [0, 1, 2, 3]
    assert told[-1].fvu < 0.2
    short = alternate(layout, rows.Z, start, SweepOptions(max_seconds=0.0, isometry=0.0))
    assert short.sweeps == 1
    assert "max_seconds" in short.message
    one = alternate(layout, rows.Z, start, SweepOptions(max_sweeps=1, isometry=0.0))
    assert "max_sweeps" in one.message
    assert bool(torch.isfinite(one.reconstruction()).all())


def test_columns_without_variance_and_repeated_rows() -> None:
    rows = planted(150, "single", seed=7)
    Z = torch.cat([rows.Z, torch.zeros(150, 2).double()], 1)
    Z = torch.cat([Z, Z[:1].expand(50, -1)])
    layout = layout_of(rows.kinds)
    start = codes_of(layout, rows, softmax=True, noise=0.3)
    again = torch.cat([torch.arange(150), torch.zeros(50, dtype=torch.long)])
    fit = alternate(layout, Z, start.rows(again), SweepOptions(gate="softmax", max_sweeps=6, isometry=0.0))
    assert bool(torch.isfinite(fit.reconstruction()).all())
    assert float(fit.B[:, -2:].abs().max()) <= 1e-9


@pytest.mark.parametrize("mixing", ["single", "additive"])
def test_labelled_coordinates_stay_and_others_follow(mixing: str) -> None:
    rows = planted(500, mixing, kinds=("circle", "circle"), p=20, seed=2)
    values = rows.t[0][:, 0].clone()
    values[::3] = torch.nan
    soft = mixing == "single"
    options = SweepOptions(gate="softmax" if soft else "amplitude", n_active=2, max_sweeps=8)
    found = fit_dictionary(
        rows.Z, 2, "circle", options, init=rows.A.argmax(1), labels={0: values}, n_restarts=1
    )
    codes = found.best.fit.codes
    row, slot = ((codes.atoms == 0) & (codes.weights > 0.3)).nonzero(as_tuple=True)
    labelled = ~torch.isnan(values[row])
    at = codes.coords[row, slot, 0]
    assert torch.equal(at[labelled], values[row][labelled])
    used = rows.A[row, 0] > 0
    assert int((~labelled & used).sum()) > 40
    # no turn or reflection is left free, and the labels' speed is kept
    apart = torch.exp(1j * (at - rows.t[0][row, 0]))[~labelled & used]
    assert float(apart.mean().real) > 0.99
