"""The values of a partition's quantities: given, computed from the rows, or a column of the data."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pullback.estimators.scaling import chunk_slices
from pullback.estimators.subspace_partition import RANKS, SubspacePartition
from pullback.inputs import Table, is_anndata
from pullback.subspaces.arguments import check_mapping, check_names
from pullback.validation import check_choice, check_positive


def check_option(option: SubspacePartition) -> None:
    """Raise unless the option makes sense before any data are seen."""
    for name, function in check_mapping("quantities", option.quantities, of="function or None").items():
        if not isinstance(name, str):
            raise TypeError(f"quantities: expected names that are text, got {name!r}")
        if function is not None and not callable(function):
            raise TypeError(
                f"quantities[{name!r}]: expected a function of the rows or None, got "
                f"{type(function).__name__}; values come by fit(X, quantities={{{name!r}: values}})"
            )
    names = option.quantities
    for label in ("sizes", "circular", "categorical"):
        given = getattr(option, label) or ()
        if isinstance(given, str) or (label != "categorical" and not isinstance(given, Mapping | tuple)):
            raise TypeError(f"{label}: expected names of quantities, got {given!r}")
        check_names(label, {*given, *names}, names, "the quantities")
    if both := [name for name in option.categorical or () if name in (option.circular or {})]:
        raise ValueError(
            f"categorical: expected no position on a circle, got {both[0]!r}, which circular names too"
        )
    for name, period in (option.circular or {}).items():
        check_positive(f"circular[{name!r}]", period)
    if option.strength is not None:
        check_positive("strength", option.strength, zero=True)
    check_choice("rank", option.rank, RANKS)


def known_values(
    option: SubspacePartition, X: Any, table: Table, quantities: Mapping[str, Any] | None
) -> dict[str, Any]:
    """name -> values of all rows, in the order of the option."""
    given = {} if quantities is None else check_mapping("quantities", quantities, of="values")
    computed = [name for name, function in option.quantities.items() if function is not None]
    check_names("quantities", {*given, *option.quantities}, option.quantities, "the partition")
    if twice := [name for name in computed if name in given]:
        raise ValueError(f"quantities: expected no values for {twice[0]!r}, which the partition computes")
    found, absent = {}, []
    for name, function in option.quantities.items():
        if function is not None:
            found[name] = computed_values(name, function, table)
        elif name in given:
            found[name] = given[name]
        elif (column := _column(X, name)) is not None:
            found[name] = column
        else:
            absent.append(name)
    if absent:
        raise ValueError(
            f"quantities: expected values for {', '.join(map(repr, absent))}, got none; "
            f"pass quantities={{{absent[0]!r}: values}}"
        )
    return found


def _column(X: Any, name: str) -> Any:
    frame = X.obs if is_anndata(X) else X
    return frame[name] if hasattr(frame, "columns") and name in frame.columns else None


def read_columns(option: Any, X: Any, quantities: Mapping[str, Any] | None) -> list[str]:
    """Columns of a frame that hold quantities: they are known of the rows, and no features."""
    if not isinstance(option, SubspacePartition) or is_anndata(X) or not hasattr(X, "columns"):
        return []
    names = option.quantities if isinstance(option.quantities, Mapping) else {}
    given = quantities if isinstance(quantities, Mapping) else ()
    return [
        name
        for name, function in names.items()
        if function is None and name not in given and name in X.columns
    ]


def computed_values(name: str, function: Any, table: Table) -> np.ndarray:
    """A function of the rows, in chunks of bounded memory."""
    parts = []
    for chunk in chunk_slices(len(table), table.n_features):
        rows = table.rows(chunk)
        shaped = rows if table.image_shape is None else rows.reshape(-1, *table.image_shape)
        with torch.no_grad():
            value = function(shaped)
        value = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        if value.ndim == 0 or len(value) != len(rows):
            raise ValueError(
                f"quantities[{name!r}]: expected a function of {len(rows)} rows to as many values, got shape "
                f"{value.shape}"
            )
        parts.append(value)
    return np.concatenate(parts)
