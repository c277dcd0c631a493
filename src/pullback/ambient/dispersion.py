"""Fisher information of a negative binomial about the logarithm of its inverse dispersion θ.

With q = μ/(μ+θ), I_θθ = ψ'(θ) - E ψ'(y+θ) - μ/(θ(μ+θ)). The beta integral of the trigamma function gives

    ψ'(θ) - E ψ'(y+θ) = -∫_0^1 v^{θ-1} ln(1 - q(1-v))/(1-v) dv = Σ_{j>=1} q^j B(θ, j)/j

whose first term is the one subtracted: what is left has no cancellation. By parts, and with v = e^{-s/(θ+1)},

    θ² I_θθ = (1-c) q² ∫_0^∞ e^{-s} r(q E) ds,   c = 1/(1+θ),  E = 1 - e^{-cs},
    r(x) = (x/(1-x) + ln(1-x))/x² = Σ_j x^j (j+1)/(j+2)

a smooth integrand for the 128-point Gauss-Laguerre rule, of which the 51 points of weight above 1e-22 count.
Against 40-digit quadrature the relative error is below 6e-8 for θ from 1e-4 to 1e5 and μ up to 1e4, below
6e-9 for θ >= 0.01 and 1e-12 for θ >= 0.5.
"""

from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from pullback.graph import recomputed

POINTS = 128
LEAST_WEIGHT = 1e-22
SERIES_BELOW = 0.1
SERIES_TERMS = 18
# Numbers that one block of nodes may hold: they should stay in the cache.
BLOCK_NUMBERS = 2**16


@lru_cache(maxsize=1)
def _rule() -> tuple[list[float], list[float]]:
    nodes, weights = np.polynomial.laguerre.laggauss(POINTS)
    kept = weights > LEAST_WEIGHT
    return nodes[kept].tolist(), weights[kept].tolist()


def dispersion_information(eta: Tensor, log_theta: Tensor, order: int = 0) -> tuple[Tensor, ...]:
    """G = θ² I_θθ as a function of η = log μ and b = log θ, with its partial derivatives.

    Args:
        eta, log_theta: of one shape.
        order: highest order, at most 2.
    Returns: (G, G_η, G_b, G_ηη, G_ηb, G_bb) up to ``order``; differentiable.
    Example:
        >>> import torch
        >>> zero = torch.zeros(1, dtype=torch.float64)
        >>> dispersion_information(zero, zero)[0]
        tensor([0.0822], dtype=torch.float64)
    """
    q, rest = torch.sigmoid(eta - log_theta), torch.sigmoid(log_theta - eta)
    c, far = torch.sigmoid(-log_theta), torch.sigmoid(log_theta)  # c = 1/(1+θ), far = 1 - c
    R = _averages(q, rest, c, order)
    G = far * q * q * R[0]
    if order == 0:
        return (G,)
    G_q = far * (2 * q * R[0] + q * q * R[1])
    G_c = -q * q * R[0] + far * q * q * R[2]
    q1, c1 = q * rest, -c * far
    first = (G_q * q1, G_c * c1 - G_q * q1)
    if order == 1:
        return (G, *first)
    G_qq = far * (2 * R[0] + 4 * q * R[1] + q * q * R[3])
    G_qc = -2 * q * R[0] - q * q * R[1] + far * (2 * q * R[2] + q * q * R[4])
    G_cc = -2 * q * q * R[2] + far * q * q * R[5]
    q2, c2 = q1 * (1 - 2 * q), c * far * (1 - 2 * c)
    along = G_qq * q1 * q1 + G_q * q2
    mixed = G_qc * q1 * c1
    return (G, *first, along, mixed - along, along - 2 * mixed + G_cc * c1 * c1 + G_c * c2)


def _averages(q: Tensor, rest: Tensor, c: Tensor, order: int) -> tuple[Tensor, ...]:
    """∫ e^{-s} r(q E) ds with its derivatives in q and c: R, R_q, R_c, R_qq, R_qc, R_cc."""
    nodes, weights = (torch.tensor(column, dtype=q.dtype, device=q.device) for column in _rule())
    size = max(1, BLOCK_NUMBERS // max(1, q.numel()))
    totals: Tensor | None = None
    for s, w in zip(nodes.split(size), weights.split(size), strict=True):
        at = s.reshape(-1, *(1,) * q.ndim)
        part = recomputed(partial(_block, s=at, w=w, order=order), q, rest, c)
        totals = part if totals is None else totals + part
    assert totals is not None
    return totals.unbind()


def _block(q: Tensor, rest: Tensor, c: Tensor, s: Tensor, w: Tensor, order: int) -> Tensor:
    """The part of `_averages` from some of the nodes, a row each."""
    return torch.stack([torch.tensordot(w, part, dims=1) for part in _integrands(q, rest, c, s, order)])


def _integrands(q: Tensor, rest: Tensor, c: Tensor, s: Tensor, order: int) -> list[Tensor]:
    fall = torch.exp(-s * c)
    E = -torch.expm1(-s * c)
    r = _ratio(q * E, rest + q * fall, order)
    parts = [r[0]]
    if order > 0:
        slope = s * fall
        parts += [E * r[1], q * slope * r[1]]
    if order > 1:
        parts += [
            E * E * r[2],
            slope * (r[1] + q * E * r[2]),
            q * slope * (q * slope * r[2] - s * r[1]),
        ]
    return parts


def _ratio(x: Tensor, rest: Tensor, order: int) -> list[Tensor]:
    """r, r', r'' at x, with ``rest`` = 1 - x; the power series where the closed form would cancel."""
    small = x < SERIES_BELOW
    low = torch.where(small, x, 0)
    high, rest = torch.where(small, 0.5, x), torch.where(small, 0.5, rest)
    closed = [(high / rest + torch.log(rest)) / (high * high)]
    if order > 0:
        closed.append((1 / (rest * rest) - 2 * closed[0]) / high)
    if order > 1:
        top = (3 * high - 1) / (high * high * rest**3)
        closed.append(top + 2 * (closed[0] / high - closed[1]) / high)
    coefficients = [(j + 1) / (j + 2) for j in range(SERIES_TERMS)]
    result = []
    for part in closed:
        series = torch.full_like(low, coefficients[-1])
        for coefficient in coefficients[-2::-1]:
            series = series * low + coefficient
        result.append(torch.where(small, series, part))
        coefficients = [j * value for j, value in enumerate(coefficients)][1:]
    return result
