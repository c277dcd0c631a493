"""Latents of a sparse autoencoder in groups: those that point alike or are active together."""

from typing import Any

import numpy as np
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
