"""The command line as a user meets it: what it prints, writes, refuses, and with which exit code."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pullback as pb
from pullback.cli import main
from refusals import assert_refused

QUICK = ["--epochs", "3", "--set", "hidden=[16]"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CSV file with a label, names of the rows and five features."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(60, 5)), columns=[f"gene{i}" for i in range(5)])
    frame.insert(0, "cell", [f"cell{i}" for i in range(60)])
    frame["kind"] = np.where(frame["gene0"] > 0, "up", "down")
    path = tmp_path_factory.mktemp("table") / "cells.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on that file."""
    out = tmp_path_factory.mktemp("runs") / "run"
    code = main(["fit", str(table), "--out", str(out), "--label", "kind", "--id", "cell", "--quiet", *QUICK])
    assert code == 0
    return out


def test_fit_writes_the_model_its_codes_and_a_report(run: Path) -> None:
    assert {path.name for path in run.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "run.json",
        "codes.parquet",
        "report.html",
    }
    codes = pd.read_parquet(run / "codes.parquet")
    assert list(codes.columns) == ["sample", "label", "z1", "z2"]
    assert codes["sample"].iloc[3] == "cell3"
    assert set(codes["label"]) == {"up", "down"}
    model = pb.load(run)
    assert np.array_equal(model.embedding_, codes[["z1", "z2"]].to_numpy())


def test_fit_with_an_isometry_penalty_keeps_it_with_the_model(table: Path, tmp_path: Path) -> None:
    words = ["fit", str(table), "-o", str(tmp_path / "run"), "--label", "kind", "--id", "cell", "-q", *QUICK]
    assert main([*words, "--isometry", "0.5", "--no-report"]) == 0
    model = pb.load(tmp_path / "run")
    (penalty,) = model.penalties
    assert (penalty.kind, penalty.weight, penalty.latents.policy) == ("isometry", 0.5, "both")
    assert len(model.history_["isometry"]) == model.n_epochs_


