"""The start of sums of atoms: rows in which one is active alone."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn.functional import normalize

from pullback.linalg import leading_singular, widened
from pullback.models.dictionary.alone import spread
from pullback.models.dictionary.clustering import (
    Grouping,
    merge_clusters,
    spectral_clusters,
    subspace_clusters,
)
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.cones import find_cones
from pullback.models.dictionary.encoding import encode
from pullback.models.dictionary.journal import UNKEPT, Journal
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.noise import MARGIN, noise_level
from pullback.models.dictionary.start import Kinds, Start, fit_groups
from pullback.validation import check_points, check_whole

SMALLEST = 4
"""Rows of a cluster at least."""
SPLITS, GRAPHS = (0, 2, None), (6, 10, 15)
SUBSPACE = 4
"""Dimensions of a cluster."""
SEEDED = 0.15
"""How much larger the share of rows is from which cones grow."""


def pure_rows(Y: Float[Tensor, "n r"], share: float = 0.25, *, neighbours: int = 10) -> Int[Tensor, " m"]:
    """Rows that are densest in direction, most of them with one active atom.

    Args:
        Y: rows, not centred, (n, r).
        share: of the rows.
        neighbours: the one whose angle counts.
    Example:
        >>> import torch
        >>> t = torch.linspace(0, 1, 20, dtype=torch.float64)
        >>> curve = torch.stack([t.cos(), t.sin(), 0 * t, 0 * t], 1)
        >>> other = torch.randn(60, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> bool((pure_rows(torch.cat([curve, other])) < 20).all())
        True
    """
    directions = normalize(widened(check_points("Y", Y)), dim=1).cpu().numpy()
    k = min(neighbours, len(Y) - 1)
    distance = NearestNeighbors(n_neighbors=k + 1).fit(directions).kneighbors(directions)[0][:, k]
    order = torch.from_numpy(distance).argsort()[: max(1, int(share * len(Y)))]
    return order.sort().values.to(Y.device)


def direction_clusters(
    Y: Float[Tensor, "n r"], groups: int, *, generator: torch.Generator | None = None
) -> Grouping:
    """Rows by the subspace of their direction: several spectral clusterings, merged and refined, the best
    kept.

    Args:
        Y: rows of one active atom each, (n, r).
        groups: number of atoms.
        generator: of k-means.
    """
    unit = normalize(widened(Y), dim=1)
    found = []
    for extra in SPLITS:
        count = 2 * groups if extra is None else groups + extra
        for neighbours in GRAPHS:
            if count > len(unit):
                continue
            labels = spectral_clusters(unit, count, neighbours=neighbours, generator=generator)
            merged = merge_clusters(unit, labels, groups, rank=SUBSPACE)
            found.append(subspace_clusters(unit, merged, rank=SUBSPACE, affine=False))
    return min(found, key=lambda grouping: grouping.residual)


def pure_start(
    Z: Float[Tensor, "n p"],
    n_atoms: int,
    kinds: Kinds = "auto",
    *,
    n_active: int = 3,
    share: float = 0.25,
    generator: torch.Generator | None = None,
    journal: Journal = UNKEPT,
) -> Start:
    """Charts on the rows of single atoms, and codes of all rows.

    Where the noise is known, rows of single atoms are those of cones, see `find_cones`; atoms that have no
    cone, and all where the noise is not known, take a cluster of the rows that are densest in direction.

    Args:
        Z: rows, not centred, (n, p).
        n_atoms: K.
        kinds: charts, see `fit_groups`.
        n_active: most atoms of a row.
        share: of rows taken for pure where cones are missing; cones grow from .15 more. Restarts change it.
        generator: of clusters and chart starts.
        journal: keeps the groups and every chart.
    Returns: `Start`; ``found`` is the number of cones.
    Raises:
        TypeError, ValueError: no table of finite numbers, more atoms than rows.
    """
    check_points("Z", Z)
    check_whole("n_atoms", n_atoms)
    check_whole("n_active", n_active)
    wide = widened(Z)
    sigma = noise_level(wide).sigma
    basis = _signal(wide, sigma)
    Y = wide @ basis

    def grouped() -> tuple[tuple[Tensor, ...], int]:
        cones = [] if sigma is None else find_cones(Y, sigma, most=n_atoms, dense=min(1.0, share + SEEDED))
        rows = [cone.rows for cone in cones]
        if len(rows) < n_atoms:
            rows += _clusters(Y, rows, n_atoms - len(rows), share, generator)
        return tuple(rows), len(cones)

    groups, cones = journal.at("groups").once(grouped)
    found = fit_groups(Y, groups, kinds, amplitudes=True, generator=generator, journal=journal)
    layout = Layout(tuple(one.fit.chart for one in found))
    B = torch.cat([one.fit.B for one in found]) @ basis.mT
    level = math.sqrt(max(one.fit.s2 for one in found)) if sigma is None else sigma
    codes = codes_anew(layout, wide, B, n_active, level)
    lam = torch.tensor([one.fit.lam for one in found], dtype=torch.float64, device=Z.device)
    topologies = tuple(one.topology for one in found)
    return Start(layout.charts, codes, lam, topologies, groups, sigma, cones)


def codes_anew(
    layout: Layout, Z: Float[Tensor, "n p"], B: Float[Tensor, "k p"], n_active: int, sigma: float
) -> Codes:
    """Codes of all rows from nothing, weights in units of the rows.

    Args:
        layout: of the atoms.
        Z: rows, (n, p).
        B: decoders, (M_tot, p).
        n_active: most atoms of a row.
        sigma: noise level, which tells what an atom must save.
    """
    scale = spread(Z)
    cost = Z.shape[1] * sigma**2 / 8 / scale**2
    codes = encode(layout, Z / scale, B, min(n_active, layout.K), cost).codes
    return replace(codes, weights=codes.weights * scale)


def _signal(Z: Tensor, sigma: float | None) -> Float[Tensor, "p r"]:
    """Directions of the rows, not centred, that stand out of noise; all where it is not known."""
    sizes, directions = leading_singular(Z)[1:]
    if sigma is None:
        return directions
    edge = MARGIN * sigma * (math.sqrt(len(Z)) + math.sqrt(Z.shape[1]))
    return directions[:, : max(1, int((sizes > edge).sum()))]


def _clusters(
    Y: Tensor, groups: list[Tensor], wanted: int, share: float, generator: torch.Generator | None
) -> list[Tensor]:
    """Clusters of dense rows that belong to no group yet; of all rows where groups have taken nearly all."""
    free = torch.ones(len(Y), dtype=torch.bool, device=Y.device)
    for group in groups:
        free[group] = False
    if int(free.sum()) < SMALLEST * wanted:
        free[:] = True
    rows = free.nonzero().flatten()
    dense = rows[pure_rows(Y[rows], max(share, min(1.0, 8 * wanted / len(rows))))]
    labels = direction_clusters(Y[dense], wanted, generator=generator).labels
    return [
        dense[labels == k]
        if int((labels == k).sum()) >= SMALLEST
        else dense[: max(SMALLEST, len(dense) // wanted)]
        for k in range(wanted)
    ]
