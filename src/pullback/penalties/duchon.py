"""A decoder that is a sum of radial functions, with its exact jets to third order."""

import logging
import math

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.jets import Jet
from pullback.penalties.radial_kernel import HybridKernel, PowerKernel, RadialDerivatives, RadialKernel
from pullback.validation import (
    check_choice,
    check_finite,
    check_points,
    check_positive,
    check_tensor,
    check_whole,
)

logger = logging.getLogger(__name__)

FLOOR = 1e-5
"""Distances below this share of the length scale count as this, where a derivative is infinite at 0."""
BLOCK = 2**21
"""Entries of the table of points, centres and axes that are held at a time."""


class DuchonRadialSource:
    """Jets of f_i(t) = Σ_k c_ki φ(|t - c_k|) + tail.

    φ is the kernel of a Duchon spline: a power of the distance (or a power times its logarithm), or with a
    ``length_scale`` a hybrid that is smoother near the centres. The derivatives of a linear tail above the
    first vanish, so H and K are complete without it; the value and J need ``tail``.

    Duchon 1977, "Splines minimizing rotation-invariant semi-norms in Sobolev spaces".

    Args:
        centers: c_k, (m, d).
        coefficients: c_ki, (m, p).
        length_scale: 1/κ of the hybrid kernel; None is scale-free.
        order: order of the polynomials that the semi-norm leaves free, >= 1; lowered where there are too few
            centres (1 needs one, 2 needs d + 1).
        power: spectral power; None is (d - 1)/2 for the scale-free kernel, so that φ ∝ r³ at order 2, and for
            the hybrid the smallest whole number (it must be one) with a bounded third derivative.
        tail: constants and slopes of a linear part, (1 + d, p); zeros for none.
        r_floor: smallest distance that counts, where H or K is infinite at a centre; None is 1e-5 length
            scales (or median distances to the nearest centre), 0 raises there instead.
    Raises:
        ValueError: shapes, or an order and power without a kernel.
    Example:
        >>> import torch
        >>> source = DuchonRadialSource(torch.zeros(1, 1), torch.ones(1, 1), order=1, tail=torch.zeros(2, 1))
        >>> source.jet(torch.tensor([[2.0]]), order=1).jacobian
        tensor([[[-0.5000]]])
    """

    def __init__(
        self,
        centers: Float[Tensor, "m d"],
        coefficients: Float[Tensor, "m p"],
        *,
        length_scale: float | int | None = None,
        order: int = 2,
        power: float | int | None = None,
        tail: Tensor | None = None,
        r_floor: float | int | None = None,
    ):
        check_points("centers", centers)
        check_points("coefficients", coefficients)
        m, d = centers.shape
        if coefficients.shape[0] != m:
            raise ValueError(
                f"coefficients: expected ({m}, p), one row a centre, got {tuple(coefficients.shape)}"
            )
        if tail is not None:
            check_tensor("tail", tail)
        if tail is not None and tuple(tail.shape) != (1 + d, coefficients.shape[1]):
            raise ValueError(f"tail: expected {(1 + d, coefficients.shape[1])}, got {tuple(tail.shape)}")
        if tail is not None:
            check_finite("tail", tail)
        if length_scale is not None:
            check_positive("length_scale", length_scale)
        check_whole("order", order)
        if power is not None:
            check_positive("power", power, zero=True)
        self.centers, self.coefficients, self.tail = centers, coefficients, tail
        self.order = _possible_order(int(order), m, d)
        self.kernel = _kernel(self.order, power, length_scale, d)
        if r_floor is not None:
            check_positive("r_floor", r_floor, zero=True)
        self.r_floor = FLOOR * (length_scale or _spacing(centers)) if r_floor is None else float(r_floor)

    def __call__(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n p"]:
        """f, (n, p), as a `Map`; without ``tail`` the radial part alone."""
        check_points("points", points, self.centers.shape[1], finite=False)
        parts = [self._radial(part)[0].value @ self.coefficients.to(part) for part in self._chunks(points, 0)]
        value = torch.cat(parts)
        if self.tail is None:
            return value
        tail = self.tail.to(value)
        return value + tail[0] + points @ tail[1:]

    def jet(self, points: Float[Tensor, "n d"], order: int = 3) -> Jet:
        """Derivatives to ``order``; value and Jacobian are None without ``tail``.

        Raises:
            ValueError: other columns than the centres', or with ``r_floor=0`` a point on a centre where a
                derivative is infinite.
        """
        check_points("points", points, self.centers.shape[1])
        check_choice("order", order, (1, 2, 3))
        chunks = [self._chunk(part, order) for part in self._chunks(points, order)]
        value, J, H, K = (
            None if column[0] is None else torch.cat([part for part in column if part is not None])
            for column in zip(*chunks, strict=True)
        )
        if self.tail is None:
            return Jet(None, None, H, K)
        assert value is not None
        assert J is not None
        tail = self.tail.to(value)
        return Jet(value + tail[0] + points @ tail[1:], J + tail[1:].mT, H, K)

    def _chunks(self, points: Tensor, order: int) -> tuple[Tensor, ...]:
        m, d = self.centers.shape
        return points.split(max(1, BLOCK // max(1, m * d**order)))

    def _radial(self, points: Tensor, order: int = 0) -> tuple[RadialDerivatives, Tensor, Tensor]:
        """φ, q, b, a (n, m), the distances r (n, m), and unit vectors u (n, m, d), 0 at a centre."""
        gap = points.unsqueeze(1) - self.centers.to(points)
        square = gap.square().sum(-1)
        apart = square > 0
        # the root has no derivative at 0, where all that it multiplies is 0
        r = torch.where(apart, torch.sqrt(torch.where(apart, square, 1.0)), 0.0)
        u = gap / torch.where(apart, r, 1.0).unsqueeze(-1)
        return self._floored(r, apart, order), r, u

    def _floored(self, r: Tensor, apart: Tensor, order: int) -> RadialDerivatives:
        alpha = self.kernel.exponent
        irregular = alpha <= 2 or (alpha < 3 and order > 2)
        if irregular and order > 1:
            if self.r_floor == 0 and not bool(apart.all()):
                row, center = (int(i) for i in (~apart).nonzero()[0])
                raise ValueError(
                    f"points: row {row} lies on centre {center}, where derivatives of a kernel with exponent "
                    f"{alpha:g} are infinite; pass r_floor=None, or a larger order or power"
                )
            return self.kernel.derivatives(r.clamp_min(self.r_floor))
        found = self.kernel.derivatives(torch.where(apart, r, 1.0))
        limits = {
            "value": self.kernel.value_at_zero(),
            "q": self.kernel.curvature_at_zero() if alpha > 2 else 0.0,
        }
        parts = {
            k: torch.where(apart, getattr(found, k), limits.get(k, 0.0)) for k in ("value", "q", "b", "a")
        }
        return RadialDerivatives(**parts)

    def _chunk(self, points: Tensor, order: int) -> tuple[Tensor | None, ...]:
        at, r, u = self._radial(points, order)
        c = self.coefficients.to(points)
        d = u.shape[-1]
        J = H = K = None
        if order > 0:
            J = _summed((at.q * r).unsqueeze(-1) * u, c)
        if order > 1:
            eye = torch.eye(d, dtype=u.dtype, device=u.device)
            uu = u.unsqueeze(-1) * u.unsqueeze(-2)
            H = _summed(at.q[..., None, None] * eye + (at.b * r)[..., None, None] * uu, c)
        if order > 2:
            cube = uu.unsqueeze(-1) * u[:, :, None, None, :]
            straight = eye.unsqueeze(-1) * u[:, :, None, None, :]
            mixed = straight + straight.transpose(-1, -2) + straight.permute(0, 1, 4, 2, 3)
            K = _summed(at.a[..., None, None, None] * cube + at.b[..., None, None, None] * mixed, c)
        return at.value @ c, J, H, K


def _summed(parts: Tensor, c: Tensor) -> Tensor:
    """Σ_k parts_k c_ki: (n, m, d, ..), (m, p) -> (n, p, d, ..)."""
    n = parts.shape[0]
    return (c.mT @ parts.flatten(2)).view(n, c.shape[1], *parts.shape[2:])


def _possible_order(order: int, m: int, d: int) -> int:
    """The order for which there are centres enough."""
    possible = order
    if possible >= 2 and m < d + 1:
        possible = 1
    if m < 1:
        raise ValueError("centers: expected at least one, got none")
    if possible != order:
        logger.warning(
            "order %d needs %d centres in %d dimensions, got %d: order 1 is used", order, d + 1, d, m
        )
    return possible


def _kernel(order: int, power: float | int | None, length_scale: float | int | None, d: int) -> RadialKernel:
    if length_scale is None:
        power = (d - 1) / 2 if power is None else float(power)
    elif power is None:
        power = max(1, math.ceil((3 + d) / 2 - order))
    if not 2 * (order + power) > d or power < 0:
        raise ValueError(
            f"power: expected power >= 0 and 2 (order + power) > d = {d}, got order {order}, power {power:g}"
        )
    if length_scale is None:
        if order == 1 and not 2 * power < d:
            raise ValueError(
                f"power: expected 2 power < d = {d} for order 1 without length_scale, got {power:g}"
            )
        return PowerKernel(order + power, d)
    if power != int(power) or power < 1:
        raise ValueError(f"power: expected a whole number >= 1 with length_scale, got {power:g}")
    return HybridKernel(order, int(power), float(length_scale), d)


def _spacing(centers: Tensor) -> float:
    """Median distance to the nearest other centre; 1 for a single one."""
    if centers.shape[0] < 2:
        return 1.0
    distances = torch.cdist(centers, centers)
    distances.fill_diagonal_(math.inf)
    spacing = float(distances.amin(1).median())
    return spacing if spacing > 0 else 1.0
