"""A user's file to a `Dataset`, by its ending."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from pullback.data.columns import Categorical, Missing, fill_missing, pick, plain, to_numbers
from pullback.data.dataset import UNNAMED, DataError, Dataset, numbered
from pullback.data.sources import (
    CHANNELS,
    Source,
    read_delimited,
    read_h5ad,
    read_npy,
    read_npz,
    read_parquet,
    read_zarr,
)
from pullback.validation import check_choice

READERS: dict[str, tuple[Callable[..., Source], tuple[str, ...]]] = {
    ".csv": (read_delimited, ("separator", "header")),
    ".csv.gz": (read_delimited, ("separator", "header")),
    ".tsv": (read_delimited, ("separator", "header")),
    ".tsv.gz": (read_delimited, ("separator", "header")),
    ".parquet": (read_parquet, ()),
    ".npy": (read_npy, ()),
    ".npz": (read_npz, ("key", "aside")),
    ".h5ad": (read_h5ad, ("layer",)),
    ".zarr": (read_zarr, ("key", "layer", "aside")),
}
SUFFIXES = tuple(READERS)


def read_table(
    path: str | os.PathLike,
    *,
    label: str | None = None,
    id: str | None = None,
    extra: str | Iterable[str] | None = None,
    drop: str | Iterable[str] = (),
    missing: Missing = "error",
    categorical: Categorical = "error",
    layer: str | None = None,
    key: str | None = None,
    separator: str | None = None,
    header: bool | Literal["auto"] | None = None,
    absent: Literal["error", "ignore"] = "error",
) -> Dataset:
    """Read .csv .tsv (also .gz), .parquet, .npy, .npz, .h5ad or .zarr; numbers and dtype stay as they are.

    Args:
        path: file, or folder for .zarr; arrays are ``(n, p)``, or images ``(n, h, w)`` or ``(n, c, h, w)``.
        label: column (obs column of AnnData, array of .npz) that holds ``y``.
        id: column that names the rows; by default a nameless first column of text files or the saved index.
        extra: columns to keep beside ``X``; by default all that are no features (obs columns, other arrays).
        drop: features to leave out.
        missing: ``"error"``, ``"drop"`` the rows, or impute the column's ``"mean"`` or ``"median"``.
        categorical: ``"error"``, or ``"onehot"`` for 0/1 columns named ``column=category``.
        layer: of an AnnData file; by default its ``X``.
        key: name of the array in .npz or a Zarr group with several.
        separator: of a text file; by default by its ending.
        absent: ``"ignore"`` reads rows, e.g. new ones to be encoded, without columns that are no features:
            label, id, extra and what is dropped.
        header: whether a text file's first row holds names; ``"auto"`` (default) refuses numbers there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: unknown ending, name or option; the message lists the valid ones.
        DataError: empty, ragged or truncated; a column of text or with gaps, named with its first row.
        ImportError: an extra is needed; the message is the line that installs it.

    Example:
        >>> import tempfile, pathlib
        >>> from pullback.data import read_table
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "cells.csv"
        >>> _ = path.write_text("id,kind,a,b\\ns1,T,1.0,2\\ns2,B,,3\\n")
        >>> table = read_table(path, id="id", label="kind", missing="mean")
        >>> table.X.tolist(), table.y.tolist()
        ([[1.0, 2.0], [1.0, 3.0]], ['T', 'B'])

    Gotchas:
        Sparse matrices are made dense: give an AnnData object to the estimator where that is too large.
    """
    check_choice("missing", missing, ("error", "drop", "mean", "median"))
    check_choice("categorical", categorical, ("error", "onehot"))
    check_choice("absent", absent, ("error", "ignore"))
    path = Path(path)
    suffix = _suffix(path)
    _check_present(path, suffix)
    reader, accepted = READERS[suffix]
    options = {"layer": layer, "key": key, "separator": separator, "header": header}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    for option in given:
        if option not in accepted:
            valid = ", ".join(ending for ending, (_, names) in READERS.items() if option in names)
            raise ValueError(f"{option}: only for {valid}, got it for {path.name}")
    kept = None if extra is None else _as_list(extra)
    if "aside" in accepted:
        given["aside"] = tuple(name for name in (label, id, *(kept or ())) if name is not None)
    source = reader(path, **given)
    dropped = _as_list(drop)
    if absent == "ignore":
        label, id = (name if name in source.beside else None for name in (label, id))
        kept = None if kept is None else [name for name in kept if name in source.beside]
        dropped = [name for name in dropped if name in _feature_names(source)]
    try:
        return _assemble(path, source, label, id, kept, dropped, missing, categorical)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _suffix(path: Path) -> str:
    fitting = [suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)]
    if not fitting:
        raise ValueError(f"path: expected a file that ends in {' '.join(SUFFIXES)}, got {path.name!r}")
    return fitting[0]


def _check_present(path: Path, suffix: str) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.is_dir() and suffix != ".zarr":
        raise IsADirectoryError(f"{path}: expected a file, got a folder")
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")


def _as_list(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _assemble(
    path: Path,
    source: Source,
    label: str | None,
    id: str | None,
    extra: list[str] | None,
    drop: list[str],
    missing: Missing,
    categorical: Categorical,
) -> Dataset:
    columns = source.beside
    named = {"label": label, "id": id}
    for argument, name in [*named.items(), *(("extra", name) for name in extra or ())]:
        if name is not None:
            pick(argument, name, columns, source.named)
    used = {name for name in named.values() if name is not None} | set(extra or ())
    if extra is None and not isinstance(source.values, pd.DataFrame):
        extra = [name for name in columns if name not in used]
    values, features, image_shape = _numbers(source, used, drop, categorical)
    if len(values) == 0:
        raise DataError("no rows")
    values, keep = fill_missing(values, features, missing)
    for argument, name in named.items():
        if name is not None:
            keep &= _present(argument, name, columns[name], len(values), missing)
    if not keep.any():
        raise DataError("no row without a gap is left")
    beside = {name: np.asarray(columns[name]) for name in used | set(extra or ())}
    if not keep.all():
        values = values[keep]
        beside = {name: array[keep] if len(array) == len(keep) else array for name, array in beside.items()}
    beside = {name: plain(array) for name, array in beside.items()}
    samples = source.samples[keep] if id is None and len(source.samples) else UNNAMED
    return Dataset(
        X=values,
        y=None if label is None else beside[label],
        features=features,
        samples=samples if id is None else beside[id].astype(str),
        extra={name: beside[name] for name in extra or ()},
        image_shape=image_shape,
        source=str(path),
        name=path.name[: -len(_suffix(path))],
    )


def _feature_names(source: Source) -> list[str]:
    """Names that features can be dropped by, where the file has none those that they are given."""
    if isinstance(source.values, pd.DataFrame):
        return [str(name) for name in source.values.columns]
    found = source.features if len(source.features) else numbered(int(np.prod(source.values.shape[1:])))
    return [str(name) for name in found]


def _numbers(
    source: Source, used: set[str], drop: list[str], categorical: Categorical
) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int] | None]:
    """The matrix, the names of its columns and the shape of its images."""
    if isinstance(source.values, pd.DataFrame):
        for name in drop:
            pick("drop", name, source.values.columns)
        frame = source.values.drop(columns=sorted(used | set(drop)))
        values, features = to_numbers(frame, categorical)
        return values, features, None
    values, image_shape = _as_matrix(source.values)
    features = source.features if len(source.features) else numbered(values.shape[1])
    if drop:
        kept = ~np.isin(features, [pick("drop", name, features, "feature") for name in drop])
        values, features, image_shape = values[:, kept], features[kept], None
    if values.shape[1] == 0:
        raise DataError("no numeric column is left to learn from")
    return values, features, image_shape


def _as_matrix(values: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int] | None]:
    if values.dtype.kind not in "biuf":
        raise DataError(f"expected real numbers, got an array of {values.dtype}")
    if values.ndim not in (2, 3, 4):
        raise DataError(f"expected an array (n, p), (n, h, w) or (n, c, h, w), got {values.shape}")
    if values.ndim == 4 and values.shape[3] in CHANNELS and values.shape[1] not in CHANNELS:
        raise DataError(f"expected images (n, c, h, w), got {values.shape}; use np.moveaxis(images, -1, 1)")
    native = np.uint8 if values.dtype.kind == "b" else values.dtype.newbyteorder("=")
    values = np.ascontiguousarray(values, dtype=native)
    if values.ndim == 2:
        return values, None
    channels, height, width = (1, *values.shape[1:])[-3:]
    return values.reshape(len(values), -1), (channels, height, width)


def _present(argument: str, name: str, column: Any, rows: int, missing: Missing) -> np.ndarray:
    """Rows where the label or id has a value: ``(n,)`` bool."""
    if np.shape(column) != (rows,):
        raise DataError(f"{argument} {name!r}: expected {rows} entries, got shape {np.shape(column)}")
    present = ~pd.isna(pd.Series(np.asarray(column))).to_numpy()
    if missing != "drop" and not present.all():
        row = int((~present).argmax())
        raise DataError(
            f"{argument} {name!r}: no value at row {row} (from 0); fill it or pass missing='drop'"
        )
    return present
