"""Value of a network and products of its Jacobian with covectors, in plain operations.

What is a gradient here is differentiated again in training. Recorded layer by layer it costs about half of a
gradient by autograd whose graph is kept.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pullback.graph import transforms_active
from pullback.jets.activations import SMOOTH
from pullback.jets.once import differentiable_once
from pullback.jets.piecewise import PIECEWISE
from pullback.jets.quick import QUICK
from pullback.jets.taylor import layers_of
from pullback.typing import Map

Pull = Callable[[Tensor], Tensor]


def chain_layers(f: Map) -> list[nn.Module]:
    """Linear layers and activations of a network that is nothing else; empty for other maps.

    A network in training with dropout is none, and where the numbers cannot be looked at there is none.
    """
    if not isinstance(f, nn.Module) or transforms_active() or _is_random(f):
        return []
    layers = layers_of(f)
    known = all(layer.rule is not None and _is_known(layer.module) for layer in layers)
    return [layer.module for layer in layers] if known else []  # type: ignore[misc]


def value_and_pull(layers: list[nn.Module], z: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n p"], Pull]:
    """f(z) and the function λ -> λᵀ ∂f/∂z of a chain of layers; both can be differentiated once more.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5))
        >>> value, pull = value_and_pull(chain_layers(net), torch.zeros(4, 2))
        >>> pull(value).shape
        torch.Size([4, 2])
    """
    slopes: list[Tensor] = []
    value = z
    for module in layers:
        if type(module) is nn.Linear:
            value = F.linear(value, module.weight, module.bias)
            slopes.append(module.weight)
        else:
            value, slope = _activated(module, value)
            slopes.append(slope)
    matrices = [type(module) is nn.Linear for module in layers]

    def pull(covector: Tensor) -> Tensor:
        for slope, is_matrix in zip(reversed(slopes), reversed(matrices), strict=True):
            covector = covector @ slope if is_matrix else covector * slope
        return covector

    return value, pull


def _is_known(module: Any) -> bool:
    kind = type(module)
    return kind is nn.Linear or kind in SMOOTH or (kind in PIECEWISE and kind is not nn.RReLU)


def _is_random(f: nn.Module) -> bool:
    """Whether a layer that draws numbers is switched on: it stands among the layers that are passed over."""
    return f.training and any(isinstance(module, nn.modules.dropout._DropoutNd) for module in f.modules())


def _activated(module: Any, a: Tensor) -> tuple[Tensor, Tensor]:
    kind = type(module)
    if kind in PIECEWISE:
        return module(a), PIECEWISE[kind](module, a)[0]
    if any(True for _ in module.parameters()) or not torch.is_grad_enabled():
        f, slope = SMOOTH[kind](module, a, 1)
        return f, slope
    return _Activation.apply(a, module)  # type: ignore[return-value]


class _Activation(torch.autograd.Function):
    """a -> f(a), f'(a) as one node."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, module: Any) -> Any:  # type: ignore[override]
        table = QUICK.get(type(module), SMOOTH[type(module)])
        f, slope, bend = table(module, a, 2)
        ctx.save_for_backward(slope, bend)
        return f, slope.clone()

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, to_f: Tensor, to_slope: Tensor) -> Any:  # type: ignore[override]
        slope, bend = ctx.saved_tensors
        return torch.addcmul(to_f * slope, to_slope, bend), None
