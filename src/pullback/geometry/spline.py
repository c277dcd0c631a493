"""Curves through equally spaced nodes: not-a-knot splines, and the points of the cubic one's quadrature.

Node k of a curve of N nodes stands at t_k = k/(N-1). Fewer than four nodes are joined by straight lines.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import factorial

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline, make_interp_spline
from torch import Tensor

# Gauss-Lobatto rule with five points: exact to degree 7 like four Gauss points, but neighbouring intervals
# share their ends, and its mid-point is what a doubled mesh needs too.
LOBATTO_INNER = (0.5 - 0.5 * (3 / 7) ** 0.5, 0.5, 0.5 + 0.5 * (3 / 7) ** 0.5)
LOBATTO_WEIGHTS = (1 / 20, 49 / 180, 16 / 45, 49 / 180, 1 / 20)


@lru_cache(maxsize=8)
def _slope_matrix(nodes: int) -> Tensor:
    """(N, N): the spline's velocities at its nodes, which are linear in the nodes."""
    t = np.linspace(0, 1, nodes)
    return torch.from_numpy(CubicSpline(t, np.eye(nodes), bc_type="not-a-knot")(t, 1))


@dataclass(frozen=True)
class Spline:
    """A batch of curves, cubic between ``points``; velocities ``left`` and ``right`` of intervals."""

    points: Float[Tensor, "m N d"]
    left: Float[Tensor, "m n d"]
    right: Float[Tensor, "m n d"]

    def _pieces(self) -> Float[Tensor, "m n 4 d"]:
        h = 1 / (self.points.shape[1] - 1)
        return torch.stack([self.points[:, :-1], self.points[:, 1:], self.left * h, self.right * h], dim=2)

    def inside(self, s: tuple[float, ...]) -> tuple[Float[Tensor, "m n s d"], Float[Tensor, "m n s d"]]:
        """Positions and velocities at the same fractions ``s`` of every interval."""
        value, slope = _hermite(torch.tensor(s, dtype=self.points.dtype, device=self.points.device))
        pieces = self._pieces()
        return value @ pieces, slope @ pieces * (self.points.shape[1] - 1)

    def doubled(self) -> Float[Tensor, "m M d"]:
        """The curve's nodes and the points half-way between them, in order: 2N - 1 nodes."""
        middle = self.inside((0.5,))[0][:, :, 0]
        woven = torch.stack([self.points[:, :-1], middle], dim=2).flatten(1, 2)
        return torch.cat([woven, self.points[:, -1:]], dim=1)

    def _locate(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The four coefficients of the interval of every parameter, and the fraction passed in it."""
        n = self.points.shape[1] - 1
        interval = (t * n).floor().clamp(0, n - 1)
        index = interval.long()[:, :, None, None].expand(-1, -1, 4, self.points.shape[2])
        return torch.gather(self._pieces(), 1, index), t * n - interval

    def at(self, t: Float[Tensor, "m T"]) -> Float[Tensor, "m T d"]:
        """Positions at parameters t in [0, 1]."""
        pieces, s = self._locate(t)
        return (_hermite(s)[0].unsqueeze(-2) @ pieces).squeeze(-2)

    def velocity(self, t: Float[Tensor, "m T"]) -> Float[Tensor, "m T d"]:
        """Velocities dz/dt at parameters t in [0, 1]."""
        pieces, s = self._locate(t)
        return (_hermite(s)[1].unsqueeze(-2) @ pieces).squeeze(-2) * (self.points.shape[1] - 1)


def _hermite(s: Tensor) -> tuple[Tensor, Tensor]:
    """Cubic Hermite basis and its derivative at s in [0, 1]; last axis: z_0, z_1, h ż_0, h ż_1."""
    value = [(1 + 2 * s) * (1 - s) ** 2, s**2 * (3 - 2 * s), s * (1 - s) ** 2, s**2 * (s - 1)]
    slope = [6 * s * (s - 1), 6 * s * (1 - s), (1 - s) * (1 - 3 * s), s * (3 * s - 2)]
    return torch.stack(value, dim=-1), torch.stack(slope, dim=-1)


def spline_through(points: Float[Tensor, "m N d"]) -> Spline:
    """The not-a-knot cubic spline through equally spaced nodes; straight pieces where N < 4.

    Example:
        >>> import torch
        >>> t = torch.linspace(0, 1, 5, dtype=torch.float64)
        >>> curve = spline_through((t**3)[None, :, None])
        >>> round(curve.velocity(torch.tensor([[0.3]], dtype=torch.float64)).item(), 6)
        0.27
    """
    nodes = points.shape[1]
    if nodes < 4:
        chords = points.diff(dim=1) * (nodes - 1)
        return Spline(points, chords, chords)
    # Relative to the first node: rounding then vanishes where the curve stands still.
    velocity = _slope_matrix(nodes).to(points) @ (points - points[:, :1])
    return Spline(points, velocity[:, :-1], velocity[:, 1:])


SMOOTH_DEGREE = 7


@lru_cache(maxsize=8)
def _taylor_matrix(nodes: int, degree: int) -> Tensor:
    """(n, degree + 1, N): coefficients of every interval's polynomial, which are linear in the nodes."""
    t = np.linspace(0, 1, nodes)
    spline = make_interp_spline(t, np.eye(nodes), k=degree)
    h = 1 / (nodes - 1)
    return torch.from_numpy(
        np.stack([spline(t[:-1], j) * h**j / factorial(j) for j in range(degree + 1)], axis=1)
    )


@dataclass(frozen=True)
class SmoothCurve:
    """A batch of curves, in every interval a polynomial Σ_j c_j s^j of the fraction s passed in it."""

    points: Float[Tensor, "m N d"]
    coefficients: Float[Tensor, "m n k d"]

    def inside(self, s: tuple[float, ...]) -> tuple[Float[Tensor, "m n s d"], Float[Tensor, "m n s d"]]:
        """Positions and velocities at the same fractions ``s`` of every interval."""
        x = torch.tensor(s, dtype=self.points.dtype, device=self.points.device)
        powers = x.unsqueeze(1) ** torch.arange(self.coefficients.shape[2], device=x.device)
        factor = torch.arange(1, self.coefficients.shape[2], dtype=x.dtype, device=x.device)
        velocity = powers[:, :-1] @ (factor.unsqueeze(1) * self.coefficients[:, :, 1:])
        moved = powers @ self.coefficients + self.points[:, :1].unsqueeze(1)
        return moved, velocity * (self.points.shape[1] - 1)


def smooth_through(points: Float[Tensor, "m N d"]) -> SmoothCurve:
    """The not-a-knot spline of degree 7 through equally spaced nodes; of degree 5, 3 or 1 where they are few.

    It misses a smooth curve by O(1/N⁸); polygons with corners are better joined by `spline_through`.

    Example:
        >>> import torch
        >>> t = torch.linspace(0, 1, 9, dtype=torch.float64)
        >>> curve = smooth_through((t**6)[None, :, None])
        >>> abs(curve.inside((0.5,))[1][0, -1, 0].item() - 6 * (15 / 16) ** 5) < 1e-12
        True
    """
    nodes = points.shape[1]
    degree = max(k for k in (1, 3, 5, SMOOTH_DEGREE) if k < max(nodes, 2))
    relative = points - points[:, :1]
    return SmoothCurve(
        points, torch.einsum("nkN,mNd->mnkd", _taylor_matrix(nodes, degree).to(points), relative)
    )
