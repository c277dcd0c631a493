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

OF_THIS_PART = ("callback", "checkpoint_dir", "resume", "ambient", "init")
"""Options that another part of the same fit may change, or that no file holds."""


def known_groups(dataset: Any, record: Mapping[str, Any]) -> Any:
    """The nuisance factor of a run that `dictionary` made, where the data that were read again hold it."""
    found = beside_again(dataset, [record["center_by"]] if record.get("center_by") else [])
    return None if found is None else next(iter(found.values()))


def same_dictionary(
    asked: ManifoldDictionary, folder: Path, rows: int, features: Iterable[str], record: Mapping[str, Any]
) -> ManifoldDictionary:
    """The dictionary that a run's folder holds, whose fit had come to its end.

    Args:
        asked: with the options of the command.
        folder: of the run.
        rows, features: of the data.
        record: what the command is going to keep beside the model.
    Raises:
        ValueError: it is the end of another fit.
    """
    found, before = open_run(folder)
    if not isinstance(found, ManifoldDictionary):
        raise ValueError(f"--resume: {folder} holds a {type(found).__name__}; choose another --out")
    if "command" not in before:
        raise ValueError(f"--resume: {folder} does not say what its model was fitted to; pass --overwrite")
    mine, theirs = asked.get_params(), found.get_params()
    differ = [
        name for name in mine if name not in OF_THIS_PART and _plain(mine[name]) != _plain(theirs[name])
    ]
    parts = [f"{name}: {theirs[name]} there, {mine[name]} here" for name in differ]
    if rows != len(found.codes_):
        parts.append(f"rows: {len(found.codes_)} there, {rows} here")
    kept = [name for name in ("center_by", "rows", "groups") if name in before]
    parts += [
        f"{name}: {before[name]} there, {record[name]} here" for name in kept if before[name] != record[name]
    ]
    if list(features) != list(getattr(found, "feature_names_in_", [])):
        parts.append("features")
    if parts:
        raise ValueError(
            f"--resume: {folder} holds the end of another fit, which differs in {'; '.join(parts)}; pass "
            "--overwrite or choose another --out"
        )
    return found


def _plain(option: Any) -> Any:
    """An option as a file gives it back."""
    return list(option) if isinstance(option, tuple) else option


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
