"""Targets of some or all rows in the graph: an edge holds if the data and the target both say so."""

import numbers
from typing import Any, Literal

import numpy as np
from scipy import sparse

from pullback.models.umap.graph import SMALLEST_SCALE, bisected_scales, fuzzy_union
from pullback.validation import check_choice

UNKNOWN_DISTANCE = 1.0
FARTHEST = 2.5
Target = Literal["auto", "categorical", "continuous"]


def intersect_labels(
    graph: sparse.csr_matrix, y: Any, *, target_weight: float = 0.5, target: Target = "auto"
) -> sparse.csr_matrix:
    """The fuzzy intersection of the data's graph with what is known of a target.

    Memberships of independent statements multiply: w_ij v_ij, where v_ij is the membership by the target.

    Categories: v = 1 for the same, exp(-1) if either is unknown, exp(-2.5 / (1 - t)) if they differ, with t
    the ``target_weight``: .082, .0067 and 0 at t = 0, .5 and 1.
    Numbers: v is the fuzzy set of the target along the edges of the graph: each row measures |y_i - y_j| to
    its neighbours by ρ_i, the smallest positive one, and a scale σ_i that lets the k memberships
    exp(-max(|y_i - y_j| - ρ_i, 0) / σ_i) sum to log2(k + 1), and the two ends are united; exp(-1) if either
    is unknown. The weight of both sides is w^min(1, (1-t)/t) v^min(1, t/(1-t)).

    Afterwards each row is divided by its largest membership, so that its nearest neighbour stays certain
    whatever its label, and both directions are united as in `fuzzy_graph`.

    Args:
        graph: symmetric memberships, (n, n).
        y: categories (integers with -1, or any labels with None or NaN, for unknown) or numbers (NaN for
            unknown; columns of several numbers (n, q) are compared by their Euclidean distance).
        target_weight: t in [0, 1]; 0 leaves the data nearly alone, 1 trusts the target alone.
        target: "auto" takes numbers that are not all whole for continuous and all else for categories.
    Returns: (n, n), entries in (0, 1]; its edges are among those of ``graph``.
    Raises:
        ValueError: another number of rows, a weight outside [0, 1], infinite numbers, a continuous target
            that holds no numbers.
    Example:
        >>> from scipy import sparse
        >>> graph = sparse.csr_matrix([[0, 1, 0.5], [1, 0, 1], [0.5, 1, 0]])
        >>> intersect_labels(graph, [0, 0, 1]).toarray().round(3)
        array([[0.   , 1.   , 0.503],
               [1.   , 0.   , 1.   ],
               [0.503, 1.   , 0.   ]])
    """
    check_choice("target", target, ("auto", "categorical", "continuous"))
    if not 0 <= target_weight <= 1:
        raise ValueError(f"target_weight: expected a number in [0, 1], got {target_weight}")
    n = len(graph.indptr) - 1
    labels = y if hasattr(y, "ndim") else np.asarray(y, dtype=object)
    labels = np.asarray(labels)
    if labels.ndim not in (1, 2) or len(labels) != n:
        raise ValueError(f"y: expected {n} labels, one for each row of the graph, got shape {labels.shape}")
    values = _numbers(labels)
    if target == "continuous" and values is None:
        raise ValueError("y: expected numbers for target='continuous', got other labels")
    edges = sparse.coo_array(graph)
    continuous = target == "continuous" or (target == "auto" and values is not None and _fractional(values))
    if continuous and values is not None:
        strength = _by_numbers(edges, values, float(target_weight))
    else:
        strength = _by_category(edges, labels, float(target_weight))
    joint = sparse.csr_matrix((strength, (edges.row, edges.col)), shape=(n, n))
    joint.eliminate_zeros()
    return fuzzy_union(_locally_connected(joint))


