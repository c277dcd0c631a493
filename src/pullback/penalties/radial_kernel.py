"""Radial kernels of Duchon splines, with the derivatives that jets are made of.

A kernel gives, for distances r > 0, φ and the three coefficients

    q = φ'/r        b = (φ'' - q)/r        a = φ''' - 3 b

of the derivatives of φ(|t - c|): ∂_a = q r u_a, ∂_a∂_c = q δ + b r u u, ∂_a∂_c∂_e = a u u u + b (δ u)_sym.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

NODES, REACH = 64, 9.0
"""The trapezoidal rule of Bessel functions: nodes, and where it ends in units of 1/√x."""
TERMS = 40
"""Terms of the power series of a hybrid kernel, which is used up to SERIES_UP_TO length scales."""
SERIES_UP_TO = 3.0


@dataclass(frozen=True, eq=False)
class RadialDerivatives:
    """φ, q, b, a at distances of any shape."""

    value: Tensor
    q: Tensor
    b: Tensor
    a: Tensor


@runtime_checkable
class RadialKernel(Protocol):
    """A function of the distance."""

    @property
    def exponent(self) -> float:
        """Leading singular power α: J is continuous for α > 1, H finite for α > 2, K bounded for α >= 3."""
        ...

    def derivatives(self, r: Tensor) -> RadialDerivatives: ...

    def value_at_zero(self) -> float:
        """φ(0), for α > 0."""
        ...

    def curvature_at_zero(self) -> float:
        """φ''(0), for α > 2."""
        ...


@dataclass(frozen=True)
class PowerKernel:
    """φ = c r^α, or c r^α ln r: the kernel of (-Δ)^q in d dimensions, α = 2q - d.

    The logarithm stands where α is an even whole number >= 0.

    Args:
        q: order + power.
        d: dimension.
    """

    q: float | int
    d: int

    @property
    def exponent(self) -> float:
        """α."""
        return float(2 * self.q - self.d)

    @property
    def logarithmic(self) -> bool:
        """Whether ln r stands in it."""
        return self.exponent >= 0 and self.exponent % 2 == 0

    @cached_property
    def coefficient(self) -> float:
        """c."""
        q, half = self.q, self.d / 2
        if self.logarithmic:
            sign = (-1.0) ** round(q + 1 - half)
            return sign / (2 ** (2 * q - 1) * math.pi**half * math.gamma(q) * math.gamma(q - half + 1))
        return math.gamma(half - q) / (4**q * math.pi**half * math.gamma(q))

    def derivatives(self, r: Tensor) -> RadialDerivatives:
        """With falling factorials ff_k: φ^(k) = c r^(α-k) ff_k, or c r^(α-k) (ff_k ln r + ff'_k)."""
        alpha, c = self.exponent, self.coefficient
        if not self.logarithmic:
            high = c * alpha * (alpha - 2)
            return RadialDerivatives(
                c * r**alpha,
                c * alpha * r ** (alpha - 2),
                high * r ** (alpha - 3),
                high * (alpha - 4) * r ** (alpha - 3),
            )
        log = torch.log(r)
        # q = c r^(α-2) (α ln r + 1), and so on: each is the derivative of the one before, over r
        first = alpha * log + 1
        second = alpha * (alpha - 2) * log + 2 * alpha - 2
        third = alpha * (alpha - 2) * (alpha - 4) * log + 3 * alpha**2 - 12 * alpha + 8
        return RadialDerivatives(
            c * r**alpha * log,
            c * r ** (alpha - 2) * first,
            c * r ** (alpha - 3) * second,
            c * r ** (alpha - 3) * third,
        )

    def value_at_zero(self) -> float:
        """0, for α > 0."""
        return 0.0

    def curvature_at_zero(self) -> float:
        """0, for α > 2."""
        return 0.0


@dataclass(frozen=True)
class HybridKernel:
    """Kernel with spectrum 1/(|w|^{2P} (κ² + |w|²)^s): smooth like a Matérn kernel, polynomial far away.

    Far from the centre it is the sum of power kernels q = 1 .. P and Matérn kernels j = 1 .. s. Near it those
    pieces are singular and cancel, so a power series takes their place: the expansion of the spectrum at
    large w gives its singular part, Σ_m C(-s, m) κ^{2m} (power kernel of q = P + s + m), and the even powers
    of the Matérn kernels are the rest.

    Args:
        order: P >= 1. power: s >= 1. length_scale: 1/κ. d: dimension.
    """

    order: int
    power: int
    length_scale: float | int
    d: int

    @property
    def exponent(self) -> float:
        """α = 2 (P + s) - d."""
        return 2.0 * (self.order + self.power) - self.d

    def derivatives(self, r: Tensor) -> RadialDerivatives:
        """By the series up to SERIES_UP_TO length scales, by the pieces beyond.

        φ(r) = ℓ^α [φ_1(r/ℓ) + ln ℓ · (polynomial in r/ℓ that the logarithms ln r bring in)].
        """
        length = self.length_scale
        x = r / length
        near = x.detach() < SERIES_UP_TO
        # the branch that is not taken is evaluated where it is harmless
        close = self._series(torch.where(near, x, SERIES_UP_TO))
        far = self._pieces(torch.where(near, SERIES_UP_TO, x))
        size = length**self.exponent
        scales = {"value": size, "q": size / length**2, "b": size / length**3, "a": size / length**3}
        return RadialDerivatives(
            **{
                k: scale * torch.where(near, getattr(close, k), getattr(far, k))
                for k, scale in scales.items()
            }
        )

    def curvature_at_zero(self) -> float:
        """φ''(0) = 2 e_1, e the even part's coefficients; for α > 2."""
        return 2 * self._even[1] * self.length_scale ** (self.exponent - 2)

    def _logarithms(self) -> list[tuple[int, float]]:
        """Exponents and coefficients of ln ℓ: the power kernels that hold ln r."""
        kernels = [(PowerKernel(j, self.d), a) for j, a in enumerate(self._power_weights, start=1)]
        shift = math.log(self.length_scale)
        return [(round(k.exponent), a * k.coefficient * shift) for k, a in kernels if k.logarithmic]

    def value_at_zero(self) -> float:
        """φ(0) = e_0, for α > 0."""
        return self._even[0] * self.length_scale**self.exponent

    @property
    def _power_weights(self) -> list[float]:
        """a_j of the power kernels q = j, κ = 1."""
        P, s = self.order, self.power
        return [(-1.0) ** (P - j) * math.comb(s + P - j - 1, P - j) for j in range(1, P + 1)]

    @property
    def _matern_weights(self) -> list[float]:
        """b_j times the factor in front of r^ν K_ν(r), ν = j - d/2, κ = 1."""
        P, s, d = self.order, self.power, self.d
        weights = []
        for j in range(1, s + 1):
            b = (-1.0) ** P * math.comb(P + s - j - 1, s - j)
            weights.append(b / ((2 * math.pi) ** (d / 2) * 2 ** (j - 1) * math.gamma(j)))
        return weights

    def _pieces(self, r: Tensor) -> RadialDerivatives:
        total = None
        for j, weight in enumerate(self._power_weights, start=1):
            part = PowerKernel(j, self.d).derivatives(r)
            total = _add(total, part, weight)
        for j, weight in enumerate(self._matern_weights, start=1):
            # with f_ν = r^ν K_ν(r): f_ν' = -r f_{ν-1}
            f = [power_times_bessel(2 * j - self.d - 2 * m, r) for m in range(4)]
            part = RadialDerivatives(f[0], -f[1], r * f[2], -(r**3) * f[3])
            total = _add(total, part, weight)
        assert total is not None
        for m, weight in self._logarithms():
            if m == 0:
                total = replace(total, value=total.value + weight)
            else:
                high = m * (m - 2) * r ** (m - 3)
                part = RadialDerivatives(r**m, m * r ** (m - 2), high, (m - 4) * high)
                total = _add(total, part, weight)
        return total

    def _series(self, r: Tensor) -> RadialDerivatives:
        total = None
        for m in range(TERMS):
            weight = (-1.0) ** m * math.comb(self.power + m - 1, m)
            part = PowerKernel(self.order + self.power + m, self.d).derivatives(r)
            total = _add(total, part, weight)
        value, q, b, a = (torch.zeros_like(r) for _ in range(4))
        square = r * r
        for k in reversed(range(TERMS)):
            e = self._even[k]
            value = value * square + e
            q = q * square + (2 * (k + 1) * self._even[k + 1])
            b = b * square + (2 * (k + 2)) * (2 * (k + 1)) * self._even[k + 2]
            a = a * square + (2 * (k + 3)) * (2 * (k + 2)) * (2 * (k + 1)) * self._even[k + 3]
        even = RadialDerivatives(value, q, b * r, a * r**3)
        return _add(total, even, 1.0)

    @cached_property
    def _even(self) -> list[float]:
        """Coefficients e_k of r^{2k} beside the singular part."""
        coefficients = [0.0] * (TERMS + 4)
        for j, weight in enumerate(self._matern_weights, start=1):
            for n in range(TERMS + 4):
                coefficients[n] += weight * _even_bessel(2 * j - self.d, n)
        for m, weight in self._logarithms():
            coefficients[m // 2] += weight
        return coefficients


def _add(total: RadialDerivatives | None, part: RadialDerivatives, weight: float) -> RadialDerivatives:
    if total is None:
        return RadialDerivatives(weight * part.value, weight * part.q, weight * part.b, weight * part.a)
    return RadialDerivatives(
        total.value + weight * part.value,
        total.q + weight * part.q,
        total.b + weight * part.b,
        total.a + weight * part.a,
    )


def _even_bessel(twice_nu: int, n: int) -> float:
    """Coefficient of r^{2n} in r^ν K_ν(r), logarithms of r apart."""
    nu, half = twice_nu / 2, 0.5
    if twice_nu % 2:
        # K_ν = π/2 (I_{-ν} - I_ν)/sin νπ, and r^ν I_{-ν} holds the even powers
        front = math.pi / (2 * math.sin(nu * math.pi))
        return front * half ** (2 * n - nu) / (math.factorial(n) * math.gamma(n + 1 - nu))
    size, total = abs(round(nu)), 0.0
    # powers x^{2i ± |ν|} of K_|ν|, times r^ν
    i = n if nu >= 0 else n + size
    if i < size:
        total += 0.5 * (-1) ** i * math.factorial(size - i - 1) / math.factorial(i) * half ** (2 * i - size)
    i = n - size if nu >= 0 else n
    if i >= 0:
        common = half ** (2 * i + size) / (math.factorial(i) * math.factorial(size + i))
        total += (-1) ** size * 0.5 * (_psi(i + 1) + _psi(size + i + 1)) * common
        total += (-1) ** (size + 1) * math.log(half) * common
    return total


def _psi(n: int) -> float:
    """Digamma at a whole number >= 1."""
    return -0.5772156649015329 + math.fsum(1 / i for i in range(1, n))


def bessel_k(twice_order: int, x: Tensor) -> Tensor:
    """K_ν(x), ν = twice_order/2, for x > 1 (half orders: any x > 0); ν up to about 20.

    Half orders have a closed form. For whole ones K_ν(x) = ∫_0^∞ exp(-x cosh t) cosh νt dt by the trapezoidal
    rule, which converges exponentially here; nodes close up as 1/√x because the integrand does.
    """
    twice = abs(twice_order)
    if twice % 2:
        return _half_order(twice, x)
    width = (torch.rsqrt(x.detach()) * REACH).unsqueeze(-1)
    t = torch.linspace(0, 1, NODES, dtype=x.dtype, device=x.device) * width
    weight = torch.ones_like(t[..., :1]).expand_as(t) * (width / (NODES - 1))
    weight = torch.cat([weight[..., :1] / 2, weight[..., 1:]], -1)
    # cosh t - 1 = 2 sinh²(t/2), which does not cancel
    tail = torch.exp(-2 * x.unsqueeze(-1) * torch.sinh(t / 2).square())
    return torch.exp(-x) * (weight * tail * torch.cosh(twice / 2 * t)).sum(-1)


def _half_order(twice: int, x: Tensor) -> Tensor:
    """By the upward recurrence from K_{1/2} and K_{3/2}, which is stable."""
    previous = torch.sqrt(math.pi / (2 * x)) * torch.exp(-x)
    if twice == 1:
        return previous
    current = previous * (1 + 1 / x)
    for at in range(3, twice, 2):
        previous, current = current, previous + (at / x) * current
    return current


def power_times_bessel(twice_order: int, r: Tensor) -> Tensor:
    """r^ν K_ν(r), ν = twice_order/2 of either sign."""
    return r ** (twice_order / 2) * bessel_k(twice_order, r)
