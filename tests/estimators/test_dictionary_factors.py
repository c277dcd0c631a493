"""Dictionaries of rows that were measured each by a factor of its own: gaps, and noise that differs."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import pullback as pb
from planted import planted
from pullback.models.dictionary.codes import SparseCodes
from pullback.models.dictionary.iterate import INTERRUPTED
from pullback.models.dictionary.row_metrics import MeasuredDecoders

KINDS = ("circle", "interval")
TRUE = planted(300, "single", kinds=KINDS, p=20, sigma=0.0, seed=4)
SIGMA = 0.05


def seen(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows, two in five of whose numbers are missing or twenty times as noisy, and their factors."""
    g = torch.Generator().manual_seed(1)
    bad = torch.rand(TRUE.Z.shape, generator=g) < 0.4
    noise = torch.randn(TRUE.Z.shape, generator=g, dtype=torch.float64)
    if kind == "gaps":
        return torch.where(bad, 0.0, TRUE.clean + SIGMA * noise), torch.diag_embed((~bad).double())
    sd = torch.where(bad, 1.0, SIGMA)
    return TRUE.clean + sd * noise, torch.diag_embed(SIGMA / sd)


@cache
def fitted(kind: str) -> pb.ManifoldDictionary:
    Z, U = seen(kind)
    model = pb.ManifoldDictionary(
        2, list(KINDS), gate="softmax", ambient=pb.ambient.LowRank(U), random_state=0, n_restarts=1
    )
    return model.fit(Z.numpy())


def circle_of(model: pb.ManifoldDictionary) -> int:
    return [atom.chart.name for atom in model.atoms_].index("circle")


def circle_score(model: pb.ManifoldDictionary, codes: SparseCodes) -> float:
    row, slot, t = codes.of_atom(circle_of(model))
    kept = (TRUE.A[row, 0] > 0) & (torch.as_tensor(codes.weights)[row, slot] > 0.5)
    t, true = t[kept, 0], TRUE.t[0][row[kept], 0]
    assert len(t) > 100
    return max(float(torch.exp(1j * (t + sign * true)).mean().abs()) for sign in (-1, 1))


@pytest.mark.parametrize("kind", ["gaps", pytest.param("noise", marks=pytest.mark.slow)])
def test_rows_are_told_by_what_was_measured_well(kind: str) -> None:
    Z, U = seen(kind)
    model = fitted(kind)
    assert model.sigma_ == pytest.approx(SIGMA, rel=0.05)
    codes = model.transform(Z, ambient=pb.ambient.LowRank(U))
    assert circle_score(model, model.codes_) > 0.99
    assert circle_score(model, codes) > 0.99
    back = torch.as_tensor(model.inverse_transform(codes))
    spread = (TRUE.clean - TRUE.clean.mean(0)).square().sum()
    # a tenth of what filling with means or trusting the noise leaves
    assert float((back - TRUE.clean).square().sum() / spread) < 0.03
    # rows of which more was seen are more certain
    row, slot, _ = codes.of_atom(circle_of(model))
    sd, good = torch.as_tensor(codes.coord_sd)[row, slot, 0], U[row].square().sum((1, 2))
    many = good > good.median()
    assert float(sd[many].nanmedian()) < 0.9 * float(sd[~many].nanmedian())


def test_without_factors_rows_are_measured_by_their_mean() -> None:
    Z, U = seen("noise")
    model = fitted("noise")
    alike = model.transform(Z.numpy())
    own = model.transform(Z.numpy(), ambient=pb.ambient.LowRank(U))
    assert circle_score(model, alike) < circle_score(model, own)


def test_a_file_keeps_the_mean_metric(tmp_path: Path) -> None:
    Z, U = seen("gaps")
    model = fitted("gaps")
    again = pb.ManifoldDictionary.load(model.save(tmp_path / "model"))
    assert again.ambient is None
    for ambient in (None, pb.ambient.LowRank(U)):
        one, other = (m.transform(Z.numpy(), ambient=ambient) for m in (model, again))
        np.testing.assert_allclose(one.weights, other.weights, atol=1e-9)
        np.testing.assert_allclose(one.coord_sd, other.coord_sd, rtol=1e-6)
    with pytest.raises(ValueError, match="ambient: expected a metric that all rows of a stream share"):
        again.partial_fit(Z.numpy())


def test_a_large_shared_factor_is_kept(tmp_path: Path) -> None:
    g = np.random.default_rng(0)
    t = g.uniform(0, 2 * np.pi, 60)
    Z = np.c_[np.cos(t), np.sin(t), np.zeros((60, 118))] + 0.02 * g.normal(size=(60, 120))
    U = torch.as_tensor(np.linalg.qr(g.normal(size=(120, 100)))[0].copy())
    model = pb.ManifoldDictionary(
        1, "circle", ambient=pb.ambient.LowRank(U), gate="softmax", random_state=0, n_restarts=1, max_sweeps=2
    ).fit(Z)
    again = pb.ManifoldDictionary.load(model.save(tmp_path / "model"))
    assert torch.equal(again.ambient.factor, U)
    np.testing.assert_allclose(again.transform(Z).coords, model.transform(Z).coords, atol=1e-7)


