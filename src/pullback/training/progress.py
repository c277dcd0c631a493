"""A progress bar with losses, rate and time left; nothing at all where nobody looks."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

REFRESH_SECONDS = 0.1


def wants_bar(progress: bool | None, console: Console) -> bool:
    """Whether to show a bar: as asked, or where the output is a terminal or a notebook."""
    return (console.is_terminal or console.is_jupyter) if progress is None else progress


class ProgressBar:
    """A bar over epochs; ``step`` costs a clock reading unless it is time to redraw.

    Args:
        max_epochs: length of the bar.
        steps_per_epoch: for fractions of an epoch; None where nobody knows.
        epoch: epochs done before.
        shown: False makes every method do nothing.
        console: where to draw; standard error by default.
    """

    def __init__(
        self,
        max_epochs: int,
        steps_per_epoch: int | None,
        *,
        epoch: int = 0,
        shown: bool = True,
        console: Console | None = None,
    ):
        self._steps = steps_per_epoch
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._due, self._steps_seen, self._since = 0.0, 0, time.monotonic()
        if shown:
            self._bar = Progress(
                TextColumn("epoch", table_column=Column(min_width=5, no_wrap=True)),
                MofNCompleteColumn(table_column=Column(min_width=2 * len(str(max_epochs)) + 1, no_wrap=True)),
                BarColumn(bar_width=12, table_column=Column(min_width=12)),
                TextColumn("{task.fields[rate]}", table_column=Column(min_width=12, no_wrap=True)),
                TimeRemainingColumn(compact=True, table_column=Column(min_width=5, no_wrap=True)),
                # A narrow terminal cuts the losses, never how far the run is.
                TextColumn("{task.fields[losses]}", table_column=Column(no_wrap=True, ratio=1)),
                expand=True,
                console=console or Console(stderr=True),
                auto_refresh=False,
                transient=False,
            )
            self._task = self._bar.add_task("", total=max_epochs, completed=epoch, losses="", rate="")

    def __enter__(self) -> "ProgressBar":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def due(self) -> bool:
        """Count a step; whether it is time to redraw."""
        if self._bar is None:
            return False
        self._steps_seen += 1
        return time.monotonic() >= self._due

    def draw(self, epoch: int, batch: int, losses: dict[str, float]) -> None:
        """Redraw: epochs done, batches done in this one, and the losses to show."""
        if self._bar is None:
            return
        now = time.monotonic()
        self._due = now + REFRESH_SECONDS
        part = batch / self._steps if self._steps else 0
        rate = self._steps_seen / max(now - self._since, 1e-9)
        totals_first = sorted(losses.items(), key=lambda loss: not loss[0].endswith("loss"))
        text = "  ".join(f"{name} {value:.4g}" for name, value in totals_first)
        self._bar.update(self._task, completed=epoch + part, losses=text, rate=f"{rate:.0f} steps/s")
        self._bar.refresh()
