"""A table of what can be read from where, to be printed, compared and saved."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

Pair = tuple[str, str]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; NaN where it could not be measured."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        interval = "" if math.isnan(self.low) else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.value:.3f}{interval}"


@dataclass(frozen=True, eq=False)
class SubspaceTable:
    """Held-out R² of every quantity from every part of the codes; see `evaluate_subspaces`.

    Attributes:
        all, own, free, complement: quantity -> R² from all codes, from its own subspace, from what is
            orthogonal to all subspaces, from what is orthogonal to its own.
        other: (q, r) -> R² of q from the subspace of r.
        floor: (q, r) -> R² of q from quantity r itself: what no subspace of r can hide.
        excess: other less floor.
        automatic: quantity -> whether its complement holds nothing by construction, see `evaluate_subspaces`.
        overlap: (a, b) -> largest cosine between two subspaces.
        rank: of all bases together.
        sizes: quantity -> k.
        latent_dim, n_train, n_test: D, and rows.
        notes: what could not be measured, and why.
    """

    all: dict[str, Estimate]
    own: dict[str, Estimate]
    free: dict[str, Estimate]
    complement: dict[str, Estimate]
    other: dict[Pair, Estimate]
    floor: dict[Pair, Estimate]
    excess: dict[Pair, Estimate]
    automatic: dict[str, bool]
    overlap: dict[Pair, float]
    rank: int
    sizes: dict[str, int]
    latent_dim: int
    n_train: int
    n_test: int
    notes: tuple[str, ...] = ()

    @property
    def largest_excess(self) -> float:
        """The largest leak of one quantity into the subspace of another; NaN for a single quantity."""
        found = [excess.value for excess in self.excess.values() if not math.isnan(excess.value)]
        return max(found, default=math.nan)

    def __str__(self) -> str:
        K = sum(self.sizes.values())
        sizes = ", ".join(f"{q} {k}" for q, k in self.sizes.items())
        lines = [
            f"D = {self.latent_dim}: {sizes}, free {self.latent_dim - self.rank}; rank {self.rank} of {K}",
            f"R² of linear probes on {self.n_test} rows, fitted on {self.n_train}",
        ]
        head = ["", "all", "own", "free", "complement"]
        rows = [
            [
                q,
                str(self.all[q]),
                str(self.own[q]),
                str(self.free[q]),
                f"{self.complement[q]}{' automatic' if self.automatic[q] else ''}",
            ]
            for q in self.sizes
        ]
        lines += _aligned([head, *rows])
        if self.other:
            head = ["", "from", "floor", "excess"]
            rows = [
                [f"{q} <- {r}", str(self.other[q, r]), str(self.floor[q, r]), str(self.excess[q, r])]
                for q, r in self.other
            ]
            lines += _aligned([head, *rows])
            lines.append(f"largest cosine between subspaces {max(self.overlap.values()):.3f}")
        return "\n".join([*lines, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: numbers that could not be measured are None."""
        quantities = {}
        for q in self.sizes:
            entry: dict[str, Any] = {
                name: _plain(getattr(self, name)[q]) for name in ("all", "own", "free", "complement")
            }
            entry["automatic"] = self.automatic[q]
            for name in ("other", "floor", "excess"):
                entry[name] = {r: _plain(value) for (p, r), value in getattr(self, name).items() if p == q}
            quantities[q] = entry
        return {
            "latent_dim": self.latent_dim,
            "sizes": dict(self.sizes),
            "rank": self.rank,
            "n_train": self.n_train,
            "n_test": self.n_test,
            "quantities": quantities,
            "overlap": [[a, b, cosine] for (a, b), cosine in self.overlap.items()],
            "notes": list(self.notes),
        }

    def to_frame(self) -> pd.DataFrame:
        """A row for each number: quantity, source ("all", "own", "free", "complement", or the name of another
        quantity), kind ("r2", "floor", "excess"), value, low, high."""
        rows = [
            (q, name, "r2", e.value, e.low, e.high)
            for name in ("all", "own", "free", "complement")
            for q, e in getattr(self, name).items()
        ]
        rows += [
            (q, r, kind, e.value, e.low, e.high)
            for kind, name in (("r2", "other"), ("floor", "floor"), ("excess", "excess"))
            for (q, r), e in getattr(self, name).items()
        ]
        return pd.DataFrame(rows, columns=["quantity", "source", "kind", "value", "low", "high"])


def _plain(estimate: Estimate) -> list[float | None]:
    numbers = (estimate.value, estimate.low, estimate.high)
    return [None if math.isnan(number) else number for number in numbers]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
