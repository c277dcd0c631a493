"""A fit from a start: decoders, smoothness, rows, now and then all codes anew, and the gauge.

Always returns the best it saw, whatever stops it: rest, the budget, the keyboard or a matrix without a
Cholesky factor.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.models.dictionary.alone import RIDGE, spread
from pullback.models.dictionary.codes import Codes, decode
from pullback.models.dictionary.decoder_step import (
    USED,
    DecoderFit,
    Moments,
    NotDefiniteError,
    gather,
    solve,
    unit_atoms,
)
from pullback.models.dictionary.encoding import better, encode, encode_softmax
from pullback.models.dictionary.gauge import arc_length, has_arc_length, isometric
from pullback.models.dictionary.journal import UNKEPT, Journal
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.objective import row_entropy
from pullback.models.dictionary.row_step import RowSteps, step_rows
from pullback.models.dictionary.smoothing import fellner_schall, settled
from pullback.models.dictionary.softmax_step import projected, step_softmax
from pullback.penalties.schedule import Number

Gate = Literal["softmax", "amplitude"]
FREE = ("interval", "plane", "sphere", "torus")
"""Charts whose coordinates can be written in numbers that move freely."""
SMOOTHNESS = 1e-2
"""λ at the start."""
INTERRUPTED = "interrupted; the best iterate is kept"
DecoderRule = Callable[[Codes, Moments, Tensor, float], DecoderFit]
"""Decoders of codes, their moments, λ and ρ."""


@dataclass(frozen=True)
class SweepOptions:
    """How a fit proceeds.

    Attributes:
        gate: "softmax" or "amplitude".
        n_active: most atoms a row (amplitude gate).
        entropy: λ_H in units of the spread of rows, a number or a function of the sweep (softmax gate).
        tau: temperature, likewise.
        smoothness: λ of all atoms; None for the Fellner-Schall step.
        isometry: μ of the isometry gauge of charts that are not closed curves, likewise.
        max_sweeps, max_seconds: budget.
        tol: relative change of the objective at which to stop; drift along atoms keeps it above 1e-6.
        steps: of all rows in a sweep.
        reencode_every: sweeps between offers of a code from nothing.
        regauge_every: sweep after which circles are laid out by arc length, once; again at the end.
        open_cost: what an open atom must save of ½|z - ẑ|²; None for p σ²/8.
        gauge: whether coordinates are brought to unit speed; False where they are known.
    """

    gate: Gate = "amplitude"
    n_active: int = 3
    entropy: Number = 0.05
    tau: Number = 1.0
    smoothness: float | None = None
    isometry: Number = 0.1
    max_sweeps: int = 40
    max_seconds: float | None = None
    tol: float = 1e-5
    steps: int = 2
    reencode_every: int = 6
    regauge_every: int = 10
    open_cost: float | None = None
    gauge: bool = True


@dataclass(frozen=True, eq=False)
class SweepState:
    """What a callback is told after the decoders of a sweep.

    Attributes:
        sweep: its number, from 0.
        objective: F, in units of the rows.
        sigma: noise level.
        fvu: Σ|z - ẑ|² over Σ|z - z̄|².
        seconds: since the start.
        codes: codes, weights in units of the spread.
    """

    sweep: int
    objective: float
    sigma: float
    fvu: float
    seconds: float
    codes: Codes


@dataclass(frozen=True, eq=False)
class Alternated:
    """A fit.

    Attributes:
        layout: of the atoms.
        codes: of the rows.
        decoders: B and its regression, in units of the rows.
        scale: spread of the rows, sqrt(mean |z - z̄|²).
        path: F after the decoders of every sweep.
        converged: whether F and λ came to rest.
        message: why it ended.
        sweeps: how many.
        retries: how often a Cholesky factor needed more ridge.
    """

    layout: Layout
    codes: Codes
    decoders: DecoderFit
    scale: float
    path: tuple[float, ...]
    converged: bool
    message: str
    sweeps: int
    retries: int

    @property
    def B(self) -> Float[Tensor, "k p"]:
        """Decoders, (M_tot, p)."""
        return self.decoders.B

    @property
    def s2(self) -> float:
        """Noise variance."""
        return self.decoders.s2

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.message == INTERRUPTED

    def reconstruction(self) -> Float[Tensor, "n p"]:
        """ẑ of the rows, (n, p)."""
        return decode(self.layout, self.B, self.codes)


@dataclass(frozen=True, eq=False)
class Iterate:
    """Decoders, codes and F at one time."""

    objective: float
    fit: DecoderFit
    codes: Codes


@dataclass(frozen=True, eq=False)
class SweepPoint:
    """Where sweeps can go on.

    Attributes:
        sweep: the next one.
        codes: its codes, in units of the spread.
        lam: its λ, (K,).
        damping: of the rows, (n,); None to begin anew.
        best: best iterate so far.
        path: F of the sweeps before.
        retries: see `Alternated`.
        began: time of the journal's clock.
    """

    sweep: int
    codes: Codes
    lam: Float[Tensor, " k"]
    damping: Float[Tensor, " n"] | None
    best: Iterate | None
    path: tuple[float, ...]
    retries: int
    began: float


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
        journal: keeps every sweep; of rules for decoders, which have a memory of their own, none.
    """
    options = SweepOptions() if options is None else options
    kept = journal if decoders is None else UNKEPT
    return _Sweeps(layout, Z, options, row_weights, decoders, kept).run(start, lam, callback)


