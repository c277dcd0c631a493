"""`pullback partition`: columns of a table get latent coordinates of their own."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pullback as pb
from pullback.cli import main

QUICK = ["--epochs", "3", "--set", "hidden=[16]"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with a number that has gaps, a month and a batch among eight features."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(120, 8)), columns=[f"gene{i}" for i in range(8)])
    frame["mass"] = frame["gene0"] + frame["gene1"]
    frame.loc[:9, "mass"] = np.nan
    frame["month"] = rng.integers(0, 12, 120)
    frame["batch"] = rng.choice(["a", "b", "c"], 120)
    path = tmp_path_factory.mktemp("table") / "cells.csv"
    frame.to_csv(path, index=False)
    return path


def words(table: Path, run: Path, *more: str) -> list[str]:
    names = ["--quantity", "mass", "--quantity", "month", "--quantity", "batch", "--circular", "month=12"]
    return ["partition", str(table), "-o", str(run), *names, *QUICK, *more]


def test_a_table_with_quantities(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    assert main(words(table, run, "--json", "--no-report")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sizes"] == {"mass": 1, "month": 2, "batch": 2}
    assert (found["latent_dim"], found["features"]) == (10, 8)
    assert found["quantities"]["mass"]["own"][1] <= found["quantities"]["mass"]["own"][0]
    kept = json.loads((run / "quantities.json").read_text())
    assert kept["quantities"] == found["quantities"]
    model = pb.load(run)
    rows = pd.read_csv(table)[[f"gene{i}" for i in range(8)]]
    assert set(model.quantities(rows)["batch"]) <= {"a", "b", "c"}
    assert main(["report", str(run)]) == 0
    assert (
        "Reserved coordinates: mass 1, month 2, batch 2; 5 of 10 are free"
        in (run / "report.html").read_text()
    )


def test_what_it_prints_and_what_may_be_chosen(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    more = ["--model", "vae", "--size", "month=1", "--latent-dim", "6", "--strength", "3", "--no-report"]
    assert main([*words(table, tmp_path / "run"), *more]) == 0
    printed = capsys.readouterr().out
    assert "D = 6: mass 1, month 1, batch 2, free 2" in printed
    assert "mass <- batch" in printed
    model = pb.load(tmp_path / "run")
    assert isinstance(model, pb.VAE)
    assert model.partition.strength == 3


def test_a_named_set_gives_its_labels(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    start = ["partition", "data:digits", "--quantity", "label", "-o", str(tmp_path / "run"), "--no-report"]
    assert main([*start, "--category", "label", "--epochs", "1", "--set", "hidden=[16]", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sizes"] == {"label": 9}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--quantity", "volume"], "volume"),
        (["--quantity", "mass"], "different columns"),
        (["--circular", "month=year"], "--circular: expected COL=NUMBER"),
        (["--circular", "year=12"], "extra 'year'"),
        (["--latent-dim", "4"], "sum of sizes 5 > latent_dim 4"),
        (["--size", "mass=2"], "rank of 'mass' is 1"),
    ],
)
def test_what_it_refuses(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture, more: list[str], message: str
) -> None:
    run = tmp_path / "run"
    assert main(words(table, run, *more)) != 0
    assert message in capsys.readouterr().err
    assert not (run / "config.json").exists()
