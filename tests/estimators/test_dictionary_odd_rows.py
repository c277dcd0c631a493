"""Rows that nobody plans for: an error before any work, or a result with alarms."""

import re
from typing import Any

import numpy as np
import pytest

import pullback as pb
from planted import planted

KINDS = ("circle", "interval")
GATES = ["softmax", "amplitude"]


def rows(gate: str, n: int = 60) -> np.ndarray:
    return planted(n, "single" if gate == "softmax" else "additive", kinds=KINDS, p=6, seed=2).Z.numpy()


def changed(rows: np.ndarray, at: Any, value: float) -> np.ndarray:
    rows = rows.copy()
    rows[at] = value
    return rows


ODD = {
    "column without variance": lambda Z: np.c_[Z, np.full(len(Z), 3.0)],
    "all rows in equal pairs": lambda Z: np.repeat(Z[:30], 2, 0),
    "as few rows as may be": lambda Z: Z[:4],
    "all rows zero": lambda Z: np.zeros((20, 6)),
}
RARE = {
    "as they are": lambda Z: Z,
    "column of zeros": lambda Z: np.c_[Z, np.zeros(len(Z))],
    "one row many times": lambda Z: np.concatenate([Z, np.repeat(Z[:1], 40, 0)]),
    "all rows equal": lambda Z: np.repeat(Z[:1], 20, 0),
    "rows on a line": lambda Z: np.linspace(-1, 1, 30)[:, None] * np.ones(6),
    "one row far away": lambda Z: changed(Z, 0, 1e6),
    "tiny": lambda Z: 1e-30 * Z,
    "huge": lambda Z: 1e30 * Z,
    "one column": lambda Z: Z[:, :1],
    "more columns than rows": lambda Z: np.c_[Z, Z[:, ::-1], np.cos(Z)][:12],
}


def check_a_result_with_alarms(Z: np.ndarray, charts: object, gate: str) -> None:
    """After one sweep: everything is finite, and the end is told."""
    options = {"gate": gate, "max_sweeps": 1, "n_restarts": 1, "random_state": 0}
    model = pb.ManifoldDictionary(2, charts, **options).fit(Z)
    told = model.diagnostics_
    assert "not_converged" in {alarm.code for alarm in told.alarms}
    assert "max_sweeps" in model.message_
    assert (told.n_sweeps, model.converged_) == (1, False)
    fitted = model.inverse_transform(model.transform(Z))
    assert fitted.shape == Z.shape
    assert np.isfinite(fitted).all()
    assert np.isfinite([told.fvu, told.sigma, told.edf, told.n_eff]).all()


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("name", ODD)
def test_odd_rows_and_one_sweep_give_a_result_with_alarms(gate: str, name: str) -> None:
    check_a_result_with_alarms(ODD[name](rows(gate, 40)), "circle", gate)


@pytest.mark.slow
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("name", {**ODD, **RARE})
def test_odder_rows_do_so_too(gate: str, name: str) -> None:
    check_a_result_with_alarms({**ODD, **RARE}[name](rows(gate)), list(KINDS), gate)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(
    ("Z", "message"),
    [
        (changed(rows("softmax"), (17, 2), np.nan), "1 non-finite rows (first: 17)"),
        (changed(rows("softmax"), (17, 2), np.inf), "1 non-finite rows (first: 17)"),
        (rows("softmax")[:3], "minimum of 4"),
        (rows("softmax")[:0], "0 sample"),
    ],
    ids=["NaN", "infinite", "fewer rows than two an atom", "no rows"],
)
def test_what_cannot_be_fitted_is_refused_before_any_work(gate: str, Z: np.ndarray, message: str) -> None:
    model = pb.ManifoldDictionary(2, list(KINDS), gate=gate)
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(Z)
    assert not hasattr(model, "atoms_")
