"""Readers of files and named sets, and the writer of result tables."""

from pullback.data.dataset import DataError, Dataset, DatasetNotInstalled
from pullback.data.named import available, describe, install_line, load, resolve
from pullback.data.output import path_columns, write_table
from pullback.data.sentences import sentence_states
from pullback.data.table import read_table

__all__ = [
    "DataError",
    "Dataset",
    "DatasetNotInstalled",
    "available",
    "describe",
    "install_line",
    "load",
    "path_columns",
    "read_table",
    "resolve",
    "sentence_states",
    "write_table",
]
