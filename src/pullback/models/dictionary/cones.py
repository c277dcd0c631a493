"""Rows that only one atom is active in, found atom by atom: they form cones with apex 0.

An atom with an amplitude fills a cone, and its rows span a subspace of few dimensions. From a row and its
neighbours in direction a subspace grows: all rows that it explains up to noise give the next subspace, whose
    dimension is what stands out of noise, until it stands. Rows with two active atoms are far apart and
    support none.
Pieces of one cone share directions and are joined; what is found is projected out, and rows that were
hidden behind it appear.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn.functional import normalize

from pullback.linalg import widened
from pullback.validation import check_points, check_positive, check_whole

EDGE = 1.05
"""A direction counts where its singular value exceeds that of noise by this factor."""
DEVIATIONS = 3.0
"""Rows are explained where their residual is within this many standard deviations of noise's."""
NEIGHBOURS, MUTUAL = 12, 5
ROUNDS = 15
LARGEST_RANK = 9
FEWEST = 8
SUPPORT = 3
"""Seeds that must lead to a piece."""
ALIKE = (0.9, 0.95, 0.98)
"""Cosine of the directions that pieces of one cone share; the next where that leads to too few cones."""
ALONE = 2.0
"""Rows that must carry a direction at least, by their participation ratio."""
DENSE, SEEDS = 0.4, 600
KEPT = 0.8
"""Share of rows that a cone keeps when it gives up a direction."""
REWEIGHTINGS = 30


@dataclass(frozen=True, eq=False)
class Cone:
    """Rows of one atom alone.

    Attributes:
        basis: orthonormal directions that they span, (r, b).
        rows: their numbers, (n,).
        votes: how many seeds led to them; 0 for what appeared after others were projected out.
    """

    basis: Float[Tensor, "r b"]
    rows: Int[Tensor, " n"]
    votes: int


@dataclass
class _Piece:
    rows: set[int]
    votes: int
    basis: Tensor


