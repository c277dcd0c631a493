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
from pullback.models.dictionary.iterate import Iterate
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.objective import row_entropy
from pullback.models.dictionary.row_step import RowSteps, step_rows
from pullback.models.dictionary.softmax_step import projected, step_softmax
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
    ):
        self.layout, self.options, self.row_weights, self.rule = layout, options, row_weights, rule
        self.scale = spread(Z)
        self.Z = Z.double() / self.scale
        self.rho = RIDGE * len(Z)
        self.soft = options.gate == "softmax"
        self.retries = 0

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
        return self.Z.shape[1] * fit.s2 / 8 if given is None else given / self.scale**2

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
        if self.soft:
            target = projected(self.Z, B)
            tau, entropy = self.tau(sweep), self.entropy(sweep)
            return step_softmax(
                self.layout, target, now.codes, damping, steps=steps, tau=tau, entropy=entropy
            )
        return step_rows(self.layout, self.Z @ B.mT, B @ B.mT, now.codes, damping, steps=steps)

    def encoded(self, fit: DecoderFit, sweep: int) -> RowSteps:
        """All rows encoded from nothing."""
        if self.soft:
            tau, entropy = self.tau(sweep), self.entropy(sweep)
            return encode_softmax(self.layout, self.Z, fit.B, tau=tau, entropy=entropy)
        return encode(self.layout, self.Z, fit.B, self.options.n_active, self.open_cost(fit))

    def by_arc_length(self, fit: DecoderFit, codes: Codes) -> Codes:
        """Codes whose circles are laid out by arc length."""
        coords = codes.coords.clone()
        for k, chart in enumerate(self.layout.charts):
            if chart.name == "circle" and has_arc_length(chart):
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
