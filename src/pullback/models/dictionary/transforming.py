"""Codes of rows for users: solved from nothing, polished, with deviations and a check of every row."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.models.dictionary.codes import Codes, SparseCodes, decode
from pullback.models.dictionary.decoder_step import USED
from pullback.models.dictionary.encoding import better, encode, encode_softmax
from pullback.models.dictionary.gram import measured, projected, rows_at_once, whitened
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.row_step import RowSteps, coordinate_deviations, step_rows
from pullback.models.dictionary.softmax_step import softmax_deviations, step_softmax
from pullback.models.dictionary.sweep_options import Gate

POLISH = 10
SMALLEST = 1e-8
"""Softmax weights below which an atom is left out of a row's code."""
CHUNK = 2**15


@dataclass(frozen=True, eq=False)
class Encoder:
    """All that codes of new rows need.

    Attributes:
        layout: of the atoms.
        B: decoders in the units of the rows, (M_tot, p).
        gate: "softmax" or "amplitude".
        n_active: most atoms a row.
        entropy, tau: of the softmax gate.
        open_cost: what an open atom must save of ½|z - ẑ|², in the units of the rows.
        s2: noise variance.
        scale: spread of the rows of the fit.
        share: mean number that was measured of a row, over p: less than 1 for a fit by factors of rows, whose
            s² is that of one number.
    """

    layout: Layout
    B: Float[Tensor, "k p"]
    gate: Gate
    n_active: int
    entropy: float
    tau: float
    open_cost: float
    s2: float
    scale: float
    share: float = 1.0

    def solve(
        self,
        Z: Float[Tensor, "n p"],
        start: Codes | None = None,
        factors: Float[Tensor, "n p r"] | None = None,
    ) -> RowSteps:
        """Codes of rows in units of their spread, and of values too.

        Args:
            Z: rows, (n, p), in their own units.
            start: codes in the same internal units to better, if they are better than those from nothing.
            factors: by which every row is measured; None where all are measured alike.
        """
        rows = Z.to(self.B) / self.scale
        if self.gate == "softmax":
            B, options = self.B / self.scale, (self.tau, self.entropy)
            target = projected(rows, B, factors)
            found = encode_softmax(self.layout, rows, B, tau=options[0], entropy=options[1], factors=factors)
            if start is not None:
                kept = step_softmax(self.layout, target, start, steps=4, tau=options[0], entropy=options[1])
                found = better(found, kept)
            return step_softmax(
                self.layout,
                target,
                found.codes,
                found.damping,
                steps=POLISH,
                tau=options[0],
                entropy=options[1],
            )
        cost = self.open_cost / self.scale**2
        found = encode(self.layout, rows, self.B, self.n_active, cost, factors)
        seen = measured(rows, self.B, factors)
        C, G = seen.correlations, seen.gram
        if start is not None:
            found = better(found, step_rows(self.layout, C, G, start, steps=4), cost)
        return step_rows(self.layout, C, G, found.codes, found.damping, steps=POLISH)

    def codes(
        self,
        Z: Float[Tensor, "n p"],
        start: Codes | None = None,
        factors: Float[Tensor, "n p r"] | None = None,
    ) -> SparseCodes:
        """Codes of rows for users, some rows at a time."""
        parts, size = [], CHUNK
        if factors is not None:
            size = rows_at_once(self.layout, factors)
        for begin in range(0, max(len(Z), 1), size):
            at = slice(begin, begin + size)
            known = None if start is None else start.rows(at)
            parts.append(self._chunk(Z[at], known, None if factors is None else factors[at]))
        if len(parts) == 1:
            return parts[0]
        return SparseCodes(
            *[torch.cat([getattr(part, name) for part in parts]) for name in _NAMES], n_atoms=self.layout.K
        )

    def _chunk(self, Z: Tensor, start: Codes | None, factors: Tensor | None) -> SparseCodes:
        found = self.solve(Z, start, factors)
        # all alike: the noise of a row is spread over all of its numbers
        s2 = self.s2 if factors is not None else self.s2 * self.share
        codes, noise = found.codes, s2 / self.scale**2
        if self.gate == "softmax":
            target = projected(Z.to(self.B) / self.scale, self.B / self.scale, factors)
            sd = softmax_deviations(self.layout, target, codes, noise, tau=self.tau, used=USED)
            fitted = decode(self.layout, self.B, codes)
            weights, atoms = codes.weights, torch.where(codes.weights > SMALLEST, codes.atoms, -1)
            weights = torch.where(atoms < 0, 0.0, weights)
        else:
            sd = coordinate_deviations(self.layout, measured(Z, self.B, factors).gram, codes, noise)
            weights, atoms = codes.weights * self.scale, codes.atoms
            fitted = decode(self.layout, self.B, Codes(atoms, weights, codes.coords))
        missed = Z.to(self.B) - fitted
        residual = (missed if factors is None else whitened(missed, factors)).norm(dim=1)
        return _sorted(self.layout, atoms, weights, codes.coords, sd, residual, found.converged)


_NAMES = ("indices", "weights", "coords", "coord_sd", "residual", "converged")


def _sorted(
    layout: Layout,
    atoms: Tensor,
    weights: Tensor,
    coords: Tensor,
    sd: Tensor,
    residual: Tensor,
    converged: Tensor,
) -> SparseCodes:
    order = weights.argsort(dim=1, descending=True, stable=True)
    deep = order.unsqueeze(2)
    atoms, weights = atoms.gather(1, order), weights.gather(1, order)
    coords = coords.gather(1, deep.expand_as(coords))
    sd = sd.gather(1, deep.expand_as(sd))
    stored = torch.tensor([chart.c for chart in layout.charts], device=atoms.device)
    own = torch.where(atoms < 0, 0, stored[atoms.clamp_min(0)])
    seen = torch.arange(coords.shape[2], device=atoms.device) < own.unsqueeze(2)
    sd = torch.where((atoms < 0).unsqueeze(2), torch.nan, sd)
    return SparseCodes(
        atoms, weights, torch.where(seen, coords, torch.nan), sd, residual, converged, layout.K
    )
