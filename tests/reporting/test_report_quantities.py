"""The section about reserved quantities."""

from pathlib import Path

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.reporting.evidence import observe
from pullback.reporting.quantities_section import quantities_section

TINY = {"hidden": (16,), "max_epochs": 3, "progress": False, "random_state": 0}


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(120, 5)).astype("float32")


def total(x: torch.Tensor) -> torch.Tensor:
    return x.sum(1)


@pytest.fixture(scope="module")
def model(X: np.ndarray) -> pb.Autoencoder:
    option = pb.SubspacePartition({"total <b>": total, "first": None})
    return pb.Autoencoder(3, **TINY, validation_fraction=0.3, partition=option).fit(
        X, quantities={"first": X[:, 0]}
    )


def test_the_page_shows_what_was_measured(model: pb.Autoencoder, X: np.ndarray, tmp_path: Path) -> None:
    text = pb.report(model, X, tmp_path / "a.html", quantities={"first": X[:, 0]}, n_geodesics=2).read_text()
    table = model.evaluate_quantities(X, {"first": X[:, 0]})
    assert "Reserved coordinates: total &lt;b&gt; 1, first 1; 1 of 3 are free" in text
    assert f"<b>{table.own['first'].value:.2f}</b>".replace("-", "−") in text
    assert "total <b>" not in text
    assert 'data-figure="readout1"' in text


def test_without_values_it_says_so(model: pb.Autoencoder, X: np.ndarray) -> None:
    ((section,), figures) = quantities_section(observe(model, X), X, None)
    assert "Not measured: quantities: expected values for &#x27;first&#x27;" in section.note
    assert not figures


def test_a_map_is_measured_on_the_rows_that_are_named(X: np.ndarray, tmp_path: Path) -> None:
    seen, new = np.arange(90), np.arange(90, 120)
    option = pb.SubspacePartition({"total": total, "first": None})
    options = {"n_components": 4, "partition": option, "steps": 20, "progress": False, "random_state": 0}
    model = pb.ParametricUMAP(**options).fit(X[seen], quantities={"first": X[seen, 0]})
    text = pb.report(model, X, tmp_path / "a.html", quantities={"first": X[:, 0]}, held_out=new).read_text()
    given = {"quantities": {"first": X[seen, 0]}, "held_out_quantities": {"first": X[new, 0]}}
    table = model.evaluate_quantities(X[seen], held_out=X[new], **given)
    assert f"<b>{table.own['total'].value:.2f}</b>".replace("-", "−") in text
    assert "On 30 held-out rows" in text
    assert 'data-figure="readout1"' in text
    assert "latent 4" in text
    without = pb.report(model, X, tmp_path / "b.html", quantities={"first": X[:, 0]}).read_text()
    assert "Not measured: held_out: expected rows that the model has not seen" in without
    for wrong in (new > 100, [], [[1]], [0, 120], [-1]):
        with pytest.raises(ValueError, match="held_out: expected numbers of rows"):
            pb.report(model, X, tmp_path / "c.html", quantities={"first": X[:, 0]}, held_out=wrong)


def test_held_out_rows_are_for_maps_alone(model: pb.Autoencoder, X: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="held_out: expected None for a model other than"):
        pb.report(model, X, tmp_path / "a.html", held_out=[1, 2])


def test_other_models_have_no_such_section(X: np.ndarray) -> None:
    plain = pb.Autoencoder(2, **TINY).fit(X)
    assert quantities_section(observe(plain, X), X, None) == ([], {})
