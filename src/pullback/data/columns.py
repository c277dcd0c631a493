"""From typed columns to numbers: encoding, gaps, and messages that name the column and the row."""

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.api import types

from pullback.data.dataset import DataError

Missing = Literal["error", "drop", "mean", "median"]
Categorical = Literal["error", "onehot"]
MAX_CATEGORIES = 1000


def pick(argument: str, name: str, columns: Iterable[Any], what: str = "column") -> str:
    """Return ``name`` if it is there; raise ``ValueError`` with the closest names otherwise."""
    names = [str(column) for column in columns]
    if name in names:
        return name
    if not names:
        raise ValueError(f"{argument}: this file has no named {what}s, got {name!r}")
    folded = {entry.lower(): entry for entry in names}
    close = [folded[entry] for entry in difflib.get_close_matches(name.lower(), folded, n=3)]
    shown = ", ".join(map(repr, close or names[:10])) + ("" if close or len(names) <= 10 else ", ...")
    raise ValueError(f"{argument}: no {what} {name!r}; {'did you mean' if close else 'there are'} {shown}")


def plain(column: Any) -> np.ndarray:
    """A column as numbers, truth values or strings; where it has no value NaN, else None."""
    values = np.asarray(column)
    if values.dtype.kind in "biufU":
        return values
    gaps = np.asarray(pd.isna(values), dtype=bool)
    if values.ndim == 1 and not gaps.all():
        series = pd.Series(values).convert_dtypes()
        if series.dtype == "boolean":
            return series.to_numpy(dtype=object, na_value=None) if gaps.any() else series.to_numpy(dtype=bool)
        if (numbers := _numbers(series)) is not None:
            return numbers
    if not gaps.any():
        return values.astype(str)
    found = np.full(values.shape, None, dtype=object)
    found[~gaps] = values[~gaps].astype(str)
    return found


def to_numbers(frame: pd.DataFrame, categorical: Categorical) -> tuple[np.ndarray, np.ndarray]:
    """The columns as one matrix in their common dtype, and its names.

    A column of text or categories is an error, or becomes one 0/1 column per category (``name=category``),
    with NaN in all of them where it has no value.
    """
    blocks: list[np.ndarray] = []
    names: list[str] = []
    for name, series in frame.items():
        numbers = _numbers(series)
        if numbers is not None:
            blocks.append(numbers[:, None])
            names.append(str(name))
        elif categorical == "onehot":
            block, categories = _one_hot(str(name), series)
            blocks.append(block)
            names.extend(f"{name}={category}" for category in categories)
        else:
            row = int(series.notna().to_numpy().argmax())
            found = reprlib.repr(series.iloc[row])
            raise DataError(
                f"column {name!r}: expected numbers, got {found} at row {row} (from 0); "
                "pass label, id or drop for it, or categorical='onehot'"
            )
    if not blocks:
        raise DataError("no numeric column is left to learn from")
    return np.concatenate(blocks, axis=1), np.array(names)


def _numbers(series: pd.Series) -> np.ndarray | None:
    """The column as numbers, or None if it holds something else."""
    dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "iuf":
        return series.to_numpy()
    if series.isna().all():
        # A column without any value has no type; `fill_missing` names it.
        return np.full(len(series), np.nan)
    if types.is_bool_dtype(dtype) or types.infer_dtype(series, skipna=True) == "boolean":
        return series.astype("float64").to_numpy() if series.hasnans else series.to_numpy(dtype=np.uint8)
    if not types.is_numeric_dtype(dtype) or types.is_complex_dtype(dtype):
        return None
    own = np.dtype(getattr(dtype, "numpy_dtype", np.float64))
    return series.to_numpy(dtype=np.float64 if series.hasnans and own.kind != "f" else own, na_value=np.nan)


def _one_hot(name: str, series: pd.Series) -> tuple[np.ndarray, list[str]]:
    if not (types.is_string_dtype(series.dtype) or isinstance(series.dtype, pd.CategoricalDtype)):
        raise DataError(f"column {name!r}: expected numbers or categories, got {series.dtype}; drop it")
    codes, categories = pd.factorize(series, sort=True)
    if len(categories) > MAX_CATEGORIES:
        raise DataError(f"column {name!r}: {len(categories)} categories; pass id={name!r} or drop it")
    block = (codes[:, None] == np.arange(len(categories))).astype(np.float32)
    block[codes < 0] = np.nan
    return block, [str(category) for category in categories]


def fill_missing(values: np.ndarray, names: np.ndarray, missing: Missing) -> tuple[np.ndarray, np.ndarray]:
    """Refuse, drop or impute entries without a value; infinities are always refused.

    Returns:
        ``values`` with means or medians in the gaps (dtype kept), and ``(n,)`` bool: rows to keep.
    """
    keep = np.ones(len(values), dtype=bool)
    if values.dtype.kind != "f":
        return values, keep
    _refuse_infinite(values, names)
    gaps = np.isnan(values)
    if not gaps.any():
        return values, keep
    empty = gaps.all(axis=0)
    if empty.any():
        name = str(names[empty.argmax()])
        raise DataError(f"column {name!r}: no value in any row; drop it with drop=[{name!r}]")
    if missing == "error":
        row = int(gaps.any(axis=1).argmax())
        name = str(names[gaps[row].argmax()])
        raise DataError(
            f"column {name!r}: no value at row {row} (from 0), {int(gaps.sum())} missing "
            f"in {int(gaps.any(axis=0).sum())} columns; pass missing='mean', 'median' or 'drop'"
        )
    if missing == "drop":
        return values, np.asarray(~gaps.any(axis=1))
    average = np.nanmean if missing == "mean" else np.nanmedian
    columns = np.flatnonzero(gaps.any(axis=0))
    filled = values.copy()
    centre = average(values[:, columns].astype(np.float64), axis=0).astype(values.dtype)
    filled[:, columns] = np.where(gaps[:, columns], centre, values[:, columns])
    return filled, keep


def _refuse_infinite(values: np.ndarray, names: np.ndarray) -> None:
    infinite = np.isinf(values)
    if infinite.any():
        row = int(infinite.any(axis=1).argmax())
        column = int(infinite[row].argmax())
        raise DataError(
            f"column {str(names[column])!r}: expected finite numbers, got {values[row, column]} "
            f"at row {row} (from 0)"
        )
