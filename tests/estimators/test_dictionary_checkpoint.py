"""Fits of dictionaries that die and go on: the same bits as one that never stopped; others are refused."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from planted import planted
from pullback import charts
from pullback.estimators import manifold_dictionary
from pullback.io import FormatError, load_tensors, save_tensors
from pullback.models.dictionary import attempt, chart_starts, journal, pure_fit, restarts, start, topology
from pullback.models.dictionary.filling import filled
from pullback.models.dictionary.journal import Store

KINDS = ("circle", "interval")
SUMS = planted(120, "additive", kinds=KINDS, p=6, seed=3)
MIX = planted(80, "single", kinds=KINDS, p=8, seed=3)
PAIR = planted(200, "single", kinds=("circle", "circle"), p=32, seed=1)
SOFT = {"gate": "softmax", "random_state": 0}

CASES: dict[str, tuple[Callable[..., pb.ManifoldDictionary], np.ndarray, dict[str, Any]]] = {
    "charts by evidence": (
        lambda **o: pb.ManifoldDictionary(2, init=MIX.A.argmax(1), max_sweeps=3, **SOFT, **o),
        MIX.Z.numpy(),
        {},
    ),
    "charts by evidence, sums": (
        lambda **o: pb.ManifoldDictionary(2, n_active=2, max_sweeps=3, n_restarts=1, random_state=0, **o),
        SUMS.Z.numpy(),
        {},
    ),
    "list of charts, attempts on rows drawn again": (
        lambda **o: pb.ManifoldDictionary(
            2, "circle", n_active=1, max_sweeps=2, n_restarts=2, random_state=0, **o
        ),
        SUMS.Z.numpy()[:60].astype(np.float32),
        {},
    ),
    "mixture, list of charts": (
        lambda **o: pb.ManifoldDictionary(2, list(KINDS), max_sweeps=4, n_restarts=2, **SOFT, **o),
        MIX.Z.numpy(),
        {"row_weights": np.linspace(0.5, 1, 80), "center_by": ["a", "b"] * 40},
    ),
    "rows with factors of their own": (
        lambda **o: pb.ManifoldDictionary(
            2,
            list(KINDS),
            ambient=pb.ambient.LowRank(torch.diag_embed((MIX.t[0] > torch.arange(8)).double() + 0.1)),
            max_sweeps=3,
            n_restarts=1,
            **SOFT,
            **o,
        ),
        MIX.Z.numpy(),
        {},
    ),
    "number of atoms counted": (
        lambda **o: pb.ManifoldDictionary("auto", "circle", max_sweeps=2, n_restarts=1, **SOFT, **o),
        PAIR.Z.numpy(),
        {},
    ),
    "decoders by gradients": (
        lambda **o: pb.ManifoldDictionary(
            2, "circle", solver="adam", init="random", max_sweeps=4, n_restarts=3, **SOFT, **o
        ),
        MIX.Z.numpy(),
        {},
    ),
}


@pytest.fixture(autouse=True)
def few_candidates_and_every_state_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "_counts", lambda rows: [2, 5])
    monkeypatch.setattr(start, "CANDIDATES", ("circle", "interval"))
    monkeypatch.setattr(attempt, "SHARES", (0.25,))
    monkeypatch.setattr(attempt, "NEIGHBOURS", (10,))
    monkeypatch.setattr(pure_fit, "PATIENCE", 1)
    monkeypatch.setattr(pure_fit, "FEW_PURE", 8)
    monkeypatch.setattr(pure_fit, "CHART_SWEEPS", 2)
    monkeypatch.setattr(chart_starts, "TRIAL", 2)
    monkeypatch.setattr(journal, "SPACING", 0.0)
    monkeypatch.setattr(os, "fsync", lambda file: None)


def parts(value: Any) -> list[Any]:
    """All numbers of a tree of dataclasses, bit for bit."""
    if isinstance(value, np.ndarray | torch.Tensor):
        array = np.asarray(value)
        return [array.shape, array.dtype.str, array.tobytes()]
    if dataclasses.is_dataclass(value):
        return [part for field in dataclasses.fields(value) for part in parts(getattr(value, field.name))]
    if isinstance(value, tuple | list):
        return [part for item in value for part in parts(item)]
    return [repr(value)]


def bits(model: pb.ManifoldDictionary) -> list[Any]:
    return parts((model.components_, model.codes_, model.diagnostics_, model._moments))


@cache
def whole(name: str) -> list[Any]:
    """Of a fit that nothing stops."""
    make, Z, given = CASES[name]
    return bits(make().fit(Z, **given))


class DiedError(Exception):
    """What a process that was killed looks like from inside."""


def die_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Let the fit die after that many states; returns the places of all of them."""
    keep, told = Store.keep, []

    def dying(self: Store, place: tuple[str, ...], kept: Any) -> None:
        keep(self, place, kept)
        told.append("/".join(place))
        if len(told) == number:
            raise DiedError

    monkeypatch.setattr(Store, "keep", dying)
    return told


