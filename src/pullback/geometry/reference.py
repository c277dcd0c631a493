"""Manifolds whose geometry is known in closed form: the truth that tests and documentation compare with.

Those with an ``embedding`` go through `pullback.metrics.PullbackMetric`; the others offer ``tensor`` and are
metrics themselves. Points are charts' coordinates, one a row.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.special import ellipeinc
from torch import Tensor

Coordinates = Float[Tensor, "n d"]
Values = Float[Tensor, " n"]


def _identity(z: Tensor) -> Tensor:
    return torch.eye(z.shape[1], dtype=z.dtype, device=z.device).expand(len(z), -1, -1)


@dataclass(frozen=True)
class Sphere:
    """Unit sphere S^d by stereographic projection: z -> (2z, |z|² - 1)/(1 + |z|²); K = 1, S = d (d - 1).

    Example:
        >>> import torch
        >>> a, b = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
        >>> Sphere().distance(a, b)
        tensor([1.5708])
    """

    dim: int = 2

    def embedding(self, z: Coordinates) -> Float[Tensor, "n q"]:
        """Points of the sphere in R^{d+1}."""
        square = z.square().sum(-1, keepdim=True)
        return torch.cat([2 * z, square - 1], dim=-1) / (1 + square)

    def chart(self, x: Float[Tensor, "n q"]) -> Coordinates:
        """Coordinates of points of the sphere, the inverse of `embedding`."""
        return x[:, :-1] / (1 - x[:, -1:])

    def tensor(self, z: Coordinates) -> Float[Tensor, "n d d"]:
        """g = 4/(1 + |z|²)² I."""
        return (2 / (1 + z.square().sum(-1))).square()[:, None, None] * _identity(z)

    def distance(self, a: Coordinates, b: Coordinates) -> Values:
        """Great-circle distance, accurate for near points and near antipodes."""
        x, y = self.embedding(a), self.embedding(b)
        return 2 * torch.atan2((x - y).norm(dim=-1), (x + y).norm(dim=-1))

    def logarithm(self, a: Coordinates, b: Coordinates) -> Coordinates:
        """log_a b in coordinates: g⁻¹ Jᵀ (θ/sin θ)(X_b - cos θ X_a)."""
        x, y = self.embedding(a), self.embedding(b)
        theta = self.distance(a, b)[:, None]
        return self.pull(a, (y - torch.cos(theta) * x) / torch.sinc(theta / math.pi))

    def push(self, z: Coordinates, v: Coordinates) -> Float[Tensor, "n q"]:
        """J v, the tangent vector of the sphere in R^{d+1}."""
        scale = 1 + z.square().sum(-1, keepdim=True)
        along = (z * v).sum(-1, keepdim=True)
        return torch.cat([2 * v * scale - 4 * along * z, 4 * along], dim=-1) / scale.square()

    def pull(self, z: Coordinates, tangent: Float[Tensor, "n q"]) -> Coordinates:
        """g⁻¹Jᵀ of a vector of R^{d+1}: the coordinates of its tangential part."""
        # J = 2/s (I, 0) - (2 z zᵀ, -2 z)·2/s², g = 4/s² I, so g⁻¹Jᵀ v = s/2 v_h - z (z·v_h) + z v_last.
        head, last = tangent[:, :-1], tangent[:, -1:]
        scale = 1 + z.square().sum(-1, keepdim=True)
        return scale / 2 * head - z * (z * head).sum(-1, keepdim=True) + z * last

    def exponential(self, z: Coordinates, v: Coordinates) -> Coordinates:
        """exp_z v: coordinates of cos|v| X + (sin|v|/|v|) J v."""
        tangent = self.push(z, v)
        norm = tangent.norm(dim=-1, keepdim=True)
        return self.chart(torch.cos(norm) * self.embedding(z) + torch.sinc(norm / math.pi) * tangent)

    def transport(self, a: Coordinates, b: Coordinates, v: Coordinates) -> Coordinates:
        """Parallel transport of v along the great circle a -> b: V - <V, Y>/(1 + <X, Y>) (X + Y)."""
        x, y, tangent = self.embedding(a), self.embedding(b), self.push(a, v)
        along = (tangent * y).sum(-1, keepdim=True) / (1 + (x * y).sum(-1, keepdim=True))
        return self.pull(b, tangent - along * (x + y))

    def scalar_curvature(self, z: Coordinates) -> Values:
        """S = d (d - 1)."""
        return torch.full_like(z[:, 0], self.dim * (self.dim - 1))


@dataclass(frozen=True)
class Ellipsoid:
    """(u, v) -> (a cos u cos v, b cos u sin v, c sin u), u the latitude, |u| < π/2, and v the longitude.

    Example:
        >>> import math, torch
        >>> pole = torch.tensor([[math.pi / 2, 0.0]], dtype=torch.float64)
        >>> Ellipsoid(2.0, 1.5, 1.0).gaussian_curvature(pole)  # c²/(a² b²)
        tensor([0.1111], dtype=torch.float64)
    """

    a: float = 2.0
    b: float = 1.5
    c: float = 1.0

    def embedding(self, z: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
        """Points of the ellipsoid in R³."""
        u, v = z[:, 0], z[:, 1]
        around = torch.stack([self.a * torch.cos(v), self.b * torch.sin(v)], dim=1)
        return torch.cat([torch.cos(u)[:, None] * around, self.c * torch.sin(u)[:, None]], dim=1)

    def gaussian_curvature(self, z: Float[Tensor, "n 2"]) -> Values:
        """K = 1/(abc (x²/a⁴ + y²/b⁴ + z²/c⁴))²."""
        axes = torch.tensor([self.a, self.b, self.c], dtype=z.dtype, device=z.device)
        support = (self.embedding(z) / axes.square()).square().sum(-1)
        return (axes.prod() * support).pow(-2)

    def meridian_length(self, start: Values, end: Values, longitude: float = 0.0) -> Values:
        """|c (E(u_b | m) - E(u_a | m))|, m = 1 - (a² cos² v + b² sin² v)/c²: length between two latitudes.

        E is the incomplete elliptic integral of the second kind. The meridians of the planes of symmetry
        (longitude a multiple of π/2; all of them where a = b) are geodesics.
        """
        square = (self.a * math.cos(longitude)) ** 2 + (self.b * math.sin(longitude)) ** 2
        m = 1 - square / self.c**2
        low, high = (torch.as_tensor(ellipeinc(u.cpu().double().numpy(), m)) for u in (start, end))
        return (self.c * (high - low)).abs().to(start)


@dataclass(frozen=True)
class Cylinder:
    """(u, v) -> (r cos u, r sin u, v): flat, and its Christoffel symbols vanish."""

    radius: float = 1.0

    def embedding(self, z: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
        """Points of the cylinder in R³."""
        u, v = z[:, 0], z[:, 1]
        return torch.stack([self.radius * torch.cos(u), self.radius * torch.sin(u), v], dim=1)

    def distance(self, a: Float[Tensor, "n 2"], b: Float[Tensor, "n 2"]) -> Values:
        """Distance in the unrolled plane, without going around the other way."""
        return torch.hypot(self.radius * (b[:, 0] - a[:, 0]), b[:, 1] - a[:, 1])


@dataclass(frozen=True)
class Torus:
    """Torus of revolution: (u, v) -> ((R + r cos v) cos u, (R + r cos v) sin u, r sin v).

    K = cos v / (r (R + r cos v)), area 4π²Rr, ∫K = 0; along a geodesic (R + r cos v)² u̇ is constant.
    """

    major: float = 2.0
    minor: float = 0.7

    @property
    def area(self) -> float:
        """4π² R r."""
        return 4 * math.pi**2 * self.major * self.minor

    def _radius(self, z: Tensor) -> Tensor:
        return self.major + self.minor * torch.cos(z[:, 1])

    def embedding(self, z: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
        """Points of the torus in R³."""
        u, v = z[:, 0], z[:, 1]
        radius = self._radius(z)
        return torch.stack([radius * torch.cos(u), radius * torch.sin(u), self.minor * torch.sin(v)], dim=1)

    def gaussian_curvature(self, z: Float[Tensor, "n 2"]) -> Values:
        """K = cos v / (r (R + r cos v))."""
        return torch.cos(z[:, 1]) / (self.minor * self._radius(z))

    def clairaut(self, z: Float[Tensor, "n 2"], velocity: Float[Tensor, "n 2"]) -> Values:
        """(R + r cos v)² u̇, constant along a geodesic."""
        return self._radius(z).square() * velocity[:, 0]


@dataclass(frozen=True)
class Catenoid:
    """(u, v) -> (cosh u cos v, cosh u sin v, u), K = -sech⁴ u."""

    def embedding(self, z: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
        """Points of the catenoid in R³."""
        u, v = z[:, 0], z[:, 1]
        return torch.stack([torch.cosh(u) * torch.cos(v), torch.cosh(u) * torch.sin(v), u], dim=1)

    def gaussian_curvature(self, z: Float[Tensor, "n 2"]) -> Values:
        """K = -sech⁴ u."""
        return -(torch.cosh(z[:, 0]) ** -4)


@dataclass(frozen=True)
class SphereLine:
    """The product S² x R with coordinates (stereographic, height): sectional curvatures 1 and 0, S = 2."""

    def embedding(self, z: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4"]:
        """Points in R³ x R."""
        return torch.cat([Sphere(2).embedding(z[:, :2]), z[:, 2:]], dim=1)

    def distance(self, a: Float[Tensor, "n 3"], b: Float[Tensor, "n 3"]) -> Values:
        """√(d_S² + Δh²)."""
        return torch.hypot(Sphere(2).distance(a[:, :2], b[:, :2]), b[:, 2] - a[:, 2])


@dataclass(frozen=True)
class SurfaceOfRevolution:
    """(u, v) -> (ρ(u) cos v, ρ(u) sin v, h(u)) with u the arc length of the profile: K = -ρ''/ρ.

    Args:
        radius, height: ρ and h, functions of u with ρ'² + h'² = 1. Along a geodesic ρ² v̇ is constant.
    """

    radius: Callable[[Tensor], Tensor]
    height: Callable[[Tensor], Tensor]

    def embedding(self, z: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
        """Points of the surface in R³."""
        radius = self.radius(z[:, 0])
        return torch.stack(
            [radius * torch.cos(z[:, 1]), radius * torch.sin(z[:, 1]), self.height(z[:, 0])], dim=1
        )

    def gaussian_curvature(self, z: Float[Tensor, "n 2"]) -> Values:
        """K = -ρ''/ρ, the second derivative by nested differentiation."""
        slope = torch.func.grad(lambda u: self.radius(u[None])[0])
        second = torch.func.vmap(torch.func.grad(slope))(z[:, 0])
        return -second / self.radius(z[:, 0])


@dataclass(frozen=True)
class SwissRoll:
    """(u, v) -> (u cos u, u sin u, v): flat (K = 0), yet with Christoffel symbols."""

    def embedding(self, z: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
        """Points of the roll in R³."""
        u, v = z[:, 0], z[:, 1]
        return torch.stack([u * torch.cos(u), u * torch.sin(u), v], dim=1)

    def arc_length(self, u: Tensor) -> Tensor:
        """s(u) = ½(u √(1 + u²) + asinh u)."""
        return (u * torch.sqrt(1 + u.square()) + torch.asinh(u)) / 2

    def distance(self, a: Float[Tensor, "n 2"], b: Float[Tensor, "n 2"]) -> Values:
        """Distance in the unrolled plane."""
        return torch.hypot(self.arc_length(b[:, 0]) - self.arc_length(a[:, 0]), b[:, 1] - a[:, 1])


@dataclass(frozen=True)
class PoincareDisk:
    """Hyperbolic space in the unit ball: g = 4/(1 - |z|²)² I, K = -1. Tensor only."""

    def tensor(self, z: Coordinates) -> Float[Tensor, "n d d"]:
        """g = 4/(1 - |z|²)² I."""
        return (2 / (1 - z.square().sum(-1))).square()[:, None, None] * _identity(z)

    def distance(self, a: Coordinates, b: Coordinates) -> Values:
        """acosh(1 + 2 |a-b|²/((1-|a|²)(1-|b|²))) = 2 asinh(√...), the form without cancellation."""
        product = (1 - a.square().sum(-1)) * (1 - b.square().sum(-1))
        return 2 * torch.asinh(torch.sqrt((a - b).square().sum(-1) / product))

    @staticmethod
    def _translated(x: Tensor, y: Tensor) -> Tensor:
        """The isometry that moves the origin to x, at y (Möbius addition)."""
        inner, xx, yy = ((p * q).sum(-1, keepdim=True) for p, q in ((x, y), (x, x), (y, y)))
        return ((1 + 2 * inner + yy) * x + (1 - xx) * y) / (1 + 2 * inner + xx * yy)

    def exponential(self, z: Coordinates, v: Coordinates) -> Coordinates:
        """exp_z v, by the isometry that moves the origin to z."""
        start = v / (1 - z.square().sum(-1, keepdim=True))
        norm = start.norm(dim=-1, keepdim=True)
        away = norm > 0
        unit = torch.where(away, start / torch.where(away, norm, 1), 0)
        return self._translated(z, torch.tanh(norm) * unit)

    def logarithm(self, a: Coordinates, b: Coordinates) -> Coordinates:
        """log_a b, the inverse of `exponential`."""
        end = self._translated(-a, b)
        norm = end.norm(dim=-1, keepdim=True)
        away = norm > 0
        unit = torch.where(away, end / torch.where(away, norm, 1), 0)
        return (1 - a.square().sum(-1, keepdim=True)) * torch.atanh(norm) * unit

    def exponential_from_origin(self, v: Coordinates) -> Coordinates:
        """exp_0 v = tanh|v| v/|v| (coordinates: |v|_g = 2 |v|)."""
        return self.exponential(torch.zeros_like(v), v)


@dataclass(frozen=True)
class FisherNormal:
    """The family of normals with coordinates (μ, σ): g = diag(1, 2)/σ², K = -1/2. Tensor only."""

    def tensor(self, z: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2 2"]:
        """g = diag(1/σ², 2/σ²)."""
        return torch.diag_embed(torch.stack([z[:, 1] ** -2, 2 * z[:, 1] ** -2], dim=1))

    def distance(self, a: Float[Tensor, "n 2"], b: Float[Tensor, "n 2"]) -> Values:
        """√2 acosh(1 + ((Δμ)²/2 + (Δσ)²)/(2 σ_a σ_b)), the Fisher-Rao distance of two normals."""
        difference = b - a
        square = difference[:, 0].square() / 2 + difference[:, 1].square()
        return 2 * math.sqrt(2) * torch.asinh(torch.sqrt(square / (4 * a[:, 1] * b[:, 1])))
