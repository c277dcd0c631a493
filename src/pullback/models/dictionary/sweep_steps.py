"""The steps of a sweep: decoders for codes, rows moved, now and then encoded anew or laid out by length."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.models.dictionary.alone import RIDGE, spread
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.decoder_step import DecoderFit, Moments, gather, solve, unit_atoms
from pullback.models.dictionary.encoding import better, encode, encode_softmax
from pullback.models.dictionary.gauge import arc_length, has_arc_length
from pullback.models.dictionary.gram import measured, projected, rows_at_once
from pullback.models.dictionary.iterate import Iterate
from pullback.models.dictionary.labelled import KnownCoordinates
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.objective import row_entropy
from pullback.models.dictionary.row_metrics import MeasuredDecoders, RowMetrics
from pullback.models.dictionary.row_step import RowSteps, step_rows
from pullback.models.dictionary.softmax_step import step_softmax
from pullback.models.dictionary.sweep_options import SweepOptions, at_sweep

DecoderRule = Callable[[Codes, Moments, Tensor, float], DecoderFit]
"""Decoders of codes, their moments, λ and ρ."""


class SweepSteps:
    """The steps that sweeps are made of, for one table of rows, held in units of their spread.

    Args:
        layout: of the atoms.
        Z: rows, (n, p).
        options: see `SweepOptions`.
        row_weights: w, (n,).
        rule: what gives decoders for codes; None for the best ones.
        metrics: of rows that are measured each by a factor of its own.
        known: coordinates that stay.
    Attributes:
        scale: spread of the rows.
        Z: rows over ``scale``.
        soft: whether the gate is softmax.
        retries: how often a Cholesky factor needed more ridge so far.
    """

    def __init__(
        self,
        layout: Layout,
        Z: Float[Tensor, "n p"],
        options: SweepOptions,
        row_weights: Float[Tensor, " n"] | None = None,
        rule: DecoderRule | None = None,
        metrics: RowMetrics | None = None,
        known: KnownCoordinates | None = None,
    ):
        self.known = known
        self.layout, self.options, self.row_weights, self.metrics = layout, options, row_weights, metrics
        self.scale = spread(Z)
        self.Z = Z.double() / self.scale
        w = None if row_weights is None else row_weights.double()
        self.rule = rule if metrics is None else MeasuredDecoders(layout, self.Z, metrics, w)
        self.rho = RIDGE * len(Z)
        self.soft = options.gate == "softmax"
        self.retries = 0

    @property
    def labelled(self) -> frozenset[int]:
        """Atoms with coordinates that stay."""
        return frozenset() if self.known is None else frozenset(self.known.of_atom)

    def entropy(self, sweep: int) -> float:
        """λ_H in a sweep."""
        return at_sweep(self.options.entropy, sweep) if self.soft else 0.0

    def tau(self, sweep: int) -> float:
        """Temperature in a sweep."""
        return at_sweep(self.options.tau, sweep) if self.soft else 1.0

    def scheduled(self, sweep: int) -> bool:
        """Whether temperature or entropy still move."""
        return self.tau(sweep) != self.tau(sweep + 1) or self.entropy(sweep) != self.entropy(sweep + 1)

    def decoders(self, codes: Codes, lam: Tensor, sweep: int) -> Iterate:
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
        strength = self.entropy(sweep)
        if strength:
            H = row_entropy(codes, self.tau(sweep))
            value += strength * float(H.sum() if self.row_weights is None else H @ self.row_weights.double())
        return Iterate(value, fit, codes)

    def held(self, B: Tensor, codes: Codes, fit: DecoderFit) -> Iterate:
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

    def open_cost(self, fit: DecoderFit) -> float:
        """c_open in units of the rows' spread."""
        given = self.options.open_cost
        if given is not None:
            return given / self.scale**2
        share = 1.0 if self.metrics is None else self.metrics.share
        return self.Z.shape[1] * share * fit.s2 / 8

    def rows(self, now: Iterate, damping: Tensor | None, sweep: int) -> tuple[Codes, Tensor | None]:
        """All rows moved; now and then offered a code from nothing, or moved to arc length."""
        taken = self.stepped(now, damping, sweep)
        if sweep and sweep % self.options.reencode_every == 0:
            taken = better(self.encoded(now.fit, sweep), taken, 0.0 if self.soft else self.open_cost(now.fit))
        codes = taken.codes
        if self.options.gauge and sweep == self.options.regauge_every:
            return self.by_arc_length(now.fit, codes), None
        return codes, taken.damping

    def stepped(self, now: Iterate, damping: Tensor | None, sweep: int) -> RowSteps:
        """All rows moved by Levenberg-Marquardt steps."""
        B, steps = now.fit.B, self.options.steps
        tau, entropy = self.tau(sweep), self.entropy(sweep)

        def of_part(at: slice) -> RowSteps:
            Z, V, codes = self.Z[at], self._factors(at), now.codes.rows(at)
            last = None if damping is None else damping[at]
            held = None if self.known is None else self.known.rows(at).held(codes)
            if self.soft:
                target, options = projected(Z, B, V), {"tau": tau, "entropy": entropy, "held": held}
                return step_softmax(self.layout, target, codes, last, steps=steps, **options)
            seen = measured(Z, B, V)
            return step_rows(self.layout, seen.correlations, seen.gram, codes, last, steps=steps, held=held)

        return self._by_parts(of_part)

    def encoded(self, fit: DecoderFit, sweep: int) -> RowSteps:
        """All rows encoded from nothing."""
        tau, entropy = self.tau(sweep), self.entropy(sweep)

        def of_part(at: slice) -> RowSteps:
            Z, V = self.Z[at], self._factors(at)
            if self.soft:
                return encode_softmax(self.layout, Z, fit.B, tau=tau, entropy=entropy, factors=V)
            return encode(self.layout, Z, fit.B, self.options.n_active, self.open_cost(fit), V)

        found = self._by_parts(of_part)
        if self.known is None:
            return found
        # pursuit looked everywhere on the atoms
        now = Iterate(0.0, fit, self.known.put(found.codes))
        return self.stepped(now, None, sweep)

    def _factors(self, at: slice) -> Tensor | None:
        return None if self.metrics is None else self.metrics.factors[at]

    def _by_parts(self, step: Callable[[slice], RowSteps]) -> RowSteps:
        """All rows at once, or as many as tables of a row's own allow."""
        n, size = len(self.Z), len(self.Z)
        if self.metrics is not None:
            size = rows_at_once(self.layout, self.metrics.factors)
        return RowSteps.joined([step(slice(begin, begin + size)) for begin in range(0, n, size)])

    def by_arc_length(self, fit: DecoderFit, codes: Codes) -> Codes:
        """Codes whose circles are laid out by arc length."""
        coords = codes.coords.clone()
        for k, chart in enumerate(self.layout.charts):
            if chart.name == "circle" and has_arc_length(chart) and k not in self.labelled:
                row, slot = (codes.atoms == k).nonzero(as_tuple=True)
                coords[row, slot, :1] = arc_length(chart, fit.B[self.layout.block(k)], coords[row, slot, :1])
        return replace(codes, coords=coords)


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
