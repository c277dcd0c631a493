"""The live view: a page that follows, and never holds up, never grows, never stops a training."""

import copy
import logging
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pullback as pb
from pullback.plots import LiveView, live
from pullback.training import EpochSummary

X = np.random.default_rng(0).normal(size=(50, 3))


class Encoder:
    """Transforms rows by leaving a column out; counts how often and how many."""

    def __init__(self, width: int = 2):
        self.width, self.seen = width, []

    def transform(self, rows: Any) -> np.ndarray:
        self.seen.append(len(rows))
        return np.asarray(rows)[:, : self.width]


def test_a_page_shows_loss_and_map_and_how_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "live.html"
    with LiveView(path, X, groups=np.arange(50) % 3, max_points=20) as view:
        for step in range(10):
            view(step, 1.0 / (1 + step), Encoder())
    text = path.read_text()
    assert view.error is None
    assert "finished. Step 9, loss 0.1" in text
    assert text.count("<circle") == 20
    assert text.count("<polyline") == 1
    assert "location.reload" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert [found.name for found in tmp_path.iterdir()] == ["live.html"]


@pytest.mark.parametrize("width", [1, 2, 5])
def test_any_number_of_coordinates(tmp_path: Path, width: int) -> None:
    rows = np.random.default_rng(1).normal(size=(30, 6))
    with LiveView(tmp_path / "live.html", rows, groups=rows[:, 0]) as view:
        view(1, 0.5, Encoder(width))
    assert view.error is None
    assert view.path.read_text().count("<circle") == 30


def test_while_it_trains_the_page_reloads_itself(tmp_path: Path) -> None:
    view = LiveView(tmp_path / "live.html", every=1e-3)
    view(1, 2.0)
    while view.busy:
        time.sleep(0.01)
    text = view.path.read_text()
    assert "location.reload" in text
    assert "finished" not in text
    view.close()
    assert "location.reload" not in view.path.read_text()


def test_frames_are_dropped_while_one_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free, drawn = threading.Event(), live.live_page

    def slow(frame: Any, every: float) -> str:
        free.wait(20)
        return drawn(frame, every)

    monkeypatch.setattr(live, "live_page", slow)
    view, encoder = LiveView(tmp_path / "live.html", X, every=1e-9), Encoder()
    began = time.monotonic()
    for step in range(1000):
        view(step, 1.0, encoder)
    assert time.monotonic() - began < 5
    assert view.dropped == 999
    assert encoder.seen == [50]
    free.set()
    view.close()
    assert view.frames == 2
    assert "Step 999" in view.path.read_text()


def test_memory_is_bounded(tmp_path: Path) -> None:
    rows = np.zeros((5000, 3))
    view = LiveView(tmp_path / "live.html", rows, max_points=100, every=1e6)
    for step in range(20_000):
        view(step, float(step))
    assert len(view._steps) <= live.HISTORY
    assert len(view._rows) == 100
    view.close()
    assert "Step 19999, loss 19999" in view.path.read_text()
    assert view.path.stat().st_size < 200_000


def test_what_goes_wrong_is_logged_and_the_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def transform(self, rows: Any) -> np.ndarray:
            raise RuntimeError("no weights yet")

    with caplog.at_level(logging.WARNING), LiveView(tmp_path / "live.html", X, every=1e-9) as view:
        for step in range(5):
            view(step, 1.0, Broken())
            while view.busy:
                time.sleep(0.01)
    assert isinstance(view.error, RuntimeError)
    assert sum("no weights yet" in message for message in caplog.messages) == 1
    assert "finished. Step 4" in view.path.read_text()


def test_a_page_that_cannot_be_written_does_not_stop_the_training(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    view = LiveView(folder / "live.html", every=1e-9)
    folder.rmdir()
    view(1, 1.0)
    view.close()
    assert isinstance(view.error, FileNotFoundError)
    assert view.frames == 0


def test_an_exception_is_named_and_passed_on(tmp_path: Path) -> None:
    view = LiveView(tmp_path / "live.html")

    def train() -> None:
        with view:
            view(1, 1.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert "stopped by ZeroDivisionError" in view.path.read_text()
    assert not view.busy


def test_losses_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    with LiveView(tmp_path / "live.html", X) as view:
        for step, loss in enumerate([1.0, float("nan"), float("inf"), 0.5]):
            view(step, loss, SimpleNamespace(transform=lambda rows: np.full((len(rows), 2), np.nan)))
    text = view.path.read_text()
    assert "<circle" not in text
    assert view.error is None
    assert text.count("<polyline") == 1


def test_it_follows_epochs_of_the_training_loop(tmp_path: Path) -> None:
    with LiveView(tmp_path / "live.html") as view:
        for epoch in (1, 2):
            view.on_epoch(EpochSummary(epoch, {"loss": 1.0 / epoch}, best=True, step=7 * epoch))
    assert "Step 14, loss 0.5" in view.path.read_text()


def test_it_follows_parametric_umap(tmp_path: Path) -> None:
    path = tmp_path / "live.html"
    view = LiveView(path, max_points=30)
    model = pb.ParametricUMAP(epochs=3, random_state=0, progress=False, callbacks=[view])
    model.fit(X.astype("float32"), np.arange(50) % 2)
    text = path.read_text()
    assert "finished" in text
    assert text.count("<circle") == 30
    plain = pb.ParametricUMAP(epochs=3, random_state=0, progress=False)
    plain.fit(X.astype("float32"), np.arange(50) % 2)
    np.testing.assert_array_equal(model.embedding_, plain.embedding_)


def test_a_copy_of_an_estimator_keeps_the_view(tmp_path: Path) -> None:
    view = LiveView(tmp_path / "live.html")
    assert copy.deepcopy([view])[0] is view
    assert repr(view) == f"LiveView({str(view.path)!r})"
