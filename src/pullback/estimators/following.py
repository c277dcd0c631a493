"""Callbacks of an estimator: told of each epoch, and those that want it when a training begins and ends."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pullback.training import EpochSummary


def read_callbacks(given: Any) -> list[Any]:
    """The callbacks of an option: one, several or None; ``TypeError`` for what cannot be called."""
    found = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    for callback in found:
        if not callable(callback):
            raise TypeError(
                f"callbacks: expected functions (step, loss, estimator), got {callback!r} of type "
                f"{type(callback).__name__}"
            )
    return found


def followers(estimator: Any, callbacks: Sequence[Any]) -> list[Callable[[EpochSummary], None]]:
    """The callbacks (step, loss, estimator) as those of `pullback.training.fit`."""
    return [_told(callback, estimator) for callback in callbacks]


def _told(callback: Callable[..., Any], estimator: Any) -> Callable[[EpochSummary], None]:
    def tell(summary: EpochSummary) -> None:
        callback(summary.step, summary.losses["loss"], estimator)

    return tell


@contextmanager
def followed(callbacks: Sequence[Any], X: Any, y: Any) -> Iterator[None]:
    """Call ``begin(X, y)`` before and ``close(how it ended)`` after, of the callbacks that have them."""
    for callback in callbacks:
        if hasattr(callback, "begin"):
            callback.begin(X, y)
    note = "finished"
    try:
        yield
    except BaseException as error:
        note = f"stopped by {type(error).__name__}"
        raise
    finally:
        for callback in callbacks:
            if hasattr(callback, "close"):
                callback.close(note)
