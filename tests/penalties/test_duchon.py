"""Radial decoders: kernels against high precision, jets against automatic differentiation."""

import logging
import math

import mpmath
import pytest
import scipy.special
import torch

from penalties.checks import draw, relative
from pullback.jets import reference_jet
from pullback.penalties import DuchonRadialSource
from pullback.penalties.radial_kernel import HybridKernel, PowerKernel, bessel_k

KERNELS = {
    "alpha 1": {"order": 1, "alpha": 1},
    "alpha 2 log": {"order": 2, "alpha": 2},
    "alpha 3": {"order": 2, "alpha": 3},
    "alpha 4 log": {"order": 2, "alpha": 4},
    "alpha 5": {"order": 2, "alpha": 5},
}


def source(d: int, order: int, alpha: float, **options) -> DuchonRadialSource:
    power = (alpha + d) / 2 - order
    return DuchonRadialSource(
        draw(9, d), draw(9, 4, seed=1), order=order, power=power, tail=draw(1 + d, 4, seed=2), **options
    )


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_jets_of_powers(d: int, name: str) -> None:
    if d == 1 and name == "alpha 2 log":
        pytest.skip("order 2 needs power >= 0, so alpha >= 3 in one dimension")
    radial = source(d, **KERNELS[name])
    assert radial.kernel.exponent == pytest.approx(KERNELS[name]["alpha"])
    assert radial.kernel.logarithmic == ("log" in name)
    x = draw(6, d, seed=3)
    found, expected = radial.jet(x), reference_jet(radial, x, 3)
    for part in ("value", "jacobian", "hessian", "third"):
        size = float(getattr(expected, part).abs().max())
        gap = float((getattr(found, part) - getattr(expected, part)).abs().max())
        assert gap <= 1e-13 * max(size, 1.0)


SLOW = [pytest.param(options, marks=pytest.mark.slow) for options in ({"order": 1, "power": 3}, {"order": 3})]


@pytest.mark.parametrize("options", [{}, *SLOW], ids=str)
@pytest.mark.parametrize("d", [1, *(pytest.param(d, marks=pytest.mark.slow) for d in (2, 3))])
def test_jets_of_hybrids(d: int, options: dict[str, int]) -> None:
    radial = DuchonRadialSource(
        draw(9, d), draw(9, 4, seed=1), length_scale=0.7, tail=draw(1 + d, 4, seed=2), **options
    )
    x = 3 * draw(2, d, seed=3)
    found, expected = radial.jet(x), reference_jet(radial, x, 3)
    for part in ("value", "jacobian", "hessian", "third"):
        assert relative(getattr(found, part), getattr(expected, part)) <= 1e-12


def exact_hybrid(P: int, s: int, kappa: mpmath.mpf, d: int):
    """The kernel from its pieces, in high precision."""
    half = mpmath.mpf(d) / 2

    def power(j: int, r: mpmath.mpf) -> mpmath.mpf:
        alpha = 2 * j - d
        if alpha >= 0 and alpha % 2 == 0:
            c = mpmath.mpf(-1) ** (j + 1 - d // 2) / (
                2 ** (2 * j - 1) * mpmath.pi**half * mpmath.gamma(j) * mpmath.gamma(j - half + 1)
            )
            return c * r**alpha * mpmath.log(r)
        return mpmath.gamma(half - j) / (4**j * mpmath.pi**half * mpmath.gamma(j)) * r**alpha

    def matern(j: int, r: mpmath.mpf) -> mpmath.mpf:
        front = kappa ** (half - j) / ((2 * mpmath.pi) ** half * 2 ** (j - 1) * mpmath.gamma(j))
        return front * r ** (j - half) * mpmath.besselk(j - half, kappa * r)

    def kernel(r: mpmath.mpf) -> mpmath.mpf:
        total = mpmath.mpf(0)
        for j in range(1, P + 1):
            weight = (-1) ** (P - j) * kappa ** (-2 * (s + P - j)) * mpmath.binomial(s + P - j - 1, P - j)
            total += weight * power(j, r)
        for j in range(1, s + 1):
            weight = (-1) ** P * kappa ** (-2 * (P + s - j)) * mpmath.binomial(P + s - j - 1, s - j)
            total += weight * matern(j, r)
        return total

    return kernel


