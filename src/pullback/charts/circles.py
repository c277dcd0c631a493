"""Closed charts of angles: the circle and the torus."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.charts.coordinates import check_coordinates, check_embedding
from pullback.charts.harmonics import along_one, harmonics, product
from pullback.charts.isometries import TURN, ChartIsometry, align_angles
from pullback.jets import Jet
from pullback.validation import check_whole


@dataclass(frozen=True)
class Circle:
    """Angles t in [0, 2π) with the basis 1, cos ht, sin ht, h = 1 .. H; see `circle`."""

    H: int = 2
    name = "circle"
    d = c = 1
    volume = TURN
    step = 0.7
    span = (0.0, TURN)

    @property
    def M(self) -> int:
        """Number of basis functions, 2H + 1."""
        return 2 * self.H + 1

    @cached_property
    def roughness(self) -> Float[Tensor, "k k"]:
        """diag(0, h⁴, h⁴): the mean squared second derivative, times 2."""
        return torch.diag(_frequencies(self.H) ** 4)

    def jet(self, t: Float[Tensor, "n 1"], order: int = 1) -> Jet:
        """Basis and its derivatives."""
        check_coordinates(t, 1, order)
        return along_one(harmonics(t[:, 0], self.H, order))

    def retract(self, t: Float[Tensor, "n 1"], dt: Float[Tensor, "n 1"]) -> Float[Tensor, "n 1"]:
        """t + dt modulo 2π, dt at most ``step``."""
        return (t + dt.clamp(-self.step, self.step)).remainder(TURN)

    def grid(self, n: int | None = None) -> Float[Tensor, "g 1"]:
        """n equispaced angles, 16 unless told."""
        return _equispaced(16 if n is None else n).unsqueeze(1)

    def from_embedding(self, Y: Float[Tensor, "n q"]) -> Float[Tensor, "n 1"]:
        """The angle of the first two columns."""
        Y = check_embedding(Y, 2)
        return torch.atan2(Y[:, 1], Y[:, 0]).remainder(TURN).unsqueeze(1)

    def align(self, t_a: Float[Tensor, "n 1"], t_b: Float[Tensor, "n 1"]) -> ChartIsometry:
        """The shift and reflection that takes t_a nearest to t_b."""
        return align_angles(t_a, t_b)


@dataclass(frozen=True)
class Torus:
    """Two angles with all products of the two bases of `Circle`; see `torus`."""

    H: int = 1
    name = "torus"
    d = c = 2
    volume = TURN**2
    step = 0.7

    @property
    def M(self) -> int:
        """Number of basis functions, (2H + 1)²."""
        return (2 * self.H + 1) ** 2

    @cached_property
    def roughness(self) -> Float[Tensor, "k k"]:
        """diag((h1² + h2²)²)."""
        square = _frequencies(self.H) ** 2
        return torch.diag((square.unsqueeze(1) + square).flatten() ** 2)

    def jet(self, t: Float[Tensor, "n 2"], order: int = 1) -> Jet:
        """Basis and its derivatives."""
        check_coordinates(t, 2, order)
        return product(harmonics(t[:, 0], self.H, order), harmonics(t[:, 1], self.H, order))

    def retract(self, t: Float[Tensor, "n 2"], dt: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """t + dt modulo 2π, dt at most ``step``."""
        return (t + dt.clamp(-self.step, self.step)).remainder(TURN)

    def grid(self, n: int | None = None) -> Float[Tensor, "g 2"]:
        """A square grid of at least n points, 8 x 8 unless told."""
        angles = _equispaced(8 if n is None else math.isqrt(max(n, 1) - 1) + 1)
        return torch.cartesian_prod(angles, angles)

    def from_embedding(self, Y: Float[Tensor, "n q"]) -> Float[Tensor, "n 2"]:
        """The angles of the first two and of the next two columns."""
        Y = check_embedding(Y, 4)
        angles = [torch.atan2(Y[:, 1], Y[:, 0]), torch.atan2(Y[:, 3], Y[:, 2])]
        return torch.stack(angles, 1).remainder(TURN)

    def align(self, t_a: Float[Tensor, "n 2"], t_b: Float[Tensor, "n 2"]) -> ChartIsometry:
        """The shifts, reflections and order of angles that take t_a nearest to t_b."""
        return align_angles(t_a, t_b)


def _frequencies(H: int) -> Tensor:
    h = torch.arange(1, H + 1, dtype=torch.float64).repeat_interleave(2)
    return torch.cat([h.new_zeros(1), h])


def _equispaced(n: int) -> Tensor:
    check_whole("n", n)
    return torch.arange(n, dtype=torch.float64) * (TURN / n)


def circle(H: int = 2) -> Circle:
    """A closed curve: Fourier series up to the harmonic H.

    Args:
        H: highest harmonic, M = 2H + 1 basis functions.
    Raises:
        ValueError: H < 1. TypeError: not a whole number.
    Example:
        >>> import torch
        >>> circle(1).jet(torch.zeros(1, 1)).value
        tensor([[1., 1., 0.]])
    """
    check_whole("H", H)
    return Circle(int(H))


def torus(H: int = 1) -> Torus:
    """A torus: products of two Fourier series up to the harmonic H.

    Args:
        H: highest harmonic of each angle, M = (2H + 1)² basis functions.
    Raises:
        ValueError: H < 1. TypeError: not a whole number.
    Example:
        >>> torus().grid().shape, torus().M
        (torch.Size([64, 2]), 9)
    """
    check_whole("H", H)
    return Torus(int(H))
