"""Derivative tables of the commonest activations for the case that no graph is recorded.

Same functions as in `pullback.jets.activations`, to rounding, in fewer and cheaper passes: `torch.tanh`,
`torch.where` and `softplus` cost several times as much per entry as a multiplication or an exponential.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.jets.activations import SMOOTH, Derivatives

LOG2_E = 1 / math.log(2)
FEW = 2**12
"""Entries up to which one slow pass takes less time than six quick ones."""
LARGEST = 80.0
"""Bound on 2|a| in exp: beyond, tanh is 1 to rounding and exp would overflow in float32."""


def _tanh(_: Any, a: Tensor, order: int) -> Derivatives:
    """With e = expm1(2|a|) and r = 1/(e + 2): |t| = e r and u = 4 r (1 - r), r <= 1/2, so nothing cancels."""
    e = a.abs().mul_(2).clamp_(max=LARGEST).expm1_()
    r = e.add(2).reciprocal_()
    t = e.mul_(r).copysign_(a)
    if order == 0:
        return (t,)
    u = torch.addcmul(r, r, r, value=-1).mul_(4)
    if order == 1:
        return (t, u)
    tu = (t * u).mul_(-2)
    if order == 2:
        return (t, u, tu)
    return (t, u, tu, (t * t).mul_(6).sub_(2).mul_(u))


def _logistic(a: Tensor, order: int) -> Derivatives:
    s = torch.sigmoid(a)
    if order == 0:
        return (s,)
    q = torch.neg(a).sigmoid_().mul_(s)
    if order == 1:
        return (s, q)
    slope = torch.mul(s, -2).add_(1)
    if order == 2:
        return (s, q, slope.mul_(q))
    third = (slope * slope).sub_(q, alpha=2).mul_(q)
    return (s, q, slope.mul_(q), third)


def _sigmoid(_: Any, a: Tensor, order: int) -> Derivatives:
    return _logistic(a, order)


def _silu(_: Any, a: Tensor, order: int) -> Derivatives:
    s = _logistic(a, order)
    rest = (torch.addcmul(s[k - 1] * k if k > 1 else s[0], a, s[k]) for k in range(1, order + 1))
    return (a * s[0], *rest)


def _softplus(module: Any, a: Tensor, order: int) -> Derivatives:
    beta, threshold = float(module.beta), float(module.threshold)
    scaled = a if beta == 1 else a * beta
    seen = math.exp(-threshold) > torch.finfo(a.dtype).eps / 8
    if seen or a.numel() <= FEW:
        f = F.softplus(a, beta, threshold)
    else:  # the switch to a straight line at the threshold is below rounding
        f = scaled.abs().mul_(-LOG2_E).exp2_().log1p_().add_(scaled.clamp(min=0))
        f = f if beta == 1 else f.div_(beta)
    if order == 0:
        return (f,)
    s = _logistic(scaled, order - 1)
    curved = [s[k] if beta == 1 else s[k].mul_(beta**k) for k in range(1, order)]
    if not seen:
        return (f, s[0], *curved)
    straight = scaled > threshold
    return (f, s[0].masked_fill_(straight, 1), *(entry.masked_fill_(straight, 0) for entry in curved))


def _gelu(module: Any, a: Tensor, order: int) -> Derivatives:
    if module.approximate != "none":
        return SMOOTH[nn.GELU](module, a, order)
    f = F.gelu(a)
    if order == 0:
        return (f,)
    cumulative = torch.mul(a, -math.sqrt(0.5)).erfc_().mul_(0.5)
    square = a * a
    density = square.mul(-0.5 * LOG2_E).exp2_().mul_(1 / math.sqrt(2 * math.pi))
    first = torch.addcmul(cumulative, a, density)
    if order == 1:
        return (f, first)
    second = torch.sub(2, square).mul_(density)
    if order == 2:
        return (f, first, second)
    return (f, first, second, square.sub_(4).mul_(density).mul_(a))


QUICK: dict[type[nn.Module], Callable[[Any, Tensor, int], Derivatives]] = {
    nn.Tanh: _tanh,
    nn.Sigmoid: _sigmoid,
    nn.SiLU: _silu,
    nn.Softplus: _softplus,
    nn.GELU: _gelu,
}