@pytest.mark.parametrize(
    ("d", "P", "s"), [(1, 1, 1), (1, 2, 1), (2, 1, 1), (2, 2, 2), (3, 1, 1), (3, 2, 3), (4, 2, 1)]
)
def test_hybrid_kernels_keep_their_digits_near_the_centre(d: int, P: int, s: int) -> None:
    kernel = HybridKernel(P, s, 1 / 1.7, d)
    with mpmath.workdps(40):
        exact = exact_hybrid(P, s, mpmath.mpf("1.7"), d)
        for r in (1e-3, 0.1, 1.0, 1.76, 1.77, 4.0):
            found = kernel.derivatives(torch.tensor([r], dtype=torch.float64))
            first, second, third = (mpmath.diff(exact, mpmath.mpf(r), n) for n in (1, 2, 3))
            q = first / mpmath.mpf(r)
            b = (second - q) / mpmath.mpf(r)
            for one, other in (
                (found.value, exact(mpmath.mpf(r))),
                (found.q, q),
                (found.b, b),
                (found.a, third - 3 * b),
            ):
                assert abs(float(one) - other) <= 1e-12 * abs(other)


def test_hybrid_kernel_with_a_closed_form() -> None:
    r, kappa = torch.tensor([0.3, 2.0, 5.0], dtype=torch.float64), 1.7
    found = HybridKernel(1, 1, 1 / kappa, 3).derivatives(r).value
    assert relative(found, (1 - torch.exp(-kappa * r)) / (4 * math.pi * kappa**2 * r)) <= 1e-13
    tiny = HybridKernel(2, 1, 1e-9, 3).derivatives(1e-9 * r)
    assert torch.isfinite(tiny.value).all()


def test_powers_solve_their_equation() -> None:
    # the Laplacian of the kernel of (-Δ)^q is minus that of (-Δ)^(q-1); with ln r up to a constant
    r = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
    for d, q in [(1, 2.0), (3, 2.0), (3, 2.5), (4, 1.7)]:
        high, low = PowerKernel(q, d).derivatives(r), PowerKernel(q - 1, d).derivatives(r)
        laplacian, expected = high.b * r + d * high.q, -low.value
        if PowerKernel(q, d).logarithmic:
            laplacian, expected = laplacian.diff(), expected.diff()
        assert relative(laplacian, expected) <= 1e-12


@pytest.mark.parametrize("twice", range(0, 13))
def test_bessel_functions(twice: int) -> None:
    x = torch.tensor([3.0, 3.3, 5.0, 20.0, 100.0, 400.0], dtype=torch.float64)
    assert (
        relative(bessel_k(twice, x) * x.exp(), torch.from_numpy(scipy.special.kve(twice / 2, x.numpy())))
        <= 1e-13
    )
    at = x[:3].clone().requires_grad_()
    (slope,) = torch.autograd.grad(bessel_k(twice, at).sum(), at)
    expected = -(bessel_k(twice - 2, x[:3]) + bessel_k(twice + 2, x[:3])) / 2
    assert relative(slope, expected) <= 1e-12


@pytest.mark.parametrize("options", [{"alpha": 3}, {"alpha": 4}, {"alpha": 5}], ids=str)
def test_regular_kernels_at_a_centre(options: dict[str, int]) -> None:
    radial = source(2, 2, **options)
    centre, near = radial.centers[:3], radial.centers[:3] + 1e-9
    at, beside = radial.jet(centre), radial.jet(near)
    assert relative(at.value, beside.value) <= 1e-7
    assert relative(at.jacobian, beside.jacobian) <= 1e-7
    assert relative(at.hessian, beside.hessian) <= 1e-6
    assert torch.isfinite(at.third).all()
    z = centre.clone().requires_grad_()
    (slope,) = torch.autograd.grad(radial(z).sum(), z)
    assert relative(slope, at.jacobian.sum(1)) <= 1e-12


