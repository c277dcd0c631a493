"""Figures of a manifold dictionary as a whole: usage, atoms that go together, evidence, restarts, error."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy import sparse

from pullback.estimators.manifold_dictionary import ManifoldDictionary
from pullback.models.dictionary.topology import Topology
from pullback.plots.atoms import own_atom
from pullback.plots.style import (
    CATEGORICAL,
    FIT,
    GEODESIC,
    GROUND,
    INK,
    MUTED,
    POINT,
    axes_or_new,
    finish,
    magnification_colormap,
    shortened,
)

LEGIBLE_ATOMS = 20
"""Atoms up to which the cells of a matrix carry numbers."""
FAINTEST = 0.05
"""Share of a row's largest weight from which on an atom counts as used."""
WINNER, CHARTS, SEPARATE = FIT, POINT, "#b9c4cf"


def atom_usage(model: ManifoldDictionary, *, ax: Axes | None = None) -> Axes:
    """Draw how many rows use each atom, and how much of it they take.

    Args:
        model: a fitted dictionary; its training rows count.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes, a dot for each atom that is used; the title counts those that fewer than .5 % of rows use.
    """
    own_atom(model, 0)
    weights = _support(model)
    K, n = len(model.atoms_), len(model.codes_)
    counts = np.diff(weights.tocsc().indptr)
    means = np.asarray(weights.sum(axis=0)).ravel() / np.maximum(counts, 1)
    ax = axes_or_new(ax, (5.0, 3.8))
    for i, kind in enumerate(dict.fromkeys(atom.chart.name for atom in model.atoms_)):
        own = [k for k in range(K) if model.atoms_[k].chart.name == kind and counts[k]]
        color = CATEGORICAL[i % len(CATEGORICAL)]
        ax.scatter(counts[own] / n, means[own], s=70, color=color, label=kind, linewidths=0, zorder=2)
        for k in own:
            at = (counts[k] / n, means[k])
            ax.annotate(str(k), at, xytext=(7, 4), textcoords="offset points", fontsize=8, color=INK)
    ax.set_xlim(left=0)
    ax.set_ylim(0, 1.15 * max(float(means.max()), 1e-12))
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    dead = len(model.diagnostics_.dead)
    title = f"Usage of {K} atoms" + (f", {dead} dead" if dead else "")
    return finish(ax, title, ("share of rows", "mean weight where used"))


def coactivation(model: ManifoldDictionary, *, ax: Axes | None = None) -> Axes:
    """Draw which atoms rows use together.

    A cell is the share of those rows that use the atom of its column, among all that use the atom of its row.

    Args:
        model: a fitted dictionary; its training rows count.
        ax: Axes to draw on; None makes a figure.
    """
    own_atom(model, 0)
    used = _support(model).astype(bool).astype(np.float64)
    together = np.asarray((used.T @ used).todense())
    rows = together.diagonal().copy()
    share = together / np.maximum(rows, 1)[:, None]
    K = len(rows)
    ax = axes_or_new(ax, (1.6 + 0.42 * min(K, LEGIBLE_ATOMS), 1.2 + 0.38 * min(K, LEGIBLE_ATOMS)))
    np.fill_diagonal(share, np.nan)
    colors = magnification_colormap().with_extremes(bad=GROUND)
    drawn = ax.imshow(share, cmap=colors, vmin=0, vmax=1)
    if K <= LEGIBLE_ATOMS:
        for i, j in np.argwhere(np.isfinite(share) & (rows[:, None] > 0)):
            color = "white" if share[i, j] > 0.6 else INK
            ax.text(j, i, f"{share[i, j]:.2f}".lstrip("0"), ha="center", va="center", fontsize=7, color=color)
        ax.set_xticks(range(K))
        ax.set_yticks(range(K))
    if ax.figure is not None:
        ax.figure.colorbar(drawn, ax=ax, shrink=0.8).set_label("share of its rows", color=MUTED)
    return finish(ax, "Atoms used together", ("also uses atom", "rows of atom"))


