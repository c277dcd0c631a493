"""Codes from nothing, with the decoders of the true codes."""

import pytest
import torch

from planted import planted
from pullback.models.dictionary import decoder_step, encoding
from pullback.models.dictionary.alone import spread
from pullback.models.dictionary.codes import decode
from pullback.models.dictionary.encoding import encode, encode_softmax, residual_correlations
from pullback.models.dictionary.scores import support_f1
from sums import aligned, codes_of, dense, golden_rows, layout_of, oracle, unexplained


def test_sums_are_taken_apart() -> None:
    train, test = golden_rows("add_train"), golden_rows("add_test")
    layout, scale = layout_of(train.kinds), spread(train.Z)
    fit = oracle(layout, train, scale)
    found = encode(layout, test.Z / scale, fit.B, 3, 64 * fit.s2 / 8)
    weights, _ = dense(layout, found.codes)
    assert support_f1(test.A, weights) >= 0.99
    assert min(aligned(layout, found.codes, test)) >= 0.98
    assert unexplained(test.Z, scale * decode(layout, fit.B, found.codes)) <= 0.062
    within = (test.Z / scale - decode(layout, fit.B, found.codes)).square().sum(1) / 2
    torch.testing.assert_close(found.value + (test.Z / scale).square().sum(1) / 2, within)


def test_convex_sums_are_taken_apart() -> None:
    train, test = golden_rows("simplex_train"), golden_rows("simplex_test")
    layout, scale = layout_of(train.kinds), spread(train.Z)
    fit = oracle(layout, train, scale)
    found = encode_softmax(layout, test.Z / scale, fit.B)
    assert support_f1(test.A, found.codes.weights) >= 0.985
    assert min(aligned(layout, found.codes, test)) >= 0.97
    torch.testing.assert_close(found.codes.weights.sum(1), torch.ones(500, dtype=torch.float64))


def test_large_tables_and_chunks_change_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = planted(150, "additive", seed=3)
    layout, scale = layout_of(rows.kinds), spread(rows.Z)
    fit = oracle(layout, rows, scale)
    whole = encode(layout, rows.Z / scale, fit.B, 3, 64 * fit.s2 / 8)
    codes, C, G = codes_of(layout, rows), rows.Z @ fit.B.mT, fit.B @ fit.B.mT
    left = residual_correlations(layout, C, G, codes)
    moments = decoder_step.gather(layout, codes, rows.Z)
    for room in (encoding, decoder_step):
        monkeypatch.setattr(room, "DENSE_UP_TO", 0)
        monkeypatch.setattr(room, "ENTRIES", 5000)
    parts = encode(layout, rows.Z / scale, fit.B, 3, 64 * fit.s2 / 8)
    assert bool((parts.codes.atoms == whole.codes.atoms).all())
    torch.testing.assert_close(parts.codes.weights, whole.codes.weights)
    torch.testing.assert_close(residual_correlations(layout, C, G, codes), left)
    sparse = decoder_step.gather(layout, codes, rows.Z)
    torch.testing.assert_close(sparse.XX, moments.XX)
    torch.testing.assert_close(sparse.XZ, moments.XZ)
    assert sparse.latents == moments.latents


def test_an_open_atom_must_pay() -> None:
    rows = planted(100, "additive", seed=4)
    layout, scale = layout_of(rows.kinds), spread(rows.Z)
    fit = oracle(layout, rows, scale)
    none = encode(layout, rows.Z / scale, fit.B, 3, 1e3)
    assert bool((none.codes.atoms < 0).all())
    assert float(none.codes.weights.abs().max()) == 0
    one = encode(layout, rows.Z / scale, fit.B, 1, 0.0)
    assert one.codes.atoms.shape == (100, 1)
