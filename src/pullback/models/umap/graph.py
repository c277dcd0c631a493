"""The fuzzy graph of a table's neighbours: which rows belong together, and how much."""

import warnings

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from pullback.models.umap.neighbours import MetricName, Rows, nearest
from pullback.validation import check_whole

BISECTIONS = 64
SMALLEST_SCALE = 1e-3
SYMMETRY = 1e-6


def fuzzy_graph(X: Rows, *, n_neighbors: int = 15, metric: MetricName = "euclidean") -> sparse.csr_matrix:
    """The symmetric graph of memberships of a table's rows.

    Each row i sees its neighbour j with membership w_ij = exp(-max(d_ij - ρ_i, 0) / σ_i), see `local_scales`;
    an edge is there if either end sees the other, independently: W + Wᵀ - W ∘ Wᵀ.

    McInnes, Healy and Melville 2018, "UMAP: uniform manifold approximation and projection".

    Args:
        X: rows (n, p), n at least 3, or distances (n, n) with ``metric="precomputed"``.
        n_neighbors: neighbours that a row sees, itself counted; at most n are used, with a warning.
        metric: as in `nearest`.
    Returns: (n, n), float64, entries in (0, 1], nothing on the diagonal.
    Raises:
        TypeError, ValueError: as `nearest`, fewer than 3 rows or 2 neighbours.
    Example:
        >>> import numpy as np
        >>> fuzzy_graph(np.array([[0.0], [1.0], [3.0], [4.0]]), n_neighbors=2).toarray()
        array([[0., 1., 0., 0.],
               [1., 0., 0., 0.],
               [0., 0., 0., 1.],
               [0., 0., 1., 0.]])
    """
    check_whole("n_neighbors", n_neighbors, minimum=2)
    n = len(X)
    if n < 3:
        raise ValueError(f"X: needs at least 3 samples, got {n}")
    if n_neighbors > n:
        warnings.warn(f"n_neighbors={n_neighbors} is cut to the {n} rows", UserWarning, stacklevel=2)
    return graph_of(*nearest(X, min(n_neighbors, n), metric=metric))


def graph_of(indices: Int[np.ndarray, "n k"], distances: Float[np.ndarray, "n k"]) -> sparse.csr_matrix:
    """The graph of `fuzzy_graph` from neighbours that are known; a row may be among its own, anywhere.

    Args:
        indices: rows (n, k) in 0..n-1.
        distances: to them, finite and not negative, (n, k).
    Raises:
        ValueError: shapes that differ, rows that are not there, distances that are none.
    """
    if indices.ndim != 2 or indices.shape != distances.shape:
        raise ValueError(f"distances: expected (n, k) = {indices.shape} as indices, got {distances.shape}")
    n = len(indices)
    if indices.min() < 0 or indices.max() >= n:
        raise ValueError(f"indices: expected rows 0 to {n - 1}, got {indices.min()} to {indices.max()}")
    if not np.isfinite(distances).all() or distances.min() < 0:
        raise ValueError("distances: expected finite numbers >= 0")
    distances = distances.astype(np.float64)
    rho, sigma = local_scales(indices, distances)
    strength = np.exp(-np.maximum(distances - rho[:, None], 0) / sigma[:, None])
    strength[_own(indices)] = 0
    start = np.arange(0, indices.size + 1, indices.shape[1])
    return fuzzy_union(sparse.csr_matrix((strength.ravel(), indices.ravel(), start), shape=(n, n)))


