"""The page as a file: whole, self-contained, bounded, and clear about bad input."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import NotFittedError

import pullback as pb
from pullback.reporting import diagnose, report
from pullback.reporting.evidence import gather
from pullback.reporting.latent_figure import field_behind, latent_figure

Make = Callable[..., Any]


def without_scripts(page: str) -> str:
    return re.sub(r"<script\b.*?</script>", "", page, flags=re.S)


@pytest.fixture(scope="module")
def digits_page(
    digits: tuple[Any, np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Any]:
    """The page of a VAE of handwritten digits."""
    model, pictures, labels = digits
    path = tmp_path_factory.mktemp("page") / "run.html"
    options = {"label_name": "digit", "n_geodesics": 4, "command": "pullback demo --out here"}
    assert report(model, pictures, path, labels=labels, **options) == path
    return path.read_text(encoding="utf-8"), model


def test_every_section_is_there_and_says_how_to_read_it(digits_page: tuple[str, Any]) -> None:
    text = without_scripts(digits_page[0])
    keys = (
        "checks",
        "map",
        "geodesics",
        "shape",
        "condition",
        "reasons",
        "reconstruction",
        "training",
        "origin",
    )
    for key in keys:
        assert f'<section id="{key}">' in text
        assert f'href="#{key}"' in text
    assert text.count("How to read it.") == 7
    assert text.index('id="checks"') < text.index('id="map"')
    assert "400 samples, pictures of 8 × 8 pixels, 2 latent dimensions" in text
    assert text.count('class="check ') == 9
    assert "pullback demo --out here" in text
    assert torch.__version__ in text
    assert "All 400 samples are drawn." in text
    assert "random_state" in text


def test_nothing_is_loaded_from_elsewhere(digits_page: tuple[str, Any]) -> None:
    page = digits_page[0]
    markup = without_scripts(page)
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", markup)
    assert not re.search(r"<script[^>]*\bsrc=", page)
    assert not re.search(r"url\(\s*[\"']?(?!data:)", markup)
    assert "@import" not in markup
    assert "default-src 'none'" in markup


def test_each_sample_carries_its_decoded_picture(digits_page: tuple[str, Any]) -> None:
    page = digits_page[0]
    lanes = without_scripts(page).count('src="data:image/png;base64,')
    # Two strips and the shares of the pixels a path, two sheets of originals and reconstructions, a picture
    # of what holds each of the ten digits apart.
    assert lanes == 4 * 3 + 2 * 2 + 10
    assert page.count('"data:image/png;base64,') - lanes == 400


def test_the_page_is_one_small_file(digits_page: tuple[str, Any]) -> None:
    assert len(digits_page[0].encode()) < 3_000_000


@pytest.mark.parametrize("d", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_any_latent_dimension_and_a_table_of_features(bent: Make, tmp_path: Path, d: int) -> None:
    model = bent(d, width=8)
    X = pd.DataFrame(model.data(120), columns=[f"gene {i}" for i in range(8)])
    page = without_scripts(
        report(model, X, tmp_path / "a.html", labels=X["gene 0"], n_geodesics=2).read_text()
    )
    assert page.count('<table class="heat">') == 2
    assert ("plane of the first two principal axes" in page) == (d == 3)
    assert "120 samples, 8 features" in page
    assert '<p class="how">' in page


def test_a_diagnosis_at_hand_is_not_computed_again(bent: Make, tmp_path: Path) -> None:
    model = bent()
    X = model.data(60)
    diagnosis = diagnose(model, X, n_geodesics=2)
    text = report(model, X, tmp_path / "a.html", diagnosis=diagnosis, n_geodesics=2).read_text()
    for check in diagnosis.checks:
        assert check.name in text


def test_the_same_call_gives_the_same_diagnosis(bent: Make) -> None:
    model = bent(3)
    X = model.data(90)
    first = diagnose(model, X, n_geodesics=2, max_points=40)
    assert first == diagnose(model, X, n_geodesics=2, max_points=40)


def test_a_well_behaved_model_passes(bent: Make) -> None:
    model = bent(2, width=8)
    diagnosis = diagnose(model, model.data(300), n_geodesics=3)
    for key in ("trustworthiness", "continuity", "condition", "geodesics", "dimensions", "training"):
        assert diagnosis[key].verdict == "pass", diagnosis[key]
    assert diagnosis.measures.geodesics == diagnosis.measures.geodesics_converged == 3
    assert diagnosis.measures.worst_residual <= 1e-6


def test_a_decoder_that_ignores_the_code_is_reported(bent: Make, tmp_path: Path) -> None:
    model = bent(2)
    X = model.data(60)
    model.module_[2].weight.data.zero_()
    model.transform = lambda X: np.random.default_rng(0).normal(size=(len(X), 2)).astype("float32")
    diagnosis = diagnose(model, X)
    assert diagnosis["condition"].verdict == "fail"
    assert diagnosis["geodesics"].text == "none computed"
    assert "decoder depends on the code" in diagnosis["geodesics"].sentence
    page = report(model, X, tmp_path / "a.html", diagnosis=diagnosis).read_text()
    assert diagnosis["geodesics"].sentence in page


def test_codes_that_coincide_are_reported(bent: Make, tmp_path: Path) -> None:
    model = bent(2)
    X = model.data(60)
    model.transform = lambda X: np.zeros((len(X), 2), dtype="float32")
    diagnosis = diagnose(model, X)
    assert diagnosis["dimensions"].verdict == "fail"
    assert diagnosis.measures.geodesics == 0
    assert report(model, X, tmp_path / "a.html", diagnosis=diagnosis).exists()


def test_a_nearly_constant_pixel_does_not_decide_which_picture_is_worst(
    digits: tuple[Any, np.ndarray, np.ndarray],
) -> None:
    model, pictures, _ = digits
    evidence = gather(model, pictures)
    scale = model.scaling_.scale.numpy()
    assert np.ptp(scale) == 0
    rebuilt = model.inverse_transform(model.transform(pictures))
    expected = np.sqrt((((pictures - rebuilt) / scale[0]) ** 2).mean((1, 2, 3)))
    np.testing.assert_allclose(evidence.errors, expected, rtol=1e-3)


def test_names_that_repeat_stay_apart(bent: Make) -> None:
    model = bent(3, width=4)
    names = ["a", "a", "magnification", "label"]
    evidence = gather(model, model.data(40), labels=["u", "v"] * 20, feature_names=names)
    options = latent_figure(evidence, field_behind(evidence)).choice.options
    assert options[:3] == ["label", "reconstruction error", "magnification"]
    assert sorted(options[3:]) == ["a", "a (2)", "label (2)", "magnification (2)"]
    unlabelled = gather(model, model.data(40))
    assert latent_figure(unlabelled, None).choice.value == "magnification"


def test_many_rows_make_a_bounded_page_that_says_so(bent: Make, tmp_path: Path) -> None:
    model = bent(2, width=64)
    X = model.data(100_000)
    labels = (X[:, 0] > 0).astype(int)
    path = report(model, X, tmp_path / "big.html", labels=labels, max_points=1000, n_geodesics=2)
    page = path.read_text()
    assert path.stat().st_size < 5_000_000
    assert "1\u202f000 of 100\u202f000 samples are drawn, chosen at random." in page
    assert "on 1\u202f000 of them, a random sample" in page


def test_large_pictures_are_shrunk_and_their_bytes_bounded(bent: Make, tmp_path: Path) -> None:
    model = bent(2, width=3 * 64 * 64, image_shape=(3, 64, 64))
    X = model.data(300)
    path = report(model, X, tmp_path / "images.html", n_geodesics=2)
    assert path.stat().st_size < 5_000_000
    assert re.search(r"\d+ of them carry their decoded picture\.", path.read_text())


def test_names_and_labels_cannot_inject_markup(bent: Make, tmp_path: Path) -> None:
    model = bent(2, width=6)
    evil = "</script><img src=x onerror=alert(1)>"
    X = pd.DataFrame(
        model.data(40), columns=[f"{evil}{i}" for i in range(6)], index=[f"{evil} {i}" for i in range(40)]
    )
    labels = pd.Series([evil, "b"] * 20, name=evil)
    page = report(model, X, tmp_path / "a.html", labels=labels, command=evil, n_geodesics=3).read_text()
    assert "<img src=x" not in without_scripts(page)
    assert page.count("<script") == page.count("</script>")


def test_labels_bring_their_name_or_are_given_one(bent: Make) -> None:
    model = bent()
    X = model.data(20)
    series = pd.Series(range(20), name="age")
    assert gather(model, X, labels=series).labels.name == "age"
    assert gather(model, X, labels=series, label_name="years").labels.name == "years"
    assert gather(model, X, labels=list(range(20))).labels.name == "label"


def test_counts_are_compared_as_logarithms_at_one_depth() -> None:
    generator = np.random.default_rng(0)
    rate = np.exp(generator.normal(size=(80, 1)) @ generator.normal(size=(1, 10)))
    X = generator.poisson(rate * generator.uniform(5, 50, (80, 1))).astype("float32")
    model = pb.VAE(likelihood="poisson", hidden=(8,), max_epochs=3, progress=False, random_state=0).fit(X)
    evidence = gather(model, sparse.csr_matrix(X))
    np.testing.assert_allclose(np.expm1(evidence.x).sum(1), model.library_, rtol=1e-4)
    assert "log counts" in evidence.units
    assert evidence.decode(evidence.shown_codes).shape == (80, 10)
    np.testing.assert_allclose(evidence.decode(evidence.shown_codes), evidence.y, rtol=1e-4, atol=1e-5)


def test_the_file_appears_whole_or_not_at_all(
    bent: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bent()
    path = tmp_path / "run.html"
    path.write_text("old")

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space left"):
        report(model, model.data(40), path, n_geodesics=1)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.html"]


def unwritable(tmp_path: Path) -> dict[str, tuple[Path, type[Exception], str]]:
    return {
        "no folder": (tmp_path / "none" / "a.html", FileNotFoundError, "no such folder"),
        "a folder": (tmp_path, IsADirectoryError, "got a folder"),
        "taken": (tmp_path / "taken.html", FileExistsError, "pass overwrite=True"),
    }


@pytest.mark.parametrize("case", ["no folder", "a folder", "taken"])
def test_an_unwritable_path_is_refused_before_any_work(bent: Make, tmp_path: Path, case: str) -> None:
    (tmp_path / "taken.html").write_text("mine")
    model = bent()
    path, error, message = unwritable(tmp_path)[case]
    with pytest.raises(error, match=message):
        report(model, model.data(30), path, overwrite=False)
    assert model.encoded_ == 0
    assert (tmp_path / "taken.html").read_text() == "mine"


def test_a_folder_without_write_permission(
    bent: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(PermissionError, match="folder is not writable"):
        report(bent(), np.zeros((5, 6)), tmp_path / "a.html")


@pytest.mark.usefixtures("as_users_run")
class TestBadInput:
    def test_unfitted(self, bent: Make, tmp_path: Path) -> None:
        fresh = type(bent())()
        with pytest.raises(NotFittedError):
            report(fresh, np.zeros((9, 6)), tmp_path / "a.html")
        with pytest.raises(NotFittedError):
            report(pb.VAE(), np.zeros((9, 6)), tmp_path / "a.html")

    @pytest.mark.parametrize("model", [3, "vae", pb.VAE], ids=["number", "text", "class"])
    def test_no_model(self, tmp_path: Path, model: Any) -> None:
        with pytest.raises(TypeError, match="model: expected a fitted model such as VAE, got"):
            report(model, np.zeros((9, 6)), tmp_path / "a.html")

    def test_width(self, bent: Make, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="X: expected 6 features as in fit, got 5"):
            report(bent(), np.zeros((9, 5)), tmp_path / "a.html")

    def test_nan(self, bent: Make, tmp_path: Path) -> None:
        X = bent().data(9)
        X[3, 2] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            report(bent(), X, tmp_path / "a.html")

    @pytest.mark.parametrize("labels", [[1, 2], np.zeros((9, 1)), "abcdefghi"])
    def test_labels(self, bent: Make, tmp_path: Path, labels: Any) -> None:
        with pytest.raises(ValueError, match="labels: expected one label for each of the 9 rows"):
            report(bent(), bent().data(9), tmp_path / "a.html", labels=labels)

    def test_feature_names(self, bent: Make, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="feature_names: expected 6 names, got 2"):
            report(bent(), bent().data(9), tmp_path / "a.html", feature_names=["a", "b"])

    @pytest.mark.parametrize(("option", "value"), [("n_geodesics", 0), ("max_points", 3)])
    def test_numbers(self, bent: Make, tmp_path: Path, option: str, value: int) -> None:
        with pytest.raises(ValueError, match=f"{option}: expected a whole number"):
            report(bent(), bent().data(9), tmp_path / "a.html", **{option: value})

    def test_too_few_rows(self, bent: Make, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="at least 3 rows"):
            report(bent(), bent().data(2), tmp_path / "a.html")

    def test_codes_that_are_not_finite(self, bent: Make, tmp_path: Path) -> None:
        model = bent()
        model.transform = lambda X: np.full((len(X), 2), np.nan)
        with pytest.raises(ValueError, match="expected finite codes, got NaN or infinity for row 0"):
            report(model, model.data(9), tmp_path / "a.html")
        assert not (tmp_path / "a.html").exists()
