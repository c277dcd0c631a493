"""Rows grouped by the manifold they lie on: neighbour graphs first, then one subspace a group."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from pullback.draws import source_of
from pullback.linalg import leading_singular, widened
from pullback.models.dictionary.harmonic import landmark_rows, spectral_coordinates
from pullback.validation import check_points, check_whole

ROUNDS = 20


@dataclass(frozen=True)
class Grouping:
    """Groups of rows, one subspace each.

    Attributes:
        labels: group of each row, (n,).
        residual: sum of squares that the subspaces leave.
    """

    labels: Int[Tensor, " n"]
    residual: float


def spectral_clusters(
    Y: Float[Tensor, "n q"],
    groups: int,
    *,
    neighbours: int = 10,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " n"]:
    """Groups of a cloud by k-means on the leading eigenvectors of its neighbour graph.

    Ng, Jordan and Weiss 2002, "On spectral clustering"; dense eigenvectors on at most 1200 landmarks, other
    rows follow their nearest landmark.

    Args:
        Y: cloud, (n, q).
        groups: number of them, at most n.
        neighbours: of a row in the graph.
        generator: of landmarks and of k-means.
    Raises:
        TypeError, ValueError: no table of finite numbers, more groups than rows.
    Example:
        >>> import torch
        >>> Y = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
        >>> labels = spectral_clusters(Y, 2, neighbours=2)
        >>> bool((labels[:3] == labels[0]).all() and (labels[3:] != labels[0]).all())
        True
    """
    check_points("Y", Y)
    check_whole("groups", groups)
    check_whole("neighbours", neighbours)
    if groups > len(Y):
        raise ValueError(f"groups: expected at most the {len(Y)} rows, got {groups}")
    if groups == 1 or len(Y) < 3:
        return torch.arange(len(Y), device=Y.device) % groups
    cloud = Y.detach().cpu().double().numpy()
    chosen = landmark_rows(len(cloud), generator)
    base = cloud[chosen]
    places = spectral_coordinates(base, groups, neighbours)
    labels = _kmeans(groups, generator).fit_predict(places)
    if len(chosen) < len(cloud):
        near = NearestNeighbors(n_neighbors=1).fit(base)
        labels = labels[near.kneighbors(cloud, return_distance=False)[:, 0]]
    return torch.from_numpy(labels.astype(np.int64)).to(Y.device)


def subspace_clusters(
    Y: Float[Tensor, "n q"],
    labels: Int[Tensor, " n"],
    *,
    rank: int = 4,
    affine: bool = True,
    rounds: int = ROUNDS,
) -> Grouping:
    """Groups refined by one subspace each: rows go to the nearest, subspaces follow their rows.

    Bradley and Mangasarian 2000, "k-plane clustering".

    Args:
        Y: cloud, (n, q).
        labels: groups to start from, numbered from 0.
        rank: dimension of each subspace.
        affine: whether subspaces pass through their group's mean rather than the origin.
        rounds: at most.
    Raises:
        TypeError, ValueError: no table of finite numbers, labels of another length.
    Example:
        >>> import torch
        >>> Y = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
        >>> subspace_clusters(Y, torch.tensor([0, 0, 0, 1, 1]), rank=1, affine=False).labels.tolist()
        [0, 0, 1, 1, 1]
    """
    wide = widened(check_points("Y", Y))
    if labels.shape != (len(Y),):
        raise ValueError(f"labels: expected ({len(Y)},) for the rows of Y, got {tuple(labels.shape)}")
    check_whole("rank", rank)
    count = int(labels.max()) + 1
    distance = torch.full((len(wide), count), torch.inf, dtype=wide.dtype, device=wide.device)
    for _ in range(rounds):
        for c in range(count):
            rows = wide[labels == c]
            if len(rows):
                distance[:, c] = _distance(wide, rows, rank, affine)
        nearest = distance.argmin(1)
        if bool((nearest == labels).all()):
            break
        labels = nearest
    return Grouping(labels, float(distance.gather(1, labels[:, None]).sum()))


def merge_clusters(
    Y: Float[Tensor, "n q"], labels: Int[Tensor, " n"], groups: int, *, rank: int = 4
) -> Int[Tensor, " n"]:
    """Groups merged, pair by pair, while there are more than wanted.

    Each time the pair goes together that raises Σ_{j > rank} s_j² least, s the singular values of a group's
    rows, not centred.

    Args:
        Y: cloud, (n, q).
        labels: groups numbered from 0.
        groups: number wanted.
        rank: directions that a group has for free.
    Example:
        >>> import torch
        >>> Y = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
        >>> merge_clusters(Y, torch.tensor([0, 1, 2, 0]), 2, rank=1).tolist()
        [0, 0, 1, 0]
    """
    wide = widened(check_points("Y", Y))
    members = [wide[labels == c].mT @ wide[labels == c] for c in range(int(labels.max()) + 1)]
    names = list(range(len(members)))
    labels = labels.clone()
    while len(members) > groups:
        own = [_beyond(gram, rank) for gram in members]
        pairs = [(i, j) for i in range(len(members)) for j in range(i)]
        joined = _beyond(torch.stack([members[i] + members[j] for i, j in pairs]), rank)
        growth = joined - torch.stack([own[i] + own[j] for i, j in pairs])
        i, j = pairs[int(growth.argmin())]
        labels[labels == names[i]] = names[j]
        members[j] = members[j] + members[i]
        del members[i], names[i]
    return torch.unique(labels, return_inverse=True)[1]


def seed_of(generator: torch.Generator | None) -> int:
    """A seed for libraries that want one, drawn from the generator."""
    source = source_of(generator, torch.device("cpu"))
    return int(torch.randint(2**31 - 1, (1,), generator=source, device=source.device))


def _kmeans(groups: int, generator: torch.Generator | None) -> KMeans:
    return KMeans(groups, n_init=10, random_state=seed_of(generator))  # type: ignore[arg-type]


def _distance(wide: Tensor, rows: Tensor, rank: int, affine: bool) -> Tensor:
    """Squared distances to the subspace of some rows."""
    centre = rows.mean(0) if affine else torch.zeros_like(rows[0])
    directions = leading_singular(rows - centre, min(rank, *rows.shape))[2]
    beside = wide - centre
    return (beside.square().sum(1) - (beside @ directions).square().sum(1)).clamp_min(0)


def _beyond(gram: Tensor, rank: int) -> Tensor:
    """Sum of the eigenvalues but the largest."""
    return torch.linalg.eigvalsh(gram)[..., : max(gram.shape[-1] - rank, 0)].sum(-1)
