"""Rows that a fit leaves out to measure quantities on, where the model holds none out itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from pullback.subspaces import SubspaceTable


@dataclass(frozen=True)
class Part:
    """Some rows and their quantities.

    Attributes:
        X: the rows, in the form in which all of them came.
        quantities: name -> their values; None where none were given.
    """

    X: Any
    quantities: Mapping[str, Any] | None


def seen_part(X: Any, quantities: Mapping[str, Any] | None, held_out: np.ndarray | None) -> Part:
    """The rows that a model is fitted to: all but those held out, all where it holds them out itself."""
    if held_out is None:
        return Part(X, quantities)
    n = X.shape[0] if hasattr(X, "shape") else len(X)
    return _part(X, quantities, rest_of(n, held_out))


def rest_of(n: int, held_out: np.ndarray) -> np.ndarray:
    """Numbers of the other rows."""
    return np.setdiff1d(np.arange(n), held_out)


def evaluate_apart(
    model: Any, X: Any, quantities: Mapping[str, Any] | None, held_out: np.ndarray | None
) -> SubspaceTable:
    """``model.evaluate_quantities`` on some of the rows, by probes fitted to the others.

    Args:
        model: fitted to `seen_part` of the same rows.
        X: all rows.
        quantities: their values.
        held_out: numbers of the rows to measure on; None are those that the model held out.
    """
    seen = seen_part(X, quantities, held_out)
    if held_out is None:
        return model.evaluate_quantities(seen.X, seen.quantities)
    new = _part(X, quantities, held_out)
    return model.evaluate_quantities(
        seen.X, seen.quantities, held_out=new.X, held_out_quantities=new.quantities
    )


def _part(X: Any, quantities: Mapping[str, Any] | None, index: np.ndarray) -> Part:
    values = None
    if quantities is not None:
        values = {name: _taken(value, index) for name, value in quantities.items()}
    return Part(_taken(X, index), values)


def _taken(values: Any, index: np.ndarray) -> Any:
    if hasattr(values, "iloc"):
        return values.iloc[index]
    if sparse.issparse(values):
        return values.tocsr()[index]
    return (np.asarray(values) if isinstance(values, list | tuple) else values)[index]
