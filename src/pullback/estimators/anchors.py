"""Rows of the training data that a learned metric is anchored at."""

from typing import Any

import numpy as np
from torch import Tensor

from pullback.estimators import targets
from pullback.estimators.counts import LogNormalise
from pullback.inputs import Table, read_input
from pullback.models.centroids import CHOICES, central_rows, select_centroids
from pullback.validation import check_choice, check_whole

DEFAULT_COUNT = 64
MOST_NUMBERS = 2**24
"""Numbers that are looked at to choose rows: 128 MiB in float64; of more rows, a random sample."""


def choose_anchors(estimator: Any, table: Table, seed: int) -> np.ndarray:
    """Rows ``(N, p)`` in data units, as ``centroids`` and ``n_centroids`` of the estimator say.

    Raises:
        ValueError: more centroids than training rows, an unknown choice, or rows of another width.
    """
    choice, count = estimator.centroids, estimator.n_centroids
    if count is not None:
        check_whole("n_centroids", count)
    if not isinstance(choice, str):
        return _given(estimator, choice, count, table)
    check_choice("centroids", choice, CHOICES)
    index = estimator.training_index_
    if count is not None and count > len(index):
        raise ValueError(
            f"n_centroids: expected at most {len(index)}, the number of training rows, got {count}"
        )
    wanted = min(DEFAULT_COUNT, len(index)) if count is None else int(count)
    if choice == "all":
        return table.rows(index).numpy()
    chance = np.random.RandomState(seed)
    most = max(wanted, MOST_NUMBERS // table.n_features)
    if choice == "random" or len(index) > most:
        index = np.sort(chance.choice(index, wanted if choice == "random" else most, replace=False))
    rows = table.rows(index)
    if choice == "random":
        return rows.numpy()
    scaled = estimator.scaling_.apply(rows)
    if choice == "kmeans":
        return estimator.scaling_.undo(
            select_centroids(scaled, wanted, "kmeans", random_state=chance)
        ).numpy()
    return rows[central_rows(_seen(estimator, scaled), wanted, random_state=chance)].numpy()


def _seen(estimator: Any, scaled: Tensor) -> Tensor:
    """What the encoder sees of scaled rows: of counts, not how many there are in all."""
    return scaled if estimator.library_ is None else LogNormalise(estimator.library_)(scaled)


def _given(estimator: Any, rows: Any, count: int | None, table: Table) -> np.ndarray:
    given = read_input(rows)
    if given.n_features != table.n_features:
        raise ValueError(f"centroids: expected {table.n_features} features like X, got {given.n_features}")
    if count is not None and count != len(given):
        raise ValueError(f"n_centroids: expected None or {len(given)}, the rows of centroids, got {count}")
    likelihood = targets.resolve_likelihood(estimator.likelihood, table.n_features)
    try:
        targets.check_targets(given, estimator.scaling_, likelihood)
    except ValueError as error:
        raise ValueError(f"centroids: {error}") from error
    return given.rows(slice(None)).to(table.dtype).numpy()
