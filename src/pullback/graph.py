"""What looks at a computation, and nodes of its graph that are computed again instead of being kept."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

Function = Callable[..., Tensor]


def transforms_active(*tensors: Tensor) -> bool:
    """Whether a function transform, forward-mode differentiation or the compiler looks at the computation."""
    if torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling():
        return True
    if getattr(forward_ad, "_current_level", 0) < 0:  # no dual level is open, so no tensor carries a tangent
        return False
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def recomputed(function: Function, *tensors: Tensor) -> Tensor:
    """function(*tensors), whose graph is made on the way back alone; differentiable twice.

    torch.utils.checkpoint does the same, but what it has computed again waits for the garbage collector, and
    it refuses torch.func.vjp inside.

    Args:
        function: of all that the result depends on.
    """
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in tensors):
        return function(*tensors)
    if transforms_active(*tensors):
        return function(*tensors)
    return _Recomputed.apply(function, *tensors)  # type: ignore[return-value]


def gradients_again(
    function: Function, tensors: Sequence[Tensor], wanted: Sequence[bool], cotangent: Tensor
) -> list[Tensor | None]:
    """Gradients of function(*tensors) along ``cotangent``, None where they are not wanted or zero.

    Called from a backward pass; where that is recorded, the gradients have a graph of their own.
    """
    twice = torch.is_grad_enabled()
    given = [
        tensor if tensor.requires_grad else tensor.detach().requires_grad_(want)
        for tensor, want in zip(tensors, wanted, strict=True)
    ]
    with torch.enable_grad():
        value = function(*given)
    sought = [tensor for tensor, want in zip(given, wanted, strict=True) if want]
    if not value.requires_grad:
        return [None] * len(given)
    found = iter(torch.autograd.grad(value, sought, cotangent, create_graph=twice, allow_unused=True))
    return [next(found) if want else None for want in wanted]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Function, *tensors: Tensor) -> Tensor:  # type: ignore[override]
        ctx.function = function
        ctx.save_for_backward(*tensors)
        return function(*tensors)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        return None, *gradients_again(ctx.function, ctx.saved_tensors, ctx.needs_input_grad[1:], g)
