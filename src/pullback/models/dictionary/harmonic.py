"""Coordinates of a cloud from the slowest functions on its neighbour graph."""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import linalg, sparse
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from pullback.draws import source_of
from pullback.validation import check_points, check_whole

LANDMARKS = 1200
"""Rows of a dense eigenproblem: ARPACK does not converge on clustered clouds."""
INTERPOLATED = 3
FARTHEST = 12.0
"""Squared distance, in units of the usual one, that stands for all larger ones: where edges across a gap
weigh exp(-36) or less, rounding no longer tells its eigenvalue from 1, and its eigenvector is any mixture.
"""


def harmonic_embedding(
    Y: Float[Tensor, "n q"],
    dims: int = 4,
    *,
    neighbours: int | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n e"]:
    """Leading harmonic functions of a cloud: (cos, sin) along a closed curve, a half wave along an open one.

    With W = exp(-(distance/median)²), and no less than exp(-12), on nearest neighbours, made symmetric by the
    maximum and divided by the degrees of both ends, which takes the density out; the eigenvectors of
    D^-½ W D^-½ over √D, without the constant one. Pieces that no neighbours join are joined by the edges of
    the shortest tree.

    Coifman and Lafon 2006, "Diffusion maps".

    Args:
        Y: cloud, (n, q).
        dims: functions, fewer where n - 1 is less.
        neighbours: of a row; None is min(12, max(2, n // 4)).
        generator: picks 1200 landmarks where there are more rows; others get the mean of their 3 nearest.
    Returns: (n, e), e = min(dims, n - 1), each column of unit mean square on the landmarks.
    Raises:
        TypeError, ValueError: no table of finite numbers, fewer than three rows, a number below one.
    Example:
        >>> import math, torch
        >>> t = torch.arange(40, dtype=torch.float64) * 2 * math.pi / 40
        >>> ring = harmonic_embedding(torch.stack([t.cos(), t.sin()], 1), 2)
        >>> bool(ring.norm(dim=1).std() < 1e-3)
        True
    """
    check_points("Y", Y)
    check_whole("dims", dims)
    if len(Y) < 3:
        raise ValueError(f"Y: expected at least 3 rows, got {len(Y)}")
    cloud = Y.detach().cpu().double().numpy()
    chosen = landmark_rows(len(cloud), generator)
    base = cloud[chosen]
    k = min(12, max(2, len(base) // 4)) if neighbours is None else neighbours
    check_whole("neighbours", k)
    near = NearestNeighbors(n_neighbors=min(k, len(base) - 1)).fit(base)
    edges = sparse.csr_array(near.kneighbors_graph(mode="distance"))
    positive = edges.data[edges.data > 0]
    scale = np.median(positive) if len(positive) else 1.0
    W = _weights(edges, scale)
    if connected_components(W)[0] > 1:
        W = W.maximum(_weights(minimum_spanning_tree(squareform(pdist(base))), scale))
    degree = W.sum(1)
    functions = _slowest(W.toarray() / degree[:, None] / degree, min(dims, len(base) - 1) + 1)[:, 1:]
    functions /= np.sqrt(np.square(functions).mean(0)).clip(np.finfo(float).tiny)
    return torch.from_numpy(_extended(functions, near, cloud, chosen)).to(Y)


def spectral_coordinates(
    Y: Float[np.ndarray, "n q"], count: int, neighbours: int
) -> Float[np.ndarray, "n count"]:
    """Leading eigenvectors of the plain symmetrised neighbour graph, by which its clusters are told apart."""
    near = NearestNeighbors(n_neighbors=min(neighbours, len(Y) - 1)).fit(Y)
    W = near.kneighbors_graph(mode="connectivity").toarray()
    return _slowest((W + W.T) / 2, min(count, len(Y)))


def landmark_rows(n: int, generator: torch.Generator | None = None) -> Int[np.ndarray, " m"]:
    """At most 1200 of n rows, in order."""
    if n <= LANDMARKS:
        return np.arange(n)
    source = source_of(generator, torch.device("cpu"))
    order = torch.rand(n, generator=source, device=source.device).argsort()
    return np.sort(order[:LANDMARKS].cpu().numpy())


def _weights(edges: sparse.csr_array, scale: float) -> sparse.csr_array:
    """exp(-(distance/scale)²) on both sides of the diagonal."""
    W = edges.copy()
    W.data = np.exp(-np.square(W.data / scale).clip(max=FARTHEST))
    return W.maximum(W.T)


def _slowest(W: Float[np.ndarray, "n n"], count: int) -> Float[np.ndarray, "n count"]:
    """Leading eigenvectors of D^-½ W D^-½ over √D, signs fixed by the largest entry."""
    root = np.sqrt(W.sum(1).clip(np.finfo(float).tiny))
    n = len(W)
    dense = W / root[:, None] / root
    vectors = linalg.eigh((dense + dense.T) / 2, subset_by_index=[n - count, n - 1])[1][:, ::-1]
    if vectors.shape[1] < count:  # LAPACK may miss some of several equal ones, as of a graph in pieces
        vectors = linalg.eigh((dense + dense.T) / 2)[1][:, ::-1][:, :count]
    peaks = vectors[np.abs(vectors).argmax(0), np.arange(count)]
    return vectors * np.sign(peaks) / root[:, None]


def _extended(
    functions: np.ndarray, near: NearestNeighbors, cloud: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
    if len(chosen) == len(cloud):
        return functions
    index = near.kneighbors(cloud, min(INTERPOLATED, len(chosen)), return_distance=False)
    all_rows = functions[index].mean(1)
    all_rows[chosen] = functions
    return all_rows
