"""The step through an elementwise function, and through a product: Faà di Bruno and Leibniz on packed rows.

J'_a   = f' J_a
H'_ab  = f'' J_a J_b + f' H_ab
K'_abc = f''' J_a J_b J_c + f'' (H_ab J_c + H_ac J_b + H_bc J_a) + f' K_abc
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pullback.jets.indices import indices
from pullback.jets.inplace import elementwise_inplace, plain_tensors
from pullback.jets.state import JetState


def elementwise(state: JetState, derivatives: tuple[Tensor, ...]) -> JetState:
    """The state behind f, from (f, f', .., f^(order)) at the value."""
    if plain_tensors(state.value, state.rows, derivatives[-1]):
        return elementwise_inplace(state, derivatives)
    return _plain(state, derivatives)


def _plain(state: JetState, f: tuple[Tensor, ...]) -> JetState:
    """The step in differentiable operations."""
    d, order = state.dim, state.order
    J, H, K = state.first, state.second, state.third
    rows = [f[1] * J]
    if order > 1:
        at = indices(d, J.device)
        JJ = J[at.i] * J[at.j]
        rows.append(f[2] * JJ if H is None else f[2] * JJ + f[1] * H)
    if order > 2:
        third = f[3] * (JJ[at.ab] * J[at.c])
        if H is not None:
            third = third + f[2] * (H[at.ab] * J[at.c] + H[at.ac] * J[at.b] + H[at.bc] * J[at.a])
        rows.append(third if K is None else third + f[1] * K)
    return JetState(f[0], torch.cat(rows) if len(rows) > 1 else rows[0], d, order, level=order, owned=True)


def scaled(state: JetState, slope: Tensor, offset: Tensor | None) -> JetState:
    """The state behind s·v + t: an activation that is linear piece by piece."""
    value = slope * state.value
    return JetState(
        value if offset is None else value + offset,
        slope * state.rows,
        state.dim,
        state.order,
        level=state.level,
        owned=True,
    )


def multiply(u: JetState, w: JetState) -> JetState:
    """The state of u ⊙ w by Leibniz' rule."""
    d, order = u.dim, u.order
    a, b = u.value, w.value
    rows = [u.first * b + a * w.first]
    if order > 1:
        at = indices(d, a.device)
        mixed = u.first[at.i] * w.first[at.j] + u.first[at.j] * w.first[at.i]
        rows.append(_leibniz_ends(u.second, w.second, a, b, mixed))
    if order > 2:
        third = torch.zeros_like(a).expand(at.a.shape[0], *a.shape)
        for high, low in ((u.second, w.first), (w.second, u.first)):
            if high is not None:
                third = third + high[at.ab] * low[at.c] + high[at.ac] * low[at.b] + high[at.bc] * low[at.a]
        rows.append(_leibniz_ends(u.third, w.third, a, b, third))
    value = a * b
    rows = [row.expand(-1, *value.shape) for row in rows]
    return JetState(value, torch.cat(rows), d, order, level=order, owned=True)


def _leibniz_ends(u: Tensor | None, w: Tensor | None, a: Tensor, b: Tensor, mixed: Tensor) -> Tensor:
    """u_I w + (mixed terms) + u w_I."""
    if u is not None:
        mixed = mixed + u * b
    return mixed if w is None else mixed + a * w


def concatenate(states: Sequence[JetState]) -> JetState:
    """The state of [u, w, ..], joined along the last axis."""
    level = max(state.level for state in states)
    raised = [state.raised(level) for state in states]
    if len({state.rows.shape[1] for state in raised}) > 1:
        raised = [state.expanded() for state in raised]
    value = torch.cat([state.value for state in raised], dim=-1)
    rows = torch.cat([state.rows for state in raised], dim=-1)
    return JetState(value, rows, states[0].dim, states[0].order, level=level, owned=True)


def add(u: JetState, w: JetState) -> JetState:
    """The state of u + w."""
    level = max(u.level, w.level)
    if u.level != w.level:
        low, high = (u, w) if u.level < w.level else (w, u)
        first = low.first + high.first
        rows = torch.cat([first.expand_as(high.first), high.rows[high.dim :]])
    else:
        rows = u.rows + w.rows
    return JetState(u.value + w.value, rows, u.dim, u.order, level=level, owned=True)
