"""Codes of rows from nothing: matching pursuit on the grids of all charts, refined, then pruned.

Everything is read from C = Z Bᵀ and G = B Bᵀ, free of p; rows are in units of their spread.
"""

from copy import copy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullback.models.dictionary.alone import SHORT
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.decoder_step import DENSE_UP_TO, design
from pullback.models.dictionary.gram import (
    Gram,
    Projected,
    fitted,
    local,
    measured,
    projected,
    rows_at_once,
    rows_of,
)
from pullback.models.dictionary.layout import Layout, Places
from pullback.models.dictionary.row_step import RowSteps, step_rows
from pullback.models.dictionary.softmax_step import step_softmax

TINY = 1e-300
ENTRIES = 2**20
REFINED, LAST = 3, 4
"""Steps after an atom was opened, and after the last."""
CLOSED = -6.0
"""Logits of the atoms that pursuit did not choose, in units of τ."""
SOFTMAX_STEPS = 8


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Best grid point of every atom in every row: gain (n, K), point on the grid (n, K)."""

    gain: Float[Tensor, "n k"]
    point: Tensor


class _Grids:
    """All atoms on the grids of their charts.

    Attributes:
        sizes: |Φ B|² of a kind's atoms at its points, (atoms, 1, g), or as every row sees it, (atoms, n, g).
    """

    def __init__(self, layout: Layout, gram: Gram):
        self.layout = layout
        self.grids = layout.grids(gram)
        self.sizes = []
        for (_, basis), (_, atoms) in zip(self.grids, layout.kinds, strict=True):
            blocks = torch.stack([gram[..., layout.block(k), layout.block(k)] for k in atoms])
            size = ((basis @ blocks) * basis).sum(-1).view(len(atoms), -1, len(basis))
            self.sizes.append(size.clamp_min(SHORT * size.mean(2, keepdim=True).clamp_min(TINY)))
        self.columns = [
            torch.cat([torch.arange(layout.offsets[k], layout.offsets[k + 1]) for k in atoms]).to(gram.device)
            for _, atoms in layout.kinds
        ]

    def rows(self, at: Int[Tensor, " m"]) -> "_Grids":
        """As some of the rows see them."""
        if all(size.shape[1] == 1 for size in self.sizes):
            return self
        part = copy(self)
        part.sizes = [size[:, at] for size in self.sizes]
        return part

    def best(self, R: Float[Tensor, "n k"], unit: bool) -> _Candidates:
        """How much ½ RSS falls by opening an atom: with the best weight, or with weight 1 where ``unit``."""
        gain = R.new_empty(len(R), self.layout.K)
        point = torch.empty_like(gain, dtype=torch.long)
        kinds = zip(self.layout.kinds, self.grids, self.sizes, self.columns, strict=True)
        for (chart, atoms), (_, basis), size, columns in kinds:
            blocks = R if len(columns) == R.shape[1] else R[:, columns]
            blocks = blocks.view(len(R), len(atoms), chart.M).transpose(0, 1)
            table = basis.mT.expand(len(atoms), -1, -1)
            if unit:
                best = torch.baddbmm(size, blocks, table, beta=-0.5).max(2)
                value = best.values
            else:
                # in units of the point's length, so that the largest score has the largest gain
                unit_length = (2 * size).rsqrt()
                alike = size.shape[1] == 1
                best = (blocks @ (table * unit_length) if alike else (blocks @ table) * unit_length).max(2)
                value = best.values.clamp_min(0).square()
            gain[:, atoms], point[:, atoms] = value.mT, best.indices.mT
        return _Candidates(gain, point)

    def coords(self, atoms: Tensor, point: Tensor) -> Float[Tensor, "n c"]:
        """Coordinates of a grid point of one atom a row."""
        coords = self.grids[0][0].new_zeros(len(atoms), self.layout.widths[2])
        kind = self.layout.kind_of.to(atoms.device)[atoms]
        for i, (grid, _) in enumerate(self.grids):
            rows = (kind == i).nonzero().flatten()
            coords[rows, : grid.shape[1]] = grid[point[rows]]
        return coords

    def weight(self, R: Tensor, atoms: Tensor, point: Tensor) -> Float[Tensor, " n"]:
        """The best weight of a grid point of one atom a row."""
        coords = self.coords(atoms, point).unsqueeze(1)
        value = Places.of(self.layout, atoms.unsqueeze(1)).values(coords)[:, 0]
        columns = self.layout.columns.to(atoms.device)[atoms]
        kind = self.layout.kind_of.to(atoms.device)[atoms]
        size = torch.empty_like(value[:, 0])
        for i, ((_, members), sizes) in enumerate(zip(self.layout.kinds, self.sizes, strict=True)):
            rows = (kind == i).nonzero().flatten()
            within = torch.empty(self.layout.K, dtype=torch.long, device=atoms.device)
            within[members] = torch.arange(len(members), device=atoms.device)
            seen = rows if sizes.shape[1] > 1 else torch.zeros_like(rows)
            size[rows] = sizes[within[atoms[rows]], seen, point[rows]]
        return (R.gather(1, columns) * value).sum(1) / size


def encode(
    layout: Layout,
    Z: Float[Tensor, "n p"],
    B: Float[Tensor, "k p"],
    n_active: int,
    open_cost: float,
    factors: Float[Tensor, "n p r"] | None = None,
) -> RowSteps:
    """Amplitude codes of rows.

    An atom is opened where it lowers ½|z - ẑ|² by more than ``open_cost``, one at a time, each time followed
    by Levenberg-Marquardt steps of all that are open; then atoms that do not pay for themselves are closed.

    Args:
        layout: of the atoms.
        Z: rows in units of their spread, (n, p).
        B: decoders of unit size, (M_tot, p).
        n_active: most atoms a row, m.
        open_cost: c_open, in the same units; p σ²/8.
        factors: U_i by which every row is measured, (n, p, r); None where all are measured alike.
    """
    most = max(len(chart.grid()) * len(atoms) for chart, atoms in layout.kinds)
    size = max(1, ENTRIES // max(most, layout.total, Z.shape[1]))
    if factors is not None:
        size = min(size, rows_at_once(layout, factors))
    gram = B @ B.mT if factors is None else None
    grids = None if gram is None else _Grids(layout, gram)
    parts = []
    for begin in range(0, max(len(Z), 1), size):
        at = slice(begin, begin + size)
        seen = measured(Z[at], B, None if factors is None else factors[at])
        C, G = seen.correlations, seen.gram if gram is None else gram
        points = _Grids(layout, G) if grids is None else grids
        parts.append(_prune(layout, C, G, _pursue(layout, points, C, G, n_active, open_cost), open_cost))
    return RowSteps.joined(parts)


def _pursue(layout: Layout, grids: _Grids, C: Tensor, gram: Gram, m: int, open_cost: float) -> RowSteps:
    n = len(C)
    atoms = torch.full((n, m), -1, dtype=torch.long, device=C.device)
    codes = Codes(atoms, C.new_zeros(n, m), C.new_zeros(n, m, layout.widths[2]))
    growing = torch.arange(n, device=C.device)
    for slot in range(m):
        seen, points = rows_of(gram, growing), grids.rows(growing)
        R = residual_correlations(layout, C[growing], seen, _slots(codes.rows(growing), slot))
        found = points.best(R, unit=False)
        opened = codes.atoms[growing, :slot]
        found.gain.scatter_(1, opened, -1.0)
        best = found.gain.max(1)
        paid = best.values > open_cost
        growing, R, best_atom = growing[paid], R[paid], best.indices[paid]
        if not len(growing):
            break
        seen, points = rows_of(gram, growing), grids.rows(growing)
        point = found.point[paid].gather(1, best_atom.unsqueeze(1)).squeeze(1)
        codes.atoms[growing, slot] = best_atom
        codes.weights[growing, slot] = points.weight(R, best_atom, point)
        codes.coords[growing, slot] = points.coords(best_atom, point)
        steps = LAST if slot == m - 1 else REFINED
        moved = step_rows(layout, C[growing], seen, _slots(codes.rows(growing), slot + 1), steps=steps).codes
        codes.weights[growing, : slot + 1] = moved.weights
        codes.coords[growing, : slot + 1] = moved.coords
    return step_rows(layout, C, gram, codes, steps=1)


def _slots(codes: Codes, m: int) -> Codes:
    return Codes(codes.atoms[:, :m], codes.weights[:, :m], codes.coords[:, :m])


def residual_correlations(
    layout: Layout, C: Float[Tensor, "n k"], gram: Gram, codes: Codes
) -> Float[Tensor, "n k"]:
    """R = C - X G, (n, M_tot): what is left of each row against all basis functions."""
    if codes.atoms.shape[1] == 0:
        return C
    if layout.total <= DENSE_UP_TO or gram.ndim == 3:
        return C - fitted(design(layout, codes), gram)
    places = Places.of(layout, codes.atoms)
    u = places.values(codes.coords) * codes.weights.unsqueeze(2)
    R, columns = C.clone(), places.columns().view_as(u)
    for slot in range(u.shape[1]):
        for basis in range(u.shape[2]):
            R.addcmul_(u[:, slot, basis : basis + 1], gram[columns[:, slot, basis]], value=-1)
    return R


def _prune(layout: Layout, C: Tensor, gram: Gram, found: RowSteps, open_cost: float) -> RowSteps:
    """Close atoms one at a time while the cheapest of a row raises ½ RSS by less than it costs."""
    codes, damping = found.codes, found.damping
    m = codes.atoms.shape[1]
    value, accepted, slope = found.value.clone(), found.accepted.clone(), found.slope.clone()
    rows = torch.arange(len(C), device=C.device)
    for _ in range(m):
        part = codes.rows(rows)
        rise = _closing(layout, C[rows], rows_of(gram, rows), part)
        cheapest = rise.min(1)
        closing = cheapest.values < open_cost
        rows = rows[closing]
        if not len(rows):
            break
        slot = cheapest.indices[closing]
        codes.atoms[rows, slot] = -1
        codes.weights[rows, slot] = 0.0
        moved = step_rows(layout, C[rows], rows_of(gram, rows), codes.rows(rows), steps=REFINED)
        codes.weights[rows], codes.coords[rows] = moved.codes.weights, moved.codes.coords
        value[rows], accepted[rows], slope[rows] = moved.value, moved.accepted, moved.slope
        damping[rows] = moved.damping
    return RowSteps(codes, damping, value, accepted, slope)


def _closing(layout: Layout, C: Tensor, gram: Gram, codes: Codes) -> Float[Tensor, "n m"]:
    """How much ½ RSS rises by closing each open atom, the others held: u_k R_k + ½ u_k G_kk u_k."""
    places = Places.of(layout, codes.atoms)
    n, m = codes.atoms.shape
    u = places.values(codes.coords) * codes.weights.unsqueeze(2)
    columns = places.columns()
    table = local(gram, columns)
    R = C.gather(1, columns).view_as(u) - (table @ u.view(n, -1, 1)).view_as(u)
    blocks = table.view(n, m, u.shape[2], m, u.shape[2]).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
    own = ((blocks @ u.unsqueeze(3)).squeeze(3) * u).sum(2)
    rise = (u * R).sum(2) + own / 2
    return torch.where(codes.atoms < 0, torch.inf, rise)


def encode_softmax(
    layout: Layout,
    Z: Float[Tensor, "n p"],
    B: Float[Tensor, "k p"],
    *,
    tau: float = 1.0,
    entropy: float = 0.05,
    steps: int = SOFTMAX_STEPS,
    factors: Float[Tensor, "n p r"] | None = None,
) -> RowSteps:
    """Softmax codes of rows: the atom that is nearest on its grid opened, then steps in all logits.

    Args:
        layout: of the atoms.
        Z: rows in units of their spread, (n, p).
        B: decoders, (M_tot, p).
        tau: temperature.
        entropy: λ_H.
        steps: Levenberg-Marquardt steps.
        factors: U_i by which every row is measured, (n, p, r); None where all are measured alike.
    """
    target = projected(Z, B, factors)
    codes = nearest_codes(layout, target, tau)
    return step_softmax(layout, target, codes, steps=steps, tau=tau, entropy=entropy)


def nearest_codes(layout: Layout, target: Projected, tau: float) -> Codes:
    """Every atom at its grid point nearest to the row, the nearest of all open."""
    grids = _Grids(layout, target.gram)
    n, K = len(target.Y), layout.K
    found = grids.best(target.correlations, unit=True)
    coords = target.B.new_zeros(n, K, layout.widths[2])
    for (chart, atoms), (grid, _) in zip(layout.kinds, grids.grids, strict=True):
        coords[:, atoms, : chart.c] = grid[found.point[:, atoms]]
    logits = coords.new_full((n, K), CLOSED * tau)
    logits.scatter_(1, found.gain.argmax(1, keepdim=True), 0.0)
    return Codes.softmax(logits, coords, tau)


def better(new: RowSteps, old: RowSteps, open_cost: float = 0.0) -> RowSteps:
    """Row by row the code of the lower objective, where an open atom costs ``open_cost``."""
    price = [steps.value + open_cost * (steps.codes.atoms >= 0).sum(1) for steps in (new, old)]
    taken = price[0] < price[1]
    fields = {
        name: torch.where(taken, getattr(new, name), getattr(old, name))
        for name in ("damping", "value", "accepted", "slope")
    }
    return replace(old, codes=new.codes.where(taken, old.codes), **fields)
