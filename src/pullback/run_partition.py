"""Reserving room for the quantities that columns of a table hold: options, a model, and what it found."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import pullback as pb
from pullback.estimators.held_out import rest_of
from pullback.estimators.kinds import Categories, Kind, kind_of
from pullback.estimators.rows import SMALLEST_SPLIT, split_rows
from pullback.io import atomic_path
from pullback.run_beside import beside_again, read_beside
from pullback.run_options import make_estimator, parse_options

TABLE_FILE = "quantities.json"
FREE = 0.5
"""Share of the latent dimensions that stays free where their number is not given."""
MAP = 2
"""Coordinates of a map that stay free where their number is not given."""
HELD_OUT = 0.2
"""Share of the rows that are kept for measuring."""


def read_with_quantities(
    data: str, names: list[str], reading: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The features of a table without its quantities, and these by name.

    Of a named set they are its other arrays, or "label".
    """
    if len(set(names)) < len(names):
        raise ValueError(f"--quantity: expected different columns, got {', '.join(names)}")
    return read_beside(data, names, reading, "--quantity")


def known_quantities(dataset: Any, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The quantities of a run that `partition` made, where the data that were read again hold them."""
    return beside_again(dataset, record.get("quantities") or ())


def numbers_of(pairs: list[str], option: str) -> dict[str, Any]:
    """``COL=NUMBER`` by column."""
    found = parse_options(pairs)
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{option}: expected COL=NUMBER, got {name}={value}")
    return found


def reserving_estimator(
    model: str,
    quantities: Mapping[str, Any],
    settings: dict[str, Any],
    *,
    sizes: Mapping[str, int],
    circular: Mapping[str, float | int],
    categorical: list[str],
    strength: float | int | None,
) -> Any:
    """An estimator with a partition for these quantities.

    If unsaid, half of its dimensions are free; of a map, two.
    """
    option = pb.SubspacePartition(
        dict.fromkeys(quantities),
        sizes=dict(sizes) or None,
        circular=dict(circular) or None,
        categorical=tuple(categorical),
        strength=strength,
    )
    if not {"latent_dim", "n_components"} & settings.keys():
        kinds = kinds_of(quantities, circular, categorical)
        widths = {name: sizes.get(name) or kind.width for name, kind in kinds.items()}
        dims = pb.subspaces.minimal_latent_dim(widths, free_frac=FREE)
        settings = settings | {"latent_dim": sum(widths.values()) + MAP if model == "umap" else dims}
    return make_estimator(model, settings | {"partition": option})


def kinds_of(
    quantities: Mapping[str, Any], circular: Mapping[str, float | int], categorical: list[str]
) -> dict[str, Kind]:
    """What each quantity is, as the options say or its values look."""
    return {
        name: kind_of(name, values, period=circular.get(name), categorical=name in categorical)
        for name, values in quantities.items()
    }


def rows_to_hold_out(
    quantities: Mapping[str, Any], kinds: Mapping[str, Kind], fraction: Any, seed: int
) -> np.ndarray:
    """Numbers of the rows that a model which holds none out itself shall not see.

    A category of which no other row would be left stays with those that train.
    """
    n = len(next(iter(quantities.values())))
    check_held_out(n, fraction)
    held = split_rows(n, fraction, seed)[1]
    for name, kind in kinds.items():
        if isinstance(kind, Categories):
            values = pd.Series(np.asarray(quantities[name], dtype=object))
            seen = values[rest_of(n, held)]
            held = held[(values.isna() | values.isin(seen))[held]]
    if not len(held):
        raise ValueError(
            f"--quantity: expected categories of two rows or more, got none to hold out {fraction} of {n} "
            "rows from; quantities are measured on rows that are held out"
        )
    return held


def check_held_out(n: int, fraction: Any) -> None:
    """Raise ``ValueError`` unless this share of the rows leaves some to measure on."""
    if isinstance(fraction, bool) or not isinstance(fraction, float | int) or not 0 < fraction < 1:
        raise ValueError(f"validation_fraction: expected a share of the rows in (0, 1), got {fraction!r}")
    if not len(split_rows(n, fraction, 0)[1]):
        raise ValueError(
            f"validation_fraction: expected a row or more of at least {SMALLEST_SPLIT}, got {fraction} of {n}"
            "; quantities are measured on rows that are held out"
        )


def write_quantities(run: Path, table: Any, held_out: np.ndarray | None) -> None:
    """Keep what was measured beside the model, and on which rows where the model does not know."""
    rows = {} if held_out is None else {"held_out": held_out.tolist()}
    with atomic_path(run / TABLE_FILE) as temporary:
        temporary.write_text(json.dumps(table.to_dict() | rows, indent=2) + "\n")


def held_out_again(run: Path, n: int) -> np.ndarray | None:
    """The rows of `write_quantities`, for as many rows of data as there were; else None."""
    if not (run / TABLE_FILE).is_file():
        return None
    kept = json.loads((run / TABLE_FILE).read_text())
    if "held_out" not in kept or kept["n_train"] + kept["n_test"] != n:
        return None
    return np.array(kept["held_out"])