def evidence_bars(
    model: ManifoldDictionary | Topology, atom: int = 0, *, most_points: int = 4, ax: Axes | None = None
) -> Axes:
    """Draw how much worse every chart explains the rows of an atom than the best one, in nats.

    Args:
        model: a fitted dictionary whose charts were chosen by evidence, or a `Topology`.
        atom: its number.
        most_points: numbers of separate points that are shown, the best of them.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes; the title gives the verdict and its margin. The scale is logarithmic beyond 10 nats, the
        margin that a verdict needs.

    Raises:
        ValueError: the chart of the atom was given, so that nothing was compared.
    """
    if isinstance(model, Topology):
        known, name = model, "rows"
    else:
        own_atom(model, atom)
        found = model.diagnostics_.topology
        known = found[atom] if atom < len(found) else None
        name = f"atom {atom}"
        if known is None:
            raise ValueError(
                f"atom {atom}: expected a chart that was chosen by evidence, its chart was given"
            )
    best = known.table[0].evidence.nats
    separate = [entry.name for entry in known.table if entry.separate][:most_points]
    entries = [entry for entry in known.table if not entry.separate or entry.name in separate]
    nats = np.array([entry.evidence.nats - best for entry in entries])
    ax = axes_or_new(ax, (5.2, 0.9 + 0.3 * len(entries)))
    places = np.arange(len(entries))[::-1]
    colors = [
        WINNER if entry.name == known.winner else SEPARATE if entry.separate else CHARTS for entry in entries
    ]
    ax.barh(places, nats, color=colors, height=0.7)
    ax.scatter(np.zeros(len(nats)), places, s=14, color=colors, linewidths=0, zorder=3)
    ax.set_yticks(places, [entry.name for entry in entries])
    ax.set_xscale("symlog", linthresh=10)
    ax.axvline(10, color=GEODESIC, lw=1, ls=":")
    if known.winner != entries[0].name:
        ax.text(
            0.98, 0.02, f"a gap opens the {entries[0].name}", transform=ax.transAxes, ha="right", fontsize=8
        )
    margin = "without a rival" if not np.isfinite(known.margin) else f"by {known.margin:.0f} nats"
    verdict = "" if known.verdict != "undecided" else "undecided, "
    return finish(ax, f"{name}: {verdict}{known.winner} {margin}", ("nats worse than the best", ""))


def restart_spread(model: ManifoldDictionary, *, ax: Axes | None = None) -> Axes:
    """Draw how much worse than the best all starts ended: by noise left (sums), by objective (mixtures).

    Args:
        model: a fitted dictionary.
        ax: Axes to draw on; None makes a figure.
    """
    own_atom(model, 0)
    known = model.diagnostics_
    objective = np.asarray(restart_ranks(model), dtype=np.float64)
    what = "noise variance" if model.gate == "amplitude" else "objective"
    best = objective.min()
    above = 100 * (objective - best) / abs(best)
    ax = axes_or_new(ax, (5.0, 0.9 + 0.35 * len(objective)))
    places = np.arange(len(objective))[::-1]
    kept = np.arange(len(objective)) == 0
    ax.scatter(above, places, s=60, c=np.where(kept, FIT, POINT), linewidths=0, zorder=2)
    ax.hlines(places, 0, above, color=POINT, lw=1.5)
    ax.set_yticks(places, [shortened(view) for view in known.restart_views])
    ax.set_ylim(-0.6, len(objective) - 0.4)
    ax.set_xlim(-0.02 * max(above.max(), 1), 1.05 * max(above.max(), 1))
    return finish(ax, "Starts, the kept one first", (f"{what} above the best, %", ""))


def error_curve(
    curves: Mapping[str, Sequence[tuple[float | int, float]]],
    *,
    floor: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the share of variance that is not explained over the numbers that a row spends.

    Args:
        curves: name to (active scalars a row, FVU) points, as `pullback.models.dictionary.rivals` measures.
        floor: FVU of the noise, where it is known.
        ax: Axes to draw on; None makes a figure.

    Raises:
        ValueError: no curve, or numbers that are not positive.

    Example:
        >>> import pullback as pb
        >>> ax = pb.plots.error_curve({"PCA": [(1, 0.6), (2, 0.3)], "dictionary": [(2.2, 0.05)]}, floor=0.04)
        >>> len(ax.lines)
        3
    """
    if not isinstance(curves, Mapping) or not curves:
        raise ValueError("curves: expected a name with (active scalars, FVU) points, got none")
    ax = axes_or_new(ax, (5.4, 3.8))
    for i, (name, points) in enumerate(curves.items()):
        table = np.asarray(sorted(points), dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != 2 or not (np.isfinite(table) & (table > 0)).all():
            raise ValueError(
                f"curves[{name!r}]: expected positive (active scalars, FVU) pairs, got {points!r}"
            )
        color = CATEGORICAL[i % len(CATEGORICAL)]
        alone = len(table) == 1
        ax.plot(
            *table.T, "o-", color=color, ms=8 if alone else 5, lw=1.6, zorder=3 if alone else 2, label=name
        )
    if floor is not None:
        ax.axhline(floor, color=MUTED, lw=1, ls=":", label="noise")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ticks = sorted({round(scalars) for points in curves.values() for scalars, _ in points})
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_formatter(NullFormatter())
    ax.legend(frameon=False, fontsize=8)
    return finish(ax, "Error against what a row spends", ("active scalars a row", "FVU"))


def restart_ranks(model: ManifoldDictionary) -> tuple[float, ...]:
    """What the starts of a fit were ranked by, the kept one first: s² of sums, the objective of mixtures."""
    known = model.diagnostics_
    if model.gate == "amplitude":
        return tuple(sigma**2 for sigma in known.restart_sigmas)
    return known.restart_objectives


def _support(model: ManifoldDictionary) -> sparse.csr_matrix:
    """Weights of the training rows without those below a twentieth of a row's largest."""
    weights = model.codes_.to_csr()
    largest = np.repeat(weights.max(axis=1).toarray().ravel(), np.diff(weights.indptr))
    weights.data[weights.data < FAINTEST * largest] = 0
    weights.eliminate_zeros()
    return weights
