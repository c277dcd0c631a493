"""Results to a file, by its ending."""

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from gzip import GzipFile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pullback.data.columns import plain
from pullback.io import atomic_path

Writer = Callable[[Path, Mapping[str, np.ndarray]], None]


def write_table(path: str | os.PathLike, columns: Mapping[str, Any], *, overwrite: bool = False) -> Path:
    """Write named columns to .csv .tsv (also .gz), .parquet, .npy, .npz or .json, atomically.

    Args:
        path: file to write; its folder must exist.
        columns: arrays or tensors ``(n,)``, or ``(n, d)``: ``z`` becomes ``z1 .. zd`` in tables and stays
            whole in .npz and .json. .npy stacks all columns into one matrix and takes numbers only.
            NaN is an empty cell in text and ``null`` in JSON.
        overwrite: replace a file that is there.

    Returns:
        The path.

    Raises:
        FileExistsError: the file is there and ``overwrite`` is False.
        FileNotFoundError, PermissionError, IsADirectoryError: it cannot be written.
        ValueError: unknown ending, columns of different lengths, a name that occurs twice, text for .npy.

    Example:
        >>> import tempfile, pathlib
        >>> from pullback.data import write_table
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "codes.csv"
        >>> write_table(path, {"id": ["a", "b"], "z": [[0.5, 1.0], [1.5, 2.0]]}).read_text()
        'id,z1,z2\\na,0.5,1.0\\nb,1.5,2.0\\n'
    """
    path, write = check_table_path(path, overwrite=overwrite)
    arrays = _check_columns(columns)
    try:
        with atomic_path(path) as temporary:
            write(temporary, arrays)
    except PermissionError as error:
        raise PermissionError(
            f"{path}: cannot be written ({error.strerror}); choose another folder"
        ) from error
    return path


def check_table_path(path: str | os.PathLike, *, overwrite: bool) -> tuple[Path, Writer]:
    """The path and the writer of its ending; raise ``ValueError`` or ``OSError`` if it cannot be written."""
    path = Path(path)
    fitting = [suffix for suffix in WRITERS if path.name.lower().endswith(suffix)]
    if not fitting:
        raise ValueError(f"path: expected a file that ends in {' '.join(WRITERS)}, got {path.name!r}")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file, got a folder")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder; create it or choose another path")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path}: already there; overwrite it explicitly or choose another path")
    return path, WRITERS[fitting[0]]


def path_columns(
    points: Any, values: Any = None, *, pairs: Any = None, t: Any = None
) -> dict[str, np.ndarray]:
    """Curves in long format, one row a node, for `write_table`.

    Args:
        points: ``(m, nodes, d)`` latent points of m curves.
        values: ``(m, nodes, p)`` decoded points, or None.
        pairs: ``(m,)`` names of the curves; numbers from 0 by default.
        t: ``(nodes,)`` curve parameter; evenly spaced in [0, 1] by default.

    Returns:
        ``pair``, ``node``, ``t``, ``z`` ``(m nodes, d)`` and, where given, ``x`` ``(m nodes, p)``.
    """
    z = _as_array(points)
    if z.ndim != 3:
        raise ValueError(f"points: expected (m, nodes, d), got {z.shape}")
    curves, nodes, _ = z.shape
    parameter = np.linspace(0.0, 1.0, nodes) if t is None else _as_array(t)
    names = np.arange(curves) if pairs is None else _as_array(pairs)
    if parameter.shape != (nodes,):
        raise ValueError(f"t: expected ({nodes},), a number for each node, got {parameter.shape}")
    if names.shape != (curves,):
        raise ValueError(f"pairs: expected ({curves},), a name for each curve, got {names.shape}")
    columns = {
        "pair": np.repeat(names, nodes),
        "node": np.tile(np.arange(nodes), curves),
        "t": np.tile(parameter, curves),
        "z": z.reshape(curves * nodes, -1),
    }
    if values is not None:
        x = _as_array(values)
        if x.shape[:2] != (curves, nodes):
            raise ValueError(f"values: expected ({curves}, {nodes}, p) like the points, got {x.shape}")
        columns["x"] = x.reshape(curves * nodes, -1)
    return columns


def _as_array(value: Any) -> np.ndarray:
    return plain(value.detach().cpu() if hasattr(value, "detach") else value)


def _check_columns(columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {str(name): _as_array(value) for name, value in columns.items()}
    if not arrays:
        raise ValueError("columns: expected at least one column, got none")
    for name, array in arrays.items():
        if array.ndim not in (1, 2):
            raise ValueError(f"columns: expected (n,) or (n, d), got {array.shape} for {name!r}")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns: expected the same number of rows, got {lengths}")
    return arrays


def _flat(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        parts = (
            {name: array} if array.ndim == 1 else {f"{name}{i + 1}": part for i, part in enumerate(array.T)}
        )
        for part in parts:
            if part in flat:
                raise ValueError(f"columns: the name {part!r} occurs twice")
        flat |= parts
    return flat


def _write_text(separator: str, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    frame = pd.DataFrame(_flat(arrays))
    with path.open("wb") as stream:
        frame.to_csv(stream, sep=separator, index=False, lineterminator="\n", mode="wb")


def _write_packed(separator: str, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    frame = pd.DataFrame(_flat(arrays))
    # Neither a name nor a time in the header: the same columns give the same bytes.
    with path.open("wb") as stream, GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as packed:
        frame.to_csv(packed, sep=separator, index=False, lineterminator="\n", mode="wb")


def _write_parquet(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    pd.DataFrame(_flat(arrays)).to_parquet(path, index=False)


def _write_npy(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    text = [name for name, array in arrays.items() if array.dtype.kind == "U"]
    if text:
        raise ValueError(
            f"columns: .npy holds one matrix of numbers, got text in {text[0]!r}; write .npz or .parquet"
        )
    with path.open("wb") as stream:
        np.save(stream, np.column_stack(list(arrays.values())), allow_pickle=False)


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def _write_json(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    values = {name: _without_nan(array).tolist() for name, array in arrays.items()}
    path.write_text(json.dumps(values, allow_nan=False) + "\n")


def _without_nan(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    objects = array.astype(object)
    objects[~np.isfinite(array)] = None
    return objects


WRITERS: dict[str, Writer] = {
    ".csv": partial(_write_text, ","),
    ".csv.gz": partial(_write_packed, ","),
    ".tsv": partial(_write_text, "\t"),
    ".tsv.gz": partial(_write_packed, "\t"),
    ".parquet": _write_parquet,
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".json": _write_json,
}
