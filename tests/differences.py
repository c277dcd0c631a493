"""Gradients against central differences."""

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor


def check_gradient(
    value: Callable[[], Tensor],
    parameter: Tensor,
    entries: Iterable[tuple[int, ...]],
    *,
    step: float = 1e-5,
    rel: float = 1e-5,
    abs: float = 1e-8,
) -> None:
    """The gradient of ``value()`` in some entries of a leaf tensor, which is left as it was."""
    (gradient,) = torch.autograd.grad(value(), parameter)
    with torch.no_grad():
        for entry in entries:
            kept = parameter[entry].clone()
            ends = []
            for sign in (1, -1):
                parameter[entry] = kept + sign * step
                ends.append(value().item())
            parameter[entry] = kept
            expected = (ends[0] - ends[1]) / (2 * step)
            assert gradient[entry].item() == pytest.approx(expected, rel=rel, abs=abs)
