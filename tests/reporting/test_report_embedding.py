"""The report of a map without a decoder: what it says, and that it leaves out what needs one."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_wine

import pullback as pb
from pullback.reporting.embedding_diagnosis import far_correlation
from pullback.reporting.evidence import common_share


@pytest.fixture(scope="module")
def wine() -> tuple[np.ndarray, np.ndarray]:
    return load_wine(return_X_y=True)


@pytest.fixture(scope="module")
def model(wine) -> pb.ParametricUMAP:
    return pb.ParametricUMAP(standardize=True, epochs=30, progress=False, random_state=0).fit(wine[0])


def test_checks_of_a_map_without_a_decoder(model, wine) -> None:
    found = pb.diagnose(model, wine[0])
    assert [check.key for check in found.checks] == [
        "trustworthiness", "continuity", "far", "dimensions", "training",
    ]  # fmt: skip
    assert found["trustworthiness"].value > 0.85
    assert 0 < found["far"].value <= 1
    assert len(found.summary()) == 4
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert plain["measures"]["reconstruction_error"] is None


def test_the_page_leaves_out_what_needs_a_decoder(model, wine, tmp_path) -> None:
    text = pb.report(model, wine[0], tmp_path / "map.html", labels=wine[1]).read_text()
    for key in ("checks", "map", "reasons", "training", "origin"):
        assert f'<section id="{key}">' in text
    for key in ("geodesics", "reconstruction", "condition", "shape"):
        assert f'<section id="{key}">' not in text
    assert "trained without a decoder" in text
    with pytest.raises(ValueError, match="before: expected None for a model without a decoder"):
        pb.report(model, wine[0], tmp_path / "map.html", before=model)


def test_a_map_with_a_decoder_has_the_whole_report(wine) -> None:
    options = {"standardize": True, "decoder": True, "epochs": 10, "progress": False, "random_state": 0}
    found = pb.diagnose(pb.ParametricUMAP(**options).fit(wine[0]), wine[0], n_geodesics=2)
    assert found["geodesics"].value is not None
    assert found["reconstruction"].value > 0


def test_far_correlation_and_common_share() -> None:
    random = np.random.default_rng(0)
    z = random.normal(size=(300, 2))
    x = np.concatenate([3 * z, random.normal(size=(300, 1))], axis=1)
    assert far_correlation(3 * z, z, random)[0] == pytest.approx(1)
    assert abs(far_correlation(random.normal(size=(300, 2)), z, random)[0]) < 0.15
    assert far_correlation(np.zeros((3, 2)), z[:3], random)[0] is None
    share = common_share(x, z)
    assert (share[:2] > 0.9).all()
    assert share[2] < 0.2
