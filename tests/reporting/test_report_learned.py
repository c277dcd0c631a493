"""The report on a model that has learned its own metric: which metric it shows, its checks, its samples."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.geometry import energy_shares
from pullback.metrics import CentroidMetric
from pullback.reporting.evidence import gather
from pullback.reporting.flow_verdicts import flow_checks
from pullback.reporting.learned import FlowMeasures, decoder_metric, is_learned
from pullback.reporting.path_shares import shares_along

GOOD = FlowMeasures(
    step_size=0.01,
    halvings=0,
    residual=1e-6,
    reach=0.9,
    contrast=10.0,
    sampler_acceptance=0.9,
    sampler_r_hat=1.01,
    sampler_converged=True,
    sampler_message="R-hat at most 1.01",
)


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(60, 2)) @ rng.normal(size=(2, 5)) + 0.3 * rng.normal(size=(60, 5))).astype("f4")


@pytest.fixture(scope="module")
def model(X: np.ndarray) -> pb.RHVAE:
    options = {"hidden": (16,), "metric_hidden": (8,), "max_epochs": 30, "lr": 1e-2, "n_centroids": 16}
    return pb.RHVAE(2, **options, progress=False, random_state=0).fit(X)


@pytest.fixture(scope="module")
def diagnosis(model: pb.RHVAE, X: np.ndarray) -> pb.Diagnosis:
    return pb.diagnose(model, X, n_geodesics=2)


def test_the_geometry_is_that_of_the_learned_metric(model: pb.RHVAE, X: np.ndarray) -> None:
    evidence = gather(model, X)
    assert evidence.learned
    assert is_learned(model)
    assert not is_learned(pb.VAE())
    assert isinstance(evidence.metric, CentroidMetric)
    codes = torch.from_numpy(evidence.codes)
    np.testing.assert_allclose(
        evidence.nats, 0.5 * model.metric(dtype=torch.float64).logdet(codes), rtol=1e-6
    )


def test_features_have_their_shares_in_the_metric_of_the_decoder(
    model: pb.RHVAE, diagnosis: pb.Diagnosis
) -> None:
    names = tuple("abcde")
    found = shares_along(model, diagnosis.paths.geodesic, names)
    assert found.feature_names == names
    wanted = energy_shares(decoder_metric(model), diagnosis.paths.geodesic.points)
    torch.testing.assert_close(found.values, wanted.values)


def test_the_diagnosis_measures_flow_metric_and_sampler(model: pb.RHVAE, diagnosis: pb.Diagnosis) -> None:
    flow = diagnosis.measures.flow
    assert (flow.step_size, flow.residual) == (model.step_size_, model.residual_)
    assert flow.reach == pytest.approx(model.coverage_, abs=0.1)
    assert flow.contrast > 1
    assert 0 < flow.sampler_acceptance <= 1
    assert [check.key for check in diagnosis.checks[-3:]] == ["flow", "reach", "sampler"]
    assert diagnosis.as_dict()["measures"]["flow"]["halvings"] == 0
    assert len(diagnosis.summary()) == 5
    assert len(diagnosis.samples) == 300


@pytest.mark.parametrize(
    ("change", "key", "verdict", "words"),
    [
        ({}, "flow", "pass", "was never halved while training"),
        ({"halvings": 1, "step_size": 0.005}, "flow", "pass", "was halved once to 0.005 while training"),
        ({"halvings": 3, "step_size": 0.00125}, "flow", "pass", "was halved 3 times to 0.00125"),
        ({"residual": 0.1}, "flow", "fail", "lower step_size or raise temperature"),
        ({"residual": float("nan")}, "flow", "fail", "not solved"),
        ({}, "reach", "pass", "knows where the data are"),
        ({"reach": 0.01}, "reach", "fail", "raise temperature"),
        ({"contrast": 1.2}, "reach", "attention", "lower regularization"),
        ({}, "sampler", "pass", "the chains have mixed"),
        ({"sampler_acceptance": 0.3}, "sampler", "attention", "n_leapfrog"),
        ({"sampler_converged": False, "sampler_message": "R-hat is 2"}, "sampler", "fail", "R-hat is 2"),
        ({"sampler_r_hat": None}, "sampler", "pass", "mixed"),
    ],
)
def test_flow_checks(change: dict, key: str, verdict: str, words: str) -> None:
    (check,) = [check for check in flow_checks(replace(GOOD, **change)) if check.key == key]
    assert check.verdict == verdict
    assert words in check.sentence


@pytest.mark.slow
def test_the_page_says_which_metric_it_shows(
    model: pb.RHVAE, X: np.ndarray, diagnosis: pb.Diagnosis, tmp_path: Path
) -> None:
    text = pb.report(model, X, tmp_path / "run.html", diagnosis=diagnosis).read_text()
    assert "are those of the metric that the model has learned" in text
    assert "Lengths are measured by the learned metric." in text
    assert "the shortest way between two samples by the learned metric" in text
    assert "What changes along the geodesic" in text
    assert '<section id="samples">' in text
    assert 'data-figure="samples"' in text
    assert "from the volume" in text
    assert "Features that vary most" in text
    assert "decoder stretches" not in text
    again = pb.report(model, X, tmp_path / "again.html", n_geodesics=2).read_text()
    assert '<section id="samples">' in again


def test_pictures_are_shown_as_pictures(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((40, 1, 4, 4)).astype(np.float32)
    model = pb.RHVAE(1, hidden=(8,), max_epochs=2, progress=False, random_state=0).fit(images)
    text = pb.report(model, images, tmp_path / "run.html", n_geodesics=2).read_text()
    assert 'alt="samples from the volume"' in text
    assert "how long a small latent step is by the learned metric" in text
    assert 'data-figure="samples"' not in text
