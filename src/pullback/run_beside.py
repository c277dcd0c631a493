"""Columns beside the features of a table: read with it, and found again when it is read once more."""

from collections.abc import Mapping, Sequence
from typing import Any

import pullback as pb

LABEL = "label"


def read_beside(
    data: str, names: Sequence[str], reading: Mapping[str, Any], option: str
) -> tuple[Any, dict[str, Any]]:
    """The features of a table without some of its columns, and these by name.

    Of a named set they are its other arrays, or "label".

    Args:
        data: a file or data:NAME.
        names: of the columns.
        reading: how the data are read.
        option: that named them, for messages.
    Raises:
        ValueError: a column that is not there.
    """
    named = data.startswith("data:") or not names
    try:
        dataset = pb.data.resolve(data, **reading, **({} if named else {"extra": list(names)}))
    except ValueError as error:
        if str(error).startswith("extra:"):
            raise ValueError(f"{option}{str(error).removeprefix('extra')}") from error
        raise
    beside = dict(dataset.extra)
    if dataset.y is not None:
        beside.setdefault(LABEL, dataset.y)
    for name in names:
        if name not in beside:
            known = ", ".join(map(repr, beside)) or "none"
            raise ValueError(f"{option}: expected one of {known}, got {name!r}")
    return dataset, {name: beside[name] for name in names}


def reading_with(data: str, names: Sequence[str], reading: Mapping[str, Any]) -> dict[str, Any]:
    """How the same data are read again with these columns."""
    return dict(reading) if data.startswith("data:") or not names else {**reading, "extra": list(names)}


def beside_again(dataset: Any, names: Sequence[str]) -> dict[str, Any] | None:
    """The columns of data that were read again; None where one is absent."""
    there = {LABEL: dataset.y} | dict(dataset.extra)
    found = {name: there[name] for name in names if there.get(name) is not None}
    return found if names and len(found) == len(names) else None