QUICK = ("decoders by gradients",)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in CASES]
)
def test_a_fit_that_died_goes_on_to_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, Z, given = CASES[name]
    with monkeypatch.context() as patch:
        told = die_at(patch, 0)
        assert bits(make(checkpoint_dir=tmp_path).fit(Z, **given)) == whole(name)
    assert len(told) > 5
    for number in {2 * len(told) // 3}:
        with monkeypatch.context() as patch:
            died = die_at(patch, number)
            with pytest.raises(DiedError):
                make(checkpoint_dir=tmp_path).fit(Z, **given)
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
        with monkeypatch.context() as patch:
            left = die_at(patch, 0)
            assert bits(make(checkpoint_dir=tmp_path, resume=True).fit(Z, **given)) == whole(name)
        assert [*died, *left] == told
    with monkeypatch.context() as patch:
        left = die_at(patch, 0)
        assert bits(make(checkpoint_dir=tmp_path, resume=True).fit(Z, **given)) == whole(name)
    assert left == [""]


def test_rows_with_factors_are_filled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, Z, given = CASES["rows with factors of their own"]
    fills: list[int] = []

    def counted(*args: Any) -> torch.Tensor:
        fills.append(1)
        return filled(*args)

    monkeypatch.setattr(restarts, "filled", counted)
    for number, resume in ((3, False), (3, True)):
        with monkeypatch.context() as patch:
            die_at(patch, number)
            with pytest.raises(DiedError):
                make(checkpoint_dir=tmp_path, resume=resume).fit(Z, **given)
    assert fills == [1]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_any_state_is_a_good_one_to_die_after(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, Z, given = CASES[name]
    with monkeypatch.context() as patch:
        told = die_at(patch, 0)
        make(checkpoint_dir=tmp_path).fit(Z, **given)
    for number in np.unique(np.linspace(1, len(told), 5).astype(int)).tolist():
        with monkeypatch.context() as patch:
            die_at(patch, number)
            with pytest.raises(DiedError):
                make(checkpoint_dir=tmp_path).fit(Z, **given)
        found = bits(make(checkpoint_dir=tmp_path, resume=True).fit(Z, **given))
        assert found == whole(name), told[number - 1]


def stopping(sweeps: int, error: type[BaseException]) -> Callable[[object], None]:
    left = [sweeps]

    def callback(state: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise error

    return callback


@pytest.mark.parametrize("sweeps", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 9))])
def test_ctrl_c_keeps_the_best_so_far_and_the_way_on(tmp_path: Path, sweeps: int) -> None:
    """In the first sweeps, in a round, and in a later attempt."""
    name = "list of charts, attempts on rows drawn again"
    make, Z, given = CASES[name]
    broken = make(checkpoint_dir=tmp_path, callback=stopping(sweeps, KeyboardInterrupt)).fit(Z, **given)
    assert broken.message_ == "interrupted; the best iterate is kept"
    assert not broken.converged_
    assert np.isfinite(broken.score(Z))
    assert broken.interrupted_
    assert bits(broken) != whole(name)
    resumed = make(checkpoint_dir=tmp_path, resume=True).fit(Z, **given)
    assert bits(resumed) == whole(name)
    assert not resumed.interrupted_


