"""The nuisance factor of a dictionary, and how its fit goes."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.status import Status

from pullback.models.dictionary.iterate import SweepState
from pullback.run_beside import beside_again


def known_groups(dataset: Any, record: Mapping[str, Any]) -> Any:
    """The nuisance factor of a run that `dictionary` made, where the data that were read again hold it."""
    found = beside_again(dataset, [record["center_by"]] if record.get("center_by") else [])
    return None if found is None else next(iter(found.values()))


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
