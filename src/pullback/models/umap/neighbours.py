"""The nearest rows of a table, exactly, or by descent where there are many rows."""

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist
from torch import Tensor

from pullback.validation import check_choice, check_finite, check_whole

log = logging.getLogger(__name__)

Rows = np.ndarray | Tensor
MetricName = str | Callable[[np.ndarray, np.ndarray], float]
Found = tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]

ANGULAR = ("cosine", "correlation")
COMPARED = (
    *("braycurtis", "canberra", "chebyshev", "cityblock", "dice", "hamming", "jaccard", "jensenshannon"),
    *("minkowski", "rogerstanimoto", "russellrao", "sokalsneath", "sqeuclidean", "yule"),
)
SYNONYMS = {"l1": "cityblock", "l2": "euclidean", "manhattan": "cityblock"}
METRICS = ("euclidean", *ANGULAR, *COMPARED, *SYNONYMS, "precomputed")
"""Names of metrics; any function of two rows is one, too."""

EXACT_ROWS = 50_000
BLOCK_ENTRIES = 2**24
SPARE = 8
# Points whose distances agree to this part of them are tied: which of them are kept is open.
TIE = 1e-9


def nearest(
    X: Rows,
    k: int,
    *,
    metric: MetricName = "euclidean",
    method: Literal["auto", "exact", "approximate"] = "auto",
    random_state: int = 0,
) -> Found:
    """The k nearest rows of each row, itself first.

    Euclidean distances: |a - b|² = |a|² + |b|² - 2 a·b, a matrix product in float32 on centred rows, gives k
    + 8 candidates, whose distances are computed again from differences in float64. A row is finished if the
    nearest that was left out is farther than the k-th by more than the product's rounding, bounded by (10 + 4
    √p) u (|a| + |b|)² (Higham and Mary 2019, "A new approach to probabilistic rounding error analysis");
    other rows are done again in float64, and from differences throughout if that does not separate them
    either. Cosine and correlation are Euclidean distances of unit rows, d²/2.

    Args:
        X: rows (n, p), or distances (n, n) with ``metric="precomputed"``.
        k: neighbours of a row, the row itself counted.
        metric: one of `METRICS` or a function of two rows, which is slow.
        method: "exact", "approximate" (the extra ``pullback[umap]``), or "auto": exact up to 50 000 rows, and
            beyond if the extra is absent.
        random_state: seed of the approximate search.

    Returns: rows (n, k) and distances (n, k) in float64, nearest first, column 0 the row itself; of rows
        whose distances agree to 1e-9 any may be kept.

    Raises:
        TypeError, ValueError: X that is no table of finite numbers, k above n, an unknown metric, rows that
            a metric cannot compare.
        ModuleNotFoundError: "approximate" without the extra.

    Example:
        >>> import numpy as np
        >>> rows, distances = nearest(np.array([[0.0], [1.0], [3.0]]), 2)
        >>> rows.tolist(), distances.tolist()
        ([[0, 1], [1, 0], [2, 1]], [[0.0, 1.0], [0.0, 1.0], [0.0, 2.0]])
    """
    table = _checked_table(X)
    check_whole("k", k)
    if k > len(table):
        raise ValueError(f"k: expected at most the {len(table)} rows, got {k}")
    check_choice("method", method, ("auto", "exact", "approximate"))
    if not callable(metric):
        check_choice("metric", metric, METRICS)
        metric = SYNONYMS.get(metric, metric)
    if metric == "precomputed":
        return _of_distances(_checked_distances(table), k)
    if _descends(method, len(table), metric):
        return _by_descent(table, k, metric, random_state)
    if metric == "euclidean":
        return _euclidean(table, torch.arange(len(table), device=table.device), k)
    if metric in ANGULAR:
        index, distance = _euclidean(
            _unit_rows(table, str(metric)), torch.arange(len(table), device=table.device), k
        )
        return index, distance**2 / 2
    return _compared(table.cpu().numpy(), k, metric)


