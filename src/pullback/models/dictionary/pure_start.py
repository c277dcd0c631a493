"""The start of sums of atoms: rows in which one is active alone, and fits that are charted on them again."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn.functional import normalize

from pullback.linalg import leading_singular, widened
from pullback.models.dictionary.alone import ChartFit, spread
from pullback.models.dictionary.chart_starts import chart_starts, fit_best
from pullback.models.dictionary.clustering import (
    Grouping,
    merge_clusters,
    spectral_clusters,
    subspace_clusters,
)
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.cones import find_cones
from pullback.models.dictionary.encoding import encode
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.noise import MARGIN, largest_ratio, noise_level
from pullback.models.dictionary.start import Kinds, Start, fit_groups
from pullback.models.dictionary.sweep import Alternated, SweepOptions, alternate
from pullback.models.dictionary.topology import Topology, choose_topology
from pullback.validation import check_points, check_whole

FEW_PURE = 40
"""Pure rows below which an atom is not charted again."""
ROUNDS, ROUND_SWEEPS, CHART_SWEEPS = 8, 6, 12
CHOICES = 2
"""Rounds in which charts are chosen again, too."""
SPLITS, GRAPHS = (0, 2, None), (6, 10, 15)
SUBSPACE, WIDE = 4, 16
"""Dimensions of a cluster, and of the rows that charts are chosen on: evidence needs some that are noise."""
SEEDED = 0.15
"""How much larger the share of rows is from which cones grow."""
PATIENCE, GAIN = 2, 1e-3
"""Rounds without a gain after which charting again is given up, and the smallest gain of s²."""


@dataclass(frozen=True, eq=False)
class PureFit:
    """A joint fit from pure rows.

    Attributes:
        fit: of lowest s².
        topologies: how each chart was chosen last, None where it was given.
        pure: rows in which each atom is active alone, (K,).
        ratios: s²/σ² after every round; of the s² itself where the noise is not known.
    """

    fit: Alternated
    topologies: tuple[Topology | None, ...]
    pure: tuple[int, ...]
    ratios: tuple[float, ...]


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
    cones = [] if sigma is None else find_cones(Y, sigma, most=n_atoms, dense=min(1.0, share + SEEDED))
    groups = [cone.rows for cone in cones]
    if len(groups) < n_atoms:
        groups += _clusters(Y, groups, n_atoms - len(groups), share, generator)
    found = fit_groups(Y, groups, kinds, amplitudes=True, generator=generator)
    layout = Layout(tuple(one.fit.chart for one in found))
    B = torch.cat([one.fit.B for one in found]) @ basis.mT
    level = math.sqrt(max(one.fit.s2 for one in found)) if sigma is None else sigma
    codes = _encoded(layout, wide, B, n_active, level)
    lam = torch.tensor([one.fit.lam for one in found], dtype=torch.float64, device=Z.device)
    topologies = tuple(one.topology for one in found)
    return Start(layout.charts, codes, lam, topologies, tuple(groups), sigma, len(cones))


def fit_pure(
    Z: Float[Tensor, "n p"],
    start: Start,
    options: SweepOptions,
    *,
    choose: bool = False,
    rounds: int = ROUNDS,
    row_weights: Float[Tensor, " n"] | None = None,
    callback: Callable[..., object] | None = None,
    generator: torch.Generator | None = None,
) -> PureFit:
    """A joint fit whose atoms are charted again on their pure rows until the noise alone is left.

    A chart that starts on the wrong rows folds, and sweeps do not unfold it. In every round each atom is
    fitted to the rows in which it is active alone, from where it is and from fresh starts; all rows are
    encoded from nothing, and sweeps follow. The fit of lowest s² is kept.

    Args:
        Z: rows, (n, p).
        start: of `pure_start`.
        options: of the sweeps; ``max_sweeps`` before the first round and after the last, and at most in one.
        choose: whether charts are chosen again, too, by evidence on the purer rows.
        rounds: at most.
        row_weights: of `alternate`.
        callback: of `alternate`.
        generator: of chart starts.
    """
    began = time.monotonic()

    def swept(layout: Layout, codes: Codes, lam: Tensor | None, sweeps: int) -> Alternated:
        left = None if options.max_seconds is None else options.max_seconds - (time.monotonic() - began)
        now = replace(options, max_sweeps=sweeps, max_seconds=left)
        return alternate(layout, Z, codes, now, row_weights=row_weights, lam=lam, callback=callback)

    fit = swept(Layout(start.charts), start.codes, start.lam, options.max_sweeps)
    best, topologies, ratios = fit, start.topologies, [_ratio(fit, start.sigma)]
    kept, idle = topologies, 0
    for number in range(rounds):
        over = options.max_seconds is not None and time.monotonic() - began > options.max_seconds
        if (
            over
            or "interrupted" in fit.message
            or (start.sigma is not None and ratios[-1] <= largest_ratio(*Z.shape))
        ):
            break
        again = choose and number < CHOICES
        layout, B, lam, topologies = _recharted(Z, fit, topologies, again, generator)
        codes = _encoded(layout, widened(Z), B, options.n_active, math.sqrt(fit.s2))
        fit = swept(layout, codes, lam, min(ROUND_SWEEPS, options.max_sweeps))
        ratios.append(_ratio(fit, start.sigma))
        idle = 0 if fit.s2 < (1 - GAIN) * best.s2 else idle + 1
        if fit.s2 < best.s2:
            best, kept = fit, topologies
        if idle >= PATIENCE:
            break
    if best.sweeps < options.max_sweeps and len(ratios) > 1 and "interrupted" not in fit.message:
        last = swept(best.layout, best.codes, best.decoders.lam, options.max_sweeps)
        best = last if last.s2 <= best.s2 else best
    pure = tuple(len(rows) for rows in pure_of(best))
    return PureFit(best, kept, pure, tuple(ratios))


def pure_of(fit: Alternated) -> list[Int[Tensor, " _"]]:
    """Rows whose only active atom is k, for every k."""
    alone = (fit.codes.atoms >= 0).sum(1) == 1
    only = fit.codes.atoms.max(1).values
    return [(alone & (only == k)).nonzero().flatten() for k in range(fit.layout.K)]


def _recharted(
    Z: Tensor,
    fit: Alternated,
    topologies: tuple[Topology | None, ...],
    choose: bool,
    generator: torch.Generator | None,
) -> tuple[Layout, Tensor, Tensor, tuple[Topology | None, ...]]:
    """Charts, decoders and λ of all atoms, fitted to their pure rows where there are enough of them."""
    charts, blocks = list(fit.layout.charts), []
    lam, chosen = fit.decoders.lam.clone(), list(topologies)
    for k, rows in enumerate(pure_of(fit)):
        blocks.append(fit.B[fit.layout.block(k)])
        if len(rows) < max(FEW_PURE, charts[k].M):
            continue
        own = widened(Z[rows])
        basis = leading_singular(own, min(WIDE, *own.shape))[2]
        short = own @ basis
        if choose:
            topology = choose_topology(short, amplitudes=True, generator=generator)
            chosen[k] = topology
            assert topology.chart.fit is not None
            found = _kept(topology.chart.fit, short, charts[k], fit, rows, k)
        else:
            found = _again(charts[k], short, _coords(fit, rows, k), generator)
        charts[k], blocks[k], lam[k] = found.chart, found.B @ basis.mT, found.lam
    return Layout(tuple(charts)), torch.cat(blocks), lam, tuple(chosen)


def _kept(found: ChartFit, short: Tensor, chart: object, fit: Alternated, rows: Tensor, k: int) -> ChartFit:
    """The chosen fit, or one from where the atom is if its chart stays and that is better."""
    if found.chart != chart:
        return found
    now = fit_best(
        found.chart, short, [_coords(fit, rows, k)], amplitudes=short.norm(dim=1), sweeps=CHART_SWEEPS
    )
    return min((found, now), key=lambda one: one.rss)


def _again(chart: object, short: Tensor, t: Tensor, generator: torch.Generator | None) -> ChartFit:
    starts = [t, *chart_starts(chart, short, directions=True, generator=generator)]  # type: ignore[arg-type]
    sizes = short.norm(dim=1).clamp_min(1e-12)
    return fit_best(chart, short, starts, amplitudes=sizes, sweeps=CHART_SWEEPS, reencode=(4, 8))  # type: ignore[arg-type]


def _coords(fit: Alternated, rows: Tensor, k: int) -> Tensor:
    slot = (fit.codes.atoms[rows] == k).long().argmax(1)
    return fit.codes.coords[rows, slot, : fit.layout.charts[k].c]


def _encoded(layout: Layout, Z: Tensor, B: Tensor, n_active: int, sigma: float) -> Codes:
    """Codes of all rows from nothing, weights in units of the rows."""
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
    """Clusters of dense rows that belong to no group yet."""
    free = torch.ones(len(Y), dtype=torch.bool, device=Y.device)
    for group in groups:
        free[group] = False
    rows = free.nonzero().flatten()
    dense = rows[pure_rows(Y[rows], max(share, min(1.0, 8 * wanted / len(rows))))]
    labels = direction_clusters(Y[dense], wanted, generator=generator).labels
    return [
        dense[labels == k] if int((labels == k).sum()) >= 4 else dense[: max(4, len(dense) // wanted)]
        for k in range(wanted)
    ]


def _ratio(fit: Alternated, sigma: float | None) -> float:
    return fit.s2 / sigma**2 if sigma else fit.s2
