"""Which data a learned metric is anchored at."""

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int, Num
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.utils import check_random_state
from torch import Tensor

from pullback.validation import check_choice, check_finite, check_tensor, check_whole

Choice = Literal["kmedoids", "kmeans", "random", "all"]
CHOICES = ("kmedoids", "kmeans", "random", "all")


def select_centroids(
    x: Num[Tensor, "n *shape"],
    n: int = 64,
    method: Choice = "kmedoids",
    *,
    random_state: Any = None,
) -> Num[Tensor, "m *shape"]:
    """Rows that stand for the data.

    Args:
        x: data, any shape behind the first axis.
        n: how many, at most as many as there are rows.
        method: "kmedoids", k-means centres moved to the nearest row, each row once (so there may be fewer);
            "kmeans", the centres themselves; "random" rows; "all" of them, whatever ``n``.
        random_state: as in scikit-learn.
    Returns:
        Rows ``(m, ...)``, m <= n.
    Raises:
        ValueError: more centroids than rows, or an unknown method.
    Example:
        >>> import torch
        >>> select_centroids(torch.arange(10.0)[:, None], 2, random_state=0).shape
        torch.Size([2, 1])
    """
    check_choice("method", method, CHOICES)
    check_tensor("x", x)
    if method == "all":
        return x
    _check_count(x, n)
    if method == "random":
        rows = check_random_state(random_state).choice(len(x), n, replace=False)
        return x[torch.as_tensor(rows, device=x.device)]
    if method == "kmedoids":
        return x[central_rows(x, n, random_state=random_state)]
    found = torch.as_tensor(_centres(x, n, random_state)[1], device=x.device)
    found = found.to(x.dtype if x.is_floating_point() else torch.get_default_dtype())
    return found.reshape(-1, *x.shape[1:])


def central_rows(x: Num[Tensor, "n *shape"], n: int, *, random_state: Any = None) -> Int[Tensor, " m"]:
    """Indices of the rows nearest to n centres of k-means, ascending, each once, m <= n.

    Raises:
        ValueError: more centres than rows.
    Example:
        >>> import torch
        >>> central_rows(torch.tensor([[0.0], [0.1], [5.0], [5.1], [5.2]]), 2, random_state=0)[1]
        tensor(3)
    """
    _check_count(x, n)
    flat, centres = _centres(x, n, random_state)
    return torch.as_tensor(np.unique(cdist(centres, flat).argmin(axis=1)), device=x.device)


def _centres(x: Tensor, n: int, random_state: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows as flat float64, and their centres."""
    check_finite("x", x.flatten(1))
    flat = x.reshape(len(x), -1).cpu().numpy().astype(np.float64)
    distinct = min(n, len(np.unique(flat, axis=0)))
    return flat, KMeans(distinct, n_init="auto", random_state=random_state).fit(flat).cluster_centers_


def _check_count(x: Tensor, n: int) -> None:
    check_whole("n", n)
    if n > len(x):
        raise ValueError(f"n: expected at most {len(x)} centroids, one a row of x, got {n}")
