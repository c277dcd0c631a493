"""Labels of samples as something to colour by: categories or numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pullback.plots.style import MAX_CATEGORIES

MISSING = "missing"


@dataclass(frozen=True)
class Labels:
    """Labels of n samples: ``values`` are indices into ``categories``, or numbers where that is empty."""

    name: str
    values: np.ndarray  # (n,), float64 for numbers (NaN where missing), int64 for categories
    categories: tuple[str, ...]
    merged: int = 0  # how many rare categories were put together in the last one

    @property
    def numeric(self) -> bool:
        """Whether the labels are numbers on a scale."""
        return not self.categories

    def take(self, rows: Any) -> "Labels":
        """The labels of some rows."""
        return Labels(self.name, self.values[rows], self.categories, self.merged)


def _is_scale(array: np.ndarray) -> bool:
    if array.dtype.kind == "f":
        finite = array[np.isfinite(array)]
        whole = bool((finite == np.round(finite)).all())
        return not (whole and len(np.unique(finite)) <= MAX_CATEGORIES)
    return array.dtype.kind in "iu" and len(np.unique(array)) > MAX_CATEGORIES


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return MISSING
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def read_labels(labels: np.ndarray, name: str = "label") -> Labels:
    """Decide what labels are: numbers with more than 20 distinct values are a scale, all else is categories.

    The rarest of more than 20 categories are put together in the last one.
    """
    if labels.dtype.kind not in "biufOSUT":
        labels = labels.astype(str)
    if _is_scale(labels):
        return Labels(name, labels.astype(np.float64), ())
    values = labels.tolist()
    distinct = {value for value in values if _text(value) != MISSING}
    numeric = all(isinstance(value, (int, float)) for value in distinct)
    names = [_text(value) for value in (sorted(distinct) if numeric else sorted(distinct, key=_text))]
    texts = np.array([_text(value) for value in values], dtype=object)
    if (texts == MISSING).any() and MISSING not in names:
        names.append(MISSING)
    names = list(dict.fromkeys(names))
    merged = 0
    if len(names) > MAX_CATEGORIES:
        counts = dict.fromkeys(names, 0)
        for text in texts:
            counts[text] += 1
        kept = set(sorted(names, key=lambda text: -counts[text])[: MAX_CATEGORIES - 1])
        merged = len(names) - len(kept)
        names = [text for text in names if text in kept] + [f"{merged} rarer ones"]
    index = {text: i for i, text in enumerate(names)}
    codes = np.array([index.get(text, len(names) - 1) for text in texts], dtype=np.int64)
    return Labels(name, codes, tuple(names), merged)
