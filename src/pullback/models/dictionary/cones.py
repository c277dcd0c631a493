"""Rows that only one atom is active in, found atom by atom: they form cones with apex 0.

An atom with an amplitude fills a cone, and its rows span a subspace of few dimensions. Pieces of cones that
share directions are joined; what is found is projected out, and rows that were hidden behind it appear.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullback.linalg import widened
from pullback.models.dictionary.pieces import (
    DEVIATIONS,
    FEWEST,
    ROUNDS,
    Piece,
    explained_rows,
    find_pieces,
    joined_pieces,
    noise_subspace,
)
from pullback.validation import check_points, check_positive, check_whole

LARGEST_RANK = 9
ALIKE = (0.9, 0.95, 0.98)
"""Cosine of the directions that pieces of one cone share; the next where that leads to too few cones."""
DENSE = 0.4
LESSER = 0.25
"""Rows of a small piece, in units of the last that is needed."""
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


def find_cones(
    Y: Float[Tensor, "n r"], sigma: float, *, most: int | None = None, dense: float = DENSE
) -> list[Cone]:
    """Cones of single atoms among rows that are sums of a few.

    Args:
        Y: rows in the directions that stand out of noise, not centred, (n, r).
        sigma: standard deviation of the noise.
        most: cones wanted at most, those of most rows; a single one is all rows; None for all that are found.
        dense: share of the rows that seeds are taken from, the densest in direction first.
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
    seen = _cones(wide, sigma, most, dense)
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


def _cones(Y: Tensor, sigma: float, wanted: int | None = None, dense: float = DENSE) -> list[Cone]:
    """Cones of joined pieces, most rows first; joined more strictly while there are fewer than wanted."""
    # where several are wanted none fills the space
    pieces = find_pieces(Y, sigma, min(LARGEST_RANK, Y.shape[1] - (wanted is not None)), dense)
    ranked = sorted((len(piece.rows) for piece in pieces), reverse=True)
    # a small piece may be rows of two atoms that happen to be near, and tie their cones together
    enough = LESSER * ranked[min(wanted, len(ranked)) - 1] if wanted and ranked else 0.0
    large = [piece for piece in pieces if len(piece.rows) >= enough]
    best: list[Cone] = []
    for few, alike in [(few, alike) for alike in ALIKE for few in (pieces, large)]:
        joined = [_completed(Y, piece, sigma) for piece in joined_pieces(Y, few, sigma, alike)]
        cones = _independent([cone for cone in joined if cone is not None])
        if len(cones) > len(best):
            best = cones
        if len(best) >= (wanted or 0):
            break
    return best


def _completed(Y: Tensor, piece: Piece, sigma: float) -> Cone | None:
    """All rows that the subspace of a piece explains, wherever they lie on it."""
    rank = piece.basis.shape[1]
    rows = explained_rows(Y, piece.basis, sigma)
    if len(rows) <= rank:
        return None
    basis = torch.linalg.eigh(Y[rows].mT @ Y[rows]).eigenvectors[:, -rank:].flip(1)
    rows = explained_rows(Y, basis, sigma)
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
    found = explained_rows(Y, basis, sigma)
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
        rows = explained_rows(Y, lifted, sigma)
        if len(rows) >= FEWEST:
            basis = noise_subspace(Y[rows], sigma)
            if 0 < basis.shape[1] <= LARGEST_RANK:
                cones.append(Cone(basis, explained_rows(Y, basis, sigma), 0))
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
