"""A page that follows a training: its loss and its map, a few seconds old at most."""

import atexit
import logging
import math
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pullback.io import atomic_path
from pullback.plots.arguments import check_labels
from pullback.plots.cargo import sampled_rows
from pullback.plots.labels import Labels, read_labels
from pullback.plots.live_page import Frame, live_page
from pullback.validation import check_positive, check_whole

logger = logging.getLogger(__name__)

HISTORY = 2000
"""Losses that are kept; of more, every second one is let go."""
PATIENCE = 20.0
"""Share of the time, one in so many, that encoding the sample may take."""
WAIT_SECONDS = 10.0
"""How long `close` waits for a page that is being written."""


class LiveView:
    """A callback that keeps a page of a training up to date, and never holds the training up.

    The page lies on disk and reloads itself in a browser; there is no server. The training itself encodes a
    bounded sample of rows, at most every few seconds and for at most a twentieth of its time; drawing and
    writing happen in a thread of their own, and a frame that comes while it is busy is dropped. What goes
    wrong in the view is logged and kept in ``error``, and the training goes on. Used in a ``with`` block, or
    closed, the page says how the training ended; else it does so when the program ends.

    Args:
        path: HTML file; its folder must exist. It is replaced whole, never in part.
        X: rows to draw, as for the estimator's ``transform``; None draws those that `ParametricUMAP` is
            fitted to, and of other trainings the loss alone.
        groups: ``(n,)`` labels of the rows of X, to colour by.
        max_points: rows drawn at most, a random sample.
        every: seconds from one frame to the next, at least.
        title: of the page.
        random_state: seed of the sample.

    Attributes:
        frames, dropped: pages written, and frames that came too fast or while one was being written.
        error: what went wrong, or None.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: the groups are of another length than X, or given without it.

    Example:
        >>> import pathlib, tempfile
        >>> from pullback.plots import LiveView
        >>> folder = tempfile.TemporaryDirectory()
        >>> with LiveView(pathlib.Path(folder.name) / "live.html") as live:
        ...     for step in range(100):
        ...         live(step, 1 / (1 + step))
        >>> "finished" in live.path.read_text(), live.frames >= 1
        (True, True)
        >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike,
        X: Any = None,
        *,
        groups: Any = None,
        max_points: int = 1000,
        every: float = 2.0,
        title: str = "Training",
        random_state: int = 0,
    ):
        self.path = Path(path)
        if self.path.is_dir() or not self.path.parent.is_dir():
            raise FileNotFoundError(f"{path}: expected a file in a folder that exists")
        check_whole("max_points", max_points)
        check_positive("every", every)
        if groups is not None and X is None:
            raise ValueError("groups: expected rows X that they belong to, got X=None")
        self.every, self.title = every, title
        self.frames = self.dropped = 0
        self.error: BaseException | None = None
        self.max_points, self.random_state = max_points, random_state
        self._rows: Any = None
        self._labels: Labels | None = None
        self._given = X is not None
        if X is not None:
            self._sample(X, groups)
        self._writer: threading.Thread | None = None
        self._open = False
        self._reset()

    def __call__(self, step: int, loss: float, estimator: Any = None) -> None:
        """Take note of a step's loss; draw a frame where it is time. As in ``callbacks=[LiveView(...)]``."""
        if not self._open:
            self._start()
        self._remember(int(step), float(loss))
        if time.monotonic() < self._due or self.busy:
            self.dropped += 1
            return
        self._encode(estimator)
        frame = self._frame(None)
        self._writer = threading.Thread(target=self._write, args=(frame,), name="pullback-live", daemon=True)
        self._writer.start()

    def begin(self, X: Any, y: Any = None) -> None:
        """A training of these rows begins; they are drawn where no others were given."""
        if not self._given:
            self._sample(X, y)
        self._start()

    def on_epoch(self, summary: Any, estimator: Any = None) -> None:
        """The same for the callbacks of ``pullback.training.fit``, which are told of epochs."""
        self(summary.step, summary.losses["loss"], estimator)

    @property
    def busy(self) -> bool:
        """Whether a page is being written."""
        return self._writer is not None and self._writer.is_alive()

    def close(self, note: str = "finished") -> None:
        """Write the last frame and stop the page's reloading."""
        if not self._open:
            return
        self._open = False
        atexit.unregister(self.close)
        if self._writer is not None:
            self._writer.join(WAIT_SECONDS)
        if not self.busy:
            self._write(self._frame(note))

    def __enter__(self) -> "LiveView":
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("finished" if error is None else f"stopped by {type(error).__name__}")

    def __deepcopy__(self, memo: dict[int, Any]) -> "LiveView":
        return self  # a copy of an estimator draws on the same page

    def __repr__(self) -> str:
        return f"LiveView({str(self.path)!r})"

    def _sample(self, X: Any, groups: Any) -> None:
        n = int(X.shape[0]) if hasattr(X, "shape") else len(X)
        rows = sampled_rows(n, self.max_points, self.random_state)
        self._rows, self._labels = _taken(X, rows), None
        if groups is not None:
            self._labels = read_labels(check_labels(groups, n, "groups"), "group").take(rows)

    def _reset(self) -> None:
        self._steps: list[int] = []
        self._losses: list[float] = []
        self._last = (0, math.nan)
        self._stride, self._calls = 1, 0
        self._points: np.ndarray | None = None
        self._due, self._began = 0.0, time.monotonic()

    def _start(self) -> None:
        self._reset()
        self._open = True
        atexit.register(self.close)

    def _remember(self, step: int, loss: float) -> None:
        if self._calls % self._stride == 0:
            self._steps.append(step)
            self._losses.append(loss)
        self._calls += 1
        self._last = (step, loss)
        if len(self._steps) > HISTORY:
            self._steps, self._losses = self._steps[::2], self._losses[::2]
            self._stride *= 2

    def _encode(self, estimator: Any) -> None:
        """Encode the sample; what that costs decides when the next frame is due."""
        began = time.monotonic()
        if self._rows is not None and estimator is not None:
            try:
                points = np.asarray(estimator.transform(self._rows), dtype=np.float64)
                self._points = points if np.isfinite(points).all() else None
            except Exception as error:
                self._fail(error)
                self._rows = None
        now = time.monotonic()
        self._due = now + max(self.every, PATIENCE * (now - began))

    def _frame(self, note: str | None) -> Frame:
        last = self._last
        steps, losses = list(self._steps), list(self._losses)
        if steps and steps[-1] != last[0]:
            steps, losses = [*steps, last[0]], [*losses, last[1]]
        seconds = time.monotonic() - self._began
        return Frame(
            title=self.title,
            steps=np.array(steps, dtype=np.int64),
            losses=np.array(losses, dtype=np.float64),
            points=self._points,
            labels=self._labels,
            seconds=seconds,
            note=note,
        )

    def _write(self, frame: Frame) -> None:
        try:
            text = live_page(frame, self.every)
            with atomic_path(self.path) as temporary:
                temporary.write_text(text, encoding="utf-8")
            self.frames += 1
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self.error is None:
            logger.warning("%s: the live view stopped drawing (%s); the training goes on", self.path, error)
        self.error = error


def _taken(X: Any, rows: np.ndarray) -> Any:
    """Some rows, kept as a copy: the view must not hold all of X."""
    if hasattr(X, "iloc"):
        return X.iloc[rows].copy()
    if hasattr(X, "obsm"):
        return X[rows].copy()
    if hasattr(X, "detach"):
        return X[rows].detach().clone()
    return X[rows] if hasattr(X, "shape") else [X[row] for row in rows]
