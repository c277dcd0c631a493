"""One function per file format: from a path to numbers, names and what lies beside them."""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pullback.data.columns import plain
from pullback.data.dataset import UNNAMED, DataError

logger = logging.getLogger(__name__)

BLOCK = 1 << 24
"""Bytes of text parsed at a time: a row of tens of thousands of columns takes half a megabyte."""
CHANNELS = (1, 3, 4)
BIO = 'pip install "pullback[bio]"'


@dataclass(frozen=True)
class Source:
    """What a file holds, before labels are taken, features dropped and gaps filled.

    Attributes:
        values: a DataFrame where columns have types of their own, else ``(n, ...)`` numbers.
        features: names of the columns of an array.
        samples: names of the rows.
        beside: named columns for label, id and extra; for a DataFrame its own columns.
        named: what ``beside`` is called in messages.
    """

    values: pd.DataFrame | np.ndarray
    features: np.ndarray = field(default_factory=lambda: UNNAMED)
    samples: np.ndarray = field(default_factory=lambda: UNNAMED)
    beside: Mapping[str, Any] | pd.DataFrame = field(default_factory=dict)
    named: str = "column"


def read_delimited(
    path: Path, *, separator: str | None = None, header: bool | Literal["auto"] = "auto"
) -> Source:
    """Comma- or tab-separated text, gzipped or not; every row must have as many cells as the first."""
    separator = separator or ("\t" if ".tsv" in path.name.lower() else ",")
    if len(separator) != 1:
        raise ValueError(f"separator: expected one character, got {separator!r}")
    try:
        # One thread: only then does the parser know the number of a bad row.
        compression = "gzip" if path.name.lower().endswith(".gz") else None
        table = pyarrow.csv.read_csv(
            pa.input_stream(str(path), compression=compression),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, block_size=BLOCK, autogenerate_column_names=header is False
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True),
        )
        names = [str(i) for i in range(table.num_columns)] if header is False else table.column_names
    except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: not readable as a table separated by {separator!r}: {error}") from error
    for name, column in zip(names, table.columns, strict=True):
        if pa.types.is_binary(column.type):
            raise DataError(f"{path}: column {name!r} is not UTF-8 text; save the file as UTF-8")
    if header == "auto":
        _check_header(path, names)
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise DataError(f"{path}: one column named {names[0]!r}; pass separator=';' or '\\t'")
    table = table.rename_columns(names)
    if names[0] == "" and len(names) > 1:
        # Row names, as pandas and R write them.
        samples = plain(table.column(0).to_pandas())
        return _frame_source(path, table.remove_column(0), samples)
    return _frame_source(path, table)


