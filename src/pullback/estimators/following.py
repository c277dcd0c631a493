"""Callbacks that want to know when a training begins and ends."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


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
