"""Fits of sums of atoms whose charts are fitted again to the rows of single atoms, round by round."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullback.linalg import leading_singular, widened
from pullback.models.dictionary.alone import ChartFit
from pullback.models.dictionary.chart_starts import chart_starts, fit_best
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.iterate import Alternated
from pullback.models.dictionary.journal import UNKEPT, Journal
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.noise import largest_ratio
from pullback.models.dictionary.pure_start import codes_anew
from pullback.models.dictionary.start import Start
from pullback.models.dictionary.sweep import alternate
from pullback.models.dictionary.sweep_options import SweepOptions
from pullback.models.dictionary.topology import Topology, choose_topology

FEW_PURE = 40
"""Pure rows below which an atom is not charted again."""
ROUNDS, ROUND_SWEEPS, CHART_SWEEPS = 8, 6, 12
CHOICES = 2
"""Rounds in which charts are chosen again, too."""
WIDE = 16
"""Dimensions of the rows that charts are chosen on: evidence needs some that are noise."""
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
        interrupted: whether Ctrl-C ended it.
    """

    fit: Alternated
    topologies: tuple[Topology | None, ...]
    pure: tuple[int, ...]
    ratios: tuple[float, ...]
    interrupted: bool = False


@dataclass(frozen=True, eq=False)
class Rounds:
    """Where rounds can go on.

    Attributes:
        fit, topologies: of the last round.
        best, kept: those of lowest s².
        ratios: see `PureFit`.
        idle: rounds since the last gain.
    """

    fit: Alternated
    topologies: tuple[Topology | None, ...]
    best: Alternated
    kept: tuple[Topology | None, ...]
    ratios: tuple[float, ...]
    idle: int

    def after(self, fit: Alternated, topologies: tuple[Topology | None, ...], ratio: float) -> "Rounds":
        """The same one round later."""
        idle = 0 if fit.s2 < (1 - GAIN) * self.best.s2 else self.idle + 1
        best, kept = (fit, topologies) if fit.s2 < self.best.s2 else (self.best, self.kept)
        return Rounds(fit, topologies, best, kept, (*self.ratios, ratio), idle)


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
    journal: Journal = UNKEPT,
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
        journal: keeps every round, and in it every chart and every sweep.
    """
    ends = math.inf if options.max_seconds is None else journal.clock() + options.max_seconds

    def swept(layout: Layout, codes: Codes, lam: Tensor | None, sweeps: int, place: str) -> Alternated:
        left = None if options.max_seconds is None else ends - journal.clock()
        now = replace(options, max_sweeps=sweeps, max_seconds=left)
        return alternate(
            layout,
            Z,
            codes,
            now,
            row_weights=row_weights,
            lam=lam,
            callback=callback,
            journal=journal.at(place),
        )

    def ratio(fit: Alternated) -> float:
        return fit.s2 / start.sigma**2 if start.sigma else fit.s2

    def wanted(now: Rounds) -> bool:
        at_noise = start.sigma is not None and now.ratios[-1] <= largest_ratio(*Z.shape)
        tired = now.idle >= PATIENCE or len(now.ratios) > rounds
        return not (at_noise or tired or journal.clock() > ends)

    now, interrupted = journal.last(), False
    if now is None:
        fit = swept(Layout(start.charts), start.codes, start.lam, options.max_sweeps, "first sweeps")
        now = Rounds(fit, start.topologies, fit, start.topologies, (ratio(fit),), 0)
        interrupted = fit.interrupted
        if not interrupted:
            journal.keep(now)
    try:
        while not interrupted and wanted(now):
            again = choose and len(now.ratios) <= CHOICES
            charted = _charted_again(Z, now, again, generator, journal.at("charts"))
            codes = codes_anew(charted.layout, widened(Z), charted.B, options.n_active, math.sqrt(now.fit.s2))
            fit = swept(charted.layout, codes, charted.lam, min(ROUND_SWEEPS, options.max_sweeps), "sweeps")
            now, interrupted = now.after(fit, charted.topologies, ratio(fit)), fit.interrupted
            if not interrupted:
                journal.keep(now)
        best = now.best
        if best.sweeps < options.max_sweeps and len(now.ratios) > 1 and not interrupted:
            last = swept(best.layout, best.codes, best.decoders.lam, options.max_sweeps, "last sweeps")
            best, interrupted = last if last.s2 <= best.s2 else best, last.interrupted
    except KeyboardInterrupt:
        best, interrupted = now.best, True
    pure = tuple(len(rows) for rows in pure_of(best))
    return PureFit(best, now.kept, pure, now.ratios, interrupted)


def pure_of(fit: Alternated) -> list[Int[Tensor, " _"]]:
    """Rows whose only active atom is k, for every k."""
    alone = (fit.codes.atoms >= 0).sum(1) == 1
    only = fit.codes.atoms.max(1).values
    return [(alone & (only == k)).nonzero().flatten() for k in range(fit.layout.K)]


@dataclass(frozen=True, eq=False)
class Charted:
    """Atoms that were fitted to their pure rows where there are enough of them."""

    layout: Layout
    B: Float[Tensor, "k p"]
    lam: Float[Tensor, " a"]
    topologies: tuple[Topology | None, ...]


@dataclass(frozen=True, eq=False)
class ChartedAtom:
    """One atom's chart on its pure rows, in the directions that they span, (p, w)."""

    fit: ChartFit
    basis: Float[Tensor, "p w"]
    topology: Topology | None


def _charted_again(
    Z: Tensor, now: Rounds, choose: bool, generator: torch.Generator | None, journal: Journal
) -> Charted:
    fit = now.fit
    charts, blocks = list(fit.layout.charts), []
    lam, chosen = fit.decoders.lam.clone(), list(now.topologies)

    def charted(k: int, rows: Tensor, place: Journal) -> ChartedAtom:
        own = widened(Z[rows])
        basis = leading_singular(own, min(WIDE, *own.shape))[2]
        short = own @ basis
        if not choose:
            return ChartedAtom(_again(charts[k], short, _coords(fit, rows, k), generator), basis, chosen[k])
        topology = choose_topology(short, amplitudes=True, generator=generator, journal=place)
        assert topology.chart.fit is not None
        return ChartedAtom(_kept(topology.chart.fit, short, charts[k], fit, rows, k), basis, topology)

    for k, rows in enumerate(pure_of(fit)):
        blocks.append(fit.B[fit.layout.block(k)])
        if len(rows) < max(FEW_PURE, charts[k].M):
            continue
        place = journal.at(f"atom {k}")
        found = place.once(partial(charted, k, rows, place))
        charts[k], blocks[k], lam[k] = found.fit.chart, found.fit.B @ found.basis.mT, found.fit.lam
        chosen[k] = found.topology
    return Charted(Layout(tuple(charts)), torch.cat(blocks), lam, tuple(chosen))


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