def _check_header(path: Path, names: list[str]) -> None:
    if names != [str(i) for i in range(len(names))] and all(map(_is_number, names)):
        raise DataError(
            f"{path}: the first row holds only numbers ({', '.join(names[:3])}, ...); pass header=False "
            "if it is data, header=True if it names the columns"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _frame_source(path: Path, table: pa.Table, samples: np.ndarray = UNNAMED) -> Source:
    check_unique(path, table.column_names)
    if "" in table.column_names:
        raise DataError(f"{path}: column {table.column_names.index('')} has no name")
    frame = table.to_pandas()
    if isinstance(frame.index, pd.MultiIndex):
        raise DataError(
            f"{path}: expected one index, got {frame.index.nlevels} levels; use reset_index() before saving"
        )
    if not isinstance(frame.index, pd.RangeIndex):
        samples = plain(frame.index)
    return Source(values=frame, samples=samples, beside=frame)


def check_unique(path: Path, names: Any, hint: str = "") -> None:
    """Raise `DataError` naming a column that occurs twice."""
    index = pd.Index(names)
    if index.has_duplicates:
        raise DataError(f"{path}: column {index[index.duplicated()][0]!r} occurs more than once{hint}")


def read_parquet(path: Path) -> Source:
    """Parquet; a pandas index that is no plain count names the rows."""
    try:
        # One thread: starting a pool over tens of thousands of columns costs ten times the reading.
        with pyarrow.parquet.ParquetFile(path) as file:
            table = file.read(use_threads=False)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not readable as Parquet: {error}") from error
    return _frame_source(path, table)


def read_npy(path: Path) -> Source:
    """One NumPy array, ``(n, p)`` or images."""
    return Source(values=_load_numpy(path), named="array")


def read_npz(path: Path, *, key: str | None = None, aside: tuple[str, ...] = ()) -> Source:
    """Named NumPy arrays: one is the data, the others lie beside it."""
    return _choose_array(path, _load_numpy(path), key, aside)


def _load_numpy(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, OSError, BadZipFile) as error:
        told = str(error).split(" using `allow_pickle", maxsplit=1)[0]  # pickles run what is in them
        raise DataError(f"{path}: not readable as a NumPy file without pickled objects: {told}") from error


def _choose_array(path: Path, arrays: Mapping[str, Any], key: str | None, aside: tuple[str, ...]) -> Source:
    left = [name for name in arrays if name not in aside]
    if key is None and len(left) != 1:
        raise ValueError(f"key: expected the name of one array of {path.name}: {', '.join(map(repr, left))}")
    if key is not None and key not in arrays:
        raise ValueError(f"key: expected one of {', '.join(map(repr, arrays))}, got {key!r}")
    key = key or left[0]
    beside = {name: np.asarray(arrays[name]) for name in arrays if name != key}
    return Source(values=np.asarray(arrays[key]), beside=beside, named="array")


def read_h5ad(path: Path, *, layer: str | None = None) -> Source:
    """AnnData on HDF5; needs the extra ``bio``. Sparse matrices are made dense."""
    anndata = _import_anndata(path)
    try:
        with warnings.catch_warnings(record=True) as notices:  # anndata's, about files of old layout
            warnings.simplefilter("always")
            table = anndata.read_h5ad(path)
    except OSError as error:
        raise DataError(f"{path}: not readable as .h5ad: {error}") from error
    for notice in notices:
        logger.info("%s: %s", path, " ".join(str(notice.message).split()))
    return _from_anndata(path, table, layer)


def read_zarr(
    path: Path, *, key: str | None = None, layer: str | None = None, aside: tuple[str, ...] = ()
) -> Source:
    """A Zarr array, a group of arrays, or an AnnData store; needs the extra ``bio``."""
    try:
        import zarr
    except ImportError as error:
        raise ImportError(f"{path}: reading .zarr needs zarr; {BIO}") from error
    try:
        node: Any = zarr.open(str(path), mode="r")
    except FileNotFoundError as error:
        raise DataError(f"{path}: not a Zarr array or group: {error}") from error
    if node.attrs.get("encoding-type") == "anndata":
        if key is not None:
            raise ValueError(f"key: {path.name} is an AnnData store; choose a matrix by layer")
        return _from_anndata(path, _import_anndata(path).read_zarr(str(path)), layer)
    if layer is not None:
        raise ValueError(f"layer: {path.name} is no AnnData store; choose an array by key")
    if isinstance(node, zarr.Array):
        return Source(values=np.asarray(node[...]), named="array")
    return _choose_array(path, {name: array[...] for name, array in node.arrays()}, key, aside)


def _import_anndata(path: Path) -> Any:
    try:
        import anndata
    except ImportError as error:
        raise ImportError(f"{path}: reading AnnData needs anndata; {BIO}") from error
    return anndata


def _from_anndata(path: Path, table: Any, layer: str | None) -> Source:
    if layer is not None and layer not in table.layers:
        names = ", ".join(map(repr, table.layers)) or "none"
        raise ValueError(f"layer: expected one of those of {path.name} ({names}), got {layer!r}")
    matrix = table.X if layer is None else table.layers[layer]
    if matrix is None:
        raise DataError(f"{path}: has no X; pass layer, one of {', '.join(map(repr, table.layers))}")
    check_unique(path, table.var_names, "; make them unique with adata.var_names_make_unique()")
    return Source(
        values=matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix),
        features=np.asarray(table.var_names, dtype=str),
        samples=np.asarray(table.obs_names, dtype=str),
        beside=table.obs,
        named="obs column",
    )