def find_cones(Y: Float[Tensor, "n r"], sigma: float, *, most: int | None = None) -> list[Cone]:
    """Cones of single atoms among rows that are sums of a few.

    Args:
        Y: rows in the directions that stand out of noise, not centred, (n, r).
        sigma: standard deviation of the noise.
        most: cones wanted at most, those of most rows; a single one is all rows; None for all that are found.
    Returns: cones, most rows first.
    Raises:
        TypeError, ValueError: no table of finite numbers, a level that is not positive.
    Example:
        >>> import math, torch
        >>> t = torch.arange(60, dtype=torch.float64) * 2 * math.pi / 60
        >>> ring = torch.stack([t.cos(), t.sin(), 0 * t + 0.5], 1)
        >>> rows = torch.block_diag(ring, ring)
        >>> both = rows[:60].roll(7, 0) + rows[60:]
        >>> cones = find_cones(torch.cat([rows, both]), 0.01)
        >>> [len(cone.rows) for cone in cones], [cone.basis.shape[1] for cone in cones]
        ([60, 60], [3, 3])
    """
    wide = widened(check_points("Y", Y)).cpu()
    check_positive("sigma", sigma)
    if most is not None:
        check_whole("most", most)
    if len(wide) < FEWEST:
        return []
    if most == 1:
        return [Cone(torch.eye(Y.shape[1]).to(Y), torch.arange(len(Y), device=Y.device), 0)]
    seen = _cones(wide, sigma, most)
    sizes = sorted(len(cone.rows) for cone in seen)
    large = [cone for cone in seen if 2 * len(cone.rows) >= sizes[len(sizes) // 2]][:most]
    found = large
    while most is None or len(found) < most:
        fresh = [cone for cone in _hidden(wide, found, sigma) if _is_new(cone, found)]
        if not fresh:
            break
        found = [*found, fresh[0]]
    # what is small may be a piece of another, and comes last
    found = [*found, *(cone for cone in seen[len(large) :] if _is_new(cone, found))][:most]
    found = sorted(_parted(wide, found, sigma), key=lambda cone: -len(cone.rows))
    return [Cone(c.basis.to(Y), c.rows.to(Y.device), c.votes) for c in found]


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


def _cones(Y: Tensor, sigma: float, wanted: int | None = None) -> list[Cone]:
    """Cones of joined pieces, most rows first; joined more strictly while there are fewer than wanted."""
    # where several are wanted none fills the space
    pieces = _pieces(Y, sigma, min(LARGEST_RANK, Y.shape[1] - (wanted is not None)))
    best: list[Cone] = []
    for alike in ALIKE:
        joined = [_completed(Y, piece, sigma) for piece in _joined(Y, pieces, sigma, alike)]
        cones = _independent([cone for cone in joined if cone is not None])
        if len(cones) > len(best):
            best = cones
        if len(best) >= (wanted or 0):
            break
    return best


def _pieces(Y: Tensor, sigma: float, largest: int) -> list[_Piece]:
    """What seeds lead to: the densest rows first, those left out that are known often enough."""
    n = len(Y)
    directions = normalize(Y, dim=1)
    near = NearestNeighbors(n_neighbors=min(NEIGHBOURS, n - 1) + 1).fit(directions.numpy())
    distance, index = near.kneighbors(directions.numpy())
    order = distance[:, min(10, n - 1)].argsort()[: max(int(DENSE * n), min(n, 20))]
    known = torch.zeros(n)
    found: dict[frozenset[int], _Piece] = {}
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
            found[key] = _Piece(set(key), 1, basis)
    return _overlapping(Y, _supported(list(found.values())), sigma)


def _grown(
    Y: Tensor, directions: Tensor, rows: Tensor, sigma: float, largest: int
) -> tuple[Tensor, Tensor] | None:
    """The subspace that a few rows lead to, and its rows; None where it does not stay small."""
    basis = torch.linalg.eigh(Y[rows].mT @ Y[rows]).eigenvectors[:, -2:]
    before: list[int] = []
    for _ in range(ROUNDS):
        if not 0 < basis.shape[1] <= largest:
            return None
        rows = _explained(Y, basis, sigma)
        if len(rows) < MUTUAL:
            return None
        rows = rows[_connected(directions[rows])]
        if rows.tolist() == before:
            break
        before = rows.tolist()
        basis = noise_subspace(Y[rows], sigma)
    return (basis, rows) if len(rows) >= max(FEWEST, 2 * basis.shape[1]) and basis.shape[1] else None


def _explained(Y: Tensor, basis: Tensor, sigma: float) -> Tensor:
    left = Y.shape[1] - basis.shape[1]
    residual = Y.square().sum(1) - (Y @ basis).square().sum(1)
    return (residual <= sigma**2 * (left + DEVIATIONS * math.sqrt(2 * left)) + 1e-12).nonzero().flatten()


def _connected(directions: Tensor) -> Tensor:
    """Largest component of the graph of mutual nearest neighbours: it breaks where the density drops."""
    if len(directions) <= MUTUAL + 1:
        return torch.ones(len(directions), dtype=torch.bool)
    distance = torch.cdist(directions, directions).fill_diagonal_(torch.inf)
    reach = distance.kthvalue(MUTUAL, dim=1).values
    edges = (distance <= reach.unsqueeze(1)) & (distance <= reach)
    labels = connected_components(edges.numpy(), directed=False)[1]
    return torch.from_numpy(labels == np.bincount(labels).argmax())


def _supported(pieces: list[_Piece]) -> list[_Piece]:
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


def _overlapping(Y: Tensor, pieces: list[_Piece], sigma: float) -> list[_Piece]:
    """Pieces that share most of their rows as one."""
    found: list[_Piece] = []
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


def _joined(Y: Tensor, pieces: list[_Piece], sigma: float, alike: float) -> list[_Piece]:
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
        pieces.append(_Piece(rows, one.votes + other.votes, basis))


def _completed(Y: Tensor, piece: _Piece, sigma: float) -> Cone | None:
    """All rows that the subspace of a piece explains, wherever they lie on it."""
    rank = piece.basis.shape[1]
    rows = _explained(Y, piece.basis, sigma)
    if len(rows) <= rank:
        return None
    basis = torch.linalg.eigh(Y[rows].mT @ Y[rows]).eigenvectors[:, -rank:].flip(1)
    rows = _explained(Y, basis, sigma)
    return Cone(basis, rows, piece.votes) if len(rows) >= FEWEST else None


def _independent(cones: list[Cone]) -> list[Cone]:
    """Cones that do not repeat rows of others, those of most rows first."""
    found: list[Cone] = []
    for cone in sorted(cones, key=lambda cone: -len(cone.rows)):
        if _is_new(cone, found):
            found.append(cone)
    return found


def _parted(Y: Tensor, cones: list[Cone], sigma: float) -> list[Cone]:
    """Cones of which none holds a direction of another: it is given up where that costs few rows."""
    cones = list(cones)
    for _ in range(len(cones)):
        shared = [
            (i, j)
            for i in range(len(cones))
            for j in range(len(cones))
            if i != j and float(torch.linalg.svdvals(cones[i].basis.mT @ cones[j].basis)[0]) > ALIKE[0]
        ]
        lesser = [(i, _without_one(Y, cones[i], cones[j], sigma)) for i, j in shared]
        kept = [(len(cone.rows) / len(cones[i].rows), i, cone) for i, cone in lesser if cone is not None]
        if not kept:
            break
        share, i, cone = max(kept, key=lambda entry: entry[0])
        if share < KEPT:
            break
        cones[i] = cone
    return cones


def _without_one(Y: Tensor, cone: Cone, other: Cone, sigma: float) -> Cone | None:
    """The cone with one dimension less, by least trimmed squares on rows that the other does not explain."""
    rank = cone.basis.shape[1] - 1
    theirs = set(other.rows.tolist())
    rows = Y[[row for row in cone.rows.tolist() if row not in theirs]]
    if rank < 1 or len(rows) < FEWEST:
        return None
    kept = rows
    basis = cone.basis
    for _ in range(ROUNDS):
        basis = torch.linalg.eigh(kept.mT @ kept).eigenvectors[:, -rank:].flip(1)
        residual = rows.square().sum(1) - (rows @ basis).square().sum(1)
        kept = rows[residual.argsort()[: max(FEWEST, int(KEPT * len(rows)))]]
    found = _explained(Y, basis, sigma)
    return Cone(basis, found, cone.votes) if len(found) >= FEWEST else None


def _is_new(cone: Cone, found: list[Cone]) -> bool:
    rows = set(cone.rows.tolist())
    return all(len(rows & set(other.rows.tolist())) <= 0.5 * len(rows) for other in found)


def _hidden(Y: Tensor, found: list[Cone], sigma: float) -> list[Cone]:
    """Cones that appear once others are projected out, led back into all directions."""
    if not found:
        return []
    known = torch.cat([cone.basis for cone in found], 1)
    span = torch.linalg.qr(known).Q
    if known.shape[1] >= Y.shape[1]:
        return []
    rest = torch.linalg.svd(span, full_matrices=True).U[:, span.shape[1] :]
    X = Y @ rest
    left = X.shape[1]
    loud = (X.square().sum(1) > sigma**2 * (left + DEVIATIONS * math.sqrt(2 * left))).nonzero().flatten()
    if len(loud) < FEWEST:
        return []
    cones = []
    for cone in _cones(X[loud], sigma) or [Cone(torch.eye(left).to(Y), loud, 0)]:
        # seen from the rest, rows where known atoms are active, too, look like rows of this atom alone
        members = loud[cone.rows] if cone.votes else loud
        lifted = _lifted(Y[members], found, rest @ cone.basis)
        rows = _explained(Y, lifted, sigma)
        if len(rows) >= FEWEST:
            basis = noise_subspace(Y[rows], sigma)
            if 0 < basis.shape[1] <= LARGEST_RANK:
                cones.append(Cone(basis, _explained(Y, basis, sigma), 0))
    return sorted(cones, key=lambda cone: -len(cone.rows))


def _lifted(Y: Tensor, found: list[Cone], basis: Tensor) -> Tensor:
    """The subspace whose part outside of known ones is ``basis``.

    The part inside is linear in the part outside, but for rows where a known atom is active as well: a
        regression
    of absolute errors, one for each known atom, takes no notice of them.
    """
    whole = torch.cat([*[cone.basis for cone in found], basis], 1)
    parts = torch.linalg.lstsq(whole, Y.mT).solution.mT
    outside = parts[:, -basis.shape[1] :]
    tilt, begin = basis, 0
    for cone in found:
        inside = parts[:, begin : begin + cone.basis.shape[1]]
        begin += cone.basis.shape[1]
        weights = torch.ones(len(Y), dtype=Y.dtype)
        slope = torch.zeros(outside.shape[1], inside.shape[1], dtype=Y.dtype)
        ridge = 1e-9 * outside.square().sum() * torch.eye(outside.shape[1], dtype=Y.dtype)
        for _ in range(REWEIGHTINGS):
            weighted = outside * weights.unsqueeze(1)
            slope = torch.linalg.solve(weighted.mT @ outside + ridge, weighted.mT @ inside)
            error = (inside - outside @ slope).norm(dim=1)
            weights = 1 / error.clamp_min(1e-3 * error.max() + 1e-12)
        tilt = tilt + cone.basis @ slope.mT
    return torch.linalg.qr(tilt).Q