def _checked_table(X: Rows) -> Tensor:
    """X as a matrix of float32 or float64."""
    if not isinstance(X, np.ndarray | Tensor):
        raise TypeError(f"X: expected an array or tensor (n, p), got {type(X).__name__}")
    # torch shares memory, and warns where that is read-only
    table = torch.as_tensor(X if isinstance(X, Tensor) or X.flags.writeable else X.copy())
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"X: expected (n, p) with at least one row and column, got {tuple(table.shape)}")
    if table.is_complex():
        raise TypeError("X: expected real numbers, got complex ones")
    if table.dtype not in (torch.float32, torch.float64):
        table = table.to(torch.float32 if table.is_floating_point() else torch.float64)
    check_finite("X", table)
    return table.detach()


def _checked_distances(table: Tensor) -> np.ndarray:
    distances = table.cpu().numpy()
    if distances.shape[0] != distances.shape[1]:
        raise ValueError(f"X: expected distances (n, n) with metric='precomputed', got {distances.shape}")
    if distances.min() < 0:
        raise ValueError(f"X: expected distances >= 0, got {distances.min()}")
    if distances.diagonal().any():
        row = int(distances.diagonal().nonzero()[0][0])
        raise ValueError(f"X: expected distance 0 of a row to itself, got {distances[row, row]} in row {row}")
    return distances


def _descends(method: str, n: int, metric: MetricName) -> bool:
    """Whether to search by descent."""
    present = find_spec("pynndescent") is not None
    if method == "approximate" and not present:
        raise ModuleNotFoundError(
            "method='approximate' needs pynndescent: pip install 'pullback[umap]'", name="pynndescent"
        )
    if method == "auto" and n > EXACT_ROWS and not present:
        log.info("%d rows: neighbours are searched exactly; pip install 'pullback[umap]' is faster", n)
    return method == "approximate" or (
        method == "auto" and n > EXACT_ROWS and present and not callable(metric)
    )


