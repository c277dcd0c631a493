"""Contributions on their way from a chunk of rows into the result: checked, grouped, reduced, written."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullback.attribution.groups import FeatureGroups
from pullback.attribution.result import Reduction
from pullback.jets.gemm import plain_product
from pullback.jets.verification import Residuals

BLOCK_BYTES = 2**20
DEGENERATE = {torch.float64: 1e-12, torch.float32: 1e-6}


@dataclass(frozen=True, eq=False)
class Part:
    """Contributions of some rows: C_ij = linear_ij step_j.

    Attributes:
        at: which rows.
        linear: (d, m, p), may be overwritten.
        step: x - x0, or a - b, (m, p).
        value: f(x), or f(a) - f(b), by the network's own forward pass, (m, d).
        offset: (m, d); None: what is missing to ``value``.
        around: size of what ``value`` is a difference of, (m, d), or None.
        pieces, nodes, margin, retained: (m,), or None.
    """

    at: slice
    linear: Float[Tensor, "d m p"]
    step: Float[Tensor, "m p"]
    value: Float[Tensor, "m d"]
    offset: Float[Tensor, "m d"] | None
    around: Float[Tensor, "m d"] | None = None
    pieces: Int[Tensor, " m"] | None = None
    nodes: Int[Tensor, " m"] | None = None
    margin: Float[Tensor, " m"] | None = None
    retained: Float[Tensor, " m"] | None = None


@dataclass
class Collector:
    """Writes parts into a result of the asked-for reduction.

    Attributes:
        reduction: see `Attribution`.
        groups: features counted together, or None.
        values: the result, (n, d, p), (n, p) or (p,), for "mean_l2" a running sum; or (g, d, p) with
            ``shares``.
        shares: weight of each row in each of g means, (g, n), or None.
        columns: the numbers that each row has, by name.
    """

    reduction: Reduction | None
    groups: FeatureGroups | None
    values: Tensor
    shares: Tensor | None = None
    residuals: Residuals = field(default_factory=Residuals)
    columns: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, part: Part) -> None:
        """Take in a chunk; chunks come in the order of the rows."""
        d, m, p = part.linear.shape
        total, size = (part.linear.new_empty(d, m) for _ in range(2))
        direction = self._noted_direction(part) if self.reduction == "distance" else None
        # all that is done to a block is done while it is in the cache
        for block in _blocks(m, d * p * part.linear.element_size()):
            here = slice(part.at.start + block.start, part.at.start + block.stop)
            rows = self._multiplied(part, block, here)
            torch.sum(rows, -1, out=total[:, block])
            # several times as fast as `vector_norm` with ord=1
            torch.sum(rows.abs(), -1, out=size[:, block])
            if self.shares is None:
                grouped = rows if self.groups is None else self.groups.sum(rows)
                self._reduce(grouped, here, None if direction is None else direction[block])
        if self.shares is not None:
            rows = part.linear if self.groups is None else self.groups.sum(part.linear)
            for i, row in enumerate(rows):
                self.values[:, i] += plain_product(self.shares[:, part.at], row)
        self._check(part, total.T, size.T)

    def _multiplied(self, part: Part, block: slice, here: slice) -> Tensor:
        """C of a block, (d, b, p), in the result at once where it is asked for as it is."""
        linear, step = part.linear[:, block], part.step[block]
        if self.reduction is None and self.groups is None and self.shares is None:
            return torch.mul(linear, step, out=self.values[here].transpose(0, 1))
        return linear.mul_(step)

    def _check(self, part: Part, total: Tensor, size: Tensor) -> None:
        offset = part.value - total if part.offset is None else part.offset
        size = size + offset.abs() if part.around is None else size + offset.abs() + part.around
        self._note(
            residual=self.residuals.compare(part.value, total + offset, size),
            offset=offset,
            value=part.value,
            pieces=part.pieces,
            nodes=part.nodes,
            margin=part.margin,
            retained=part.retained,
        )

    def _note(self, **columns: Tensor | None) -> None:
        for name, column in columns.items():
            if column is not None:
                self.columns.setdefault(name, []).append(column)

    def column(self, name: str) -> Tensor | None:
        """One of the numbers of each row, for all rows."""
        parts = self.columns.get(name)
        return torch.cat(parts) if parts else None

    def _reduce(self, rows: Tensor, here: slice, direction: Tensor | None) -> None:
        """Write a block, (d, b, g), where it belongs."""
        if self.reduction is None:
            if self.groups is not None:
                self.values[here].copy_(rows.transpose(0, 1))
        elif self.reduction == "l2":
            _norm(rows, self.values[here])
        elif self.reduction == "mean_l2":
            self.values += _norm(rows, torch.empty_like(rows[0])).sum(0)
        else:
            assert direction is not None
            out = torch.mul(rows[0], direction[:, :1], out=self.values[here])
            for i in range(1, len(rows)):
                out.addcmul_(rows[i], direction[:, i : i + 1])

    def _noted_direction(self, part: Part) -> Tensor:
        direction, degenerate = _direction(part)
        self._note(degenerate=degenerate)
        return direction


def _blocks(m: int, width: int) -> Iterator[slice]:
    size = max(1, BLOCK_BYTES // max(width, 1))
    return (slice(low, min(low + size, m)) for low in range(0, m, size))


def _norm(rows: Tensor, out: Tensor) -> Tensor:
    """√Σ_i C_ij²: over a short axis a sum of squares is several times as fast as `vector_norm`."""
    torch.mul(rows[0], rows[0], out=out)
    for row in rows[1:]:
        out.addcmul_(row, row)
    return out.sqrt_()


def _direction(part: Part) -> tuple[Tensor, Tensor]:
    """Unit vectors along f(a) - f(b), (m, d), 0 for images that coincide, and which these are."""
    distance = part.value.norm(dim=1, keepdim=True)
    scale = distance if part.around is None else part.around.norm(dim=1, keepdim=True)
    degenerate = distance <= DEGENERATE.get(distance.dtype, 1e-3) * scale
    safe = torch.where(degenerate, 1.0, distance)
    return torch.where(degenerate, 0.0, part.value / safe), degenerate.squeeze(1)