def test_hybrids_at_a_centre() -> None:
    for d in (1, 2, 3):
        radial = DuchonRadialSource(
            draw(5, d), draw(5, 3, seed=1), length_scale=0.8, tail=torch.zeros(1 + d, 3).double()
        )
        at, beside = radial.jet(radial.centers), radial.jet(radial.centers + 1e-9)
        for part in ("value", "jacobian", "hessian"):
            assert relative(getattr(at, part), getattr(beside, part)) <= 1e-6


def test_irregular_kernels_are_floored_or_refused() -> None:
    thin = source(2, 2, 2)
    floored = thin.jet(thin.centers)
    assert torch.isfinite(floored.hessian).all()
    assert torch.isfinite(floored.third).all()
    strict = source(2, 2, 2, r_floor=0.0)
    with pytest.raises(ValueError, match="row 1 lies on centre 4"):
        strict.jet(torch.stack([draw(2, seed=5), strict.centers[4]]))
    strict.jet(strict.centers, order=1)
    assert relative(strict.jet(draw(3, 2, seed=5)).third, thin.jet(draw(3, 2, seed=5)).third) <= 1e-12


def test_parts_and_chunks() -> None:
    radial = DuchonRadialSource(draw(40, 2), draw(40, 3, seed=1))
    bare = radial.jet(draw(5, 2))
    assert bare.value is None
    assert bare.jacobian is None
    assert bare.hessian.shape == (5, 3, 2, 2)
    many = draw(20_000, 2, seed=2)
    assert torch.allclose(radial.jet(many, 2).hessian[-3:], radial.jet(many[-3:], 2).hessian, rtol=1e-12)
    tailed = DuchonRadialSource(radial.centers, radial.coefficients, tail=torch.ones(3, 3).double())
    low = tailed.jet(many[:4], order=1)
    assert low.hessian is None
    assert relative(low.value, radial(many[:4]) + 1 + many[:4].sum(1, keepdim=True)) <= 1e-13
    assert tailed.jet(many[:0]).third.shape == (0, 3, 2, 2, 2)


def test_too_few_centres_lower_the_order(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        radial = DuchonRadialSource(draw(2, 2), draw(2, 3))
    assert radial.order == 1
    assert "order 1 is used" in caplog.text


C, W = draw(5, 2), draw(5, 3)
BAD = [
    (lambda: DuchonRadialSource(C, W[:4]), "coefficients"),
    (lambda: DuchonRadialSource(C[:0], W[:0]), "at least one"),
    (lambda: DuchonRadialSource(C, W, tail=torch.zeros(2, 3)), "tail"),
    (lambda: DuchonRadialSource(C, W, length_scale=0.0), "length_scale"),
    (lambda: DuchonRadialSource(C, W, order=0), "order"),
    (lambda: DuchonRadialSource(C, W, order=1, power=0), "power: expected power"),
    (lambda: DuchonRadialSource(C, W, order=1, power=1.5), "order 1 without length_scale"),
    (lambda: DuchonRadialSource(C, W, power=math.inf), "power: expected a finite"),
    (lambda: DuchonRadialSource(C, W).jet(C, order=4), "order: expected one of 1, 2, 3"),
    (lambda: DuchonRadialSource(C, W, power=0.5, length_scale=1.0), "whole number"),
    (lambda: DuchonRadialSource(C, W, r_floor=-1.0), "r_floor"),
    (lambda: DuchonRadialSource(C, W).jet(torch.zeros(4, 3)), "points"),
    (lambda: DuchonRadialSource(C, W)(torch.zeros(4, 3)), "points"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_input_is_named(as_users_run: None, number: int) -> None:
    call, message = BAD[number]
    with pytest.raises(ValueError, match=message):
        call()