def _euclidean(table: Tensor, rows: Tensor, k: int, dtype: torch.dtype | None = torch.float32) -> Found:
    """The k nearest of ``rows``; products in ``dtype``, None compares differences alone."""
    n = len(table)
    index = np.empty((len(rows), k), dtype=np.int64)
    distance = np.empty((len(rows), k))
    if dtype is None:
        return _compared(table.cpu().numpy(), k, "euclidean", rows.cpu().numpy())
    # In float64, since the mean of large numbers in float32 would not centre them.
    centred = (table - table.mean(0, dtype=torch.float64)).to(dtype)
    norms = centred.square().sum(1)
    slack = (10 + 4 * centred.shape[1] ** 0.5) * torch.finfo(dtype).eps / 2
    kept = min(k + SPARE, n)
    open_ = []
    size = max(1, BLOCK_ENTRIES // n)
    for first in range(0, len(rows), size):
        own = rows[first : first + size]
        squares = torch.addmm(norms, centred[own], centred.T, alpha=-2).add_(norms[own, None])
        squares[torch.arange(len(own), device=own.device), own] = -torch.inf
        near, column = squares.topk(kept, dim=1, largest=False)
        column = column.sort(1).values
        exact = _differences(table, own, column)
        # itself first, whatever else lies on the same spot
        order = exact.masked_fill(column == own[:, None], -1.0).argsort(dim=1, stable=True)[:, :k]
        last = exact.gather(1, order[:, -1:])[:, 0]
        index[first : first + size] = column.gather(1, order).cpu().numpy()
        distance[first : first + size] = exact.gather(1, order).cpu().numpy()
        if kept < n:
            reach = norms[own].double().sqrt() + norms.max().double().sqrt()
            bound = near[:, -1].double() - slack * reach**2
            unsure = (bound < last**2 * (1 - TIE)) & (last > 0)
            open_.append(unsure.nonzero()[:, 0] + first)
    again = torch.cat(open_) if open_ else rows[:0]
    if len(again):
        place = again.cpu().numpy()
        finer = torch.float64 if dtype == torch.float32 else None
        index[place], distance[place] = _euclidean(table, rows[again], k, finer)
    return index, distance


def _differences(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Distances in float64 of rows (c,) to columns (c, m), without a product that could cancel."""
    out = torch.empty(columns.shape, dtype=torch.float64, device=table.device)
    size = max(1, BLOCK_ENTRIES // 8 // (columns.shape[1] * table.shape[1]))
    for part in torch.arange(len(rows), device=rows.device).split(size):
        between = table[columns[part]].double() - table[rows[part], None].double()
        out[part] = torch.linalg.vector_norm(between, dim=2)
    return out


def _unit_rows(table: Tensor, metric: str) -> Tensor:
    """Rows of length one, float64; their own mean removed for correlation."""
    rows = table.double()
    if metric == "correlation":
        rows = rows - rows.mean(1, keepdim=True)
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    if not bool(length.all()):
        row = int((length[:, 0] == 0).nonzero()[0])
        what = "constant" if metric == "correlation" else "zero"
        raise ValueError(f"X: row {row} is {what}, so that metric={metric!r} cannot compare it; leave it out")
    return rows / length


def _compared(table: np.ndarray, k: int, metric: Any, rows: np.ndarray | None = None) -> Found:
    """The k nearest by distances that are computed one by one."""
    rows = np.arange(len(table)) if rows is None else rows
    index = np.empty((len(rows), k), dtype=np.int64)
    distance = np.empty((len(rows), k))
    size = max(1, BLOCK_ENTRIES // 4 // len(table))
    for first in range(0, len(rows), size):
        own = rows[first : first + size]
        block = slice(first, first + size)
        index[block], distance[block] = _smallest(cdist(table[own], table, metric), own, k, str(metric))
    return index, distance


def _of_distances(distances: np.ndarray, k: int) -> Found:
    return _smallest(distances.astype(np.float64), np.arange(len(distances)), k, "precomputed")


def _smallest(distances: np.ndarray, own: np.ndarray, k: int, metric: str) -> Found:
    """The k smallest of each row of distances, the row itself first."""
    if not np.isfinite(distances).all():
        row, column = np.argwhere(~np.isfinite(distances))[0]
        raise ValueError(
            f"X: metric={metric!r} gives {distances[row, column]} between rows {own[row]} and {column}"
        )
    keys = distances.copy()
    keys[np.arange(len(own)), own] = -1.0
    column = np.sort(np.argpartition(keys, k - 1, axis=1)[:, :k], axis=1)
    order = np.take_along_axis(keys, column, 1).argsort(axis=1, kind="stable")
    column = np.take_along_axis(column, order, 1)
    return column, np.take_along_axis(distances, column, 1)


def _by_descent(table: Tensor, k: int, metric: MetricName, seed: int) -> Found:
    """Neighbours by descent over a graph of neighbours, the row itself put first."""
    from pynndescent import NNDescent  # pyright: ignore[reportMissingImports]

    rows = table.cpu().numpy().astype(np.float32)
    index, distance = NNDescent(rows, metric=metric, n_neighbors=k, random_state=seed).neighbor_graph
    index, distance = np.array(index, dtype=np.int64), np.array(distance, dtype=np.float64)
    own = np.arange(len(rows))[:, None]
    lost = (index < 0).any(1)
    if metric == "euclidean":
        known = torch.from_numpy(np.maximum(index, 0)).to(table.device)
        everyone = torch.arange(len(table), device=table.device)
        distance = _differences(table, everyone, known).cpu().numpy()
    missing = ~(index == own).any(1)
    index[missing, -1], distance[missing, -1] = own[missing, 0], 0.0
    order = np.where(index == own, -1.0, distance).argsort(axis=1, kind="stable")
    index, distance = np.take_along_axis(index, order, 1), np.take_along_axis(distance, order, 1)
    if lost.any():
        index[lost], distance[lost] = _compared(table.cpu().numpy(), k, metric, np.flatnonzero(lost))
    return index, distance
