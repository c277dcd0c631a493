"""The checkpoint of a dictionary's fit: where it is, what it is of, and what it may hold."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pullback import charts
from pullback.estimators.registry import describe, is_omitted
from pullback.io import FormatError, load_tensors, remove_leftovers
from pullback.models.dictionary import attempt, iterate, pure_fit, restarts, start, topology
from pullback.models.dictionary.alone import ChartFit
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.decoder_step import DecoderFit
from pullback.models.dictionary.evidence import Evidence
from pullback.models.dictionary.journal import UNKEPT, Journal, Store
from pullback.models.dictionary.layout import Layout

logger = logging.getLogger(__name__)

FILE_NAME = "checkpoint.safetensors"
SEED = "random seed"
FREE = ("callback", "checkpoint_dir", "resume", "random_state")
"""Options that another part of the same fit may change."""
LONGEST = 60
"""Characters up to which an option is kept as it is, to be told where it differs."""
HELD = (
    *(charts.Circle, charts.Interval, charts.Plane, charts.Sphere, charts.Torus, charts.Line, charts.Points),
    *(ChartFit, Codes, DecoderFit, Evidence, Layout, start.Start, start.GroupFit),
    *(iterate.Alternated, iterate.Iterate, iterate.SweepPoint, topology.Topology, topology.TopologyCandidate),
    *(pure_fit.Rounds, pure_fit.ChartedAtom, attempt.Attempt, restarts.Attempts, restarts.DictionaryFit),
)
"""Classes that the state of a fit is made of."""
KNOWN = {cls.__name__: cls for cls in HELD}


@contextmanager
def open_journal(model: Any, seed: int, data: Mapping[str, Any]) -> Iterator[Journal]:
    """The journal of a fit: from its last checkpoint with ``resume``, and of nothing without a folder.

    The file is up to date when the block ends, by an error or not.

    Args:
        model: the estimator.
        seed: of the fit.
        data: rows and what else `fit` was given, by name.
    Raises:
        ValueError: the checkpoint belongs to another fit. FormatError: it is damaged, or something else.
    """
    path = checkpoint_path(model)
    if path is None:
        yield UNKEPT
        return
    _check_charts(model.charts)
    made = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    rows: Tensor = data["Z"]
    run = {SEED: seed, **_described_data(data), **_described_options(model)}
    try:
        with Store(path, run, KNOWN, rows.device) as store:
            if path.is_file() and model.resume:
                _check_same_fit(path, load_tensors(path)[1].get("run"), run)
                store.read()
                logger.info("%s: going on after %.0f s", path, store.clock())
            elif path.is_file():
                logger.warning("%s: the checkpoint of an earlier fit will be replaced", path)
            yield Journal(store)
    finally:
        if made:
            with suppress(OSError):
                path.parent.rmdir()


def checkpoint_path(model: Any) -> Path | None:
    """File of the checkpoint.

    Raises:
        ValueError: ``resume`` without a folder.
    """
    if model.checkpoint_dir is None:
        if model.resume:
            raise ValueError("resume: expected a checkpoint_dir to resume from, got None")
        return None
    return Path(model.checkpoint_dir) / FILE_NAME


def remove_checkpoint(folder: Path) -> None:
    """What a fit has kept in a folder, and the folder where nothing else is in it."""
    (folder / FILE_NAME).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def resumed_seed(model: Any, drawn: int) -> int:
    """The seed of the fit that goes on, where ``random_state`` does not say; else the one that was drawn."""
    path = checkpoint_path(model)
    if path is None or not model.resume or model.random_state is not None or not path.is_file():
        return drawn
    stored = load_tensors(path)[1].get("run")
    return int(stored.get(SEED, drawn)) if isinstance(stored, dict) else drawn


def _check_same_fit(path: Path, stored: Any, present: Mapping[str, Any]) -> None:
    if not isinstance(stored, dict):
        raise FormatError(f"{path}: not a checkpoint of a dictionary")
    differ = [name for name in {**stored, **present} if stored.get(name) != present.get(name)]
    if differ:
        parts = [f"{name}: {stored.get(name)} there, {present.get(name)} here" for name in differ]
        raise ValueError(
            f"checkpoint_dir: {path} belongs to another fit, which differs in {'; '.join(parts)}; "
            "choose another folder, or resume=False to start anew"
        )


def _check_charts(given: Any) -> None:
    for chart in given if isinstance(given, list | tuple) else [given]:
        if hasattr(chart, "jet") and type(chart) not in HELD:
            raise TypeError(
                f"checkpoint_dir: expected charts of pullback.charts, got {type(chart).__name__}, which no "
                "file can hold; fit without checkpoint_dir"
            )


def _described_options(model: Any) -> dict[str, Any]:
    options = model.get_params(deep=False)
    return {name: _short(_told(name, value)) for name, value in options.items() if name not in FREE}


def _described_data(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _told(name, value) for name, value in data.items()}


def _told(name: str, value: Any) -> Any:
    """A value as JSON: itself, or what tells it from others."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): _told(name, item) for key, item in value.items()}
    if name == "charts" and isinstance(value, list | tuple):
        return [_told("chart", chart) for chart in value]
    if type(value) in HELD:
        return repr(value)
    if name == "init" and hasattr(value, "components_"):
        return [atom.chart.name for atom in value.atoms_] + [digest(value.components_)]
    if isinstance(value, Tensor | np.ndarray | list | tuple) or hasattr(value, "__array__"):
        return digest(value)
    if name == "ambient" and dataclasses.is_dataclass(value):
        told = {f.name: _told(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": type(value).__name__, **told}
    described = describe(name, value)
    if not is_omitted(described):
        return described
    return getattr(value, "__qualname__", type(value).__qualname__)


def digest(value: Any) -> str:
    """Shape and checksum of an array."""
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    content = repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()
    total = hashlib.sha256(str(array.dtype).encode() + content)
    return f"{array.shape} {total.hexdigest()[:16]}"


def _short(described: Any) -> Any:
    """The same after a journey through JSON; long things by their checksum."""
    text = json.dumps(described)
    return json.loads(text) if len(text) <= LONGEST else hashlib.sha256(text.encode()).hexdigest()[:16]
