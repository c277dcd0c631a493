"""Latents of a sparse autoencoder in groups: those that point alike or are active together."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from sklearn.cluster import SpectralClustering


def group_latents(directions: np.ndarray, codes: Any, groups: int) -> np.ndarray:
    """Group of every latent, (L,), by spectral clustering of |cosine| of directions plus that of activity.

    Args:
        directions: decoder, (L, p).
        codes: activations, (N, L), dense or sparse.
        groups: how many, at most L.
    Example:
        >>> import numpy as np
        >>> group = group_latents(np.eye(4)[[0, 0, 1, 1]] + 0.01, np.eye(4).repeat(9, 0), 2)
        >>> bool(group[0] == group[1] and group[2] == group[3] and group[0] != group[2])
        True
    """
    L = len(directions)
    if groups > L:
        raise ValueError(f"n_atoms: expected at most the {L} latents, got {groups}")
    if groups == L:
        return np.arange(L)
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True).clip(1e-300)
    active = sparse.csc_matrix(codes)
    size = np.sqrt(np.asarray(active.multiply(active).sum(0)).ravel()).clip(1e-300)
    together = (active.T @ active).toarray() / np.outer(size, size)
    affinity = np.abs(unit @ unit.T) + np.abs(together)
    clusters = SpectralClustering(groups, affinity="precomputed", random_state=0, assign_labels="kmeans")
    return clusters.fit_predict((affinity + affinity.T) / 2)


def rows_of_latents(
    decoder: Any, codes: Any, groups: int
) -> tuple[Float[np.ndarray, "n p"], Int[np.ndarray, " n"]]:
    """Rows that latents make, and the group of each that stands out in it; -1 where none does.

    Args:
        decoder: directions, (L, p).
        codes: activations, (N, L), dense or sparse.
        groups: how many.
    Raises:
        ValueError: shapes that do not fit.
    """
    directions = np.asarray(decoder, dtype=np.float64)
    active = codes if hasattr(codes, "tocsr") else np.asarray(codes, dtype=np.float64)
    if directions.ndim != 2 or active.ndim != 2 or active.shape[1] != len(directions):
        raise ValueError(
            f"codes: expected (N, {len(directions)}) for the latents of decoder, got {tuple(active.shape)}"
        )
    rows = np.asarray(active @ directions)
    owner = group_latents(directions, active, groups)
    share = np.stack(
        [np.linalg.norm(active[:, owner == k] @ directions[owner == k], axis=1) for k in range(groups)],
        1,
    )
    group = share.argmax(1)
    group[share.max(1) <= 0] = -1
    # rows of one group alone are the purest
    pure = share.max(1) >= 0.95 * np.sqrt(np.square(share).sum(1)).clip(1e-300)
    for k in range(groups):
        if (pure & (group == k)).sum() >= 10:
            group[~pure & (group == k)] = -1
    return rows, group
