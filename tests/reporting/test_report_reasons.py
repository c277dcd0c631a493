"""The section that says why points are where they are: its sums, its check, its bounds."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pullback as pb
from pullback.reporting import reasons
from pullback.reporting.evidence import gather
from pullback.reporting.reasons import reasons_section

ROWS = np.random.default_rng(0).normal(size=(90, 5)).astype("float32")
KINDS = np.array(["down", "middle", "up"])[np.digitize(ROWS[:, 0], [-0.5, 0.5])]
NAMES = [f"gene{i}" for i in range(5)]


def fitted(kind: str = "Autoencoder", X: Any = ROWS, **options: Any) -> Any:
    settings = {"hidden": (8,), "max_epochs": 2, "progress": False, "random_state": 0, "activation": "relu"}
    return getattr(pb, kind)(2, **(settings | options)).fit(X)


def section(model: Any, X: Any = ROWS, **options: Any) -> Any:
    (found,) = reasons_section(gather(model, X, **options), X)
    return found


@pytest.mark.parametrize("kind", ["Autoencoder", "VAE", "RHVAE"])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_groups_are_held_apart_by_features_that_add_up(kind: str, activation: str) -> None:
    X = pd.DataFrame(ROWS, columns=NAMES)
    model = fitted(kind, X, activation=activation)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = section(model, X, labels=KINDS)
    codes = model.transform(X)
    for name in ("down", "middle", "up"):
        distance = np.linalg.norm(codes[name == KINDS].mean(0) - codes[name != KINDS].mean(0))
        assert f"{name}: {distance:.3g} from the rest" in found.body
    assert found.body.count('class="badge pass"') == 2
    assert all(name in found.body for name in NAMES)
    shares = [float(text) for text in re.findall(r"<td>(-?\d+)\u202f%</td>", found.body)]
    blocks = found.body.count("<table>")
    assert blocks == 3
    assert abs(sum(shares) - 300) <= 0.5 * len(shares)  # each block to 100, each number rounded


def test_two_groups_are_compared_once() -> None:
    found = section(fitted(), labels=ROWS[:, 0] > 0)
    assert found.body.count("<table>") == 1
    assert re.search(r"False: [\d.e-]+ from True", found.body)


@pytest.mark.parametrize("labels", [None, ROWS[:, 0], np.zeros(90, dtype=int)])
def test_without_groups_sizes_are_shown(labels: Any) -> None:
    found = section(fitted(), labels=labels)
    assert "The size of the features" in found.note
    assert found.body.count("<table>") == 1


def test_pictures_are_shown_for_pixels(digits: tuple[pb.VAE, np.ndarray, np.ndarray]) -> None:
    model, pictures, labels = digits
    found = section(model, pictures, labels=labels)
    assert found.body.count("<img") == 10
    assert "<table>" not in found.body
    assert "of 64 pixels" in found.body
    assert section(model, pictures).body.count("<img") == 1


def test_few_rows_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasons, "ROWS", 30)
    assert "Explained: 30 rows." in section(fitted(), labels=KINDS).note


def test_counts_go_along_a_path() -> None:
    counts = np.random.default_rng(0).poisson(3.0, size=(60, 5)).astype("float32")
    model = fitted("VAE", counts, likelihood="poisson")
    found = section(model, counts, labels=KINDS[:60])
    assert "path integral" in found.body
    assert 'class="badge fail"' not in found.body


def test_a_model_without_the_mean_of_its_rows_counts_from_theirs() -> None:
    model = fitted()
    del model.feature_mean_
    assert section(model, labels=KINDS).body.count("<table>") == 3


def test_a_model_that_cannot_be_explained_has_no_section(bent: Callable[..., Any]) -> None:
    model = bent()
    X = model.data(50)
    assert reasons_section(gather(model, X), X) == []


def test_an_option_that_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise ValueError("map: net contains <LayerNorm>")

    monkeypatch.setattr(reasons, "explain", refuse)
    found = section(fitted())
    assert found.body == ""
    assert found.note == "Not explained: map: net contains &lt;LayerNorm&gt;."
