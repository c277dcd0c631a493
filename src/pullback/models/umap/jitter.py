"""How far rows may be moved in training: about as far as their nearest neighbour is."""

import numpy as np
import torch

from pullback.models.umap.neighbours import Rows, _checked_table, _euclidean

SAMPLED_ROWS = 2000


def jitter_scale(X: Rows) -> float:
    """σ of normal noise that moves a row as far as its nearest neighbour lies: σ √p = median distance to it.

    An encoder that is shown each row at x + σ ξ, newly drawn at each step, must map the space around a row as
    it maps the row. It then places rows that it has not seen near their neighbours, where without noise it
    follows single rows of the training data.

    Bishop 1995, "Training with noise is equivalent to Tikhonov regularization".

    Args:
        X: rows as the encoder sees them, (n, p), n at least 2; the distance is that of at most 2000 of them.
    Returns: σ, the same for all features; copies of a row do not count, 0 if all rows are equal.
    Raises:
        TypeError, ValueError: X that is no table of finite numbers, or fewer than 2 rows.
    Example:
        >>> import numpy as np
        >>> jitter_scale(np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 14.0]])) * 2**0.5
        5.0
    """
    table = _checked_table(X)
    n, p = table.shape
    if n < 2:
        raise ValueError(f"X: needs at least 2 samples, got {n}")
    rows = torch.linspace(0, n - 1, min(n, SAMPLED_ROWS), device=table.device).long()
    distance = _euclidean(table, rows, 2)[1][:, 1]
    positive = distance[distance > 0]
    return float(np.median(positive)) / p**0.5 if len(positive) else 0.0