def test_what_was_not_seen_does_not_matter() -> None:
    Z, U = seen("gaps")
    U = U.clone()
    U[:4] = 0.0  # of these rows nothing was
    options = {"gate": "softmax", "ambient": pb.ambient.LowRank(U), "random_state": 0, "n_restarts": 1}
    found = []
    for value in (0.0, 100.0):
        rows = torch.where(U.diagonal(dim1=1, dim2=2) > 0, Z, value)
        found.append(pb.ManifoldDictionary(2, list(KINDS), max_sweeps=4, **options).fit(rows.numpy()))
    one, other = found
    assert one.diagnostics_.fvu == pytest.approx(other.diagnostics_.fvu, rel=1e-6)
    np.testing.assert_allclose(one.components_, other.components_, atol=1e-6)
    ambient = options["ambient"]
    rows = torch.where(U.diagonal(dim1=1, dim2=2) > 0, Z, 7.0)
    score = one.score(rows, ambient=ambient)
    assert score == pytest.approx(1 - one.diagnostics_.fvu, abs=0.01)
    assert one.score(rows) < score - 0.1


def test_edits_go_by_the_factors() -> None:
    Z, U = seen("gaps")
    model, ambient = fitted("gaps"), pb.ambient.LowRank(U)
    k = circle_of(model)
    steps = [model.steer(Z, k, [0.5], ambient=a) - Z for a in (ambient, None)]
    row, slot, t = model.transform(Z, ambient=ambient).of_atom(k)
    wanted = torch.zeros_like(Z)
    atom = model.atoms_[k]
    a = torch.as_tensor(model.transform(Z, ambient=ambient).weights)[row, slot]
    wanted[row] = a[:, None] * (atom.decode((t + 0.5) % (2 * np.pi)) - atom.decode(t)).double()
    torch.testing.assert_close(steps[0], wanted, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(steps[1], wanted, atol=1e-2)
    assert torch.isfinite(model.ablate(Z, k, ambient=ambient)).all()


def test_a_dictionary_starts_one_in_another_metric() -> None:
    Z, U = seen("gaps")
    model = fitted("gaps")
    start = torch.as_tensor(model.inverse_transform(model.transform(Z, ambient=pb.ambient.LowRank(U))))
    narrow = torch.linalg.qr(torch.randn(20, 12, generator=torch.Generator().manual_seed(0))).Q.double()
    for ambient in (pb.ambient.LowRank(U), pb.ambient.LowRank(narrow), pb.ambient.Diagonal(4.0)):
        again = pb.ManifoldDictionary(
            2, gate="softmax", init=model, ambient=ambient, max_sweeps=1, random_state=0
        ).fit(start.numpy())
        assert again.diagnostics_.fvu < 0.02


def test_interrupted_before_factors_the_start_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(self: object, *given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MeasuredDecoders, "__call__", pressed)
    Z, U = seen("gaps")
    model = pb.ManifoldDictionary(
        2, list(KINDS), gate="softmax", ambient=pb.ambient.LowRank(U), random_state=0, n_restarts=1
    ).fit(Z.numpy())
    assert model.message_ == INTERRUPTED
    assert model.transform(Z.numpy()).weights.shape == (300, 2)


@pytest.mark.parametrize("weight", [np.float64(2), torch.full((20,), 2.0)])
def test_metrics_of_any_number_are_saved(weight: object, tmp_path: Path) -> None:
    Z, _ = seen("noise")
    ambient = pb.ambient.Diagonal(weight)
    model = pb.ManifoldDictionary(1, "circle", ambient=ambient, max_sweeps=1, n_restarts=1).fit(Z.numpy())
    again = pb.ManifoldDictionary.load(model.save(tmp_path / "model"))
    np.testing.assert_allclose(np.asarray(again.ambient.weight), np.asarray(weight))


def test_a_metric_that_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    class Mine(pb.ambient.Diagonal):
        pass

    Z, _ = seen("noise")
    model = pb.ManifoldDictionary(1, "circle", ambient=Mine(2.0), max_sweeps=1, n_restarts=1).fit(Z.numpy())
    with pytest.raises(TypeError, match=r"ambient: expected a metric of pullback\.ambient to save, got Mine"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_fit_transform_uses_the_factors() -> None:
    Z, U = seen("gaps")
    model = pb.ManifoldDictionary(
        1, "circle", gate="softmax", ambient=pb.ambient.LowRank(U[:80]), random_state=0, n_restarts=1
    )
    model.max_sweeps = 2
    codes = model.fit_transform(Z[:80].numpy())
    again = model.transform(Z[:80].numpy(), ambient=pb.ambient.LowRank(U[:80]))
    np.testing.assert_array_equal(codes.residual, again.residual)


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (torch.ones(20, 3), r"ambient: expected factors \(300, 20, r\), one a row, got \(20, 3\)"),
        (torch.ones(2, 20, 3), r"ambient: expected factors \(300, 20, r\), one a row, got \(2, 20, 3\)"),
    ],
)
def test_factors_that_do_not_fit_are_named(factor: torch.Tensor, message: str) -> None:
    Z, _ = seen("gaps")
    with pytest.raises(ValueError, match=message):
        fitted("gaps").transform(Z.numpy(), ambient=pb.ambient.LowRank(factor))