def local_scales(
    indices: Int[np.ndarray, "n k"], distances: Float[np.ndarray, "n k"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """ρ_i, the smallest positive distance of a row, and its scale σ_i.

    Σ_{j≠i} exp(-max(d_ij - ρ_i, 0) / σ_i) = log2 k.

    σ is found by bisection and is at least 1e-3 of the row's mean distance (of all distances where ρ_i = 0),
    so that rows with many copies do not shrink to nothing.
    """
    n, k = indices.shape
    positive = np.where(distances > 0, distances, np.inf).min(1)
    rho = np.where(np.isfinite(positive), positive, 0.0)
    beyond = np.maximum(distances - rho[:, None], 0)
    beyond[_own(indices)] = np.inf
    row = np.repeat(np.arange(n), k)
    sigma = bisected_scales(row, beyond.ravel(), np.full(n, np.log2(k)))
    mean = np.where(rho > 0, distances.mean(1), distances.mean())
    # Where all distances are 0 no scale is needed, and none must be divided by.
    return rho, np.maximum(np.maximum(sigma, SMALLEST_SCALE * mean), np.finfo(np.float64).tiny)


def bisected_scales(
    row: Int[np.ndarray, " m"], beyond: Float[np.ndarray, " m"], wanted: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """σ of each row with Σ exp(-beyond / σ) = wanted over its entries; the bound if there is none."""
    low, high, sigma = np.zeros(len(wanted)), np.full(len(wanted), np.inf), np.ones(len(wanted))
    with np.errstate(over="ignore", under="ignore"):
        for _ in range(BISECTIONS):
            total = np.bincount(row, np.exp(-beyond / sigma[row]), len(wanted))
            above = total > wanted
            high, low = np.where(above, sigma, high), np.where(above, low, sigma)
            sigma = np.where(np.isfinite(high), (low + high) / 2, 2 * sigma)
    return sigma


def fuzzy_union(directed: sparse.csr_matrix) -> sparse.csr_matrix:
    """W + Wᵀ - W ∘ Wᵀ: the edge is there if one end or the other says so."""
    other = directed.T.tocsr()
    union = sparse.csr_matrix(directed + other - directed.multiply(other))
    np.minimum(union.data, 1.0, out=union.data)  # rounding may lead beyond
    union.eliminate_zeros()
    union.sort_indices()
    return union


def check_graph(graph: object, n: int) -> sparse.csr_matrix:
    """A graph that was made elsewhere, as CSR in float64 without its diagonal, which exerts no force.

    Args:
        graph: (n, n), SciPy sparse or an array: symmetric, finite, not negative.
        n: rows of the data.
    Raises:
        TypeError, ValueError: anything else, or a graph without edges.
    Example:
        >>> import numpy as np
        >>> check_graph(np.ones((3, 3)), 3).nnz
        6
    """
    if not sparse.issparse(graph) and not isinstance(graph, np.ndarray):
        raise TypeError(f"graph: expected a SciPy sparse matrix or an array, got {type(graph).__name__}")
    checked = sparse.csr_matrix(graph, dtype=np.float64, copy=True)
    if checked.shape != (n, n):
        raise ValueError(f"graph: expected ({n}, {n}) for the {n} rows of X, got {checked.shape}")
    checked.sum_duplicates()
    if not np.isfinite(checked.data).all():
        raise ValueError("graph: expected finite weights, got NaN or infinity")
    if checked.nnz and checked.data.min() < 0:
        raise ValueError(f"graph: expected weights >= 0, got {checked.data.min()}")
    gap = abs(checked - checked.T)
    if gap.nnz and gap.max() > SYMMETRY * checked.max():
        row, column = np.unravel_index(int(gap.argmax()), gap.shape)
        raise ValueError(
            f"graph: expected a symmetric matrix, got {checked[row, column]} at ({row}, {column}) and "
            f"{checked[column, row]} across; a union is graph + graph.T - graph.multiply(graph.T)"
        )
    checked.setdiag(0)
    checked.eliminate_zeros()
    if not checked.nnz:
        raise ValueError("graph: expected edges between rows, got none")
    return checked


def _own(indices: np.ndarray) -> np.ndarray:
    """Where a row is named as its own neighbour; not always in the first column, if rows are equal."""
    return indices == np.arange(len(indices))[:, None]
