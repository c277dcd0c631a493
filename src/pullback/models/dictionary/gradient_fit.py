"""A fit whose decoders move by gradients: the same objective, codes solved for, for comparison and for losses
of one's own."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.models.dictionary.alone import spread
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.decoder_step import DecoderFit, Moments, solve, unit_atoms
from pullback.models.dictionary.iterate import Alternated, SweepState
from pullback.models.dictionary.labelled import KnownCoordinates
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.module import ManifoldDictionaryModule
from pullback.models.dictionary.objective import objective
from pullback.models.dictionary.sweep import alternate
from pullback.models.dictionary.sweep_options import SweepOptions

RATE = 0.1
"""First step of Adam, in units of an atom of unit size: over sqrt(p) for each number of a decoder."""
COOLING = 4.0
"""Sweeps after which steps are half as long, so that decoders come to rest."""
STEPS = 10
"""Of Adam in a sweep."""


def descend(
    layout: Layout,
    Z: Float[Tensor, "n p"],
    start: Codes,
    options: SweepOptions | None = None,
    *,
    row_weights: Float[Tensor, " n"] | None = None,
    lam: Float[Tensor, " k"] | None = None,
    callback: Callable[[SweepState], object] | None = None,
    known: KnownCoordinates | None = None,
) -> Alternated:
    """Fit decoders by Adam and codes by solving for them.

    By the envelope theorem ∇_B min_codes F(B, codes) = ∂F/∂B with codes held, so that a sweep moves rows as
    `alternate` does, without derivatives, and then decoders by ten steps of Adam on F. The first decoders are
    the regression on the first codes. Circles are not laid out by arc length on the way, which would turn
    decoders under the optimiser: see `gauged`.

    Kingma and Ba 2015, "Adam: a method for stochastic optimization".

    Args:
        layout: of the atoms.
        Z: rows, (n, p).
        start: first codes, as in `alternate`.
        options: see `SweepOptions`; its gauge is left out.
        row_weights: w >= 0, (n,).
        lam: first λ, (K,), as in `alternate`.
        callback: called after every sweep; a KeyboardInterrupt keeps the best so far.
        known: coordinates that stay where labels put them.
    Returns:
        The fit; ``converged`` says whether F came to rest.
    When to use: to compare, or as a pattern for training `ManifoldDictionaryModule` on a loss of your own;
        `alternate` is faster.
    """
    options = replace(SweepOptions() if options is None else options, gauge=False)
    rule = AdamDecoders(layout, Z.double() / spread(Z), options, row_weights)
    return alternate(
        layout,
        Z,
        start,
        options,
        row_weights=row_weights,
        lam=lam,
        callback=callback,
        decoders=rule,
        known=known,
    )


class AdamDecoders:
    """Decoders of a module that take steps of Adam on F, codes held; a `DecoderRule`.

    Args:
        layout: of the atoms.
        Z: rows in units of their spread, (n, p).
        options: for the gate.
        row_weights: w, (n,).
    """

    def __init__(
        self,
        layout: Layout,
        Z: Float[Tensor, "n p"],
        options: SweepOptions,
        row_weights: Float[Tensor, " n"] | None = None,
    ):
        self.layout, self.Z, self.options, self.row_weights = layout, Z, options, row_weights
        self.module: ManifoldDictionaryModule | None = None
        self.sweeps = 0

    def __call__(self, codes: Codes, moments: Moments, lam: Float[Tensor, " k"], rho: float) -> DecoderFit:
        best = solve(self.layout, moments, lam, rho)
        if self.module is None:
            self._begin(best.B)
            return best
        self._move(codes, lam, rho)
        return best.holding(self.layout, self.module.B.detach(), moments)

    def _begin(self, B: Tensor) -> None:
        options, p = self.options, B.shape[1]
        self.module = ManifoldDictionaryModule(
            self.layout.charts, p, options.gate, n_active=options.n_active, decoders=B
        )
        self.optimiser = torch.optim.Adam(self.module.parameters(), lr=RATE / p**0.5)

    def _move(self, codes: Codes, lam: Tensor, rho: float) -> None:
        module, n = self.module, len(self.Z)
        assert module is not None
        if self.options.gate == "amplitude":
            # the sweep has divided what came out of the last steps by these sizes, too
            sizes = unit_atoms(self.layout, module.B.detach())
            with torch.no_grad():
                for k, block in enumerate(module.decoders):
                    block.div_(sizes[k])
        self.sweeps += 1
        rate = RATE / self.Z.shape[1] ** 0.5 / (1 + self.sweeps / COOLING)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        for _ in range(STEPS):
            self.optimiser.zero_grad()
            value = objective(
                self.layout, self.Z, module.B, codes, lam=lam, rho=rho, row_weights=self.row_weights
            )
            (value / n).backward()
            self.optimiser.step()
