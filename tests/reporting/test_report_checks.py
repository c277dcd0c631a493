"""The checks: numbers to verdicts, and verdicts to words."""

import json
import math
from dataclasses import replace

import pytest

from pullback.reporting import Measures
from pullback.reporting.checks import judge

GOOD = Measures(
    n_rows=1000,
    n_features=64,
    latent_dim=2,
    reconstruction_error=0.4,
    pca_error=0.6,
    reconstruction_rows=1000,
    reconstruction_units="in data units",
    trustworthiness=0.95,
    continuity=0.97,
    neighbourhood_rows=1000,
    neighbours=10,
    condition_number=3.0,
    condition_median=2.5,
    off_data_share=0.5,
    off_data_in_plane=False,
    geodesics=8,
    geodesics_converged=8,
    worst_residual=1e-7,
    worst_gap=1e-3,
    saved_median=0.03,
    saved_largest=0.2,
    active_dims=2,
    converged=True,
    message="the validation loss stopped falling",
    history_finite=True,
)

CASES = [
    ("reconstruction", {}, "pass"),
    ("reconstruction", {"reconstruction_error": 0.63}, "attention"),
    ("reconstruction", {"reconstruction_error": 0.9}, "fail"),
    ("reconstruction", {"reconstruction_error": math.nan}, "fail"),
    ("reconstruction", {"reconstruction_error": 0.0, "pca_error": 0.0}, "pass"),
    ("reconstruction", {"reconstruction_error": 0.1, "pca_error": 0.0}, "fail"),
    ("trustworthiness", {"trustworthiness": 0.85}, "attention"),
    ("trustworthiness", {"trustworthiness": 0.5}, "fail"),
    ("trustworthiness", {"trustworthiness": None}, "attention"),
    ("continuity", {"continuity": 0.85}, "attention"),
    ("continuity", {}, "pass"),
    ("condition", {"condition_number": 50.0}, "attention"),
    ("condition", {"condition_number": math.inf}, "fail"),
    ("condition", {"condition_number": math.nan}, "fail"),
    ("coverage", {"off_data_share": 0.7}, "attention"),
    ("coverage", {"off_data_share": 0.95}, "fail"),
    ("geodesics", {"geodesics_converged": 7}, "attention"),
    ("geodesics", {"geodesics_converged": 3}, "fail"),
    ("geodesics", {"geodesics": 0, "geodesics_converged": 0}, "attention"),
    ("dimensions", {"active_dims": 1}, "attention"),
    ("dimensions", {"active_dims": 0}, "fail"),
    ("training", {"converged": False}, "attention"),
    ("training", {"history_finite": False}, "fail"),
]


@pytest.mark.parametrize(("key", "change", "verdict"), CASES)
def test_verdicts(key: str, change: dict, verdict: str) -> None:
    diagnosis = judge(replace(GOOD, **change))
    check = diagnosis[key]
    assert check.verdict == verdict
    assert check.sentence.endswith(".")
    assert check.text
    assert check.thresholds
    others = {other.key: other.verdict for other in diagnosis.checks if other.key != key}
    assert set(others.values()) == {"pass"}


def test_all_pass() -> None:
    diagnosis = judge(GOOD)
    assert diagnosis.verdict == "pass"
    assert diagnosis.headline == "All 8 checks pass."


def test_headline_names_what_to_look_at() -> None:
    diagnosis = judge(replace(GOOD, condition_number=50.0, converged=False))
    assert diagnosis.headline == "6 of 8 checks pass; look at: metric, training."
    assert diagnosis.verdict == "attention"
    assert judge(replace(GOOD, condition_number=500.0, converged=False)).verdict == "fail"


def test_the_message_of_the_training_is_shown() -> None:
    diagnosis = judge(replace(GOOD, converged=False, message="stopped at epoch 3; raise max_epochs"))
    assert diagnosis["training"].sentence == "Stopped at epoch 3; raise max_epochs."


@pytest.mark.parametrize(
    "change", [{}, {"trustworthiness": None, "continuity": None}, {"geodesics": 0, "saved_median": math.nan}]
)
def test_summary_is_five_short_lines(change: dict) -> None:
    lines = judge(replace(GOOD, **change)).summary()
    assert len(lines) == 5
    for line in lines:
        assert line.isascii()
        assert len(line) <= 110
        assert "nan" not in line
        assert "\n" not in line


def test_summary_gives_numbers() -> None:
    text = "\n".join(judge(GOOD).summary())
    for number in ("0.67", "0.950", "0.970", "condition 3", "50 %", "8 of 8", "3.0 %"):
        assert number in text


def test_as_dict_is_plain_json() -> None:
    diagnosis = judge(replace(GOOD, condition_number=math.inf, worst_gap=math.nan))
    written = json.loads(json.dumps(diagnosis.as_dict(), allow_nan=False))
    assert written["verdict"] == "fail"
    assert written["checks"]["condition"]["value"] is None
    assert written["measures"]["worst_gap"] is None
    assert written["measures"]["trustworthiness"] == 0.95


def test_an_unknown_check_is_named() -> None:
    with pytest.raises(KeyError, match="expected one of reconstruction, trustworthiness"):
        judge(GOOD)["speed"]
