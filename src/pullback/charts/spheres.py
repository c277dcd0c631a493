"""The sphere: unit vectors with harmonics of degree up to two."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from pullback.charts.coordinates import check_coordinates, check_embedding
from pullback.charts.isometries import ChartIsometry, align_directions
from pullback.jets import Jet
from pullback.validation import check_choice, check_whole

ROOT = math.sqrt(3)


@dataclass(frozen=True)
class Sphere:
    """Unit vectors t, stored as three numbers, differentiated along two tangents; see `sphere`."""

    L: int = 2
    name = "sphere"
    d = 2
    c = 3
    volume = 4 * math.pi
    step = 0.7

    @property
    def M(self) -> int:
        """Number of basis functions, (L + 1)²."""
        return (self.L + 1) ** 2

    @cached_property
    def roughness(self) -> Float[Tensor, "k k"]:
        """diag(l² (l + 1)²/4): squared eigenvalues of the Laplacian over those of degree 1."""
        degree = torch.arange(self.L + 1, dtype=torch.float64)
        times = 2 * torch.arange(self.L + 1) + 1
        return torch.diag((degree**2 * (degree + 1) ** 2 / 4).repeat_interleave(times))

    def jet(self, t: Float[Tensor, "n 3"], order: int = 1) -> Jet:
        """Basis and its covariant derivatives in the frame of `frame`.

        The Hessian along the sphere is e_aᵀ (∂²Φ) e_b - δ_ab t·∂Φ: the second term is what the curvature of
        the sphere takes from the polynomial's extension to space.
        """
        check_coordinates(t, 3, order)
        value, slope, bend = _polynomials(t, self.L, order)
        if order == 0:
            return Jet(value, None)
        E = frame(t)
        jacobian = slope @ E.mT
        if order == 1:
            return Jet(value, jacobian)
        curved = torch.einsum("nax,kxy,nby->nkab", E, bend, E)
        outward = (slope @ t.unsqueeze(2)).unsqueeze(3)
        return Jet(value, jacobian, curved - outward * torch.eye(2, dtype=t.dtype, device=t.device))

    def retract(self, t: Float[Tensor, "n 3"], dt: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
        """normalise(t + Eᵀ dt), exact to second order; components of dt at most ``step``."""
        dt = dt.clamp(-self.step, self.step)
        return normalize(t + (dt.unsqueeze(1) @ frame(t)).squeeze(1), dim=1)

    def grid(self, n: int | None = None) -> Float[Tensor, "g 3"]:
        """n points of a Fibonacci spiral, 40 unless told."""
        n = 40 if n is None else n
        check_whole("n", n)
        i = torch.arange(n, dtype=torch.float64) + 0.5
        height = 1 - 2 * i / n
        radius, azimuth = (1 - height**2).sqrt(), math.pi * (1 + math.sqrt(5)) * i
        return torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), height], 1)

    def from_embedding(self, Y: Float[Tensor, "n q"]) -> Float[Tensor, "n 3"]:
        """Directions of the first three columns, each divided by its standard deviation."""
        Y = check_embedding(Y, 3, minimum=2)[:, :3]
        spread = Y.std(0)
        scaled = Y / torch.where(spread > 0, spread, 1.0)
        pole = torch.tensor([0.0, 0.0, 1.0], dtype=Y.dtype, device=Y.device)
        return normalize(torch.where(scaled.norm(dim=1, keepdim=True) > 0, scaled, pole), dim=1)

    def align(self, t_a: Float[Tensor, "n 3"], t_b: Float[Tensor, "n 3"]) -> ChartIsometry:
        """The rotation or reflection that takes t_a nearest to t_b."""
        return align_directions(t_a, t_b)


def frame(t: Float[Tensor, "n 3"]) -> Float[Tensor, "n 2 3"]:
    """Two unit tangents at each point: the axis of the smallest |t_i| less its part along t, and t x it."""
    axis = torch.zeros_like(t).scatter_(1, t.abs().argmin(1, keepdim=True), 1.0)
    first = normalize(axis - (axis * t).sum(1, keepdim=True) * t, dim=1)
    return torch.stack([first, torch.linalg.cross(t, first)], 1)


def _polynomials(t: Tensor, L: int, order: int) -> tuple[Tensor, Tensor, Tensor]:
    """Harmonics (n, M), their gradients in space (n, M, 3) and constant second derivatives (M, 3, 3)."""
    bend = _quadratics(t)[: (L + 1) ** 2]
    linear = torch.zeros(len(bend), 3, dtype=t.dtype, device=t.device)
    linear[1:4] = torch.eye(3, dtype=t.dtype, device=t.device)
    # Φ = constant + linear·t + tᵀ bend t / 2
    turned = (t @ bend.flatten(0, 1).mT).unflatten(1, (-1, 3))
    value = t @ linear.mT + (turned @ t.unsqueeze(2)).squeeze(2) / 2
    value[:, 0] += 1
    if L > 1:
        value[:, 8] -= 0.5
    return value, linear + turned, bend


def _quadratics(like: Tensor) -> Tensor:
    """Second derivatives of 1; x, y, z; q xy, q yz, q xz, q (x² - y²)/2, (3z² - 1)/2 with q = √3."""
    bend = torch.zeros(9, 3, 3, dtype=like.dtype, device=like.device)
    for k, (i, j) in zip((4, 5, 6), ((0, 1), (1, 2), (0, 2)), strict=True):
        bend[k, i, j] = bend[k, j, i] = ROOT
    bend[7, 0, 0], bend[7, 1, 1], bend[8, 2, 2] = ROOT, -ROOT, 3.0
    return bend


def sphere(L: int = 2) -> Sphere:
    """A closed surface: spherical harmonics up to degree L, of mean square 1/(2l + 1).

    Args:
        L: highest degree, 1 or 2; M = (L + 1)² basis functions.
    Raises:
        ValueError: another L.
    Example:
        >>> import torch
        >>> sphere(1).jet(torch.tensor([[0.0, 0.0, 1.0]]), 0).value
        tensor([[1., 0., 0., 1.]])
    """
    check_choice("L", L, (1, 2))
    return Sphere(int(L))
