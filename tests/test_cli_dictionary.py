"""`pullback dictionary`: curved atoms of a table, their codes and their page."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pullback as pb
from pullback.cli import main
from pullback.commands import dictionaries
from pullback.estimators import manifold_dictionary
from pullback.models.dictionary.iterate import SweepState
from pullback.run_dictionary import SweepNotes
from refusals import assert_refused

QUICK = ["--atoms", "2", "--gate", "softmax", "--charts", "circle", "--sweeps", "6", "--restarts", "1"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two circles in planes of their own, a label and a batch that moves all features."""
    draw = np.random.default_rng(0)
    which, t = np.arange(160) % 2, draw.uniform(0, 2 * np.pi, 160)
    batch = draw.integers(0, 2, 160)
    rows = 0.03 * draw.normal(size=(160, 6))
    for k in range(2):
        rows[which == k, 3 * k : 3 * k + 2] += np.c_[np.cos(t), np.sin(t)][which == k]
        rows[which == k, 3 * k + 2] += 1
    frame = pd.DataFrame(rows + 5 * batch[:, None], columns=[f"unit{i}" for i in range(6)])
    frame["kind"], frame["batch"] = np.where(which, "b", "a"), batch
    path = tmp_path_factory.mktemp("table") / "states.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    words = [
        "dictionary",
        str(table),
        "-o",
        str(out),
        "--label",
        "kind",
        "--center-by",
        "batch",
        *QUICK,
        "-q",
    ]
    assert main(words) == 0
    return out


def test_atoms_codes_and_page(run: Path, table: Path) -> None:
    model = pb.load(run)
    assert [atom.chart.name for atom in model.atoms_] == ["circle", "circle"]
    assert model.callback is None
    codes = pd.read_parquet(run / "codes.parquet")
    assert len(codes) == 160
    assert {"label", "residual", "atom1", "weight1", "t1_1", "sd1_1"} <= set(codes)
    per_kind = codes.groupby("label")["atom1"].agg(lambda atoms: atoms.mode()[0])
    assert per_kind["a"] != per_kind["b"]
    assert codes["residual"].max() < 0.3
    page = (run / "report.html").read_text()
    for part in (
        "Noise",
        "atom 0",
        "Along the curves",
        "Error against what a row spends",
        "160 rows, 6 features",
    ):
        assert part in page
    assert page.count('<img class="drawn"') == 2 + 4 + 2 + 1 + 1


