"""The step through an elementwise function without a graph: few passes over memory, no gathers.

At small hidden width these updates cost more than the matrix products. So rows are updated where they lie,
each block of rows that shares its first index is one fused multiply-add on views, and a Jacobian that is the
same for all points is multiplied out before the point axis appears.
"""

import torch
from torch import Tensor

from pullback.graph import transforms_active
from pullback.jets.indices import count, indices, pair_starts
from pullback.jets.state import JetState


def plain_tensors(*tensors: Tensor) -> bool:
    """Whether none of the tensors takes part in any kind of differentiation, so that memory may be reused."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    return not transforms_active(*tensors)


def elementwise_inplace(state: JetState, f: tuple[Tensor, ...]) -> JetState:
    """The state behind f, value and rows in one piece of memory; overwrites ``state`` where it is owned."""
    if state.owned and _is_full(state) and state.rows.is_contiguous():
        _update(state.rows, f, state.dim, state.order)
        value, rows = state.value.copy_(f[0]), state.rows
    else:
        stack = state.value.new_empty(1 + count(state.dim, state.order), *state.value.shape)
        value, rows = stack[0].copy_(f[0]), stack[1:]
        rows_behind(state, f, rows)
    return JetState(value, rows, state.dim, state.order, level=state.order, owned=True)


def rows_behind(state: JetState, f: tuple[Tensor, ...], out: Tensor) -> Tensor:
    """Write the rows behind f to ``out``; ``state`` stays as it is."""
    if state.level > 1 or state.order == 1:
        if state.order == 1:
            return torch.mul(state.rows, f[1], out=out)
        out.copy_(state.raised(state.order).rows)
        _update(out, f, state.dim, state.order)
    else:
        _raise(state, out, f)
    return out


def _is_full(state: JetState) -> bool:
    return state.level == state.order and state.rows.shape[1] == state.value.shape[0]


def pair_products(J: Tensor) -> Tensor:
    """J_a J_b for a <= b, packed: (d, *shape) -> (d2, *shape)."""
    d = J.shape[0]
    if not plain_tensors(J):
        at = indices(d, J.device)
        return J[at.i] * J[at.j]
    result, starts = J.new_empty(d * (d + 1) // 2, *J.shape[1:]), pair_starts(d)
    for a, first in enumerate(J.unbind(0)):
        torch.mul(J[a:], first, out=result[starts[a] : starts[a + 1]])
    return result


def _raise(state: JetState, rows: Tensor, f: tuple[Tensor, ...]) -> None:
    """Rows behind f where orders above the first are zero before it."""
    d, J = state.dim, state.first
    torch.mul(J, f[1], out=rows[:d])
    if J.shape[1] == 1 or d == 1:
        JJ = pair_products(J)
        torch.mul(JJ, f[2], out=rows[d : count(d, 2)])
        if state.order > 2:
            at = indices(d, J.device)
            torch.mul(JJ[at.ab] * J[at.c], f[3], out=rows[count(d, 2) :])
        return
    blocks = _Blocks(rows, d, state.order)
    for a, block in enumerate(blocks.pairs):
        torch.mul(J[a:], f[2] * J[a], out=block)
    if state.order > 2:
        for a in range(d):
            weighted = f[3] * J[a]
            for b in range(a, d):
                torch.mul(J[b:], weighted * J[b], out=blocks.triples[a][b - a])


class _Blocks:
    """Views of the packed rows: pairs that begin with a, triples that begin with (a, b)."""

    def __init__(self, rows: Tensor, d: int, order: int):
        lengths = [d - a for a in range(d)]
        pieces: list[int] = [d, *lengths]
        if order > 2:
            pieces += [d - b for a in range(d) for b in range(a, d)]
        views = list(rows.split(pieces))
        self.first = views[0].unbind(0)
        self.pairs = views[1 : d + 1]
        starts = pair_starts(d)
        self.triples = [views[d + 1 + starts[a] : d + 1 + starts[a + 1]] for a in range(d)]


def _update(rows: Tensor, f: tuple[Tensor, ...], d: int, order: int) -> None:
    """Rows behind f in the place of those before it, highest order first."""
    J = rows[:d]
    if order > 1:
        blocks = _Blocks(rows, d, order)
        FJ = (f[2] * J).unbind(0)
        if order > 2:
            _update_third(rows, blocks, f, FJ, d)
        for a, block in enumerate(blocks.pairs):
            block.mul_(f[1]).addcmul_(FJ[a], J[a:])
    J.mul_(f[1])


def _update_third(
    rows: Tensor, blocks: _Blocks, f: tuple[Tensor, ...], FJ: tuple[Tensor, ...], d: int
) -> None:
    """K_abc <- f' K_abc + (f'' H_ab + f''' J_a J_b) J_c + (f'' J_b) H_ac + (f'' J_a) H_bc."""
    J, H = rows[:d], rows[d : count(d, 2)]
    starts = pair_starts(d)
    for a in range(d):
        curved = f[3] * blocks.first[a]
        for b in range(a, d):
            block = blocks.triples[a][b - a]
            G = torch.mul(f[2], H[starts[a] + b - a]).addcmul_(curved, blocks.first[b])
            block.mul_(f[1]).addcmul_(G, J[b:])
            block.addcmul_(FJ[b], H[starts[a] + b - a : starts[a + 1]])
            block.addcmul_(FJ[a], blocks.pairs[b])
