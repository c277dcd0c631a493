"""Where the basis functions of every atom stand among all of them, and jets of many atoms in few calls."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullback.typing import Chart


@dataclass(frozen=True)
class Layout:
    """Charts of K atoms whose basis functions are stacked: M_tot of them, M_k for atom k.

    Attributes:
        charts: one an atom.
    """

    charts: tuple[Chart, ...]

    @property
    def K(self) -> int:
        """Number of atoms."""
        return len(self.charts)

    @cached_property
    def offsets(self) -> list[int]:
        """First basis function of every atom, and M_tot at the end."""
        ends = [0]
        for chart in self.charts:
            ends.append(ends[-1] + chart.M)
        return ends

    @property
    def total(self) -> int:
        """M_tot."""
        return self.offsets[-1]

    @cached_property
    def widths(self) -> tuple[int, int, int]:
        """Largest M, d and c."""
        charts = self.charts
        return max(k.M for k in charts), max(k.d for k in charts), max(k.c for k in charts)

    @cached_property
    def kinds(self) -> list[tuple[Chart, list[int]]]:
        """Different charts with their atoms; work is done once for each."""
        found: list[tuple[Chart, list[int]]] = []
        for k, chart in enumerate(self.charts):
            for known, atoms in found:
                if known is chart or known == chart:
                    atoms.append(k)
                    break
            else:
                found.append((chart, [k]))
        return found

    @cached_property
    def kind_of(self) -> Int[Tensor, " k"]:
        """Number of the chart among `kinds`."""
        kind = torch.zeros(self.K, dtype=torch.long)
        for i, (_, atoms) in enumerate(self.kinds):
            kind[atoms] = i
        return kind

    @cached_property
    def columns(self) -> Int[Tensor, "k m"]:
        """Basis functions of every atom, (K, M_max); 0 beyond M_k, where a basis is zero anyway."""
        table = torch.zeros(self.K, self.widths[0], dtype=torch.long)
        for k, chart in enumerate(self.charts):
            table[k, : chart.M] = torch.arange(self.offsets[k], self.offsets[k] + chart.M)
        return table

    @cached_property
    def real(self) -> Tensor:
        """Which of the M_max places an atom uses, (K, M_max)."""
        sizes = torch.tensor([chart.M for chart in self.charts])
        return torch.arange(self.widths[0]) < sizes.unsqueeze(1)

    @cached_property
    def dims(self) -> Int[Tensor, " k"]:
        """d_k of every atom."""
        return torch.tensor([chart.d for chart in self.charts])

    @cached_property
    def ranks(self) -> list[int]:
        """Rank of every roughness."""
        return [int(torch.linalg.matrix_rank(k.roughness)) if k.roughness.any() else 0 for k in self.charts]

    def block(self, k: int) -> slice:
        """Rows of B that belong to atom k."""
        return slice(self.offsets[k], self.offsets[k + 1])

    def padded(self, B: Float[Tensor, "*n k r"]) -> Float[Tensor, "a *n m r"]:
        """B (M_tot, r) as (K, M_max, r), or that of every row as (K, n, M_max, r); zero beyond M_k."""
        columns, real = self.columns.to(B.device), self.real.to(B)
        if B.ndim == 2:
            return B[columns] * real.unsqueeze(2)
        return (B[:, columns] * real.unsqueeze(2)).transpose(0, 1)

    def roughness(self, lam: Float[Tensor, " k"]) -> Float[Tensor, "m m"]:
        """blockdiag(lam_k S_k), (M_tot, M_tot)."""
        blocks = [lam[k] * chart.roughness.to(lam) for k, chart in enumerate(self.charts)]
        return torch.block_diag(*blocks)

    def grids(self, like: Tensor) -> list[tuple[Tensor, Float[Tensor, "g m"]]]:
        """Grid points and basis on them for every kind, in the dtype and on the device of ``like``."""
        found = []
        for chart, _ in self.kinds:
            points = chart.grid().to(like)
            found.append((points, chart.jet(points, 0).value))
        return found


@dataclass(frozen=True, eq=False)
class Places:
    """Which slots of n rows hold which kind of chart; slots without an atom hold none.

    Attributes:
        layout: of the atoms.
        atoms: (n, m), -1 where empty.
        slots: for every kind that occurs its chart and the flat numbers of its slots; None for all slots.
    """

    layout: Layout
    atoms: Int[Tensor, "n m"]
    slots: list[tuple[Chart, Tensor | None]]

    @staticmethod
    def of(layout: Layout, atoms: Int[Tensor, "n m"]) -> "Places":
        """Slots sorted by kind."""
        empty = atoms < 0
        if len(layout.kinds) == 1 and not bool(empty.any()):
            return Places(layout, atoms, [(layout.kinds[0][0], None)])
        kind = torch.where(empty, -1, layout.kind_of.to(atoms.device)[atoms.clamp_min(0)]).flatten()
        slots = [(chart, (kind == i).nonzero().flatten()) for i, (chart, _) in enumerate(layout.kinds)]
        return Places(layout, atoms, [(chart, at) for chart, at in slots if len(at)])

    def basis(self, coords: Float[Tensor, "n m c"]) -> Float[Tensor, "n m e M"]:
        """Basis and its derivatives by the 1st, .., d_max-th coordinate, (n, m, 1 + d_max, M_max)."""
        (n, m), (width, d, _) = self.atoms.shape, self.layout.widths
        flat = coords.flatten(0, 1)
        rows = flat.new_zeros(n * m, 1 + d, width)
        for chart, at in self.slots:
            known = chart.jet((flat if at is None else flat[at])[:, : chart.c], 1)
            both = torch.cat([known.value.unsqueeze(1), known.jacobian.mT], 1)
            if at is None:
                return both.unflatten(0, (n, m))
            rows[at, : 1 + chart.d, : chart.M] = both
        return rows.unflatten(0, (n, m))

    def values(self, coords: Float[Tensor, "n m c"]) -> Float[Tensor, "n m M"]:
        """Basis alone, (n, m, M_max)."""
        n, m = self.atoms.shape
        flat = coords.flatten(0, 1)
        rows = flat.new_zeros(n * m, self.layout.widths[0])
        for chart, at in self.slots:
            value = chart.jet((flat if at is None else flat[at])[:, : chart.c], 0).value
            if at is None:
                return value.unflatten(0, (n, m))
            rows[at, : chart.M] = value
        return rows.unflatten(0, (n, m))

    def retract(self, coords: Float[Tensor, "n m c"], step: Float[Tensor, "n m d"]) -> Float[Tensor, "n m c"]:
        """Coordinates after a step; padding stays."""
        flat, moves = coords.flatten(0, 1), step.flatten(0, 1)
        moved = flat.clone()
        for chart, at in self.slots:
            if chart.d == 0:
                continue
            where = slice(None) if at is None else at
            moved[where, : chart.c] = chart.retract(flat[where, : chart.c], moves[where, : chart.d])
        return moved.view_as(coords)

    def columns(self) -> Int[Tensor, "n k"]:
        """Basis functions of each row's slots, (n, m M_max)."""
        return self.layout.columns.to(self.atoms.device)[self.atoms.clamp_min(0)].flatten(1)

    def moving(self) -> Tensor:
        """Which of the d_max tangents of each slot exist, (n, m, d_max)."""
        dims = torch.where(self.atoms < 0, 0, self.layout.dims.to(self.atoms.device)[self.atoms.clamp_min(0)])
        return torch.arange(self.layout.widths[1], device=dims.device) < dims.unsqueeze(2)
