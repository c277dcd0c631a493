"""Reserving room for the quantities that columns of a table hold: options, a model, and what it found."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pullback as pb
from pullback.estimators.kinds import kind_of
from pullback.io import atomic_path
from pullback.run_beside import beside_again, read_beside
from pullback.run_options import make_estimator, parse_options

TABLE_FILE = "quantities.json"
FREE = 0.5
"""Share of the latent dimensions that stays free where their number is not given."""


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
    """An estimator with a partition for these quantities; if unsaid, half of its dimensions are free."""
    option = pb.SubspacePartition(
        dict.fromkeys(quantities),
        sizes=dict(sizes) or None,
        circular=dict(circular) or None,
        categorical=tuple(categorical),
        strength=strength,
    )
    if "latent_dim" not in settings:
        widths = {
            name: sizes.get(name) or kind_of(name, values, **_kind(name, circular, categorical)).width
            for name, values in quantities.items()
        }
        settings = settings | {"latent_dim": pb.subspaces.minimal_latent_dim(widths, free_frac=FREE)}
    return make_estimator(model, settings | {"partition": option})


def _kind(name: str, circular: Mapping[str, float | int], categorical: list[str]) -> dict[str, Any]:
    return {"period": circular.get(name), "categorical": name in categorical}


def write_quantities(run: Path, table: Any) -> None:
    """Keep what was measured beside the model."""
    with atomic_path(run / TABLE_FILE) as temporary:
        temporary.write_text(json.dumps(table.to_dict(), indent=2) + "\n")
