"""First and second moments of codes and one quantity, in float64, that merge exactly."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.subspaces.scatter import CHUNK, Codes, chunks, column_means, widen

WIDTH = 2048
"""Columns of quantities that meet the codes at a time: a wide product is quicker than several narrow ones."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of codes z and a quantity y, all that a linear solver needs of the data.

    Quantities of one width that share their codes can stand side by side (see `stacked`): what belongs to a
    quantity then has one axis more in front, *q.

    Attributes:
        n, n2: sum of the weights of the rows and of their squares.
        codes: mean and scatter of z.
        y_mean: weighted mean, (*q, m).
        zy: scatter Σ w (z - z̄)(y - ȳ)ᵀ, (*q, D, m).
        yy: Σ w (y - ȳ)² of every column, (*q, m).
        eps: of the precision of the input.
    """

    n: Float[Tensor, ""]
    n2: Float[Tensor, ""]
    codes: Codes
    y_mean: Float[Tensor, "*q m"]
    zy: Float[Tensor, "*q d m"]
    yy: Float[Tensor, "*q m"]
    eps: float

    @property
    def z_mean(self) -> Float[Tensor, "*q d"]:
        """Mean of the codes."""
        return self.codes.mean

    @property
    def zz(self) -> Float[Tensor, "*q d d"]:
        """Scatter of the codes."""
        return self.codes.scatter

    @property
    def n_effective(self) -> float:
        """n²/n2, the number of rows of equal weight that would know as much."""
        return float(self.n**2 / self.n2)

    @cached_property
    def rounding(self) -> Float[Tensor, "*q m"]:
        """eps √(ȳ² + σ²), what rounding of the input may do to a value of every column."""
        return self.eps * (self.y_mean.square() + self.yy / self.n).sqrt()

    @cached_property
    def constant(self) -> Tensor:
        """Columns that do not vary beyond rounding, (*q, m) bool."""
        return self.yy <= self.n * (8 * self.rounding).square()

    def check_seen(self, name: str) -> None:
        """Raise ``ValueError`` if no row has the quantity."""
        if not bool(self.n > 0):
            raise ValueError(f"Y[{name!r}]: expected rows with a value, got none")

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets of rows."""
        n = self.n + other.n
        share, both = other.n / n, self.n * other.n / n
        dz, dy = other.z_mean - self.z_mean, other.y_mean - self.y_mean
        return Moments(
            n,
            self.n2 + other.n2,
            self.codes.merge(other.codes, share, both),
            self.y_mean + dy * share,
            self.zy + other.zy + both * torch.outer(dz, dy),
            self.yy + other.yy + both * dy.square(),
            max(self.eps, other.eps),
        )

    def projected(self, W: Float[Tensor, "k d"]) -> "Moments":
        """Moments of the codes z Wᵀ."""
        return replace(self, codes=self.codes.projected(W), zy=W @ self.zy)


def stacked(parts: Sequence[Moments]) -> Moments:
    """Moments of several quantities side by side, whose widths, codes and precision are the same."""
    y_mean, zy, yy = (
        torch.stack([getattr(part, name) for part in parts])
        if len(parts) > 1
        else getattr(parts[0], name).unsqueeze(0)
        for name in ("y_mean", "zy", "yy")
    )
    return replace(parts[0], y_mean=y_mean, zy=zy, yy=yy)


def merged(parts: Sequence[Moments]) -> Moments:
    """Moments of all parts, merged in the given order."""
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merge(part)
    return whole


def row_moments(Z: Tensor, Y: Mapping[str, Tensor]) -> dict[str, Moments]:
    """Moments of rows with every quantity by itself, which share their codes.

    Means first, then products about them: two passes over the input and none over a copy in float64.
    """
    codes = Codes.of(Z)
    parts = [_Part(codes.mean, {q: Y[q] for q in names}) for names in _by_width(Y)]
    memory = codes.mean.new_empty(min(CHUNK, len(Z)) * max(len(part.mean) for part in parts))
    for rows, z in zip(chunks(len(Z)), codes.centred(), strict=True):
        for part in parts:
            part.add(rows, z, memory)
    n = codes.mean.new_tensor(float(len(Z)))
    found = {}
    for part in parts:
        for q, mean, zy, yy in part.split():
            found[q] = Moments(n, n, codes, mean, zy, yy, torch.finfo(Y[q].dtype).eps)
    return found


class _Part:
    """Quantities side by side, and the sums of their products."""

    def __init__(self, z_mean: Tensor, Y: Mapping[str, Tensor]):
        self.names, self.targets = list(Y), list(Y.values())
        self.mean = column_means(self.targets).to(z_mean.device)
        self.zy = z_mean.new_zeros(len(z_mean), len(self.mean))
        self.yy = torch.zeros_like(self.mean)

    def add(self, rows: slice, z: Tensor, memory: Tensor) -> None:
        y = widen(self.targets, rows, memory)
        y -= self.mean
        self.zy.addmm_(z.mT, y)
        self.yy += y.square_().sum(0)

    def split(self) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
        """Name, mean, products with the codes and squares of every quantity."""
        widths = [y.shape[1] for y in self.targets]
        columns = self.mean.split(widths), self.zy.split(widths, dim=1), self.yy.split(widths)
        return zip(self.names, *columns, strict=True)


def _by_width(Y: Mapping[str, Tensor]) -> list[list[str]]:
    """Names in order, as many together as have `WIDTH` columns."""
    parts: list[list[str]] = []
    room = 0
    for q, y in Y.items():
        room -= y.shape[1]
        if room < 0:
            parts.append([])
            room = WIDTH - y.shape[1]
        parts[-1].append(q)
    return parts


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows behind moments, read in chunks of float64, in coordinates z Wᵀ where a basis is given."""

    Z: Tensor
    Y: Tensor
    basis: Tensor | None = None

    def chunks(self, about: Moments) -> Iterator[tuple[Tensor, Tensor]]:
        """Codes and quantity less the means of ``about``."""
        place = about.y_mean.device
        for rows in chunks(len(self.Z)):
            z = self.Z[rows].to(place).double()
            z = z if self.basis is None else z @ self.basis.mT
            yield z - about.z_mean, self.Y[rows].to(place).double() - about.y_mean

    def projected(self, W: Tensor) -> "Rows":
        """The same rows with codes z Wᵀ."""
        return Rows(self.Z, self.Y, W)
