"""How many atoms there are, before any is fitted."""

from collections.abc import Callable, Sequence
from itertools import combinations

from jaxtyping import Float
from torch import Tensor

from pullback.linalg import leading_singular, widened
from pullback.models.dictionary.cones import find_cones
from pullback.models.dictionary.journal import UNKEPT, Journal
from pullback.models.dictionary.matching import subspace_overlap
from pullback.models.dictionary.noise import largest_ratio, noise_level
from pullback.models.dictionary.restarts import DictionaryFit
from pullback.validation import check_points

PIECE = 0.5
"""Rows of a cone, in those of the median, below which it is a piece of another."""
FEWEST_NOISE = 12
"""Dimensions of noise alone that cones are told apart by."""
GAIN = 0.02
"""Share of the noise variance that an atom more must take away."""
SHARED = 0.5
"""Overlap of the directions of two atoms above which they may be pieces of one."""
MORE = 4


def count_atoms(Z: Float[Tensor, "n p"]) -> int:
    """Number of cones that hold rows of one atom, see `find_cones`.

    Subspaces grow from many more rows than there are atoms and are joined where they share directions; cones
    with fewer than half the rows of the median one are pieces and do not count.

    Args:
        Z: rows, not centred, (n, p): sums of a few atoms, or one atom a row.
    Returns: at least 1.
    Raises:
        ValueError: the spectrum of the rows does not tell how much of them is noise, or fewer than 12
            dimensions hold noise alone.
    Example:
        >>> import math, torch
        >>> g = torch.Generator().manual_seed(0)
        >>> t = 2 * math.pi * torch.rand(200, generator=g, dtype=torch.float64)
        >>> ring = torch.stack([t.cos(), t.sin(), 0 * t + 0.5], 1)
        >>> rows = torch.cat([torch.block_diag(ring[:100], ring[100:]), torch.zeros(200, 18)], 1)
        >>> count_atoms(rows + 0.02 * torch.randn(200, 24, generator=g))
        2
    """
    wide = widened(check_points("Z", Z))
    level = noise_level(wide)
    if level.sigma is None:
        raise ValueError(
            "n_atoms: expected a number, since the spectrum of the rows does not tell their noise, got 'auto'"
        )
    if wide.shape[1] - level.rank < FEWEST_NOISE:
        raise ValueError(
            f"n_atoms: expected a number, since signal fills {level.rank} of {wide.shape[1]} dimensions and "
            "cones cannot be told apart, got 'auto'"
        )
    directions = leading_singular(wide, max(1, level.rank))[2]
    cones = find_cones(wide @ directions, level.sigma)
    sizes = sorted(len(cone.rows) for cone in cones)
    return max(1, sum(size >= PIECE * sizes[len(sizes) // 2] for size in sizes)) if sizes else 1


def grown(
    fit: Callable[[int, Journal], DictionaryFit],
    count: int,
    shape: Sequence[int],
    journal: Journal = UNKEPT,
) -> DictionaryFit:
    """Fits with an atom more or fewer than there seem to be, where that is called for.

    One more while the noise is not reached and the last one has helped; one fewer while the noise is reached
    and two atoms share most of their directions, since few rows may show an atom in two pieces; it is kept if
    it leaves as little.

    Args:
        fit: a fit with that many atoms, which keeps its own loops in the journal that it is given.
        count: how many there seem to be.
        shape: of the rows.
        journal: keeps the best fit so far.
    """

    def made(wanted: int) -> DictionaryFit:
        return fit(wanted, journal.at(f"{wanted} atoms"))

    kept = journal.last()
    if kept is None:
        kept = made(count)
        if not kept.interrupted:
            journal.keep(kept)
    while not kept.interrupted and (wanted := _next(kept, count, shape)) is not None:
        try:
            found = made(wanted)
        except KeyboardInterrupt:
            return kept.broken_off()
        fewer = wanted < count
        enough = _at_noise(found, shape) and not _helped(kept, found) if fewer else _helped(found, kept)
        if not enough:
            return kept.broken_off() if found.interrupted else kept
        kept = found
        if not kept.interrupted:
            journal.keep(kept)
    return kept


def _next(kept: DictionaryFit, count: int, shape: Sequence[int]) -> int | None:
    """Number of atoms to try next, None where these are right."""
    K = kept.best.fit.layout.K
    if count > K or (count == K and _at_noise(kept, shape)):
        return K - 1 if _in_pieces(kept) else None
    return None if _at_noise(kept, shape) or K - count >= MORE else K + 1


def _helped(found: DictionaryFit, kept: DictionaryFit) -> bool:
    return found.best.fit.s2 <= (1 - GAIN) * kept.best.fit.s2


def _at_noise(found: DictionaryFit, shape: Sequence[int]) -> bool:
    best = found.best
    return best.sigma is None or best.fit.s2 <= largest_ratio(shape[0], shape[1]) * best.sigma**2


def _in_pieces(found: DictionaryFit) -> bool:
    """Whether two atoms share most of their directions."""
    fit = found.best.fit
    parts = [fit.B[fit.layout.block(k)] for k in range(fit.layout.K)]
    return any(subspace_overlap(*pair) > SHARED for pair in combinations(parts, 2))
