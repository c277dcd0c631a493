"""The step through an elementwise function, and the unpacking, as single nodes of the autograd graph.

The node keeps only the state in front of the activation. With bars for adjoints and packed indices i <= j:

    ā    = f' v̄ + f'' Σ_i J̄'_i J_i + Σ_{i<=j} H̄'_ij (f''' J_i J_j + f'' H_ij)
    J̄_i  = f' J̄'_i + f'' T_i        T_i = 2 H̄'_ii J_i + Σ_{j≠i} H̄'_ij J_j
    H̄_ij = f' H̄'_ij

and Σ_{i<=j} H̄'_ij J_i J_j = ½ Σ_i T_i J_i, so T is formed once. The backward pass is differentiable itself.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pullback.jets.indices import count, indices, pair_starts
from pullback.jets.inplace import rows_behind
from pullback.jets.state import JetState

Tabulate = Callable[[Tensor, int], tuple[Tensor, ...]]
HIGHEST = 2
"""Order of the jets that the node covers; third order goes through differentiable operations."""


def elementwise_node(state: JetState, tabulate: Tabulate) -> JetState:
    """The state behind f as one node; ``tabulate(value, k)`` gives (f, .., f^(k))."""
    value, rows = _Step.apply(state.value, state.rows, tabulate, state.dim, state.order, state.level)
    return JetState(value, rows, state.dim, state.order, level=state.order, owned=False)


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, rows: Tensor, tabulate: Tabulate, dim: int, order: int, level: int
    ) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        f = tabulate(value, order + 1)
        ctx.save_for_backward(value, rows, *f[1:])
        ctx.tabulate, ctx.dim, ctx.order, ctx.level = tabulate, dim, order, level
        ctx.set_materialize_grads(False)
        state = JetState(value, rows, dim, order, level)
        stack = value.new_empty(1 + count(dim, order), *value.shape)
        return stack[0].copy_(f[0]), rows_behind(state, f, stack[1:])

    @staticmethod
    def backward(ctx: Any, g_value: Tensor | None, g_rows: Tensor | None) -> Any:  # type: ignore[override]
        value, rows, *f = ctx.saved_tensors
        if torch.is_grad_enabled():
            f = ctx.tabulate(value, ctx.order + 1)[1:]
            grads = _adjoint(rows, f, ctx.dim, ctx.level, g_value, g_rows)
        else:
            grads = _adjoint_inplace(rows, f, ctx.dim, ctx.level, g_value, g_rows, ctx.needs_input_grad[1])
        return *grads, None, None, None, None


def _reduced(grad: Tensor, rows: Tensor) -> Tensor:
    """Adjoint of rows that are the same for all points."""
    return grad.sum(1, keepdim=True) if rows.shape[1] != grad.shape[1] else grad


def _adjoint(
    rows: Tensor, f: Any, d: int, level: int, g_value: Tensor | None, g_rows: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The adjoint in differentiable operations."""
    to_value = None if g_value is None else f[0] * g_value
    if g_rows is None:
        return to_value, None
    J, gJ = rows[:d], g_rows[:d]
    weighted = f[1] * gJ
    to_first = f[0] * gJ
    to_rows = to_first
    if g_rows.shape[0] > d:
        at = indices(d, rows.device)
        gH = g_rows[d:]
        T = torch.zeros_like(gJ).index_add(0, at.i, gH * J[at.j]).index_add(0, at.j, gH * J[at.i])
        weighted = weighted + f[2] * T / 2
        to_first = to_first + f[1] * T
        to_rows = to_first
        if level > 1:
            to_rows = torch.cat([to_first, f[0] * gH])
    extra = (weighted * J).sum(0)
    if g_rows.shape[0] > d and level > 1:
        extra = extra + f[1] * (g_rows[d:] * rows[d:]).sum(0)
    return extra if to_value is None else to_value + extra, _reduced(to_rows, rows)


def _adjoint_inplace(
    rows: Tensor,
    f: Any,
    d: int,
    level: int,
    g_value: Tensor | None,
    g_rows: Tensor | None,
    rows_needed: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """The same with few passes over memory."""
    to_value = None if g_value is None else f[0] * g_value
    if g_rows is None:
        return to_value, None
    J, gJ = rows[:d].unbind(0), g_rows[:d].unbind(0)
    g_kept = g_rows if level > 1 else g_rows[:d]
    stack = f[0].new_empty(1 + g_kept.shape[0], *f[0].shape)
    total, to_rows = stack[0].zero_(), torch.mul(g_kept, f[0], out=stack[1:])
    if g_rows.shape[0] == d:
        for a in range(d):
            total.addcmul_(gJ[a], J[a])
    else:
        T = _symmetric_product(g_rows[d:], rows[:d], d)
        curved = f[2] / 2
        for a in range(d):
            total.addcmul_(gJ[a], J[a])
        total.mul_(f[1])
        for a in range(d):
            total.addcmul_(curved * T[a], J[a])
        to_rows[:d].addcmul_(T, f[1])
        if level > 1:
            inner = torch.zeros_like(total)
            for g, h in zip(g_rows[d:].unbind(0), rows[d:].unbind(0), strict=True):
                inner.addcmul_(g, h)
            total.addcmul_(inner, f[1])
    if g_rows.shape[0] == d:
        total.mul_(f[1])
    if to_value is not None:
        total.add_(to_value)
    return total, _reduced(to_rows, rows) if rows_needed else None


def _symmetric_product(g: Tensor, J: Tensor, d: int) -> Tensor:
    """T_i = 2 g_ii J_i + Σ_{j≠i} g_ij J_j from packed g (d2, n, *shape)."""
    T = g.new_zeros(d, *g.shape[1:])
    first, starts = J.unbind(0), pair_starts(d)
    for a in range(d):
        block = g[starts[a] : starts[a + 1]]
        T[a:].addcmul_(block, first[a])
        row = T[a]
        for k, entry in enumerate(block.unbind(0)):
            row.addcmul_(entry, first[a + k])
    return T


def spread(rows: Tensor, positions: Tensor) -> Tensor:
    """rows[positions] for packed rows, as one node whose adjoint adds rows up without scattering."""
    return _Spread.apply(rows, positions)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, positions: Tensor) -> Tensor:  # type: ignore[override]
        ctx.positions, ctx.count = positions, rows.shape[0]
        return rows.index_select(0, positions)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        if torch.is_grad_enabled():
            return g.new_zeros(ctx.count, *g.shape[1:]).index_add(0, ctx.positions, g), None
        result = g.new_empty(ctx.count, *g.shape[1:])
        seen: set[int] = set()
        for row, k in zip(g.unbind(0), ctx.positions.tolist(), strict=True):
            if k in seen:
                result[k].add_(row)
            else:
                result[k].copy_(row)
                seen.add(k)
        return result, None
