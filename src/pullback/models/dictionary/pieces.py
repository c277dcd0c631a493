"""Pieces of cones: rows in the subspace that grows from one row and its neighbours in direction.

All rows that a subspace explains up to noise give the next, whose dimension is what stands out of noise,
until it stands. Rows with two active atoms are far apart in direction and support none.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn.functional import normalize

EDGE = 1.05
"""A direction counts where its singular value exceeds that of noise by this factor."""
DEVIATIONS = 3.0
"""Rows are explained where their residual is within this many standard deviations of noise's."""
NEIGHBOURS, MUTUAL = 12, 5
ROUNDS = 15
FEWEST = 8
SUPPORT = 3
"""Seeds that must lead to a piece."""
ALONE = 2.0
"""Rows that must carry a direction at least, by their participation ratio."""
SEEDS = 600


@dataclass
class Piece:
    rows: set[int]
    votes: int
    basis: Tensor


def noise_subspace(rows: Float[Tensor, "n r"], sigma: float) -> Float[Tensor, "r b"]:
    """Directions in which rows stand out of noise, strongest first, none that is due to a row or two
    alone."""
    kept = torch.ones(len(rows), dtype=torch.bool)
    while True:
        inside = rows[kept]
        values, vectors = torch.linalg.eigh(inside.mT @ inside)
        edge = EDGE * sigma * (math.sqrt(len(inside)) + math.sqrt(rows.shape[1]))
        basis = vectors[:, values.clamp_min(0).sqrt() > edge].flip(1)
        energy = (rows @ basis).square() * kept.unsqueeze(1)
        share = energy.sum(0).square() / energy.square().sum(0).clamp_min(1e-300)
        lonely = (share < ALONE).nonzero().flatten()
        if not len(lonely) or int(kept.sum()) <= FEWEST // 2:
            return basis
        kept[energy[:, lonely[0]].argmax()] = False


def find_pieces(Y: Tensor, sigma: float, largest: int, dense: float) -> list[Piece]:
    """What seeds lead to: the densest rows first, those left out that are known often enough."""
    n = len(Y)
    directions = normalize(Y, dim=1)
    near = NearestNeighbors(n_neighbors=min(NEIGHBOURS, n - 1) + 1).fit(directions.numpy())
    distance, index = near.kneighbors(directions.numpy())
    order = distance[:, min(10, n - 1)].argsort()[: max(int(dense * n), min(n, 20))]
    known = torch.zeros(n)
    found: dict[frozenset[int], Piece] = {}
    for seed in order[:: max(1, len(order) // SEEDS)].tolist():
        if known[seed] >= SUPPORT:
            continue
        grown = _grown(Y, directions, torch.from_numpy(index[seed]), sigma, largest)
        if grown is None:
            continue
        basis, rows = grown
        known[rows] += 1
        key = frozenset(rows.tolist())
        if key in found:
            found[key].votes += 1
        else:
            found[key] = Piece(set(key), 1, basis)
    return _overlapping(Y, _supported(list(found.values())), sigma)


def joined_pieces(Y: Tensor, pieces: list[Piece], sigma: float, alike: float) -> list[Piece]:
    """Pieces that share a direction joined, the closest first: together they span less than apart."""
    pieces = list(pieces)
    refused: set[tuple[int, int]] = set()
    while True:
        pairs = [
            (float(torch.linalg.svdvals(one.basis.mT @ other.basis)[0]), one, other)
            for i, one in enumerate(pieces)
            for other in pieces[:i]
            if (id(one), id(other)) not in refused
        ]
        if not pairs:
            return pieces
        cosine, one, other = max(pairs, key=lambda pair: pair[0])
        if cosine < alike:
            return pieces
        rows = one.rows | other.rows
        basis = noise_subspace(Y[sorted(rows)], sigma)
        if basis.shape[1] >= one.basis.shape[1] + other.basis.shape[1]:
            refused.add((id(one), id(other)))
            continue
        pieces = [piece for piece in pieces if piece is not one and piece is not other]
        pieces.append(Piece(rows, one.votes + other.votes, basis))


def explained_rows(Y: Tensor, basis: Tensor, sigma: float) -> Tensor:
    left = Y.shape[1] - basis.shape[1]
    residual = Y.square().sum(1) - (Y @ basis).square().sum(1)
    return (residual <= sigma**2 * (left + DEVIATIONS * math.sqrt(2 * left)) + 1e-12).nonzero().flatten()


def _grown(
    Y: Tensor, directions: Tensor, rows: Tensor, sigma: float, largest: int
) -> tuple[Tensor, Tensor] | None:
    """The subspace that a few rows lead to, and its rows; None where it does not stay small."""
    basis = torch.linalg.eigh(Y[rows].mT @ Y[rows]).eigenvectors[:, -2:]
    before: list[int] = []
    for _ in range(ROUNDS):
        if not 0 < basis.shape[1] <= largest:
            return None
        rows = explained_rows(Y, basis, sigma)
        if len(rows) < MUTUAL:
            return None
        rows = rows[_connected(directions[rows])]
        if rows.tolist() == before:
            break
        before = rows.tolist()
        basis = noise_subspace(Y[rows], sigma)
    return (basis, rows) if len(rows) >= max(FEWEST, 2 * basis.shape[1]) and basis.shape[1] else None


def _connected(directions: Tensor) -> Tensor:
    """Largest component of the graph of mutual nearest neighbours: it breaks where the density drops."""
    if len(directions) <= MUTUAL + 1:
        return torch.ones(len(directions), dtype=torch.bool)
    distance = torch.cdist(directions, directions).fill_diagonal_(torch.inf)
    reach = distance.kthvalue(MUTUAL, dim=1).values
    edges = (distance <= reach.unsqueeze(1)) & (distance <= reach)
    labels = connected_components(edges.numpy(), directed=False)[1]
    return torch.from_numpy(labels == np.bincount(labels).argmax())


def _supported(pieces: list[Piece]) -> list[Piece]:
    """Pieces that several seeds agree on: what two atoms make by chance has few followers."""
    return [
        piece
        for piece in pieces
        if sum(
            other.votes
            for other in pieces
            if 2 * len(piece.rows & other.rows) >= len(piece.rows | other.rows)
        )
        >= SUPPORT
    ]


def _overlapping(Y: Tensor, pieces: list[Piece], sigma: float) -> list[Piece]:
    """Pieces that share most of their rows as one."""
    found: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: -len(piece.rows)):
        for other in found:
            if len(piece.rows & other.rows) > 0.5 * min(len(piece.rows), len(other.rows)):
                other.rows |= piece.rows
                other.votes += piece.votes
                break
        else:
            found.append(piece)
    for piece in found:
        piece.basis = noise_subspace(Y[sorted(piece.rows)], sigma)
    return [piece for piece in found if piece.basis.shape[1]]