def test_the_folder_serves_other_commands(
    run: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "codes.csv"
    assert main(["transform", str(run), str(table), "-o", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["atoms"] == 2
    again, kept = pd.read_csv(out), pd.read_parquet(run / "codes.parquet")
    assert (again["atom1"] == kept["atom1"]).mean() > 0.95
    assert main(["report", str(run), "-o", str(tmp_path / "page.html")]) == 0
    assert "160 rows, 6 features, 2 atoms" in (tmp_path / "page.html").read_text()
    assert main(["info", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1] or "{}") is not None


def test_it_says_what_it_found(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["dictionary", str(table), "-o", str(tmp_path / "run"), "--drop", "kind", *QUICK, "--no-report"]
    assert main([*words, "--center-by", "batch"]) == 0
    printed = capsys.readouterr().out
    assert "atom 0: circle, " in printed
    assert "unexplained: 0.0" in printed
    assert main([*words, "--center-by", "batch", "--overwrite", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["atoms"] == ["circle", "circle"]
    assert found["fvu"] < 0.1


def test_a_run_that_dies_between_its_fit_and_its_model_loses_neither(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "dictionary",
        str(table),
        "-o",
        str(tmp_path / "run"),
        "--drop",
        "kind",
        *QUICK,
        "--no-report",
        "-q",
    ]

    def dies(*_: object, **__: object) -> None:
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(pb.ManifoldDictionary, "save", dies)
        with pytest.raises(SystemExit):
            main(words)
    assert not (tmp_path / "run" / "config.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(manifold_dictionary, "fit_dictionary", None)
        assert main([*words, "--resume"]) == 0
    assert len(pb.load(tmp_path / "run").atoms_) == 2
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_a_run_that_dies_before_its_record_is_never_taken_for_another(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def words(data: Path, *more: str) -> list[str]:
        return ["dictionary", str(data), "-o", str(tmp_path / "run"), "--drop", "kind", *QUICK, "-q", *more]

    other = tmp_path / "other.csv"
    other.write_text(table.read_text().replace("0.", "1."))
    assert main(words(table, "--no-report")) == 0

    def dies(*_: object, **__: object) -> None:
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(dictionaries, "write_record", dies)
        with pytest.raises(SystemExit):
            main(words(other, "--no-report", "--overwrite"))
    assert main(words(table, "--no-report", "--resume")) == 1
    assert "belongs to another fit" in capsys.readouterr().err
    assert main(words(other, "--no-report", "--resume")) == 0
    assert not (tmp_path / "run" / "checkpoint").exists()
    (tmp_path / "run" / "run.json").unlink()
    assert main(words(other, "--no-report", "--resume")) == 1
    assert "does not say what its model was fitted to" in capsys.readouterr().err


def test_new_rows_must_name_the_groups_that_the_fit_was_centred_by(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    words = ["dictionary", str(table), "-o", str(run), "--drop", "kind", *QUICK, "-q", "--no-report"]
    assert main([*words, "--center-by", "batch"]) == 0
    new = tmp_path / "new.csv"
    pd.read_csv(table).drop(columns=["batch", "kind"]).to_csv(new, index=False)
    assert main(["transform", str(run), str(new), "-o", str(tmp_path / "codes.csv")]) == 1
    assert "no column 'batch', whose groups the dictionary was centred by" in capsys.readouterr().err


def test_a_run_that_was_interrupted_goes_on(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def words(name: str, *more: str) -> list[str]:
        return ["dictionary", str(table), "-o", str(tmp_path / name), "--drop", "kind", *QUICK, *more]

    def pressed(self: SweepNotes, state: SweepState) -> None:
        if state.sweep == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SweepNotes, "__call__", pressed)
        assert main(words("a", "--no-report")) == 0
    assert "interrupted: --resume goes on" in capsys.readouterr().out
    assert (tmp_path / "a" / "checkpoint" / "checkpoint.safetensors").is_file()
    assert "interrupted" in pb.load(tmp_path / "a").message_
    assert main(words("a", "--resume", "--no-report", "--sweeps", "7")) == 1
    assert "sweeps: 6 there, 7 here" in capsys.readouterr().err
    assert main(words("a", "--resume", "-q", "--no-report")) == 0
    assert main(words("b", "-q", "--no-report")) == 0
    one, two = (pb.load(tmp_path / name) for name in "ab")
    assert np.array_equal(one.components_, two.components_)
    assert np.array_equal(one.codes_.coords, two.codes_.coords, equal_nan=True)
    assert one.message_ == two.message_
    assert not (tmp_path / "a" / "checkpoint").exists()
    # a run that came to its end is not fitted again: what is missing beside the model is written
    (tmp_path / "a" / "codes.parquet").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(pb.ManifoldDictionary, "fit", None)
        assert main(words("a", "--resume", "--no-report")) == 0
        assert "the fit had come to its end before" in capsys.readouterr().out
        assert (tmp_path / "a" / "codes.parquet").is_file()
        assert main(words("a", "--resume", "--no-report", "--sweeps", "7")) == 1
        assert (
            "holds the end of another fit, which differs in max_sweeps: 6 there, 7" in capsys.readouterr().err
        )
        assert main(words("a", "--resume", "--no-report", "--center-by", "batch")) == 1
        assert "center_by: None there, batch here" in capsys.readouterr().err
        other = tmp_path / "other.csv"
        other.write_text(table.read_text().replace("0.", "1."))
        again = words("a", "--resume", "--no-report")
        again[1] = str(other)
        assert main(again) == 1
        assert "rows: (160, 7)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("dictionary {table} -o {run}", 1, "already holds a model"),
        ("dictionary {table} -o {new} --atoms 3 --charts circle --charts line", 2, "each of --atoms 3"),
        ("dictionary {table} -o {new} --center-by day --drop kind", 1, "day"),
        ("dictionary {table} -o {new} --gate topk", 2, "topk"),
        ("dictionary {table} -o {new} --charts knot", 2, "--charts: expected one of auto, circle"),
        ("dictionary data:digits -o {new} --center-by day", 1, "--center-by: expected one of"),
        ("dictionary {table} -o {new} --drop kind --gate softmax --active 2", 1, "n_active"),
    ],
)
def test_refused(
    words: str, code: int, message: str, table: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    filled = [word.format(table=table, run=run, new=tmp_path / "new") for word in words.split()]
    assert_refused(filled, code, message, capsys, tmp_path)
