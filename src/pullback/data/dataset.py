"""What every reader returns: a matrix with names, labels, and where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

UNNAMED = np.empty(0, dtype=str)
"""In place of names that a file does not have."""


class DataError(ValueError):
    """A file does not hold what it should."""


class DatasetNotInstalled(FileNotFoundError):
    """A named set is absent; the message is the line that installs it."""


def numbered(columns: int) -> np.ndarray:
    """Names of columns that have none: ``x1 .. xp``."""
    return np.array([f"x{i + 1}" for i in range(columns)], dtype=str)


@dataclass(frozen=True, repr=False, eq=False)
class Dataset:
    """A data matrix as its file holds it: same numbers, same dtype.

    Attributes:
        X: ``(n, p)`` numbers; images are flattened, see ``image_shape``.
        y: ``(n,)`` labels, or None.
        features: ``(p,)`` names of the columns; ``x1 .. xp`` where the file has none.
        samples: ``(n,)`` names of the rows; their numbers from 0 where the file has none.
        extra: other named arrays of the file.
        image_shape: ``(c, h, w)`` where the rows are images.
        licence: of the data, as found in the package that carries them; empty for a user's file.
        source: where the data come from.
        name: of the set, or the file's name without its ending.
    """

    X: np.ndarray
    y: np.ndarray | None = None
    features: np.ndarray = field(default_factory=lambda: UNNAMED)
    samples: np.ndarray = field(default_factory=lambda: UNNAMED)
    extra: Mapping[str, Any] = field(default_factory=dict)
    image_shape: tuple[int, int, int] | None = None
    licence: str = ""
    source: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        rows, columns = self.X.shape
        if len(self.features) == 0:
            object.__setattr__(self, "features", numbered(columns))
        if len(self.samples) == 0:
            object.__setattr__(self, "samples", np.arange(rows).astype(str))
        for name, value, expected in (
            ("features", self.features, columns),
            ("samples", self.samples, rows),
            ("y", self.y, rows),
        ):
            if value is not None and len(value) != expected:
                raise ValueError(
                    f"{name}: expected {expected} entries for X {self.X.shape}, got {len(value)}"
                )

    def frame(self) -> pd.DataFrame:
        """``X`` with the names of its rows and columns."""
        return pd.DataFrame(self.X, index=self.samples, columns=self.features)

    def __repr__(self) -> str:
        labels = "" if self.y is None else f", {len(np.unique(self.y))} distinct labels"
        rows, columns = self.X.shape
        return f"Dataset({self.name!r}, {rows} x {columns} {self.X.dtype}{labels})"