def _numbers(labels: np.ndarray) -> np.ndarray | None:
    """Labels as float64 with NaN for None, or None where they are no numbers."""
    if labels.dtype.kind in "OUSmM":
        flat = labels.ravel()
        if not all(part is None or isinstance(part, numbers.Real) for part in flat):
            return None
        labels = np.array([np.nan if part is None else float(part) for part in flat]).reshape(labels.shape)
    return labels.astype(np.float64)


def _fractional(values: np.ndarray) -> bool:
    """Whether some number is not whole, or there are several columns."""
    known = values[~np.isnan(values)]
    return values.ndim == 2 or bool((known != np.round(known)).any())


def _by_category(edges: sparse.coo_array, labels: np.ndarray, t: float) -> np.ndarray:
    if labels.ndim != 1:
        raise ValueError(f"y: expected one category a row, got shape {labels.shape}")
    code, unknown = _codes(labels)
    one, other = code[edges.row], code[edges.col]
    far = np.inf if t == 1 else FARTHEST / (1 - t)
    distance = np.where(one == other, 0.0, far)
    distance[unknown[edges.row] | unknown[edges.col]] = UNKNOWN_DISTANCE
    return edges.data * np.exp(-distance)


def _codes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A whole number for each category, and which rows have none."""
    # NaN alone differs from itself.
    unknown = np.array([part is None or bool(part != part) for part in labels.tolist()])
    if labels.dtype.kind in "if":
        unknown |= labels == -1
    elif labels.dtype.kind == "O":
        unknown |= np.array([isinstance(part, numbers.Real) and part == -1 for part in labels])
    code = np.full(len(labels), -1)
    known = labels[~unknown]
    kinds = {part: number for number, part in enumerate(dict.fromkeys(known.tolist()))}
    code[~unknown] = [kinds[part] for part in known.tolist()]
    return code, unknown


def _by_numbers(edges: sparse.coo_array, values: np.ndarray, t: float) -> np.ndarray:
    if np.isinf(values).any():
        raise ValueError("y: expected finite numbers or NaN for unknown, got infinity")
    values = values.reshape(len(values), -1)
    distance = np.linalg.norm(values[edges.row] - values[edges.col], axis=1)
    unknown = np.isnan(distance)
    membership = _along_edges(edges, np.where(unknown, np.inf, distance), len(values))
    membership[unknown] = np.exp(-UNKNOWN_DISTANCE)
    with np.errstate(divide="ignore"):
        of_data = min(1.0, np.divide(1 - t, t)) if t else 1.0
        of_target = min(1.0, t / (1 - t)) if t < 1 else 1.0
    return edges.data**of_data * membership**of_target


def _along_edges(edges: sparse.coo_array, distance: np.ndarray, n: int) -> np.ndarray:
    """Membership of each edge by the distance of its ends' targets; infinite distances are no neighbours."""
    known = np.isfinite(distance)
    row = edges.row[known]
    rho = np.full(n, np.inf)
    positive = known & (distance > 0)
    np.minimum.at(rho, edges.row[positive], distance[positive])
    rho[np.isinf(rho)] = 0
    beyond = np.maximum(distance[known] - rho[row], 0)
    count = np.bincount(row, minlength=n)
    sigma = bisected_scales(row, beyond, np.log2(count + 1))
    floor = SMALLEST_SCALE * np.bincount(row, distance[known], n) / np.maximum(count, 1)
    sigma = np.maximum(np.maximum(sigma, floor), np.finfo(np.float64).tiny)
    strength = np.zeros(len(distance))
    strength[known] = np.exp(-beyond / sigma[row])
    directed = sparse.csr_matrix((strength, (edges.row, edges.col)), shape=(n, n))
    united = np.asarray(fuzzy_union(directed)[edges.row, edges.col]).ravel()
    return np.minimum(united, 1.0)


def _locally_connected(graph: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows divided by their largest entry; empty rows stay empty."""
    largest = graph.max(1).toarray().ravel()
    scale = np.divide(1.0, largest, out=np.zeros_like(largest), where=largest > 0)
    return sparse.csr_matrix(sparse.diags_array(scale) @ graph)
