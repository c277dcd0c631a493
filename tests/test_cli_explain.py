"""`pullback explain` as a user meets it: tables that add up, the page, the check, errors in one line."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pullback as pb
from pullback.cli import main
from pullback.data import resolve
from pullback.run_folder import values_of, write_record
from refusals import assert_refused

GENES = [f"gene{i}" for i in range(5)]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(60, 5)), columns=GENES)
    frame.insert(0, "cell", [f"cell{i}" for i in range(60)])
    frame["kind"] = np.array(["down", "middle", "up"])[np.digitize(frame["gene0"], [-0.5, 0.5])]
    path = tmp_path_factory.mktemp("table") / "cells.csv"
    frame.to_csv(path, index=False)
    return path


def trained(table: Path, run: Path, activation: str) -> Path:
    reading = {"id": "cell", "label": "kind"}
    dataset = resolve(str(table), **reading)
    model = pb.Autoencoder(
        2, hidden=(16,), activation=activation, max_epochs=3, progress=False, random_state=0
    )
    model.fit(values_of(dataset)).save(run)
    write_record(run, dataset, model.embedding_, data=str(table), reading=reading)
    return run


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose encoder is piecewise linear."""
    return trained(table, tmp_path_factory.mktemp("runs") / "run", "relu")


@pytest.fixture(scope="module")
def smooth(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose encoder is smooth."""
    return trained(table, tmp_path_factory.mktemp("runs") / "smooth", "silu")


def read(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_rows_add_up_to_the_codes(run: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"why{ending}"
    assert main(["explain", str(run), "-o", str(out), "-q"]) == 0
    found = read(out)
    parts = [f"contribution_{gene}" for gene in GENES]
    assert list(found.columns) == ["sample", "output", "value", "offset", "residual", "exact", *parts]
    assert len(found) == 2 * 60
    np.testing.assert_allclose(found[parts].sum(axis=1) + found["offset"], found["value"], atol=1e-12)
    np.testing.assert_allclose(found["value"], pb.load(run).embedding_.ravel(), atol=1e-12)
    assert found["exact"].all()
    assert found["residual"].max() < 1e-12
    assert found["sample"].iloc[[0, 1, 2]].tolist() == ["cell0", "cell0", "cell1"]


def test_the_long_table_says_the_same(run: Path, tmp_path: Path) -> None:
    for layout in ("wide", "long"):
        words = ["explain", str(run), "-o", str(tmp_path / f"{layout}.parquet"), "--layout", layout, "-q"]
        assert main(words) == 0
    wide, long = (read(tmp_path / f"{layout}.parquet") for layout in ("wide", "long"))
    assert list(long.columns[:4]) == ["sample", "output", "feature", "contribution"]
    assert len(long) == 2 * 60 * 5
    expected = wide[[f"contribution_{gene}" for gene in GENES]].to_numpy()
    np.testing.assert_array_equal(long["contribution"].to_numpy().reshape(120, 5), expected)


def test_sizes_and_mean_sizes(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    signed, sizes, means = (tmp_path / f"{name}.parquet" for name in ("none", "l2", "mean_l2"))
    for path in (signed, sizes, means):
        words = ["explain", str(run), "-o", str(path), "--reduction", path.stem, "--json"]
        assert main(words) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["passed"] is True
        assert said["exact"] is True
        assert said["residual"] <= said["tolerance"]
        assert said["rows"] == 60
        assert len(said["top"]) == 5
    parts = read(signed)[[f"contribution_{gene}" for gene in GENES]].to_numpy().reshape(60, 2, 5)
    found = read(sizes)
    np.testing.assert_allclose(found[[f"size_{g}" for g in GENES]], np.linalg.norm(parts, axis=1), atol=1e-12)
    average = read(means)
    assert average["feature"].tolist() == GENES
    np.testing.assert_allclose(average["size"], np.linalg.norm(parts, axis=1).mean(0), atol=1e-12)


@pytest.mark.parametrize("kind", ["run", "smooth"])
def test_pairs_add_up_to_their_distance(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, out = request.getfixturevalue(kind), tmp_path / "pairs.parquet"
    words = ["explain", str(folder), "-o", str(out), "--between", "cell3:cell9", "--between", "0:7", "--json"]
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["method"] == "path"
    assert said["exact"] is (kind == "run")
    found = read(out)
    assert len(found) == 2 * 5
    codes = pb.load(folder).embedding_
    for pair, i, j in (("cell3:cell9", 3, 9), ("0:7", 0, 7)):
        rows = found[found["pair"] == pair]
        assert rows["feature"].tolist() == GENES
        distance = np.linalg.norm(codes[i] - codes[j])
        tolerance = 1e-12 if kind == "run" else 1e-5
        np.testing.assert_allclose(rows["distance"], distance, rtol=1e-12)
        assert abs(rows["to_distance"].sum() - distance) <= tolerance * distance
        outputs = [name for name in found.columns if name.startswith("to_") and name != "to_distance"]
        np.testing.assert_allclose(rows[outputs].sum(), codes[i] - codes[j], atol=tolerance)
        assert (rows["exact"] == (kind == "run")).all()


def test_groups_add_up_to_the_distance_of_their_centroids(run: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "groups.csv"
    assert main(["explain", str(run), str(table), "-o", str(out), "--groups", "kind", "-q"]) == 0
    found = read(out)
    assert len(found) == 3 * 5
    codes, kinds = pb.load(run).embedding_, pd.read_csv(table)["kind"].to_numpy()
    for kind in ("down", "middle", "up"):
        rows = found[found["group"] == kind]
        distance = np.linalg.norm(codes[kinds == kind].mean(0) - codes[kinds != kind].mean(0))
        np.testing.assert_allclose(rows["distance"], distance, rtol=1e-10)
        np.testing.assert_allclose(rows["to_distance"].sum() + rows["offset"].iloc[0], distance, rtol=1e-10)
        assert rows["exact"].all()
    words = ["explain", str(run), "-o", str(out), "--groups", "label", "--between", "up:down", "--overwrite"]
    assert main([*words, "-q"]) == 0
    found = read(out)
    assert found[["group", "other"]].drop_duplicates().to_numpy().tolist() == [["up", "down"]]


def test_the_check_and_the_files_are_printed(
    smooth: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, page = tmp_path / "why.csv", tmp_path / "why.html"
    assert main(["explain", str(smooth), "-o", str(out), "--page", str(page)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("sums            pass")
    assert "not exact; map derivative, method path" in lines[0]
    assert lines[1].split()[0] == "most"
    assert lines[-2:] == [f"out: {out}", f"page: {page}"]
    assert not read(out)["exact"].any()
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert all(gene in text for gene in GENES)


def test_where_features_count_from(run: Path, table: Path, tmp_path: Path) -> None:
    X = pd.read_csv(table, index_col="cell")[GENES]
    starts = {
        "training": None,
        "data": torch.as_tensor(X.to_numpy().mean(0)),
        "zero": torch.zeros(5).double(),
    }
    for name, start in starts.items():
        out = tmp_path / f"{name}.parquet"
        assert main(["explain", str(run), "-o", str(out), "--baseline", name, "-q"]) == 0
        expected = pb.explain(pb.load(run), X, baseline=start).offset
        np.testing.assert_allclose(read(out)["offset"], expected.flatten(), atol=1e-12)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["explain"], 2, "Missing"),
        (["explain", "{run}"], 2, "--out"),
        (["explain", "{new}", "-o", "{new}.csv"], 1, "config.json"),
        (["explain", "{run}", "-o", "{new}.xyz"], 1, ".csv"),
        (["explain", "{run}", "-o", "{table}"], 1, "already there"),
        (["explain", "{run}", "-o", "{new}/no/why.csv"], 1, "folder"),
        (["explain", "{run}", "{new}.csv", "-o", "{new}-1.csv"], 1, "no such file"),
        (["explain", "{run}", "-o", "{new}.csv", "--page", "{new}.pdf"], 1, ".html"),
        (["explain", "{run}", "-o", "{new}.csv", "--page", "{table}"], 1, ".html"),
        (["explain", "{run}", "-o", "{new}.csv", "--page", "{new}.csv"], 1, "different files"),
        (["explain", "{run}", "-o", "{new}.csv", "--between", "1-2"], 2, "--between: expected FROM:TO"),
        (["explain", "{run}", "-o", "{new}.csv", "--between", "0:cell99"], 2, "'cell99'"),
        (["explain", "{run}", "-o", "{new}.csv", "--groups", "kind", "--between", "up:left"], 2, "'left'"),
        (["explain", "{run}", "-o", "{new}.csv", "--groups", "kid"], 1, "kid"),
        (["explain", "{run}", "-o", "{new}.csv", "--groups", "kind", "--layout", "long"], 2, "--layout"),
        (["explain", "{run}", "-o", "{new}.csv", "--reduction", "l1"], 2, "'none', 'l2', 'mean_l2'"),
        (["explain", "{run}", "-o", "{new}.csv", "--map", "linear"], 2, "'derivative', 'local_linear'"),
        (["explain", "{run}", "-o", "{new}.csv", "--method", "fast"], 2, "'auto', 'local', 'path'"),
        (["explain", "{smooth}", "-o", "{new}.csv", "--method", "local"], 1, "not piecewise linear"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: list[str],
    code: int,
    message: str,
    table: Path,
    run: Path,
    smooth: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    places = {"table": table, "run": run, "smooth": smooth, "new": tmp_path / "new"}
    assert_refused([word.format(**places) for word in words], code, message, capsys, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_training_can_be_followed(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["fit", str(table), "--label", "kind", "--id", "cell", "--no-report", "--live"]
    out = tmp_path / "run"
    assert main([*words, "-o", str(out), "--model", "umap", "--epochs", "2", "--json"]) == 0
    text = (out / "live.html").read_text()
    assert "finished. Step " in text
    assert text.count("<circle") == 60
    assert pb.load(out).callbacks is None
    assert main(["explain", str(out), "-o", str(tmp_path / "why.csv"), "-q"]) == 0
    assert read(tmp_path / "why.csv")["exact"].all()
    capsys.readouterr()
    assert main([*words, "-o", str(tmp_path / "vae"), "--model", "vae", "--epochs", "2", "-q"]) == 0
    assert (tmp_path / "vae" / "live.html").read_text().count("<circle") == 60
