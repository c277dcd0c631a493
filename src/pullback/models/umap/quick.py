"""A training pass through linear layers with PReLU that spends its time in the linear layers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from pullback.jets.once import differentiable_once


def quick_pass(net: nn.Module, x: Tensor) -> Tensor:
    """net(x) with the same gradients; PReLUs of one slope take less time in training.

    PyTorch forms the slope's derivative for every entry before it sums them. Here it is one dot product.
    Other modules, modules with hooks and devices other than the CPU take their usual way.
    """
    if type(net) is not nn.Sequential or x.device.type != "cpu" or _hooked(net):
        return net(x)
    for layer in net:
        one_slope = type(layer) is nn.PReLU and layer.num_parameters == 1 and not _hooked(layer)
        x = _OneSlope.apply(x, layer.weight) if one_slope else layer(x)  # type: ignore[assignment]
    return x


def _hooked(module: Any) -> bool:
    """Whether calling the module does more than its class says."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


class _OneSlope(torch.autograd.Function):
    """max(x, 0) + w min(x, 0)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return leaky_relu(x, float(weight.detach()))

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        (gradient,) = outputs
        slope = torch.dot(x.clamp(max=0).flatten(), gradient.contiguous().flatten()).reshape(1)
        into = None
        if ctx.needs_input_grad[0]:
            into = torch.ops.aten.leaky_relu_backward(gradient, x, float(weight.detach()), False)
        return into, slope
