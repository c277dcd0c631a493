"""Backward passes that are written out and may not be differentiated again."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch


def differentiable_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse to run a backward pass whose own graph is asked for.

    `torch.autograd.function.once_differentiable` refuses only where the incoming gradient has a graph; where
    it is a constant, the second derivative of this part would silently be missing from a sum.
    """

    @wraps(backward)
    def wrapped(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "this derivative can be taken once: expected create_graph=False; for second derivatives use "
                "the form without a pass of its own (gradient='autograd', metric.inverse, metric.logdet, "
                "a loss of your own)"
            )
        return backward(ctx, *gradients)

    return wrapped
