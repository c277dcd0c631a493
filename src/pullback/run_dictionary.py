"""Rows with a nuisance factor beside them, and how a fit of a dictionary goes."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.status import Status

import pullback as pb
from pullback.models.dictionary.sweep import SweepState


def read_with_groups(data: str, name: str | None, reading: Mapping[str, Any]) -> tuple[Any, Any]:
    """A table, and the column of a nuisance factor that is none of its features; None without one.

    Of a named set it is one of its other arrays, or "label".
    """
    if name is None:
        return pb.data.resolve(data, **reading), None
    named = data.startswith("data:")
    dataset = pb.data.resolve(data, **reading, **({} if named else {"extra": [name]}))
    beside = dict(dataset.extra) | ({} if dataset.y is None else {"label": dataset.y})
    if name not in beside:
        known = ", ".join(map(repr, beside)) or "none"
        raise ValueError(f"--center-by: expected one of {known}, got {name!r}")
    return dataset, beside[name]


def known_groups(dataset: Any, record: Mapping[str, Any]) -> Any:
    """The nuisance factor of a run that `dictionary` made, where the data that were read again hold it."""
    name = record.get("center_by")
    return None if name is None else ({"label": dataset.y} | dict(dataset.extra)).get(name)


class SweepNotes:
    """A line in the terminal that says how far a fit is; silent elsewhere."""

    def __init__(self, screen: Console, *, silent: bool):
        self._status = None if silent or not screen.is_terminal else Status("starts", console=screen)

    def __enter__(self) -> "SweepNotes":
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, state: SweepState) -> None:
        if self._status is not None:
            self._status.update(
                f"sweep {state.sweep + 1}: unexplained {state.fvu:.4f}, noise {state.sigma:.3g}, "
                f"{state.seconds:.0f} s"
            )
