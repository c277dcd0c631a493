"""Activations that are linear piece by piece: slope s and offset t of s·a + t.

Kinks are one-sided: ReLU and LeakyReLU take the lower slope at 0, PReLU the upper one.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pullback.graph import transforms_active

Slopes = Callable[[Any, Tensor], tuple[Tensor, Tensor | None]]


def _indicator(compare: Callable, a: Tensor, level: float) -> Tensor:
    """1 where ``compare(a, level)`` and 0 elsewhere, in the dtype of ``a``.

    Written into floating point at once: a mask of booleans, and `torch.where` on it, take many times as long.
    """
    if transforms_active(a):
        return compare(a, level).to(a.dtype)
    fixed = a.detach()
    return compare(fixed, level, out=torch.empty_like(fixed))


def _between(low: Tensor | float, above: Tensor) -> Tensor:
    """Slope ``low`` where ``above`` is 0 and 1 where it is 1, both exact."""
    low = low if isinstance(low, Tensor) else above.new_full((), low)
    return torch.lerp(low.expand_as(above), torch.ones_like(above), above)


def _relu(_: Any, a: Tensor) -> tuple[Tensor, Tensor | None]:
    return _indicator(torch.gt, a, 0.0), None


def _leaky(module: Any, a: Tensor) -> tuple[Tensor, Tensor | None]:
    return _between(float(module.negative_slope), _indicator(torch.gt, a, 0.0)), None


def _rrelu(module: Any, a: Tensor) -> tuple[Tensor, Tensor | None]:
    """In eval mode: the mean of the range of slopes."""
    return _between((module.lower + module.upper) / 2, _indicator(torch.gt, a, 0.0)), None


def _prelu(module: Any, a: Tensor) -> tuple[Tensor, Tensor | None]:
    weight = module.weight
    if weight.numel() > 1:
        weight = weight.reshape(-1, *(1,) * (a.ndim - 2))
    return _between(weight, _indicator(torch.ge, a, 0.0)), None


def _hardtanh(module: Any, a: Tensor) -> tuple[Tensor, Tensor | None]:
    low, high = float(module.min_val), float(module.max_val)
    inside = _indicator(torch.gt, a, low) * _indicator(torch.lt, a, high)
    return inside, a.clamp(low, high) * (1 - inside)


PIECEWISE: dict[type[nn.Module], Slopes] = {
    nn.ReLU: _relu,
    nn.LeakyReLU: _leaky,
    nn.PReLU: _prelu,
    nn.RReLU: _rrelu,
    nn.Hardtanh: _hardtanh,
    nn.ReLU6: _hardtanh,
}