def test_fit_with_an_isometry_penalty_trains_the_plain_model_to_compare(table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["fit", str(table), "-o", str(run), "--label", "kind", "--id", "cell", "-q", *QUICK]
    assert main([*words, "--isometry", "0.5"]) == 0
    assert not pb.load(run / "plain").penalties
    assert pb.load(run / "plain").n_epochs_ == pb.load(run).n_epochs_
    assert 'data-figure="condition_before"' in (run / "report.html").read_text()
    assert main(["report", str(run), "--overwrite"]) == 0
    assert 'data-figure="condition_before"' in (run / "report.html").read_text()
    assert main([*words, "--isometry", "0.5", "--no-twin", "--overwrite"]) == 0
    assert 'data-figure="condition_before"' not in (run / "report.html").read_text()


def test_fit_says_what_it_found_as_json(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [
        "fit",
        str(table),
        "-o",
        str(tmp_path / "run"),
        "--id",
        "cell",
        "--label",
        "kind",
        "--json",
        *QUICK,
    ]
    assert main([*words, "--no-report"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["rows"] == 60
    assert summary["features"] == 5
    assert "report" not in summary
    assert summary["checks"]["verdict"] in ("pass", "attention", "fail")


def test_fit_prints_five_lines_and_the_report(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["fit", str(table), "-o", str(tmp_path / "run"), "--id", "cell", "--label", "kind", *QUICK]
    assert main(words) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split()[0] for line in lines[:5]] == [
        "reconstruction",
        "neighbourhoods",
        "metric",
        "geodesics",
        "checks",
    ]
    assert lines[-1].startswith("report: ")
    assert Path(lines[-1].removeprefix("report: ")).is_file()


def test_fit_reads_options_from_toml_and_the_command_line_wins(table: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        'model = "autoencoder"\nlatent_dim = 3\nmax_epochs = 50\nhidden = [8]\n'
        '[data]\nlabel = "kind"\nid = "cell"\n'
    )
    out = tmp_path / "run"
    words = ["fit", str(table), "-o", str(out), "--config", str(config), "--epochs", "2", "-q", "--no-report"]
    assert main(words) == 0
    model = pb.load(out)
    assert type(model).__name__ == "Autoencoder"
    assert model.get_params()["latent_dim"] == 3
    assert model.n_epochs_ == 2


def test_transform_encodes_rows(run: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "codes.csv"
    assert main(["transform", str(run), str(table), "-o", str(out)]) == 0
    codes = pd.read_csv(out)[["z1", "z2"]].to_numpy()
    assert np.allclose(codes, pb.load(run).embedding_, atol=1e-6)


def test_transform_needs_no_label(run: Path, table: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    pd.read_csv(table).drop(columns="kind").to_csv(new, index=False)
    assert main(["transform", str(run), str(new), "-o", str(tmp_path / "codes.parquet")]) == 0
    codes = pd.read_parquet(tmp_path / "codes.parquet")
    assert list(codes.columns) == ["sample", "z1", "z2"]
    assert np.array_equal(codes[["z1", "z2"]].to_numpy(), pb.load(run).embedding_)


def test_sample_is_repeatable(run: Path, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        assert main(["sample", str(run), "-o", str(tmp_path / name), "-n", "7", "--seed", "3"]) == 0
    first = pd.read_csv(tmp_path / "a.csv")
    assert list(first.columns) == ["z1", "z2", "log_density", *[f"gene{i}" for i in range(5)]]
    assert len(first) == 7
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    noisy = ["sample", str(run), "-o", str(tmp_path / "c.csv"), "-n", "7", "--seed", "3"]
    assert main([*noisy, "--observe", "sample"]) == 0
    third = pd.read_csv(tmp_path / "c.csv")
    assert third["z1"].equals(first["z1"])
    assert not third["gene0"].equals(first["gene0"])


@pytest.fixture(scope="module")
def curved(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a Riemannian VAE."""
    out = tmp_path_factory.mktemp("runs") / "curved"
    words = ["fit", str(table), "--out", str(out), "--label", "kind", "--id", "cell", "--quiet", *QUICK]
    assert main([*words, "--model", "rhvae", "--set", "metric_hidden=[8]", "--no-report"]) == 0
    return out


def test_sample_by_every_method(
    curved: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = pb.load(curved)
    for method, words in (
        ("posterior", ["--data", str(table)]),
        ("volume", ["--set", "n_steps=20", "--set", "support=box"]),
    ):
        out = tmp_path / f"{method}.parquet"
        arguments = ["sample", str(curved), "-o", str(out), "-n", "5", "--method", method, *words, "--json"]
        assert main(arguments) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["rows"], said["method"]) == (5, method)
        found = pd.read_parquet(out)
        np.testing.assert_allclose(
            model.inverse_transform(found[["z1", "z2"]].to_numpy()),
            found[[f"gene{i}" for i in range(5)]].to_numpy(),
            rtol=1e-6,
        )
        assert np.isfinite(found["log_density"]).all()
        if method == "posterior":
            assert list(found["from"]) == [f"cell{i}" for i in range(5)]
        else:
            assert 0 < said["acceptance"] <= 1
            assert isinstance(said["converged"], bool)
            assert said["message"]


def test_sample_says_where_chains_did_not_converge(
    curved: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["sample", str(curved), "-o", str(tmp_path / "a.npz"), "--method", "volume", "--set", "n_steps=2"]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "converged: False" in shown.out
    assert "raise n_steps" in shown.out
    assert shown.err == ""
    assert set(np.load(tmp_path / "a.npz")) == {"z", "log_density", *[f"gene{i}" for i in range(5)]}


def test_geodesic_joins_rows_by_name_and_number(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "paths.csv"
    words = ["geodesic", str(run), "-o", str(out), "--pair", "cell3:cell9", "--pair", "0:1", "--nodes", "17"]
    assert main([*words, "--decoded", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [entry["pair"] for entry in result["paths"]] == ["cell3:cell9", "0:1"]
    assert all(entry["length"] > 0 for entry in result["paths"])
    paths = pd.read_csv(out)
    assert len(paths) == 2 * 17
    codes = pb.load(run).embedding_
    assert np.allclose(paths[["z1", "z2"]].iloc[0], codes[3], atol=1e-6)
    assert np.allclose(paths[["z1", "z2"]].iloc[16], codes[9], atol=1e-6)
    assert {"gene0", "gene4"} <= set(paths.columns)
    assert list(paths.columns[:9]) == [
        "pair",
        "node",
        "t",
        "z1",
        "z2",
        "length",
        "converged",
        "residual",
        "gap",
    ]
    assert paths["length"].iloc[17:].unique() == pytest.approx([result["paths"][1]["length"]])
    assert paths["converged"].all()
    assert paths["residual"].max() <= 1e-6


@pytest.mark.parametrize("ending", [".parquet", ".json"])
def test_geodesic_writes_tables_by_their_ending(run: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"paths{ending}"
    assert main(["geodesic", str(run), "-o", str(out), "--pair", "0:1", "--nodes", "9"]) == 0
    if ending == ".json":
        found = json.loads(out.read_text())
        assert np.asarray(found["z"]).shape == (9, 2)
        assert found["converged"] == [True] * 9
    else:
        assert len(pd.read_parquet(out)) == 9


@pytest.mark.parametrize("ending", [".png", ".pdf", ".svg"])
def test_geodesic_draws_and_splits_its_paths(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, ending: str
) -> None:
    figure, shares = tmp_path / f"paths{ending}", tmp_path / "shares.csv"
    words = ["geodesic", str(run), "-o", str(tmp_path / "paths.csv"), "--nodes", "17"]
    words += ["--pair", "cell3:cell9", "--pair", "0:1", "--figure", str(figure), "--shares", str(shares)]
    assert main(words) == 0
    head = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[ending]
    assert figure.read_bytes().startswith(head)
    table = pd.read_csv(shares)
    assert list(table.columns) == ["pair", "feature", "energy", "share", "change", "total_variation"]
    assert table.groupby("pair")["share"].sum().to_numpy() == pytest.approx([1.0, 1.0])
    assert set(table["feature"]) == {f"gene{i}" for i in range(5)}
    assert (table["change"].abs() <= table["total_variation"] + 1e-12).all()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("cell3:cell9: length ")
    assert lines[0].endswith(", certified")
    assert lines[-1] == f"figure: {figure}"


def test_report_is_written_again(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "again.html"
    assert main(["report", str(run), "-o", str(out), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["report"] == str(out.resolve())
    assert "stability" not in written["checks"]["checks"]


def test_a_report_compares_trainings(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "again.html"
    assert main(["report", str(run), "-o", str(out), "--other", str(run), "--json"]) == 0
    check = json.loads(capsys.readouterr().out)["checks"]["checks"]["stability"]
    assert abs(check["value"]) < 1e-6
    assert check["verdict"] == "pass"
    assert "over 2 trainings" in out.read_text()
    assert out.read_text().startswith("<!DOCTYPE html>")


def test_info_describes_runs_sets_and_the_installation(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["info", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reading"] == {"label": "kind", "id": "cell"}
    assert main(["info", "--data", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digits"]["installed"] is True
    assert main(["info"]) == 0
    assert pb.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nonsense"], 2, "No such command"),
        (["fit"], 2, "Missing"),
        (["fit", "{table}", "-o", "{new}", "--model", "vea"], 2, "'vae', 'autoencoder'"),
        (["fit", "{table}", "-o", "{new}", "--set", "lrr=1"], 2, "lrr"),
        (["fit", "{table}", "-o", "{new}", "--set", "lr"], 2, "NAME=VALUE"),
        (["fit", "{table}", "-o", "{new}", "--epochs", "many"], 2, "integer"),
        (["fit", "{table}", "-o", "{new}", "--epochs", "0"], 2, "greater than or equal to 1"),
        (["fit", "{table}", "-o", "{new}", "--scale", "unit"], 2, "'standard'"),
        (["fit", "{table}", "-o", "{new}", "--missing", "zero"], 2, "'median'"),
        (["fit", "{table}", "-o", "{new}", "--categorical", "number"], 2, "'onehot'"),
        (["demo", "--out", "{run}"], 1, "--overwrite"),
        (["demo", "--out", "{bad}/file/run"], 1, "file"),
        (["demo", "--out", "/proc/run"], 1, "/proc: takes no files"),
        (["demo", "--model", "vea"], 2, "'vae', 'autoencoder'"),
        (["fit", "{new}/absent.csv", "-o", "{new}"], 1, "absent.csv: no such file"),
        (["fit", "data:digit", "-o", "{new}"], 1, "did you mean 'digits'"),
        (["fit", "{table}", "-o", "{new}"], 1, "cell"),
        (["fit", "{table}", "-o", "{run}"], 1, "--overwrite"),
        (["fit", "{bad}/nan.csv", "-o", "{new}"], 1, "b"),
        (["fit", "{bad}/empty.csv", "-o", "{new}"], 1, "empty"),
        (["fit", "{bad}/table.xyz", "-o", "{new}"], 1, ".csv"),
        (["fit", "{bad}/negative.csv", "-o", "{new}", "--likelihood", "poisson"], 1, "counts"),
        (["fit", "{table}", "-o", "{new}", "--config", "{bad}/broken.toml"], 1, "TOML"),
        (["fit", "{table}", "-o", "{new}", "--config", "{bad}/no.toml"], 1, "--config: no such file"),
        (
            ["fit", "{table}", "-o", "{new}", "--config", "{bad}/odd.toml"],
            1,
            "data.lable: expected one of label",
        ),
        (["fit", "{table}", "-o", "{new}", "--isometry", "-1"], 2, "--isometry"),
        (["fit", "data:iris", "-o", "{new}", "--set", "lr=abc"], 1, "lr: expected a number, got 'abc'"),
        (["fit", "data:iris", "-o", "{new}", "--set", "beta=-1"], 1, "beta: expected a finite number >= 0"),
        (["fit", "data:iris", "-o", "{new}", "--set", "penalties=1"], 1, "penalties: expected a list"),
        (
            ["fit", "data:iris", "-o", "{new}", "--set", "warmup_epochs=-2"],
            1,
            "warmup_epochs: expected a finite number >= 0",
        ),
        (
            ["fit", "data:iris", "-o", "{new}", "--set", "validation_fraction=x"],
            1,
            "validation_fraction: expected a number, got 'x'",
        ),
        (["fit", "{bad}/words.npy", "-o", "{new}"], 1, "not readable as a NumPy file"),
        (
            ["fit", "data:iris", "-o", "{new}", "--set", "checkpoint_dir=a"],
            2,
            "checkpoint_dir is the run's own",
        ),
        (["fit", "{table}", "-o", "{bad}/file/run", "--label", "kind", "--id", "cell"], 1, "file"),
        (["transform", "{new}", "{table}", "-o", "{new}.csv"], 1, "config.json"),
        (["transform", "{bad}/half", "{table}", "-o", "{new}.csv"], 1, "model.safetensors"),
        (["transform", "{bad}/torn", "{table}", "-o", "{new}.csv"], 1, "truncated or altered"),
        (["transform", "{run}", "{bad}/narrow.csv", "-o", "{new}.csv"], 1, "gene"),
        (["transform", "{run}", "{table}", "-o", "{new}.xyz"], 1, ".csv"),
        (["transform", "{run}", "{table}", "-o", "{new}/no/folder.csv"], 1, "folder"),
        (["sample", "{run}", "-o", "{new}.csv", "-n", "0"], 1, "n_samples"),
        (["sample", "{run}", "-o", "{new}.csv", "--method", "volume"], 1, "'prior', 'posterior'"),
        (["sample", "{run}", "-o", "{new}.csv", "--method", "posterior"], 2, "--data: expected the rows"),
        (["sample", "{run}", "-o", "{new}.csv", "--data", "{table}"], 2, "--method prior draws without data"),
        (["sample", "{run}", "-o", "{new}.csv", "--observe", "both"], 2, "'mean', 'sample'"),
        (["sample", "{run}", "-o", "{new}.csv", "--set", "n_steps=3"], 1, "options: expected none"),
        (["sample", "{run}", "-o", "{new}.xyz"], 1, ".csv"),
        (["geodesic", "{run}", "-o", "{new}.csv", "--pair", "0:99"], 2, "'99'"),
        (["geodesic", "{run}", "-o", "{new}.csv", "--pair", "0-1"], 2, "FROM:TO"),
        (["geodesic", "{run}", "-o", "{new}.csv", "--pair", "0:1", "--nodes", "4"], 1, "nodes"),
        (
            ["geodesic", "{run}", "-o", "{new}.csv", "--pair", "0:1", "--figure", "{new}.gif"],
            1,
            ".png .pdf .svg",
        ),
        (["geodesic", "{run}", "-o", "{new}.csv", "--pair", "0:1", "--figure", "{new}/a.png"], 1, "folder"),
        (["geodesic", "{run}", "-o", "{new}.csv", "--pair", "0:1", "--shares", "{new}.txt"], 1, ".csv"),
        (
            ["geodesic", "{run}", "-o", "{new}.csv", "--pair", "0:1", "--shares", "{new}.csv"],
            1,
            "different files",
        ),
        (["geodesic", "{run}", "-o", "{table}", "--pair", "0:1"], 1, "already there"),
        (["report", "{run}"], 1, "--overwrite"),
        (["report", "{run}", "-o", "{new}.html", "--other", "{new}"], 1, "config.json"),
        (["report", "{run}", "-o", "{new}/no/page.html"], 1, "folder"),
        (["info", "{new}"], 1, "config.json"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: list[str],
    code: int,
    message: str,
    table: Path,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    as_users_run: None,
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "file").write_text("a file where a folder should be")
    (bad / "nan.csv").write_text("a,b\n1,2\n3,\n5,6\n")
    (bad / "empty.csv").write_text("")
    (bad / "table.xyz").write_text("1 2 3")
    (bad / "negative.csv").write_text("a,b\n" + "1,-2\n3,4\n" * 15)
    (bad / "narrow.csv").write_text("a,b\n1,2\n3,4\n")
    (bad / "broken.toml").write_text("latent_dim = \n")
    (bad / "odd.toml").write_text('[data]\nlable = "kind"\n')
    (bad / "words.npy").write_text("no numbers")
    for name in ("half", "torn"):
        pb.load(run).save(bad / name)
    (bad / "half" / "model.safetensors").unlink()
    whole = (bad / "torn" / "model.safetensors").read_bytes()
    (bad / "torn" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    places = {"table": table, "run": run, "bad": bad, "new": tmp_path / "new"}
    assert_refused([word.format(**places) for word in words], code, message, capsys, tmp_path, run)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        main(["--debug", "fit", str(tmp_path / "absent.csv"), "-o", str(tmp_path / "run")])


def test_a_model_that_cannot_be_saved_leaves_the_run_of_before(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["fit", str(table), "-o", str(tmp_path / "run"), "--label", "kind", "--id", "cell", "-q", *QUICK]
    words += ["--no-report"]
    assert main(words) == 0
    before = (tmp_path / "run" / "run.json").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pb.VAE, "save", full)
        assert main([*words, "--overwrite"]) == 1
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    assert len(pb.load(tmp_path / "run").embedding_) == 60
