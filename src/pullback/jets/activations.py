"""Closed-form derivatives of activation functions, to third order.

Each entry takes the module, the pre-activation and the highest order k, and returns (f, f', .., f^(k)), built
from differentiable torch operations. Shorthand of the formulas: σ the logistic function,
q = σ(a) σ(-a) (σ (1 - σ) would cancel), t = tanh a, u = sech² a = 4 σ(2a) σ(-2a).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.ambient import BernoulliFlattening, NegativeBinomialFlattening, PoissonFlattening
from pullback.jets.modules import Sine

Derivatives = tuple[Tensor, ...]
Table = Callable[[Any, Tensor, int], Derivatives]

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946
GELU_SLOPE = math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715


def logistic(a: Tensor, order: int) -> Derivatives:
    """S = [σ, q, q(1-2σ), q((1-2σ)² - 2q)]."""
    s = torch.sigmoid(a)
    if order == 0:
        return (s,)
    q = s * torch.sigmoid(-a)
    slope = 1 - 2 * s
    return (s, q, q * slope, q * (slope * slope - 2 * q))[: order + 1]


def hyperbolic_tangent(a: Tensor, order: int) -> Derivatives:
    """T = [t, u, -2tu, u(6t² - 2)]."""
    t = torch.tanh(a)
    if order == 0:
        return (t,)
    u = 4 * torch.sigmoid(2 * a) * torch.sigmoid(-2 * a)
    return (t, u, -2 * t * u, u * (6 * t * t - 2))[: order + 1]


def times_argument(a: Tensor, g: Derivatives) -> Derivatives:
    """Derivatives of a·g(a): f^(k) = k g^(k-1) + a g^(k)."""
    return (a * g[0], *(k * g[k - 1] + a * g[k] for k in range(1, len(g))))


def chain(outer: Derivatives, inner: Derivatives) -> Derivatives:
    """Derivatives of outer∘inner; ``outer`` is evaluated at ``inner[0]``."""
    result = [outer[0]]
    if len(outer) > 1:
        result.append(outer[1] * inner[1])
    if len(outer) > 2:
        result.append(outer[2] * inner[1] ** 2 + outer[1] * inner[2])
    if len(outer) > 3:
        mixed = 3 * outer[2] * inner[1] * inner[2]
        result.append(outer[3] * inner[1] ** 3 + mixed + outer[1] * inner[3])
    return tuple(result)


def _tanh(_: Any, a: Tensor, order: int) -> Derivatives:
    return hyperbolic_tangent(a, order)


def _sigmoid(_: Any, a: Tensor, order: int) -> Derivatives:
    return logistic(a, order)


def _softplus(module: Any, a: Tensor, order: int) -> Derivatives:
    beta, threshold = float(module.beta), float(module.threshold)
    f = F.softplus(a, beta, threshold)
    if order == 0:
        return (f,)
    s = logistic(beta * a, order - 1)
    straight = beta * a > threshold  # where torch returns a itself
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    curved = (torch.where(straight, zero, beta**k * s[k]) for k in range(1, order))
    return (f, torch.where(straight, one, s[0]), *curved)


def _silu(_: Any, a: Tensor, order: int) -> Derivatives:
    return times_argument(a, logistic(a, order))


def _gelu(module: Any, a: Tensor, order: int) -> Derivatives:
    if module.approximate == "tanh":
        return _gelu_tanh(a, order)
    cumulative = torch.erfc(-a / math.sqrt(2)) / 2
    if order == 0:
        return (a * cumulative,)
    density = torch.exp(-a * a / 2) / math.sqrt(2 * math.pi)
    square = a * a
    f1 = cumulative + a * density
    return (a * cumulative, f1, (2 - square) * density, a * (square - 4) * density)[: order + 1]


def _gelu_tanh(a: Tensor, order: int) -> Derivatives:
    y = GELU_SLOPE * (a + GELU_CUBIC * a**3)
    inner = (
        y,
        GELU_SLOPE * (1 + 3 * GELU_CUBIC * a * a),
        6 * GELU_CUBIC * GELU_SLOPE * a,
        torch.full_like(a, 6 * GELU_CUBIC * GELU_SLOPE),
    )
    g = chain(hyperbolic_tangent(y, order), inner)
    return times_argument(a, ((1 + g[0]) / 2, *(entry / 2 for entry in g[1:])))


def _mish(_: Any, a: Tensor, order: int) -> Derivatives:
    y = F.softplus(a)
    inner = (y, *logistic(a, max(order - 1, 0)))
    return times_argument(a, chain(hyperbolic_tangent(y, order), inner))


def _elu_family(a: Tensor, order: int, *, alpha: float, width: float, scale: float) -> Derivatives:
    """a > 0: scale·a; else scale·alpha·(e^{a/width} - 1)."""
    # without the clamp the branch not taken puts inf·0 into the gradient
    low = a.clamp(max=0) / width
    positive = a > 0
    f = torch.where(positive, scale * a, scale * alpha * torch.expm1(low))
    if order == 0:
        return (f,)
    e = scale * alpha / width * torch.exp(low)
    result = [f, torch.where(positive, torch.full_like(a, scale), e)]
    zero = torch.zeros_like(a)
    result += [torch.where(positive, zero, e / width ** (k - 1)) for k in range(2, order + 1)]
    return tuple(result)


def _elu(module: Any, a: Tensor, order: int) -> Derivatives:
    return _elu_family(a, order, alpha=float(module.alpha), width=1.0, scale=1.0)


def _selu(_: Any, a: Tensor, order: int) -> Derivatives:
    return _elu_family(a, order, alpha=SELU_ALPHA, width=1.0, scale=SELU_SCALE)


def _celu(module: Any, a: Tensor, order: int) -> Derivatives:
    return _elu_family(a, order, alpha=float(module.alpha), width=float(module.alpha), scale=1.0)


def _logsigmoid(_: Any, a: Tensor, order: int) -> Derivatives:
    f = F.logsigmoid(a)
    if order == 0:
        return (f,)
    s = logistic(a, order - 1)
    return (f, torch.sigmoid(-a), *(-entry for entry in s[1:]))


def _softsign(_: Any, a: Tensor, order: int) -> Derivatives:
    r = 1 / (1 + a.abs())
    return (a * r, r * r, -2 * torch.sign(a) * r**3, 6 * r**4)[: order + 1]


def _tanhshrink(_: Any, a: Tensor, order: int) -> Derivatives:
    t = hyperbolic_tangent(a, order)
    # 1 - sech² a is tanh² a, without the cancellation near 0
    return (a - t[0], t[0] * t[0], *(-entry for entry in t[2:]))[: order + 1]


def _sine(module: Any, a: Tensor, order: int) -> Derivatives:
    w = module.frequency
    s = torch.sin(w * a)
    if order == 0:
        return (s,)
    c = torch.cos(w * a)
    return (s, w * c, -(w**2) * s, -(w**3) * c)[: order + 1]


def _flat(value: Tensor, slope: Tensor, log1: Tensor, log2: Tensor, order: int) -> Derivatives:
    """f' = e^{l/2}, f'' = l'f'/2, f''' = (l'²/4 + l''/2) f' with l = ln W."""
    return (value, slope, log1 * slope / 2, (log1 * log1 / 4 + log2 / 2) * slope)[: order + 1]


def _bernoulli(module: Any, a: Tensor, order: int) -> Derivatives:
    s, r = torch.sigmoid(a), torch.sigmoid(-a)
    slope = torch.exp((F.logsigmoid(a) + F.logsigmoid(-a)) / 2)
    return _flat(module(a), slope, r - s, -2 * s * r, order)


def _poisson(_: Any, a: Tensor, order: int) -> Derivatives:
    e = torch.exp(a / 2)
    return (2 * e, e, e / 2, e / 4)[: order + 1]


def _negative_binomial(module: Any, a: Tensor, order: int) -> Derivatives:
    theta = module.dispersion.to(a)
    shifted = a - torch.log(theta)
    s, r = torch.sigmoid(shifted), torch.sigmoid(-shifted)
    slope = torch.sqrt(theta) * torch.exp(F.logsigmoid(shifted) / 2)
    return _flat(module(a), slope, r, -s * r, order)


SMOOTH: dict[type[nn.Module], Table] = {
    nn.Tanh: _tanh,
    nn.Sigmoid: _sigmoid,
    nn.Softplus: _softplus,
    nn.SiLU: _silu,
    nn.GELU: _gelu,
    nn.Mish: _mish,
    nn.ELU: _elu,
    nn.SELU: _selu,
    nn.CELU: _celu,
    nn.LogSigmoid: _logsigmoid,
    nn.Softsign: _softsign,
    nn.Tanhshrink: _tanhshrink,
    Sine: _sine,
    BernoulliFlattening: _bernoulli,
    PoissonFlattening: _poisson,
    NegativeBinomialFlattening: _negative_binomial,
}
"""Twice differentiable (almost everywhere) activations."""
