"""The graph that an embedding is trained on: from rows, distances or elsewhere; labels may count."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from torch import Tensor

from pullback.inputs import Table
from pullback.models.umap import check_graph, fuzzy_graph, intersect_labels
from pullback.validation import check_whole


@dataclass(frozen=True)
class GraphOptions:
    """How neighbours are found and how much labels count; see `pullback.ParametricUMAP`."""

    n_neighbors: Any
    metric: Any
    target_weight: float | int
    target_metric: Any
    projected: bool

    def __post_init__(self) -> None:
        check_whole("n_neighbors", self.n_neighbors, minimum=2)
        if not 0 <= self.target_weight <= 1:
            raise ValueError(f"target_weight: expected a number in [0, 1], got {self.target_weight}")


def make_graph(
    options: GraphOptions, table: Table, rows: Any, y: Any, *, graph: Any, distances: Any
) -> sparse.csr_matrix:
    """Memberships ``(n, n)``.

    Args:
        options: of the graph.
        table: the data.
        rows: what the encoder sees of them, used where it is scaled feature by feature or projected.
        y: labels, or None.
        graph: memberships made elsewhere, or None.
        distances: ``(n, n)``, for ``metric="precomputed"``.
    Raises:
        ValueError: distances without that metric or the other way round, both of them, or wrong shapes.
    """
    if graph is not None and distances is not None:
        raise ValueError("graph: expected either a graph or distances, got both")
    if distances is not None and options.metric != "precomputed":
        raise ValueError(
            f"distances: expected None with metric={options.metric!r}; pass metric='precomputed'"
        )
    if graph is not None:
        found = check_graph(graph, len(table))
    elif isinstance(options.metric, str) and options.metric == "precomputed":
        found = _from_distances(options, len(table), distances)
    else:
        found = fuzzy_graph(
            _compared_rows(options, table, rows), n_neighbors=options.n_neighbors, metric=options.metric
        )
    if y is None or options.target_weight == 0:
        return found
    return intersect_labels(
        found, y, target_weight=float(options.target_weight), target=options.target_metric
    )


def _from_distances(options: GraphOptions, n: int, distances: Any) -> sparse.csr_matrix:
    if distances is None:
        raise ValueError(
            "distances: expected (n, n) for metric='precomputed', got None; the encoder needs the features "
            "as X: fit(X, distances=distances)"
        )
    values = np.asarray(distances)
    if values.shape != (n, n):
        raise ValueError(f"distances: expected ({n}, {n}) for the {n} rows of X, got {values.shape}")
    return fuzzy_graph(values, n_neighbors=options.n_neighbors, metric="precomputed")


def _compared_rows(options: GraphOptions, table: Table, rows: Any) -> Tensor:
    """Rows whose distances count: as they came, unless they are scaled feature by feature or projected."""
    return rows if options.projected and isinstance(rows, Tensor) else table.rows(slice(None))
