"""Charts with ends: the interval and the plane."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.charts.coordinates import check_coordinates, check_embedding, even_ranks, smoothly
from pullback.charts.harmonics import along_one, legendre, product
from pullback.charts.isometries import ChartIsometry, align_ends, align_points
from pullback.jets import Jet
from pullback.validation import check_choice, check_whole

Boundary = Literal["clamp", "smooth"]


@dataclass(frozen=True)
class Interval:
    """t in [-1, 1] with Legendre polynomials; see `interval`."""

    degree: int = 4
    boundary: Boundary = "clamp"
    name = "interval"
    d = c = 1
    volume = 2.0
    step = 0.3
    span = (-1.0, 1.0)

    @property
    def M(self) -> int:
        """Number of basis functions, degree + 1."""
        return self.degree + 1

    @cached_property
    def roughness(self) -> Float[Tensor, "k k"]:
        """∫ P_i'' P_j'' dt / 18, exact by Gauss-Legendre."""
        nodes, weights = _gauss_legendre(self.degree + 1)
        second = legendre(nodes, self.degree, 2)[2]
        return (second.mT * weights) @ second / 18

    def jet(self, t: Float[Tensor, "n 1"], order: int = 1) -> Jet:
        """Basis and its derivatives."""
        check_coordinates(t, 1, order)
        return along_one(legendre(t[:, 0], self.degree, order))

    def retract(self, t: Float[Tensor, "n 1"], dt: Float[Tensor, "n 1"]) -> Float[Tensor, "n 1"]:
        """t + dt, dt at most ``step``, kept in [-1, 1] as ``boundary`` says."""
        return _inside(t, dt.clamp(-self.step, self.step), self.boundary)

    def grid(self, n: int | None = None) -> Float[Tensor, "g 1"]:
        """n equispaced points with both ends, 16 unless told."""
        return _equispaced(16 if n is None else n).unsqueeze(1)

    def from_embedding(self, Y: Float[Tensor, "n q"]) -> Float[Tensor, "n 1"]:
        """Ranks of the first column, evenly over [-.98, .98]."""
        return 0.98 * even_ranks(check_embedding(Y, 1)[:, 0]).unsqueeze(1)

    def align(self, t_a: Float[Tensor, "n 1"], t_b: Float[Tensor, "n 1"]) -> ChartIsometry:
        """The sign that takes t_a nearest to t_b."""
        return align_ends(t_a, t_b)


@dataclass(frozen=True)
class Plane:
    """(t1, t2) in [-1, 1]² with products of Legendre polynomials; see `plane`."""

    degree: int = 2
    boundary: Boundary = "clamp"
    name = "plane"
    d = c = 2
    volume = 4.0
    step = 0.3

    @property
    def M(self) -> int:
        """Number of basis functions, (degree + 1)(degree + 2)/2."""
        return (self.degree + 1) * (self.degree + 2) // 2

    @cached_property
    def _totals(self) -> Tensor:
        i = torch.arange(self.degree + 1)
        return (i.unsqueeze(1) + i).flatten()

    @cached_property
    def _kept(self) -> Tensor:
        return (self._totals <= self.degree).nonzero().flatten()

    @cached_property
    def roughness(self) -> Float[Tensor, "k k"]:
        """diag((i + j)² (i + j - 1)²): it leaves planes free and pays more for higher degrees."""
        s = self._totals[self._kept].double()
        return torch.diag(s**2 * (s - 1) ** 2)

    def jet(self, t: Float[Tensor, "n 2"], order: int = 1) -> Jet:
        """Basis and its derivatives."""
        check_coordinates(t, 2, order)
        first, second = (legendre(t[:, i], self.degree, order) for i in (0, 1))
        return product(first, second, self._kept)

    def retract(self, t: Float[Tensor, "n 2"], dt: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """t + dt, dt at most ``step``, kept in [-1, 1]² as ``boundary`` says."""
        return _inside(t, dt.clamp(-self.step, self.step), self.boundary)

    def grid(self, n: int | None = None) -> Float[Tensor, "g 2"]:
        """A square grid of at least n points with the edges, 6 x 6 unless told."""
        ticks = _equispaced(6 if n is None else math.isqrt(max(n, 1) - 1) + 1)
        return torch.cartesian_prod(ticks, ticks)

    def from_embedding(self, Y: Float[Tensor, "n q"]) -> Float[Tensor, "n 2"]:
        """The first two columns, scaled so that 98 % of the rows lie within [-.95, .95]²."""
        Y = check_embedding(Y, 2)[:, :2]
        size = torch.quantile(Y.abs(), 0.98, dim=0)
        return 0.95 * (Y / torch.where(size > 0, size, 1.0)).clamp(-1, 1)

    def align(self, t_a: Float[Tensor, "n 2"], t_b: Float[Tensor, "n 2"]) -> ChartIsometry:
        """The rotation, reflection and translation that takes t_a nearest to t_b."""
        return align_points(t_a, t_b)


def _inside(t: Tensor, dt: Tensor, boundary: Boundary) -> Tensor:
    return (t + dt).clamp(-1, 1) if boundary == "clamp" else smoothly(t, dt)


def _equispaced(n: int) -> Tensor:
    check_whole("n", n)
    return torch.linspace(-1, 1, n, dtype=torch.float64)


def _gauss_legendre(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [-1, 1], exact to degree 2n - 1 (Golub and Welsch 1969)."""
    k = torch.arange(1, n, dtype=torch.float64)
    beside = k / (4 * k**2 - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return nodes, 2 * vectors[0] ** 2


def interval(deg: int = 4, *, boundary: Boundary = "clamp") -> Interval:
    """A curve with two ends: Legendre polynomials up to a degree.

    Args:
        deg: highest degree, M = deg + 1 basis functions.
        boundary: "clamp" lets coordinates rest on the ends; "smooth" moves them through t = tanh u, so that
            they never reach an end.
    Raises:
        ValueError: deg < 1 or an unknown boundary. TypeError: not a whole number.
    Example:
        >>> interval().roughness.diagonal()
        tensor([ 0.0000,  0.0000,  1.0000,  8.3333, 38.3333], dtype=torch.float64)
    """
    check_whole("deg", deg)
    check_choice("boundary", boundary, ("clamp", "smooth"))
    return Interval(int(deg), boundary)


def plane(deg: int = 2, *, boundary: Boundary = "clamp") -> Plane:
    """A sheet with edges: products P_i(t1) P_j(t2) with i + j up to a degree.

    Args:
        deg: highest total degree, M = (deg + 1)(deg + 2)/2 basis functions.
        boundary: as in `interval`.
    Raises:
        ValueError: deg < 1 or an unknown boundary. TypeError: not a whole number.
    Example:
        >>> plane().M, plane().grid().shape
        (6, torch.Size([36, 2]))
    """
    check_whole("deg", deg)
    check_choice("boundary", boundary, ("clamp", "smooth"))
    return Plane(int(deg), boundary)
