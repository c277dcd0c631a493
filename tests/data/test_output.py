import json
import os

import numpy as np
import pandas as pd
import pytest
import torch

from pullback.data import path_columns, read_table, write_table

SUFFIXES = [".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".npz", ".npy"]
CODES = np.array([[0.1, -2.5], [1e-17, 3.25], [7.0, 1 / 3]])
COLUMNS = {"id": np.array(["a", "b", "c"]), "z": CODES}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_numbers_survive(tmp_path, suffix, kind):
    codes = CODES.astype(kind)
    path = write_table(tmp_path / f"codes{suffix}", {"z": torch.from_numpy(codes)})
    assert (read_table(path).X.astype(kind) == codes).all()


@pytest.mark.parametrize("suffix", SUFFIXES[:-1])
def test_names_survive(tmp_path, suffix):
    table = read_table(write_table(tmp_path / f"codes{suffix}", COLUMNS), id="id")
    assert table.samples.tolist() == ["a", "b", "c"]
    assert table.features.tolist() == (["x1", "x2"] if suffix == ".npz" else ["z1", "z2"])


def test_parquet_keeps_float32(tmp_path):
    path = write_table(tmp_path / "c.parquet", {"z": CODES.astype(np.float32)})
    assert (pd.read_parquet(path).dtypes == np.float32).all()


def test_json_is_plain_json(tmp_path):
    path = write_table(
        tmp_path / "c.json", {"ok": [True, False], "z": [[1.0, np.nan], [np.inf, 2.0]], "n": [1, 2]}
    )
    assert json.loads(path.read_text()) == {"ok": [True, False], "z": [[1.0, None], [None, 2.0]], "n": [1, 2]}


def test_npy_takes_numbers_only(tmp_path):
    with pytest.raises(ValueError, match=r"got text in 'id'; write \.npz or \.parquet"):
        write_table(tmp_path / "c.npy", COLUMNS)
    assert list(tmp_path.iterdir()) == []


def test_the_same_columns_give_the_same_bytes(tmp_path):
    first, second = (write_table(tmp_path / name, COLUMNS).read_bytes() for name in ("a.csv.gz", "b.csv.gz"))
    assert first == second


def test_overwriting_is_asked_for(tmp_path):
    path = write_table(tmp_path / "c.csv", {"a": [1]})
    with pytest.raises(FileExistsError, match=r"c\.csv: already there"):
        write_table(path, {"a": [2]})
    assert read_table(path).X.tolist() == [[1]]
    write_table(path, {"a": [2]}, overwrite=True)
    assert read_table(path).X.tolist() == [[2]]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_table(tmp_path / "c.csv", {"a": [1]})

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OSError, match="disk full"):
        write_table(path, {"a": [2]}, overwrite=True)
    assert path.read_text() == "a\n1\n"
    assert os.listdir(tmp_path) == ["c.csv"]


def test_paths_that_cannot_be_written(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"ends in \.csv .* \.json, got 'c\.xlsx'"):
        write_table(tmp_path / "c.xlsx", COLUMNS)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        write_table(tmp_path / "absent" / "c.csv", COLUMNS)
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(IsADirectoryError, match="expected a file"):
        write_table(tmp_path / "d.csv", COLUMNS, overwrite=True)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match=r"c\.csv: cannot be written \(Permission denied\)"):
        write_table(tmp_path / "c.csv", COLUMNS)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "expected at least one column"),
        ({"a": [1, 2], "b": [1]}, "the same number of rows, got {'a': 2, 'b': 1}"),
        ({"a": np.zeros((1, 1, 1))}, r"expected \(n,\) or \(n, d\), got \(1, 1, 1\) for 'a'"),
        ({"z1": [1], "z": [[2]]}, "the name 'z1' occurs twice"),
    ],
)
def test_bad_columns(tmp_path, columns, message):
    with pytest.raises(ValueError, match=message):
        write_table(tmp_path / "c.csv", columns)
    assert list(tmp_path.iterdir()) == []


def test_curves_in_long_format(tmp_path):
    points = torch.arange(12.0).reshape(2, 3, 2)
    values = torch.arange(6.0).reshape(2, 3, 1)
    path = write_table(tmp_path / "p.csv", path_columns(points, values, pairs=["a:b", "c:d"]))
    frame = pd.read_csv(path)
    assert list(frame.columns) == ["pair", "node", "t", "z1", "z2", "x1"]
    assert frame["pair"].tolist() == ["a:b"] * 3 + ["c:d"] * 3
    assert frame["node"].tolist() == [0, 1, 2, 0, 1, 2]
    assert frame["t"].tolist() == [0, 0.5, 1, 0, 0.5, 1]
    assert frame[["z1", "z2"]].to_numpy().tolist() == points.reshape(6, 2).tolist()
    assert frame["x1"].tolist() == list(range(6))


def test_curves_of_wrong_shape():
    with pytest.raises(ValueError, match=r"points: expected \(m, nodes, d\), got \(3, 2\)"):
        path_columns(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"values: expected \(2, 3, p\) like the points, got \(2, 4, 1\)"):
        path_columns(torch.zeros(2, 3, 2), torch.zeros(2, 4, 1))
    assert path_columns(torch.zeros(2, 3, 2), t=[0.0, 0.1, 1.0])["t"].tolist() == [0.0, 0.1, 1.0] * 2
    assert path_columns(torch.zeros(2, 3, 2))["pair"].tolist() == [0, 0, 0, 1, 1, 1]