def test_ctrl_c_between_sweeps_and_while_counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search for the number of atoms that is broken off returns the fit that it had."""
    name = "number of atoms counted"
    make, Z, given = CASES[name]
    keep = Store.keep

    def pressed(self: Store, place: tuple[str, ...], kept: Any) -> None:
        keep(self, place, kept)
        if place == ("growth", "2 atoms", "cluster: 10", "start"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "keep", pressed)
        broken = make(checkpoint_dir=tmp_path).fit(Z, **given)
    assert len(broken.atoms_) == 3
    assert "interrupted" in broken.message_
    assert bits(make(checkpoint_dir=tmp_path, resume=True).fit(Z, **given)) == whole(name)


SCRIPT = """
import sys
import numpy as np, torch
import pullback as pb
torch.set_num_threads(1)
rows, folder, out, resume = np.load(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "resume"
told = lambda state: print("sweep", state.sweep, flush=True)
model = pb.ManifoldDictionary(3, "circle", n_active=2, max_sweeps=10, n_restarts=1, checkpoint_dir=folder,
                              resume=resume, callback=told, random_state=0).fit(rows)
np.savez(out, B=model.components_, t=model.codes_.coords, path=model.diagnostics_.objective,
         all=model.diagnostics_.restart_objectives)
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", SUMS.Z.numpy())
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(word: str, folder: str) -> subprocess.Popen:
        paths = [str(tmp_path / name) for name in ("rows.npy", folder, f"{folder}.npz")]
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *paths, word], env=environment, stdout=subprocess.PIPE, text=True
        )

    killed, file = start("new", "a"), tmp_path / "a" / "checkpoint.safetensors"
    end = time.monotonic() + 90
    while time.monotonic() < end and killed.poll() is None:
        places = [state["place"] for state in load_tensors(file)[1]["states"]] if file.exists() else []
        if any("rounds" in place for place in places):
            break
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    resumed = start("resume", "a")
    done = len(resumed.communicate(timeout=120)[0].splitlines())
    straight = start("new", "b")
    assert 0 < done < len(straight.communicate(timeout=120)[0].splitlines())
    one, two = np.load(tmp_path / "a.npz"), np.load(tmp_path / "b.npz")
    assert {name: one[name].tobytes() for name in one} == {name: two[name].tobytes() for name in two}
    assert list(load_tensors(file)[1]["states"][0]["place"]) == []


# --- what is refused ------------------------------------------------------------------------------------


def small(folder: Path | None, *, resume: bool = False, **options: Any) -> pb.ManifoldDictionary:
    known = {"init": "random", "n_restarts": 1, "max_sweeps": 6, "random_state": 0}
    return pb.ManifoldDictionary(2, "circle", **known | options, checkpoint_dir=folder, resume=resume)