def gauged(
    fit: Alternated, Z: Float[Tensor, "n p"], options: SweepOptions, row_weights: Tensor | None = None
) -> Alternated:
    """A fit in the gauge of ``options``, for fits that were swept without.

    Args:
        fit: of `alternate`.
        Z: its rows.
        options: of the gauge.
        row_weights: w, (n,).
    """
    once = replace(options, max_sweeps=1, max_seconds=None)
    found = alternate(fit.layout, Z, fit.codes, once, row_weights=row_weights, lam=fit.decoders.lam)
    return replace(fit, codes=found.codes, decoders=found.decoders)


class _Sweeps:
    """One fit; rows are held in units of their spread."""

    def __init__(
        self,
        layout: Layout,
        Z: Tensor,
        options: SweepOptions,
        row_weights: Tensor | None,
        rule: DecoderRule | None = None,
        journal: Journal = UNKEPT,
    ):
        self.rule, self.journal = rule, journal
        self.layout, self.options, self.row_weights = layout, options, row_weights
        self.scale = spread(Z)
        self.Z = Z.double() / self.scale
        self.rho = RIDGE * len(Z)
        self.soft = options.gate == "softmax"
        self.began = journal.clock()
        self.ends = math.inf if options.max_seconds is None else self.began + options.max_seconds
        self.path: list[float] = []
        self.retries = 0

    def run(
        self, codes: Codes, lam: Tensor | None, callback: Callable[[SweepState], object] | None
    ) -> Alternated:
        options = self.options
        at = self._begun(codes, lam)
        codes, lam, damping, best = at.codes, at.lam, at.damping, at.best
        converged, message = False, f"stopped after {options.max_sweeps} sweeps; raise max_sweeps"
        try:
            for sweep in range(at.sweep, options.max_sweeps):
                now = self._decoders(codes, lam, sweep)
                self.path.append(now.objective)
                before, lam = now.fit.lam, self._smoothed(now.fit, sweep)
                rest = settled(before, lam) and not self._scheduled(sweep)
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
                    codes, damping = self._rows(now, damping, sweep)
                    path = tuple(self.path)
                    self.journal.keep(
                        SweepPoint(sweep + 1, codes, lam, damping, best, path, self.retries, self.began)
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
        best = self._finished(best)
        return self._result(best, converged, message)

    def _begun(self, codes: Codes, lam: Tensor | None) -> SweepPoint:
        """Where the journal stands, or the first sweep."""
        known = self.journal.last()
        if known is not None:
            self.path, self.retries, self.began = list(known.path), known.retries, known.began
            return known
        codes = replace(codes, weights=codes.weights.double(), coords=codes.coords.double())
        if not self.soft:
            codes = replace(codes, weights=codes.weights / self.scale)
        if lam is None:
            first = SMOOTHNESS if self.options.smoothness is None else self.options.smoothness
            lam = self.Z.new_full((self.layout.K,), first)
        elif not self.soft:
            lam = lam / self.scale**2
        return SweepPoint(0, codes, lam, None, None, (), 0, self.began)

    def _entropy(self, sweep: int) -> float:
        return at_sweep(self.options.entropy, sweep) if self.soft else 0.0

    def _tau(self, sweep: int) -> float:
        return at_sweep(self.options.tau, sweep) if self.soft else 1.0

    def _scheduled(self, sweep: int) -> bool:
        """Whether temperature or entropy still move."""
        return self._tau(sweep) != self._tau(sweep + 1) or self._entropy(sweep) != self._entropy(sweep + 1)

    def _still(self) -> bool:
        return len(self.path) > 1 and abs(self.path[-1] - self.path[-2]) <= self.options.tol * self.path[-1]

    def _smoothed(self, fit: DecoderFit, sweep: int) -> Tensor:
        return fellner_schall(self.layout, fit) if self.options.smoothness is None and sweep >= 2 else fit.lam

    def _state(self, now: Iterate, sweep: int) -> SweepState:
        return SweepState(
            sweep,
            now.objective * self.scale**2,
            now.fit.s2**0.5 * self.scale,
            now.fit.rss / len(self.Z),
            self.journal.clock() - self.began,
            now.codes,
        )

    def _decoders(self, codes: Codes, lam: Tensor, sweep: int) -> Iterate:
        """Decoders for codes, the best ones without a rule; atoms of unit size in the amplitude gate."""
        moments = gather(self.layout, codes, self.Z, self.row_weights)
        if self.rule is None:
            fit = solve(self.layout, moments, lam, self.rho)
        else:
            fit = self.rule(codes, moments, lam, self.rho)
        self.retries += fit.retries
        if not self.soft:
            size = unit_atoms(self.layout, fit.B)
            fit, codes = _unit(self.layout, fit, size), codes.scaled(size)
        value = fit.rss / 2 + fit.penalty
        strength = self._entropy(sweep)
        if strength:
            H = row_entropy(codes, self._tau(sweep))
            value += strength * float(H.sum() if self.row_weights is None else H @ self.row_weights.double())
        return Iterate(value, fit, codes)

    def open_cost(self, fit: DecoderFit) -> float:
        """c_open in units of the rows' spread."""
        given = self.options.open_cost
        return self.Z.shape[1] * fit.s2 / 8 if given is None else given / self.scale**2

    def _rows(self, now: Iterate, damping: Tensor | None, sweep: int) -> tuple[Codes, Tensor | None]:
        """All rows moved; now and then offered a code from nothing, or moved to arc length."""
        taken = self._stepped(now, damping, sweep)
        if sweep and sweep % self.options.reencode_every == 0:
            taken = better(
                self._encoded(now.fit, sweep), taken, 0.0 if self.soft else self.open_cost(now.fit)
            )
        codes = taken.codes
        if self.options.gauge and sweep == self.options.regauge_every:
            return self._by_arc_length(now.fit, codes), None
        return codes, taken.damping

    def _stepped(self, now: Iterate, damping: Tensor | None, sweep: int) -> RowSteps:
        B, steps = now.fit.B, self.options.steps
        if self.soft:
            target = projected(self.Z, B)
            tau, entropy = self._tau(sweep), self._entropy(sweep)
            return step_softmax(
                self.layout, target, now.codes, damping, steps=steps, tau=tau, entropy=entropy
            )
        return step_rows(self.layout, self.Z @ B.mT, B @ B.mT, now.codes, damping, steps=steps)

    def _encoded(self, fit: DecoderFit, sweep: int) -> RowSteps:
        if self.soft:
            tau, entropy = self._tau(sweep), self._entropy(sweep)
            return encode_softmax(self.layout, self.Z, fit.B, tau=tau, entropy=entropy)
        return encode(self.layout, self.Z, fit.B, self.options.n_active, self.open_cost(fit))

    def _by_arc_length(self, fit: DecoderFit, codes: Codes) -> Codes:
        coords = codes.coords.clone()
        for k, chart in enumerate(self.layout.charts):
            if chart.name == "circle" and has_arc_length(chart):
                row, slot = (codes.atoms == k).nonzero(as_tuple=True)
                coords[row, slot, :1] = arc_length(chart, fit.B[self.layout.block(k)], coords[row, slot, :1])
        return replace(codes, coords=coords)

    def _finished(self, best: Iterate) -> Iterate:
        """The gauge: arc length on circles and decoders for it, then isometry elsewhere."""
        last = max(0, len(self.path) - 1)
        if not self.options.gauge:
            return best
        try:
            if any(chart.name == "circle" for chart in self.layout.charts):
                gauged = self._decoders(self._by_arc_length(best.fit, best.codes), best.fit.lam, last)
                codes = self._stepped(gauged, None, last).codes
                best = self._decoders(codes, best.fit.lam, last)
            return self._isometric(best, last)
        except (KeyboardInterrupt, NotDefiniteError):
            return best

    def _isometric(self, best: Iterate, sweep: int) -> Iterate:
        """Decoders and coordinates of each atom on its rows, all other atoms held."""
        strength, fit, codes = at_sweep(self.options.isometry, sweep), best.fit, best.codes
        todo = [k for k, chart in enumerate(self.layout.charts) if chart.name in FREE and chart.d > 0]
        if strength == 0 or not todo:
            return best
        coords, B = codes.coords.clone(), fit.B.clone()
        missed = self.Z - decode(self.layout, B, codes)
        for k in todo:
            chart, at = self.layout.charts[k], self.layout.block(k)
            own = codes.atoms == k
            row, slot = (own & (codes.weights > USED) if self.soft else own).nonzero(as_tuple=True)
            if len(row) <= chart.M:
                continue
            t, a = coords[row, slot, : chart.c], codes.weights[row, slot]
            target = missed[row] + a.unsqueeze(1) * (chart.jet(t, 0).value @ B[at])
            found = isometric(
                chart, B[at], t, target, a, strength=strength, lam=float(fit.lam[k]), rho=fit.rho
            )
            coords[row, slot, : chart.c], B[at] = found.t, found.B
        return self._at(B, replace(codes, coords=coords), fit)

    def _at(self, B: Tensor, codes: Codes, fit: DecoderFit) -> Iterate:
        """An iterate whose decoders are given; the regression's other numbers are those of its codes."""
        if not self.soft:
            size = unit_atoms(self.layout, B)
            rows = size.repeat_interleave(
                torch.tensor([chart.M for chart in self.layout.charts], device=B.device)
            )
            B, codes = B / rows.unsqueeze(1), codes.scaled(size)
        moments = gather(self.layout, codes, self.Z, self.row_weights)
        again = solve(self.layout, moments, fit.lam, self.rho)
        return Iterate(0.0, again.holding(self.layout, B, moments), codes)

    def _result(self, best: Iterate, converged: bool, message: str) -> Alternated:
        square, fit, codes = self.scale**2, best.fit, best.codes
        if self.soft:
            fit = replace(fit, B=fit.B * self.scale, rough=fit.rough * square)
        else:
            codes = replace(codes, weights=codes.weights * self.scale)
            scaled = {"A": fit.A * square, "factor": fit.factor * self.scale, "lam": fit.lam * square}
            fit = replace(fit, rho=fit.rho * square, **scaled)
        fit = replace(fit, rss=fit.rss * square, s2=fit.s2 * square)
        path = tuple(value * square for value in self.path)
        return Alternated(
            self.layout, codes, fit, self.scale, path, converged, message, len(path), self.retries
        )


def _unit(layout: Layout, fit: DecoderFit, size: Tensor) -> DecoderFit:
    """The same regression for atoms divided by their sizes and weights multiplied by them."""
    rows = size.repeat_interleave(torch.tensor([chart.M for chart in layout.charts], device=size.device))
    factor = rows.unsqueeze(1) * fit.factor
    return replace(
        fit,
        B=fit.B / rows.unsqueeze(1),
        A=rows.unsqueeze(1) * fit.A * rows,
        factor=factor,
        lam=fit.lam * size.square(),
        rough=fit.rough / size.square(),
    )


def at_sweep(number: Number, sweep: int) -> float:
    """A number, or what a schedule gives for a sweep."""
    return float(number(sweep) if callable(number) else number)
