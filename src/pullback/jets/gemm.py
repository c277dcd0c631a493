"""The matrix product behind every linear layer, on the quickest kernel that is at hand.

oneDNN's kernel for dense linear layers, which ships with torch, is twice as fast in float32 as ``torch.mm``
on AMD processors with full AVX-512 units (Zen 5), half of which MKL leaves idle, and a tenth faster on those
with AVX-512 in halves (Zen 4); but it copies transposed matrices first, which only the former are worth. On
Intel's and with AVX2 MKL is at full speed.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from pullback.graph import transforms_active

SMALLEST = 2**20
"""Multiplications from which the quicker kernel makes up for its longer call."""
ZEN_5 = 26
"""Family of processors from which on it makes up for copies, too."""


@lru_cache(maxsize=1)
def _amd_family() -> int:
    """What Linux tells of an AMD processor with AVX-512 and oneDNN, 0 elsewhere: torch's own product."""
    told = Path("/proc/cpuinfo")
    at_hand = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if not at_hand or "AVX512" not in torch.backends.cpu.get_cpu_capability() or not told.is_file():
        return 0
    found = re.search(r"AuthenticAMD\s+cpu family\s*:\s*(\d+)", told.read_text())
    return int(found[1]) if found else 0


def float64_cost(like: Tensor) -> float:
    """Time of a product in float64 in units of the product that `times_transposed` takes for ``like``."""
    if like.dtype == torch.float64:
        return 1.0
    return 4.0 if _amd_family() >= ZEN_5 and like.device.type == "cpu" else 2.0


def times_transposed(a: Tensor, b: Tensor) -> Tensor:
    """a bᵀ for matrices (m, k) and (n, k)."""
    if not _is_quick(a, b) or transforms_active(a, b):
        return torch.mm(a, b.mT)
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return _Quick.apply(a, b)
    return _kernel(a, b)


def _is_quick(a: Tensor, b: Tensor) -> bool:
    return (
        a.shape[0] * a.shape[1] * b.shape[0] >= SMALLEST
        and a.dtype == torch.float32 == b.dtype
        and a.device.type == "cpu" == b.device.type
        and (_amd_family() >= ZEN_5 or (_amd_family() > 0 and a.is_contiguous() and b.is_contiguous()))
        and bool(torch.backends.mkldnn.enabled)
    )


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")


def plain_product(a: Tensor, b: Tensor) -> Tensor:
    """a b for matrices (m, k) and (k, n), outside of any graph and transform."""
    return _kernel(a, b.mT) if _is_quick(a, b.mT) else torch.mm(a, b)


class _Quick(torch.autograd.Function):
    """a bᵀ with its derivatives, which are products of the same kind, to any order."""

    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(a, b)
        return _kernel(a, b)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        a, b = ctx.saved_tensors
        to_a = times_transposed(g, b.mT) if ctx.needs_input_grad[0] else None
        to_b = times_transposed(g.mT, a.mT) if ctx.needs_input_grad[1] else None
        return to_a, to_b


def linear_rows(rows: Tensor, weight: Tensor) -> Tensor:
    """rows weightᵀ over the last axis, as one matrix product."""
    flat = times_transposed(rows.reshape(-1, rows.shape[-1]), weight)
    return flat.view(*rows.shape[:-1], weight.shape[0])


def joined(value: Tensor, rows: Tensor) -> Tensor | None:
    """Value (n, *shape) and rows (m, n, *shape) as one tensor if they lie so in memory, else None."""
    if rows.shape[1:] != value.shape or not (value.is_contiguous() and rows.is_contiguous()):
        return None
    if rows.storage_offset() != value.storage_offset() + value.numel():
        return None
    if rows.untyped_storage().data_ptr() != value.untyped_storage().data_ptr():
        return None
    return value.as_strided((1 + rows.shape[0], *value.shape), (value.numel(), *value.stride()))


def linear_node(value: Tensor, rows: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Value and rows behind a linear layer: one product forward; one node of the graph, two products back."""
    tensors = (value, rows, weight) if bias is None else (value, rows, weight, bias)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return _LinearNode.apply(value, rows, weight, bias)
    return _linear_forward(value, rows, weight, bias)


def _linear_forward(
    value: Tensor, rows: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    stack = joined(value, rows)
    if stack is None:
        stack = torch.cat([value.unsqueeze(0), rows])
    result = plain_product(stack.flatten(0, -2), weight.mT).view(*stack.shape[:-1], weight.shape[0])
    value = result[0]
    return (value if bias is None else value.add_(bias)), result[1:]


class _LinearNode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, rows: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        ctx.save_for_backward(value, rows, weight)
        ctx.set_materialize_grads(False)
        return _linear_forward(value, rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, g_value: Tensor | None, g_rows: Tensor | None) -> Any:  # type: ignore[override]
        value, rows, weight = ctx.saved_tensors
        to_bias = None
        if g_value is not None and ctx.needs_input_grad[3]:
            to_bias = g_value.flatten(0, -2).sum(0)
        needed = ctx.needs_input_grad[2]
        if g_value is not None and g_rows is not None and not torch.is_grad_enabled():
            g, s = joined(g_value, g_rows), joined(value, rows)
            if g is not None and s is not None:
                to_stack, to_weight = _rows_adjoint(g, s, weight, needed)
                return to_stack[0], to_stack[1:], to_weight, to_bias
        to_value, to_weight = (
            (None, None) if g_value is None else _linear_adjoint(g_value, value, weight, needed)
        )
        to_rows, more = (None, None) if g_rows is None else _rows_adjoint(g_rows, rows, weight, needed)
        if to_weight is not None and more is not None:
            more = to_weight + more
        return to_value, to_rows, to_weight if more is None else more, to_bias


def _rows_adjoint(g: Tensor, s: Tensor, weight: Tensor, needed: bool) -> tuple[Tensor, Tensor | None]:
    """`_linear_adjoint` without the rows in front whose adjoint is zero.

    A loss of second derivatives alone leaves none for the first.
    """
    zero = 0 if torch.is_grad_enabled() else _leading_zeros(g)
    kept = g[zero:].contiguous()  # two products read it
    to_kept, to_weight = _linear_adjoint(kept, s[zero:], weight, needed)
    if zero:
        to_kept = torch.cat([to_kept.new_zeros(zero, *to_kept.shape[1:]), to_kept])
    return to_kept, to_weight


def _leading_zeros(g: Tensor) -> int:
    """How many rows in front are zero, the last one aside; not looked for where that waits for a device."""
    if g.device.type != "cpu" or not g.numel():
        return 0
    for k, row in enumerate(g[:-1].unbind(0)):
        low, high = row.aminmax()
        if not (low == 0 == high):
            return k
    return max(len(g) - 1, 0)


def _linear_adjoint(g: Tensor, s: Tensor, weight: Tensor, needed: bool) -> tuple[Tensor, Tensor | None]:
    """Adjoints of the input and of the weight of s weightᵀ."""
    to_input = linear_rows(g, weight.mT)
    if not needed:
        return to_input, None
    return to_input, times_transposed(g.reshape(-1, g.shape[-1]).mT, s.reshape(-1, s.shape[-1]).mT)
