"""The sets that scikit-learn carries: always there."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from pullback.data.carrier import NamedSet
from pullback.data.dataset import Dataset


def _read(loader: Callable[[], Any], image_shape: tuple[int, int, int] | None, strict: bool) -> Dataset:
    bunch = loader()
    return Dataset(
        X=bunch.data,
        y=bunch.target_names[bunch.target],
        features=np.asarray(bunch.feature_names, dtype=str),
        extra={"class": bunch.target},
        image_shape=image_shape,
    )


def _set(
    name: str, content: str, loader: Callable[[], Any], image_shape: tuple[int, int, int] | None = None
) -> NamedSet:
    return NamedSet(
        name=name,
        content=content,
        licence="BSD-3-Clause (scikit-learn)",
        source=f"scikit-learn, sklearn.datasets.{loader.__name__}; UCI Machine Learning Repository",
        install="pip install scikit-learn",
        read=partial(_read, loader, image_shape),
    )


SETS = (
    _set("digits", "1797 handwritten digits of 8 x 8 pixels, 0 to 16", load_digits, (1, 8, 8)),
    _set("wine", "178 wines of 3 cultivars, 13 measurements", load_wine),
    _set("breast_cancer", "569 tumours, malignant or benign, 30 measurements", load_breast_cancer),
    _set("iris", "150 irises of 3 species, 4 measurements", load_iris),
)
