"""What umap-learn made of the same neighbours."""

from pathlib import Path

import numpy as np
from scipy import sparse

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "umap.npz", allow_pickle=False))


def recorded(key: str) -> sparse.csr_matrix:
    """A recorded graph."""
    parts = (GOLDEN[f"{key}_{part}"] for part in ("data", "indices", "indptr"))
    data, indices, start = parts
    n = len(start) - 1
    return sparse.csr_matrix((data.astype(float), indices.astype(int), start), shape=(n, n))
