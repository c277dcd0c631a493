"""The checks: numbers to verdicts, and verdicts to words."""

import json
import math
from dataclasses import replace

import pytest

from pullback.reporting import Measures
from pullback.reporting.verdicts import judge

COMPARED = {"stability_pairs": 50, "stability_certified": 50}
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
    metric_rows=1000,
    metric_variance=0.4,
    metric_distortion=1.2,
    logdet_variance=0.3,
    stress=0.1,
    pearson=0.98,
    spearman=0.97,
    stress_pairs=100,
    stress_certified=100,
    off_data_share=0.5,
    off_data_in_plane=False,
    geodesics=8,
    geodesics_converged=8,
    worst_residual=1e-7,
    worst_gap=1e-3,
    saved_median=0.03,
    saved_largest=0.2,
    stability=None,
    trainings=0,
    stability_pairs=0,
    stability_certified=0,
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
    ("ruler", {"stress": 0.3}, "attention"),
    ("ruler", {"stress": 0.6, "stress_certified": 90}, "fail"),
    ("ruler", {"stress": math.nan}, "fail"),
    ("ruler", {"stress": 0.0, "pearson": None, "spearman": None}, "pass"),
    ("ruler", {"stress": None, "stress_pairs": 0, "stress_certified": 0}, "attention"),
    ("ruler", {"stress_certified": 10}, "attention"),
    ("ruler", {"stress_certified": 10, "stress": 0.9}, "fail"),
    ("stability", {"stability": 0.05, "trainings": 3, **COMPARED, "stability_certified": 30}, "attention"),
    ("stability", {"stability": 0.05, "trainings": 3, **COMPARED}, "pass"),
    ("stability", {"stability": 0.2, "trainings": 3, **COMPARED}, "attention"),
    ("stability", {"stability": 0.5, "trainings": 3, **COMPARED}, "fail"),
    ("stability", {"stability": None, "trainings": 3}, "attention"),
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
    assert diagnosis.headline == "All 9 checks pass."


def test_headline_names_what_to_look_at() -> None:
    diagnosis = judge(replace(GOOD, condition_number=50.0, converged=False))
    assert diagnosis.headline == "7 of 9 checks pass; look at: metric, training."
    assert diagnosis.verdict == "attention"
    assert judge(replace(GOOD, condition_number=500.0, converged=False)).verdict == "fail"


def test_the_message_of_the_training_is_shown() -> None:
    diagnosis = judge(replace(GOOD, converged=False, message="stopped at epoch 3; raise max_epochs"))
    assert diagnosis["training"].sentence == "Stopped at epoch 3; raise max_epochs."


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"trustworthiness": None, "continuity": None},
        {"geodesics": 0, "saved_median": math.nan},
        {"stability": 0.123, "trainings": 12, "geodesics": 100, "geodesics_converged": 100},
        {"stability": None, "trainings": 2},
        {"stress": None, "condition_number": 2.5e5},
    ],
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
    for number in ("0.67", "0.950", "0.970", "condition 3", "50 %", "stress 0.10", "8 of 8", "3.0 %"):
        assert number in text


def test_stability_is_checked_where_there_are_other_trainings() -> None:
    diagnosis = judge(replace(GOOD, stability=0.123, trainings=3, **COMPARED))
    assert diagnosis["stability"].text == "12\u202f% over 3 trainings"
    assert "50 pairs" in diagnosis["stability"].sentence
    assert any("vary by 12 % over 3 trainings" in line for line in diagnosis.summary())
    assert [check.key for check in judge(GOOD).checks].count("stability") == 0


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
