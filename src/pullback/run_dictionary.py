"""The nuisance factor of a dictionary, and how its fit goes."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from pullback.estimators.manifold_dictionary import ManifoldDictionary
from pullback.models.dictionary.iterate import SweepState
from pullback.run_beside import beside_again
from pullback.run_folder import open_run

OF_THIS_PART = ("callback", "checkpoint_dir", "resume", "max_seconds", "ambient", "init")
"""Options that another part of the same fit may change, or that no file holds."""


def known_groups(dataset: Any, record: Mapping[str, Any]) -> Any:
    """The nuisance factor of a run that `dictionary` made, where the data that were read again hold it."""
    found = beside_again(dataset, [record["center_by"]] if record.get("center_by") else [])
    return None if found is None else next(iter(found.values()))


def same_dictionary(
    asked: ManifoldDictionary, folder: Path, rows: int, features: Iterable[str], center_by: str | None
) -> ManifoldDictionary:
    """The dictionary that a run's folder holds, whose fit had come to its end.

    Args:
        asked: with the options of the command.
        folder: of the run.
        rows, features: of the data.
        center_by: column of the nuisance factor.
    Raises:
        ValueError: it is the end of another fit.
    """
    found, record = open_run(folder)
    if not isinstance(found, ManifoldDictionary):
        raise ValueError(f"--resume: {folder} holds a {type(found).__name__}; choose another --out")
    mine, theirs = asked.get_params(), found.get_params()
    differ = [name for name in mine if name not in OF_THIS_PART and mine[name] != theirs[name]]
    parts = [f"{name}: {theirs[name]} there, {mine[name]} here" for name in differ]
    if rows != len(found.codes_):
        parts.append(f"rows: {len(found.codes_)} there, {rows} here")
    if (before := record.get("center_by", center_by)) != center_by:
        parts.append(f"center_by: {before} there, {center_by} here")
    if list(features) != list(getattr(found, "feature_names_in_", [])):
        parts.append("features")
    if parts:
        raise ValueError(
            f"--resume: {folder} holds the end of another fit, which differs in {'; '.join(parts)}; pass "
            "--overwrite or choose another --out"
        )
    return found


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
