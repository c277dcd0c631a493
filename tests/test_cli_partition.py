"""`pullback partition`: columns of a table get latent coordinates of their own."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pullback as pb
from pullback.cli import main
from pullback.estimators.held_out import rest_of
from pullback.estimators.kinds import kind_of
from pullback.run_partition import rows_to_hold_out

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


def mapped(table: Path, run: Path, *names: str) -> list[str]:
    start = words(table, run)[:4] if names else words(table, run)[: -len(QUICK)]
    chosen = [word for name in names for word in ("--quantity", name)]
    return [*start, *chosen, "--epochs", "2", "--set", "n_neighbors=5"]


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


def test_a_map_is_measured_on_rows_that_it_has_not_seen(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run, more = tmp_path / "run", ["--model", "umap", "--set", "encoder_kwargs={hidden_size=16}", "--json"]
    assert main([*mapped(table, run), *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "ParametricUMAP"
    assert found["sizes"] == {"mass": 1, "month": 2, "batch": 2}
    assert (found["latent_dim"], found["rows"]) == (7, 120)
    kept = json.loads((run / "quantities.json").read_text())
    assert (kept["n_train"], kept["n_test"]) == (96, 24) == (120 - len(kept["held_out"]), 24)
    model = pb.load(run)
    assert model.embedding_.shape == (96, 7)
    assert not hasattr(model, "inverse_transform")
    assert len(pd.read_parquet(run / "codes.parquet")) == 120
    page = run / "report.html"
    first = page.read_text()
    note = "Reserved coordinates: mass 1, month 2, batch 2; 2 of 7 are free. On 24 held-out rows"
    assert note in first
    assert "Shown are the two of 7 coordinates that no quantity has" in first
    assert main(["report", str(run), "--overwrite"]) == 0
    assert note in page.read_text()
    assert main(["report", str(run), "--data", str(table), "-o", str(tmp_path / "again.html")]) == 0
    assert note in (tmp_path / "again.html").read_text()
    fewer = tmp_path / "fewer.csv"
    pd.read_csv(table)[:60].to_csv(fewer, index=False)
    assert main(["report", str(run), "--data", str(fewer), "-o", str(tmp_path / "other.html")]) == 0
    assert "Not measured: held_out: expected rows" in (tmp_path / "other.html").read_text()


def test_a_map_may_have_a_decoder_and_other_dimensions(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    more = ["--model", "umap", "--latent-dim", "6"]
    more += ["--set", "decoder=true", "--set", "validation_fraction=0.5"]
    names = mapped(table, tmp_path / "run", "month", "batch")
    assert main([*names, *more, "--drop", "mass", "--no-report"]) == 0
    printed = capsys.readouterr().out
    assert "D = 6: month 1, batch 2, free 3" in printed
    assert "on 60 rows, fitted on 60" in printed
    assert pb.load(tmp_path / "run").edit(pd.read_csv(table).iloc[:2, :8], batch="a").x.shape == (2, 8)


def test_every_category_trains() -> None:
    batch = np.array(["a", "b"] * 20 + ["once", "twice", "twice", None], dtype=object)
    kinds = {"batch": kind_of("batch", batch)}
    for seed in range(20):
        held = rows_to_hold_out({"batch": batch}, kinds, 0.4, seed)
        assert set(batch[rest_of(44, held)]) >= {"a", "b", "once", "twice"}
        assert 15 <= len(held) <= 18
    with pytest.raises(ValueError, match=r"a row or more of at least 20, got 0\.2 of 10"):
        rows_to_hold_out({"batch": batch[:10]}, {"batch": kind_of("batch", batch[:10])}, 0.2, 0)


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
        (["--quantity", "nope"], "--quantity: no column 'nope'"),
        (["--category", "month"], "categorical: expected no position on a circle, got 'month'"),
        (["--set", "partition=3"], "--set: partition is made of --quantity"),
        (["--set", "validation_fraction=0"], "share of the rows in (0, 1), got 0"),
        (["--latent-dim", "4"], "sum of sizes 5 > latent_dim 4"),
        (["--size", "mass=2"], "rank of 'mass' is 1"),
        (["--model", "umap", "--set", "likelihood=poisson"], "umap has no such option"),
        (["--model", "umap", "--set", "validation_fraction=1"], "share of the rows in (0, 1), got 1"),
        (
            ["--model", "umap", "--latent-dim", "9", "--set", "n_components=8"],
            "n_components: given twice, as latent_dim too",
        ),
    ],
)
def test_what_it_refuses(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture, more: list[str], message: str
) -> None:
    run = tmp_path / "run"
    assert main(words(table, run, *more)) != 0
    assert message in capsys.readouterr().err
    assert not (run / "config.json").exists()


def test_a_map_needs_room(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*mapped(table, tmp_path / "run"), "--model", "umap", "--latent-dim", "4"]) != 0
    assert "sum of sizes 5 > n_components 4" in capsys.readouterr().err


def test_too_few_rows_to_measure_on_train_nothing(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    few = tmp_path / "few.csv"
    few.write_text("\n".join(table.read_text().splitlines()[:15]))
    assert main(words(few, tmp_path / "run")) != 0
    assert "a row or more of at least 20, got 0.2 of 14" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_new_rows_without_the_quantities_are_encoded(table: Path, tmp_path: Path) -> None:
    assert main(words(table, tmp_path / "run", "-q", "--no-report")) == 0
    rows, codes = tmp_path / "new.csv", tmp_path / "codes.csv"
    pd.read_csv(table)[[f"gene{i}" for i in range(8)]].to_csv(rows, index=False)
    assert main(["transform", str(tmp_path / "run"), str(rows), "-o", str(codes), "--json"]) == 0
    known, new = pd.read_parquet(tmp_path / "run" / "codes.parquet"), pd.read_csv(codes)
    columns = [name for name in new if name.startswith("z")]
    assert len(columns) == 10
    np.testing.assert_allclose(new[columns], known[columns], rtol=1e-5, atol=1e-6)


def test_labels_that_are_missing_are_no_category(table: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(table)
    frame.loc[::7, "batch"] = None
    frame["flag"] = np.where(frame["gene2"] > 0, "True", "False")
    frame.loc[3:9, "flag"] = None
    gaps, run = tmp_path / "gaps.csv", tmp_path / "run"
    frame.to_csv(gaps, index=False)
    assert main(words(gaps, run, "--quantity", "flag", "-q", "--no-report")) == 0
    kinds = pb.load(run).partition_.kinds
    assert kinds["batch"].names == ("a", "b", "c")
    assert kinds["flag"].width == 1
