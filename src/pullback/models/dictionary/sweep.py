"""A fit from a start: decoders, smoothness, rows, now and then all codes anew, and the gauge.

Always returns the best it saw, whatever stops it: rest, the budget, the keyboard or a matrix without a
Cholesky factor.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.decoder_step import DecoderFit, NotDefiniteError
from pullback.models.dictionary.final_gauge import laid_out
from pullback.models.dictionary.iterate import INTERRUPTED, Alternated, Iterate, SweepPoint, SweepState
from pullback.models.dictionary.journal import UNKEPT, Journal
from pullback.models.dictionary.labelled import KnownCoordinates
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.row_metrics import RowMetrics
from pullback.models.dictionary.smoothing import fellner_schall, settled
from pullback.models.dictionary.sweep_options import SweepOptions
from pullback.models.dictionary.sweep_steps import DecoderRule, SweepSteps

SMOOTHNESS = 1e-2
"""λ at the start."""


def alternate(
    layout: Layout,
    Z: Float[Tensor, "n p"],
    start: Codes,
    options: SweepOptions | None = None,
    *,
    row_weights: Float[Tensor, " n"] | None = None,
    lam: Float[Tensor, " k"] | None = None,
    callback: Callable[[SweepState], object] | None = None,
    decoders: DecoderRule | None = None,
    metrics: RowMetrics | None = None,
    known: KnownCoordinates | None = None,
    journal: Journal = UNKEPT,
) -> Alternated:
    """Fit decoders and codes from first codes.

    Args:
        layout: of the atoms.
        Z: rows, (n, p).
        start: first codes; in the amplitude gate weights in the units of Z for atoms of any size.
        options: see `SweepOptions`.
        row_weights: w >= 0, (n,).
        lam: first λ, (K,), in the units of the result's ``decoders.lam``; None for the default.
        callback: called after every sweep; a KeyboardInterrupt keeps the best so far.
        decoders: what gives decoders for codes, for rows in units of their spread; None for the best ones.
        metrics: of rows that are measured each by a factor of its own, in the coordinates of their mean.
        known: coordinates that stay where labels put them.
        journal: keeps every sweep; of rules for decoders, which have a memory of their own, none.
    """
    options = SweepOptions() if options is None else options
    kept = journal if decoders is None else UNKEPT
    steps = SweepSteps(layout, Z, options, row_weights, decoders, metrics, known)
    return _Sweeps(steps, kept).run(start, lam, callback)


def gauged(
    fit: Alternated,
    Z: Float[Tensor, "n p"],
    options: SweepOptions,
    row_weights: Tensor | None = None,
    known: KnownCoordinates | None = None,
) -> Alternated:
    """A fit in the gauge of ``options``, for fits that were swept without.

    Args:
        fit: of `alternate`.
        Z: its rows.
        options: of the gauge.
        row_weights: w, (n,).
        known: coordinates that stay.
    """
    once = replace(options, max_sweeps=1, max_seconds=None)
    found = alternate(
        fit.layout, Z, fit.codes, once, row_weights=row_weights, lam=fit.decoders.lam, known=known
    )
    return replace(fit, codes=found.codes, decoders=found.decoders)


class _Sweeps:
    """One fit: its loop, and what it keeps."""

    def __init__(self, steps: SweepSteps, journal: Journal):
        self.steps, self.options, self.journal = steps, steps.options, journal
        self.began = journal.clock()
        self.ends = math.inf if self.options.max_seconds is None else self.began + self.options.max_seconds
        self.path: list[float] = []

    def run(
        self, codes: Codes, lam: Tensor | None, callback: Callable[[SweepState], object] | None
    ) -> Alternated:
        options = self.options
        at = self._begun(codes, lam)
        codes, lam, damping, best = at.codes, at.lam, at.damping, at.best
        converged, message = False, f"stopped after {options.max_sweeps} sweeps; raise max_sweeps"
        try:
            for sweep in range(at.sweep, options.max_sweeps):
                now = self.steps.decoders(codes, lam, sweep)
                self.path.append(now.objective)
                before, lam = now.fit.lam, self._smoothed(now.fit, sweep)
                rest = settled(before, lam) and not self.steps.scheduled(sweep)
                # objectives of different λ do not compare: the best is counted from when they rest
                if best is None or now.objective <= best.objective or not rest:
                    best = now
                codes = now.codes
                if callback is not None:
                    callback(self._state(now, sweep))
                if rest and self._still() and sweep > options.reencode_every:
                    converged, message = True, "objective at rest"
                    break
                if self.journal.clock() > self.ends:
                    message = f"stopped after {options.max_seconds:g} s; raise max_seconds"
                    break
                if sweep + 1 < options.max_sweeps:
                    codes, damping = self.steps.rows(now, damping, sweep)
                    path = tuple(self.path)
                    self.journal.keep(
                        SweepPoint(sweep + 1, codes, lam, damping, best, path, self.steps.retries, self.began)
                    )
        except KeyboardInterrupt:
            if best is None:
                raise
            message = INTERRUPTED
        except NotDefiniteError as error:
            if best is None:
                raise
            message = f"stopped: {error}; drop atoms that no row uses"
        assert best is not None
        best = laid_out(self.steps, best, max(0, len(self.path) - 1))
        return self._result(best, converged, message)

    def _begun(self, codes: Codes, lam: Tensor | None) -> SweepPoint:
        """Where the journal stands, or the first sweep."""
        known = self.journal.last()
        if known is not None:
            self.path, self.steps.retries, self.began = list(known.path), known.retries, known.began
            return known
        codes = replace(codes, weights=codes.weights.double(), coords=codes.coords.double())
        if not self.steps.soft:
            codes = replace(codes, weights=codes.weights / self.steps.scale)
        if lam is None:
            first = SMOOTHNESS if self.options.smoothness is None else self.options.smoothness
            lam = self.steps.Z.new_full((self.steps.layout.K,), first)
        elif not self.steps.soft:
            lam = lam / self.steps.scale**2
        return SweepPoint(0, codes, lam, None, None, (), 0, self.began)

    def _still(self) -> bool:
        return len(self.path) > 1 and abs(self.path[-1] - self.path[-2]) <= self.options.tol * self.path[-1]

    def _smoothed(self, fit: DecoderFit, sweep: int) -> Tensor:
        return (
            fellner_schall(self.steps.layout, fit)
            if self.options.smoothness is None and sweep >= 2
            else fit.lam
        )

    def _state(self, now: Iterate, sweep: int) -> SweepState:
        return SweepState(
            sweep,
            now.objective * self.steps.scale**2,
            now.fit.s2**0.5 * self.steps.scale,
            now.fit.rss / len(self.steps.Z),
            self.journal.clock() - self.began,
            now.codes,
        )

    def _result(self, best: Iterate, converged: bool, message: str) -> Alternated:
        square, fit, codes = self.steps.scale**2, best.fit, best.codes
        if self.steps.soft:
            fit = replace(fit, B=fit.B * self.steps.scale, rough=fit.rough * square)
        else:
            codes = replace(codes, weights=codes.weights * self.steps.scale)
            scaled = {"A": fit.A * square, "factor": fit.factor * self.steps.scale, "lam": fit.lam * square}
            fit = replace(fit, rho=fit.rho * square, **scaled)
        fit = replace(fit, rss=fit.rss * square, s2=fit.s2 * square)
        path = tuple(value * square for value in self.path)
        layout, scale, retries = self.steps.layout, self.steps.scale, self.steps.retries
        return Alternated(layout, codes, fit, scale, path, converged, message, len(path), retries)
