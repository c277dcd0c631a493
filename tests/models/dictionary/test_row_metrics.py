"""Rows measured by factors of their own: decoders against the dense system, codes against shared factors."""

from collections.abc import Callable

import pytest
import torch

from pullback.models.dictionary.codes import Codes, decode
from pullback.models.dictionary.decoder_step import design, gather
from pullback.models.dictionary.encoding import encode, encode_softmax
from pullback.models.dictionary.filling import filled
from pullback.models.dictionary.gram import measured, whitened
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.row_metrics import MeasuredDecoders, RowMetrics, about_mean
from pullback.models.dictionary.row_step import RowSteps, coordinate_deviations, step_rows
from pullback.models.dictionary.softmax_step import softmax_deviations, step_softmax
from pullback.models.dictionary.sweep import alternate
from pullback.models.dictionary.sweep_options import SweepOptions
from pullback.models.dictionary.sweep_steps import SweepSteps
from sums import drawn

P = 10


def factors(n: int, r: int = 4, p: int = P) -> torch.Tensor:
    g = torch.Generator().manual_seed(5)
    return torch.randn(n, p, r, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("r", [3, P, 2 * P])
def test_factors_about_their_mean(r: int) -> None:
    U = factors(40, r)
    U[:, :2] = 0.0  # two features that no row measures
    found = about_mean(U)
    assert found.root.shape == (P, P - 2)
    torch.testing.assert_close(found.root @ found.root.mT, (U @ U.mT).mean(0))
    torch.testing.assert_close(found.root @ found.factors, U)
    eye = torch.eye(P - 2, dtype=torch.float64)
    torch.testing.assert_close((found.factors @ found.factors.mT).mean(0), eye)
    assert found.numbers.tolist() == [min(r, P - 2)] * 40
    assert found.share == min(r, P - 2) / (P - 2)


@pytest.mark.parametrize("weighted", [False, True])
def test_decoders_solve_the_dense_system(weighted: bool) -> None:
    layout, Z, _, codes = drawn(200, 2, P)
    metrics = about_mean(factors(200))
    inner = Z @ metrics.root
    w = torch.linspace(0.2, 2.0, 200, dtype=torch.float64) if weighted else torch.ones(200).double()
    lam = torch.linspace(0.01, 3.0, layout.K, dtype=torch.float64)
    rule = MeasuredDecoders(layout, inner, metrics, w if weighted else None)
    fit = rule(codes, gather(layout, codes, inner, w if weighted else None), lam, 1e-3)
    X, W = design(layout, codes), w[:, None, None] * metrics.factors @ metrics.factors.mT
    q, total = inner.shape[1], layout.total
    matrix = torch.einsum("nk,nl,nab->kalb", X, X, W).reshape(total * q, total * q)
    eye = torch.eye(q, dtype=torch.float64)
    matrix = matrix + torch.kron(layout.roughness(lam) + 1e-3 * torch.eye(total).double(), eye)
    right = torch.einsum("nk,nab,nb->ka", X, W, inner).flatten()
    torch.testing.assert_close(fit.B.flatten(), torch.linalg.solve(matrix, right), rtol=1e-7, atol=1e-7)
    missed = whitened(inner - X @ fit.B, metrics.factors).square().sum(1) @ w
    assert fit.rss == pytest.approx(float(missed), rel=1e-12)
    # neighbours are worse
    near = fit.B + 1e-3 * torch.randn(fit.B.shape, generator=torch.Generator().manual_seed(0)).double()
    assert objective_of(rule, layout, X, near, lam) > objective_of(rule, layout, X, fit.B, lam)


def objective_of(
    rule: MeasuredDecoders, layout: Layout, X: torch.Tensor, B: torch.Tensor, lam: torch.Tensor
) -> float:
    smooth = (B * (layout.roughness(lam) @ B)).sum() + 1e-3 * B.square().sum()
    return rule.misfit(X @ B) / 2 + float(smooth) / 2


def amplitude(Z: torch.Tensor, B: torch.Tensor, V: torch.Tensor | None, layout: Layout) -> RowSteps:
    return encode(layout, Z, B, 3, 1e-3, V)


def shares(Z: torch.Tensor, B: torch.Tensor, V: torch.Tensor | None, layout: Layout) -> RowSteps:
    return encode_softmax(layout, Z, B, factors=V)


@pytest.mark.parametrize(
    ("solve", "line"), [pytest.param(amplitude, True, marks=pytest.mark.slow), (shares, False)]
)
def test_rows_of_one_factor_get_the_codes_of_shared_ones(
    solve: Callable[..., RowSteps], line: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, Z, B, _ = drawn(50, 3, P, line=line)
    U = torch.linalg.qr(factors(1, P)[0]).Q * torch.linspace(0.5, 2, P, dtype=torch.float64)
    shared = solve(Z @ U, B @ U, None, layout)
    own = solve(Z, B, U.expand(50, P, P), layout)
    if line:
        assert torch.equal(own.codes.atoms, shared.codes.atoms)
    torch.testing.assert_close(own.codes.weights, shared.codes.weights, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(own.value, shared.value, rtol=1e-9, atol=1e-10)
    monkeypatch.setattr("pullback.models.dictionary.encoding.ENTRIES", 1)
    parts = solve(Z, B, U.expand(50, P, P), layout)
    torch.testing.assert_close(parts.codes.weights, own.codes.weights, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("line", [True, False])
def test_steps_lower_what_each_row_measures(line: bool) -> None:
    layout, Z, B, codes = drawn(60, 3, P, line=line)
    V = factors(60) / 2

    def misfit(at: Codes) -> torch.Tensor:
        return whitened(Z - decode(layout, B, at), V).square().sum(1) / 2

    seen = measured(Z, B, V)
    if line:
        still = step_rows(layout, seen.correlations, seen.gram, codes, steps=0)
        moved = step_rows(layout, seen.correlations, seen.gram, codes, steps=4)
        assert_offset = (misfit(codes) - still.value) - seen.Y.square().sum(1) / 2
        torch.testing.assert_close(assert_offset, torch.zeros(60, dtype=torch.float64), atol=1e-9, rtol=0)
        sd = coordinate_deviations(layout, seen.gram, moved.codes, 0.01)
    else:
        still = step_softmax(layout, seen, codes, steps=0, entropy=0.0)
        moved = step_softmax(layout, seen, codes, steps=4, entropy=0.0)
        torch.testing.assert_close(still.value, misfit(codes))
        sd = softmax_deviations(layout, seen, moved.codes, 0.01, tau=1.0, used=0.05)
    assert bool((misfit(moved.codes) <= misfit(codes) + 1e-12).all())
    assert float(misfit(moved.codes).sum()) < 0.7 * float(misfit(codes).sum())
    known = sd[~torch.isnan(sd)]
    assert len(known)
    assert bool((known > 0).all())


def test_steps_by_parts_are_those_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    layout, Z, _, codes = drawn(60, 3, P)
    metrics = about_mean(factors(60))
    steps = SweepSteps(layout, Z @ metrics.root, SweepOptions(), metrics=metrics)
    now = steps.decoders(codes, torch.ones(layout.K, dtype=torch.float64), 0)
    whole = steps.stepped(now, None, 0), steps.encoded(now.fit, 0)
    monkeypatch.setattr("pullback.models.dictionary.gram.ENTRIES", 1)
    parts = steps.stepped(now, None, 0), steps.encoded(now.fit, 0)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one.value, other.value)
        assert torch.equal(one.codes.atoms, other.codes.atoms)


def test_a_fit_by_equal_factors_is_one_in_their_metric() -> None:
    layout, Z, B, codes = drawn(300, 2, P)
    Z = decode(layout, B, codes) + 0.02 * Z
    U = torch.linalg.qr(factors(1, P)[0]).Q * torch.linspace(0.5, 2, P, dtype=torch.float64)
    metrics = about_mean(U.expand(300, P, P))
    options = SweepOptions(n_active=2, max_sweeps=5, isometry=0.0)
    inner = Z @ metrics.root
    shared = alternate(layout, inner, codes, options)
    own = alternate(layout, inner, codes, options, metrics=metrics)
    torch.testing.assert_close(torch.tensor(own.path), torch.tensor(shared.path), rtol=1e-6, atol=1e-9)
    assert own.s2 == pytest.approx(shared.s2, rel=1e-6)


@pytest.mark.slow
def test_factors_turned_within_measure_the_same() -> None:
    layout, Z, _, codes = drawn(80, 2, P)
    U = factors(80)
    turns = torch.linalg.qr(factors(80, 4, 4)).Q
    options = SweepOptions(n_active=2, max_sweeps=3)
    fits = []
    for given in (U, U @ turns):
        metrics = about_mean(given)
        fits.append(alternate(layout, Z @ metrics.root, codes, options, metrics=metrics))
    assert fits[0].path == pytest.approx(fits[1].path, rel=1e-7)


def test_rows_are_filled_where_they_were_not_seen() -> None:
    g = torch.Generator().manual_seed(0)
    true = torch.randn(400, 3, generator=g, dtype=torch.float64) @ torch.randn(3, P, generator=g).double()
    seen = torch.rand(400, P, generator=g) < 0.7
    noisy = true + 0.05 * torch.randn(400, P, generator=g, dtype=torch.float64)
    Z = torch.where(seen, noisy, 1e3)
    metrics = about_mean(torch.diag_embed(seen.double()))
    assert metrics.numbers.tolist() == seen.sum(1).tolist()
    back = filled(Z @ metrics.root, metrics) @ (metrics.root / metrics.root.square().sum(0)).mT
    error = (back - true).square().mean().sqrt()
    assert float(error) < 0.1  # rows have a size of sqrt(3)


def test_rows_that_weigh_more_are_filled_like_rows_that_occur_more_often() -> None:
    g = torch.Generator().manual_seed(0)
    Z = torch.randn(60, 2, generator=g, dtype=torch.float64) @ torch.randn(2, P, generator=g).double()
    metrics = about_mean(torch.diag_embed((torch.rand(60, P, generator=g) < 0.7).double()))
    times = torch.randint(0, 4, (60,), generator=g)
    rows = torch.arange(60).repeat_interleave(times)
    repeated = RowMetrics(metrics.root, metrics.factors[rows], metrics.numbers[rows])
    inside = metrics.visible(Z @ metrics.root)
    found = filled(inside, metrics, times.double())
    torch.testing.assert_close(found[rows], filled(inside[rows], repeated), rtol=1e-8, atol=1e-10)
    assert (found - filled(inside, metrics)).abs().max() > 1e-3


def test_filling_ends_when_time_is_up() -> None:
    g = torch.Generator().manual_seed(0)
    metrics = about_mean(torch.diag_embed((torch.rand(60, P, generator=g) < 0.7).double()))
    Z = metrics.visible(torch.randn(60, P, generator=g, dtype=torch.float64) @ metrics.root)
    asked: list[int] = []
    filled(Z, metrics, enough=lambda: asked.append(1) or len(asked) == 2)  # type: ignore[func-returns-value]
    assert len(asked) == 2


def test_projected_rows_of_factors_keep_what_they_measure() -> None:
    layout, Z, B, _ = drawn(20, 2, P)
    V = factors(20)
    seen = measured(Z, B, V)
    assert seen.B.shape == (20, layout.total, 4)
    torch.testing.assert_close(seen.rows(slice(3, 5)).correlations, seen.correlations[3:5])
    torch.testing.assert_close(seen.correlations, (Z.unsqueeze(1) @ V @ V.mT @ B.mT).squeeze(1))
