"""Batches of points and some of their nearest neighbours."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.utils.data import Sampler

from pullback.validation import check_whole


class LocalityBatchSampler(Sampler[list[int]]):
    """Batches of ``n_primary`` rows and, for each, ``n_secondary`` of its ``n_neighbors`` nearest rows.

    An epoch takes every row as primary once, in a new order; neighbours may come again, also within a batch.

    Args:
        x: data ``(n, ...)``; distances are Euclidean.
        n_primary: rows of a batch that neighbours are drawn for.
        n_secondary: neighbours of each.
        n_neighbors: how many nearest rows they are drawn from, at most n - 1.
        random_state: seed of the order and of the draws; an epoch later draws others.
    Raises:
        ValueError: more neighbours than rows, or more drawn than there are.
    Example:
        >>> import torch
        >>> batches = list(LocalityBatchSampler(torch.arange(10.0)[:, None], 5, 2, 3))
        >>> [len(batch) for batch in batches]
        [15, 15]
    """

    def __init__(
        self, x: Tensor, n_primary: int, n_secondary: int, n_neighbors: int, *, random_state: int = 0
    ):
        check_whole("n_primary", n_primary)
        check_whole("n_secondary", n_secondary, minimum=0)
        check_whole("n_neighbors", n_neighbors)
        if n_neighbors >= len(x):
            raise ValueError(f"n_neighbors: expected fewer than {len(x)} rows of x, got {n_neighbors}")
        if n_secondary > n_neighbors:
            raise ValueError(f"n_secondary: expected at most n_neighbors={n_neighbors}, got {n_secondary}")
        self.n_primary, self.n_secondary = n_primary, n_secondary
        flat = x.reshape(len(x), -1).cpu().numpy()
        finder = NearestNeighbors(n_neighbors=n_neighbors).fit(flat)
        self.neighbors: np.ndarray = finder.kneighbors(return_distance=False)
        self._generator: Any = np.random.default_rng(random_state)

    def __len__(self) -> int:
        return -(-len(self.neighbors) // self.n_primary)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._generator.permutation(len(self.neighbors))
        for first in range(0, len(order), self.n_primary):
            primary = order[first : first + self.n_primary]
            drawn = self._generator.permuted(self.neighbors[primary], axis=1)[:, : self.n_secondary]
            yield [int(row) for row in (*primary, *drawn.flatten())]
