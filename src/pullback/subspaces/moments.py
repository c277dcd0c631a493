"""First and second moments of codes and one quantity, in float64, that merge exactly."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import widened

CHUNK = 16384
"""Rows that are widened to float64 at a time."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of codes z and one quantity y, all that a linear solver needs of the data.

    Attributes:
        n, n2: sum of the weights of the rows and of their squares.
        z_mean, y_mean: weighted means, (D,) and (m,).
        zz, zy: scatter Σ w (z - z̄)(z - z̄)ᵀ, (D, D), and Σ w (z - z̄)(y - ȳ)ᵀ, (D, m).
        yy: Σ w (y - ȳ)² of every column, (m,).
        resolution: eps max|y| of every column in the precision of the input, (m,).
    """

    n: Float[Tensor, ""]
    n2: Float[Tensor, ""]
    z_mean: Float[Tensor, " d"]
    y_mean: Float[Tensor, " m"]
    zz: Float[Tensor, "d d"]
    zy: Float[Tensor, "d m"]
    yy: Float[Tensor, " m"]
    resolution: Float[Tensor, " m"]

    @property
    def n_effective(self) -> float:
        """n²/n2, the number of rows of equal weight that would know as much."""
        return float(self.n**2 / self.n2)

    @property
    def constant(self) -> Tensor:
        """Columns that do not vary beyond rounding, (m,) bool: Σ w (y - ȳ)² <= n (8 eps max|y|)²."""
        return self.yy <= self.n * (8 * self.resolution).square()

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
            torch.maximum(self.resolution, other.resolution),
        )

    def projected(self, W: Float[Tensor, "k d"]) -> "Moments":
        """Moments of the codes z Wᵀ."""
        return Moments(
            self.n,
            self.n2,
            W @ self.z_mean,
            self.y_mean,
            W @ self.zz @ W.mT,
            W @ self.zy,
            self.yy,
            self.resolution,
        )


def merged(parts: Sequence[Moments]) -> Moments:
    """Moments of all parts, merged in the given order."""
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merge(part)
    return whole


def row_moments(Z: Tensor, Y: Mapping[str, Tensor]) -> dict[str, Moments]:
    """Moments of rows with every quantity by itself; the scatter of the codes is formed once."""
    found: dict[str, Moments] = {}
    for start in range(0, len(Z), CHUNK):
        part = _chunk_moments(Z[start : start + CHUNK], {q: y[start : start + CHUNK] for q, y in Y.items()})
        found = _merged_together(found, part) if found else part
    return found


def _merged_together(first: dict[str, Moments], second: dict[str, Moments]) -> dict[str, Moments]:
    """Moments of quantities of the same rows, which keep one scatter of the codes in common."""
    joined = {q: first[q].merge(second[q]) for q in first}
    zz = next(iter(joined.values())).zz
    return {q: replace(moments, zz=zz) for q, moments in joined.items()}


def _chunk_moments(Z: Tensor, Y: Mapping[str, Tensor]) -> dict[str, Moments]:
    wide = widened(Z)
    n = wide.new_tensor(float(len(Z)))
    z_mean = wide.mean(0)
    centred = wide - z_mean
    zz = centred.mT @ centred
    found = {}
    for q, y in Y.items():
        y_wide = widened(y)
        y_mean = y_wide.mean(0)
        away = y_wide - y_mean
        resolution = torch.finfo(y.dtype).eps * y_wide.abs().amax(0)
        found[q] = Moments(n, n, z_mean, y_mean, zz, centred.mT @ away, away.square().sum(0), resolution)
    return found


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows behind moments, read in chunks of float64, in coordinates z Wᵀ where a basis is given."""

    Z: Tensor
    Y: Tensor
    basis: Tensor | None = None

    def chunks(self, about: Moments) -> Iterator[tuple[Tensor, Tensor]]:
        """Codes and quantity less the means of ``about``."""
        for start in range(0, len(self.Z), CHUNK):
            z = widened(self.Z[start : start + CHUNK])
            z = z if self.basis is None else z @ self.basis.mT
            yield z - about.z_mean, widened(self.Y[start : start + CHUNK]) - about.y_mean

    def projected(self, W: Tensor) -> "Rows":
        """The same rows with codes z Wᵀ."""
        return Rows(self.Z, self.Y, W)