@pytest.fixture
def died(tmp_path: Path) -> Path:
    with pytest.raises(DiedError):
        small(tmp_path, callback=stopping(3, DiedError)).fit(MIX.Z.numpy(), center_by=["a", "b"] * 40)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({"max_sweeps": 7}, {}, "another fit, which differs in max_sweeps: 6 there, 7 here; choose another"),
        ({"gate": "softmax"}, {}, "gate: amplitude there, softmax here"),
        ({"random_state": 1}, {}, "random seed: "),
        ({"init": "cluster"}, {}, "init: random there, cluster here"),
        ({"offset": "mean"}, {}, "offset: None there, mean here"),
        ({"ambient": pb.ambient.Diagonal(torch.ones(8))}, {}, "ambient: None there"),
        ({"entropy": pb.penalties.ScalarWeightSchedule(0.1, 0.0, "linear", steps=3)}, {}, "entropy: 0.05 th"),
        ({}, {"Z": MIX.Z.numpy() + 1e-9}, r"Z: \(80, 8\) "),
        ({}, {"Z": MIX.Z.numpy()[:-2], "center_by": ["a", "b"] * 39}, r"\(78, 8\) .*; center_by"),
        ({}, {"center_by": None}, r"center_by: \(80,\) .* there, None here"),
        ({}, {"row_weights": np.ones(80)}, "row_weights: None there"),
        ({}, {"labels": {0: np.arange(80.0)}}, "labels: None there"),
        ({"ambient": pb.ambient.LowRank(torch.eye(8))}, {}, "ambient: None there"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(
    died: Path, options: dict[str, Any], given: dict[str, Any], message: str
) -> None:
    known = {"Z": MIX.Z.numpy(), "center_by": ["a", "b"] * 40} | given
    with pytest.raises(ValueError, match=message):
        small(died, resume=True, **options).fit(**known)
    assert (died / "checkpoint.safetensors").exists()


def test_other_files_are_refused(died: Path) -> None:
    file = died / "checkpoint.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match="truncated"):
        small(died, resume=True).fit(MIX.Z.numpy())
    save_tensors(file, {"a": torch.zeros(1)}, {"kind": "training checkpoint", "run": None})
    for seed in (0, None):
        with pytest.raises(FormatError, match="not a checkpoint of a dictionary"):
            small(died, resume=True, random_state=seed).fit(MIX.Z.numpy())


def test_without_resume_a_fit_starts_anew(died: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []
    (died / ".checkpoint.safetensors.0a.tmp.safetensors").write_text("of a writer that was killed")
    small(died, callback=lambda state: told.append(state.sweep)).fit(MIX.Z.numpy())
    assert "the checkpoint of an earlier fit will be replaced" in caplog.text
    assert told[0] == 0
    assert [path.name for path in died.iterdir()] == ["checkpoint.safetensors"]
    assert load_tensors(died / "checkpoint.safetensors")[1]["states"][0]["place"] == []


def test_a_folder_is_made_and_goes_where_nothing_came_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new" / "folder"
    with monkeypatch.context() as patch:
        patch.setattr(manifold_dictionary, "fit_dictionary", None)
        with pytest.raises(TypeError):
            small(folder).fit(MIX.Z.numpy())
    assert list((tmp_path / "new").iterdir()) == []
    model = small(folder, resume=True).fit(MIX.Z.numpy())
    assert bits(model) == bits(small(None).fit(MIX.Z.numpy()))
    assert [path.name for path in folder.iterdir()] == ["checkpoint.safetensors"]


def test_a_seed_that_was_drawn_is_kept(tmp_path: Path) -> None:
    with pytest.raises(DiedError):
        small(tmp_path, random_state=None, callback=stopping(3, DiedError)).fit(MIX.Z.numpy())
    seed = load_tensors(tmp_path / "checkpoint.safetensors")[1]["run"]["random seed"]
    told: list[int] = []
    small(tmp_path, resume=True, random_state=None, callback=lambda s: told.append(s.sweep)).fit(
        MIX.Z.numpy()
    )
    assert told[0] == 2
    assert isinstance(seed, int)


class Own(charts.Circle):
    """A chart of one's own."""


def test_what_cannot_be_kept_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resume: expected a checkpoint_dir to resume from, got None"):
        small(None, resume=True).fit(MIX.Z.numpy())
    for kinds in (Own(2), ["circle", Own(2)]):
        model = pb.ManifoldDictionary(2, kinds, checkpoint_dir=tmp_path)
        with pytest.raises(TypeError, match=r"checkpoint_dir: expected charts of pullback.charts, got Own"):
            model.fit(MIX.Z.numpy())
    assert list(tmp_path.iterdir()) == []


def test_a_saved_dictionary_tells_how_it_was_fitted(tmp_path: Path) -> None:
    model = small(tmp_path / "checkpoint").fit(MIX.Z.numpy())
    again = pb.load(model.save(tmp_path / "model"))
    assert again.get_params()["checkpoint_dir"] == str(tmp_path / "checkpoint")
    assert again.get_params()["resume"] is False
