"""First and second moments of codes and one quantity, in float64, that merge exactly."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 512
"""Rows that are widened to float64 at a time: few enough to stay in the cache of a processor."""
BLOCK = 128
"""Columns of a scatter matrix that are formed together, from the diagonal on."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of codes z and a quantity y, all that a linear solver needs of the data.

    Quantities of one width that share their codes can stand side by side (see `stacked`): what belongs to the
    quantity then has one axis more in front, *q, and after `projected` what belongs to the codes has it, too.

    Attributes:
        n, n2: sum of the weights of the rows and of their squares.
        z_mean, y_mean: weighted means, (D,) and (*q, m).
        zz, zy: scatter Σ w (z - z̄)(z - z̄)ᵀ, (D, D), and Σ w (z - z̄)(y - ȳ)ᵀ, (*q, D, m).
        yy: Σ w (y - ȳ)² of every column, (*q, m).
        eps: of the precision of the input.
    """

    n: Float[Tensor, ""]
    n2: Float[Tensor, ""]
    z_mean: Float[Tensor, "*p d"]
    y_mean: Float[Tensor, "*q m"]
    zz: Float[Tensor, "*p d d"]
    zy: Float[Tensor, "*q d m"]
    yy: Float[Tensor, "*q m"]
    eps: float

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
            self.z_mean + dz * share,
            self.y_mean + dy * share,
            self.zz + other.zz + both * torch.outer(dz, dz),
            self.zy + other.zy + both * torch.outer(dz, dy),
            self.yy + other.yy + both * dy.square(),
            max(self.eps, other.eps),
        )

    def at(self, index: int | Sequence[int]) -> "Moments":
        """Of one, or of some, of several quantities side by side."""
        return replace(self, y_mean=self.y_mean[index], zy=self.zy[index], yy=self.yy[index])

    def projected(self, W: Float[Tensor, "*q k d"]) -> "Moments":
        """Moments of the codes z Wᵀ."""
        return Moments(
            self.n,
            self.n2,
            W @ self.z_mean,
            self.y_mean,
            W @ self.zz @ W.mT,
            W @ self.zy,
            self.yy,
            self.eps,
        )


def stacked(parts: Sequence[Moments]) -> Moments:
    """Moments of several quantities side by side, whose widths, codes and precision are the same."""
    if len(parts) == 1:
        one = parts[0]
        return replace(one, y_mean=one.y_mean[None], zy=one.zy[None], yy=one.yy[None])
    y_mean, zy, yy = (torch.stack([getattr(part, name) for part in parts]) for name in ("y_mean", "zy", "yy"))
    return replace(parts[0], y_mean=y_mean, zy=zy, yy=yy)


def merged(parts: Sequence[Moments]) -> Moments:
    """Moments of all parts, merged in the given order."""
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merge(part)
    return whole


def row_moments(Z: Tensor, Y: Mapping[str, Tensor]) -> dict[str, Moments]:
    """Moments of rows with every quantity by itself; the scatter of the codes is formed once.

    Means first, then products about them: two passes over the input and none over a copy in float64.
    """
    codes, targets = [Z], list(Y.values())
    z_mean, y_mean = column_means(codes), column_means(targets)
    d, m = len(z_mean), len(y_mean)
    zz, zy, yy = z_mean.new_zeros(d, d), z_mean.new_zeros(d, m), z_mean.new_zeros(m)
    for z, y in zip(wide_chunks(codes), wide_chunks(targets), strict=True):
        z -= z_mean
        y -= y_mean
        add_upper(zz, z, z)
        zy.addmm_(z.mT, y)
        yy += y.square_().sum(0)
    mirrored(zz)
    n = z_mean.new_tensor(float(len(Z)))
    widths = [y.shape[1] for y in targets]
    return {
        q: Moments(n, n, z_mean, own, zz, cross, square, torch.finfo(Y[q].dtype).eps)
        for q, own, cross, square in zip(
            Y, y_mean.split(widths), zy.split(widths, dim=1), yy.split(widths), strict=True
        )
    }


def column_means(blocks: Sequence[Tensor]) -> Float[Tensor, " m"]:
    """Means of the columns of several tensors, in float64."""
    total = sum(x.sum(0) for x in wide_chunks(blocks))
    assert isinstance(total, Tensor)
    return total / len(blocks[0])


def add_upper(scatter: Float[Tensor, "p p"], x: Float[Tensor, "b p"], y: Float[Tensor, "b p"]) -> None:
    """Add xᵀy, where it is symmetric, to blocks on and above the diagonal: little more than half of the work.

    What stands below the diagonal is left without meaning until `mirrored`.
    """
    for start in range(0, len(scatter), BLOCK):
        columns = slice(start, start + BLOCK)
        scatter[columns, start:].addmm_(x[:, columns].mT, y[:, start:])


def mirrored(scatter: Float[Tensor, "p p"]) -> Float[Tensor, "p p"]:
    """``scatter`` itself, with what stands above the blocks of its diagonal copied below them."""
    for start in range(BLOCK, len(scatter), BLOCK):
        columns = slice(start - BLOCK, start)
        scatter[start:, columns] = scatter[columns, start:].mT
    return scatter


def wide_chunks(blocks: Sequence[Tensor]) -> Iterator[Float[Tensor, "c p"]]:
    """Rows of several tensors side by side in float64, `CHUNK` at a time, each in the memory of the last."""
    widths = [block.shape[1] for block in blocks]
    rows = len(blocks[0])
    memory = torch.empty(min(CHUNK, rows), sum(widths), dtype=torch.float64, device=sums_on(blocks[0]))
    for part in chunks(rows):
        x = memory[: min(part.stop, rows) - part.start]
        for block, own in zip(blocks, x.split(widths, dim=1), strict=True):
            own.copy_(block[part].detach().to(memory.device))
        yield x


def sums_on(x: Tensor) -> torch.device:
    """Where sums of a tensor are formed: devices without float64 leave them to the CPU."""
    return torch.device("cpu") if x.device.type == "mps" else x.device


def chunks(rows: int) -> Iterator[slice]:
    """Slices of `CHUNK` rows."""
    return (slice(start, start + CHUNK) for start in range(0, rows, CHUNK))


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows behind moments, read in chunks of float64, in coordinates z Wᵀ where a basis is given."""

    Z: Tensor
    Y: Tensor
    basis: Tensor | None = None

    def chunks(self, about: Moments) -> Iterator[tuple[Tensor, Tensor]]:
        """Codes and quantity less the means of ``about``."""
        place = about.zz.device
        for rows in chunks(len(self.Z)):
            z = self.Z[rows].to(place).double()
            z = z if self.basis is None else z @ self.basis.mT
            yield z - about.z_mean, self.Y[rows].to(place).double() - about.y_mean

    def projected(self, W: Tensor) -> "Rows":
        """The same rows with codes z Wᵀ."""
        return Rows(self.Z, self.Y, W)
