"""Where a straight line crosses from one linear piece of a network to the next.

Along x(t) = b + t (a - b) every unit of a net that is linear piece by piece is itself linear piece by piece.
The values in front of a layer are kept at the breakpoints found so far; an activation adds those where a unit
passes a kink, a max pooling those where another entry of a window takes the lead. Between two neighbours of
the final list the derivative is constant.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pullback.jets.margin import levels
from pullback.jets.modules import Residual, Stack
from pullback.jets.rules import MAX_POOLS, Affine, Piecewise, max_pool
from pullback.jets.taylor import Layer, layers_of

LARGEST_ROUNDS = 64


@dataclass
class Pieces:
    """Breakpoints of many lines in one list, sorted by line and place.

    Attributes:
        t: places in [0, 1], (K,), the first of a line 0 and the last 1.
        owner: line of each, (K,), not decreasing.
        states: values at the breakpoints that are still needed, (K, *shape) each.
        most: breakpoints a line may have; lines with more are dropped and noted in ``dropped``.
    """

    t: Float[Tensor, " k"]
    owner: Int[Tensor, " k"]
    states: list[Tensor]
    most: int
    dropped: list[Tensor] = field(default_factory=list)

    def inner(self) -> Tensor:
        """Whether a breakpoint and its successor bound a piece, (K - 1,)."""
        return self.owner[1:] == self.owner[:-1]

    def refine(self, left: Tensor, share: Tensor) -> None:
        """Add breakpoints at ``share`` of the way from breakpoint ``left`` to its successor."""
        if len(left) == 0:
            return
        order = torch.argsort(share, stable=True)
        order = order[torch.argsort(left[order], stable=True)]
        left, share = left[order], share[order]
        fresh = torch.ones_like(left, dtype=torch.bool)
        fresh[1:] = (left[1:] != left[:-1]) | (share[1:] != share[:-1])
        left, share = left[fresh], share[fresh]
        # a new breakpoint stands behind its left neighbour and the new ones before it
        place = torch.arange(len(self.t), device=left.device)
        count = torch.bincount(left, minlength=len(self.t))
        place = place + count.cumsum(0) - count
        added = left + 1 + torch.arange(len(left), device=left.device)
        size = len(self.t) + len(left)
        self.owner = _merged(self.owner, self.owner[left], place, added, size)
        self.t = _merged(self.t, _between(self.t, left, share), place, added, size)
        for k, state in enumerate(self.states):
            self.states[k] = _merged(state, _between(state, left, share), place, added, size)
        self._drop()

    def _drop(self) -> None:
        counts = torch.bincount(self.owner)
        full = counts > self.most
        if not bool(full.any()):
            return
        self.dropped.append(full.nonzero().flatten())
        kept = ~full[self.owner]
        self.t, self.owner = self.t[kept], self.owner[kept]
        self.states[:] = [state[kept] for state in self.states]

    def lengths(self) -> tuple[Tensor, Tensor, Tensor]:
        """Middle, length and line of each piece."""
        inner = self.inner()
        low, high = self.t[:-1][inner], self.t[1:][inner]
        return (low + high) / 2, high - low, self.owner[:-1][inner]


def _between(values: Tensor, left: Tensor, share: Tensor) -> Tensor:
    low, high = values[left], values[left + 1]
    return low + share.view(-1, *(1,) * (values.ndim - 1)) * (high - low)


def _merged(old: Tensor, new: Tensor, place: Tensor, added: Tensor, size: int) -> Tensor:
    result = old.new_empty(size, *old.shape[1:])
    result[place] = old
    result[added] = new
    return result


def breakpoints(
    layers: list[Layer], start: Float[Tensor, "m *shape"], end: Float[Tensor, "m *shape"], most: int
) -> Pieces:
    """All breakpoints of the lines from ``start`` (t = 0) to ``end`` (t = 1).

    Args:
        layers: a net that is linear piece by piece.
        most: pieces that a line may have.
    """
    m = len(start)
    t = start.new_tensor([0.0, 1.0]).repeat(m)
    owner = torch.arange(m, device=start.device).repeat_interleave(2)
    state = torch.stack([start, end], dim=1).flatten(0, 1)
    pieces = Pieces(t, owner, [state], most + 1)
    _walk(layers, pieces)
    return pieces


def _walk(layers: list[Layer], pieces: Pieces) -> None:
    """Take the last state of ``pieces`` through the layers, adding breakpoints on the way."""
    for layer in layers:
        module: Any = layer.module
        if isinstance(layer.rule, Affine):
            pieces.states[-1] = layer.rule.value(module, pieces.states[-1])
        elif isinstance(layer.rule, Piecewise):
            pieces.refine(*_crossings(module, pieces))
            slope, shift = layer.rule.slopes(module, pieces.states[-1])
            value = slope * pieces.states[-1]
            pieces.states[-1] = value if shift is None else value + shift
        elif type(module) in MAX_POOLS:
            _pool(module, pieces)
        elif type(module) is Residual:
            pieces.states.append(pieces.states[-1])
            _walk(layers_of(module.block), pieces)
            branch = pieces.states.pop()
            pieces.states[-1] = pieces.states[-1] + branch
        else:
            assert type(module) is Stack
            _stack(module, pieces)


def _stack(module: Stack, pieces: Pieces) -> None:
    base = len(pieces.states) - 1
    for branch in module.branches:
        pieces.states.append(pieces.states[base])
        _walk(layers_of(branch), pieces)
    outputs = module.scaled(pieces.states[base + 1 :])
    del pieces.states[base + 1 :]
    pieces.states[base] = torch.cat(outputs, dim=-1)


def _crossings(module: nn.Module, pieces: Pieces) -> tuple[Tensor, Tensor]:
    """Breakpoint and share of the way to the next at which a unit passes a kink, for all levels at once."""
    flat = pieces.states[-1].flatten(1)
    inner = pieces.inner().unsqueeze(1)
    found = []
    for level in levels(module):
        gap = flat if level == 0 else flat - level
        low, high = gap[:-1], gap[1:]
        # signs, not the product of the values, which may underflow
        left, unit = (
            ((low > 0) & (high < 0) | (low < 0) & (high > 0)).logical_and_(inner).nonzero(as_tuple=True)
        )
        first, second = low[left, unit], high[left, unit]
        found.append((left, first / (first - second)))
    left, share = (torch.cat(column) for column in zip(*found, strict=True))
    return left, share


def _pool(module: nn.Module, pieces: Pieces) -> None:
    """Add breakpoints until the same entry leads each window at both ends of every piece, then pool."""
    tiny = 16 * torch.finfo(pieces.t.dtype).eps
    for _ in range(LARGEST_ROUNDS):
        value = pieces.states[-1]
        _, winners = max_pool(module, value)
        flat, at = value.flatten(2), winners.flatten(2)
        changed = (at[1:] != at[:-1]) & pieces.inner().view(-1, 1, 1)
        left, channel, window = changed.nonzero(as_tuple=True)
        old, new = at[left, channel, window], at[left + 1, channel, window]
        low = flat[left, channel, old] - flat[left, channel, new]
        high = flat[left + 1, channel, old] - flat[left + 1, channel, new]
        share = low / (low - high)
        # a tie at an end is a crossing that is there already
        inside = (share > tiny) & (share < 1 - tiny)
        if not bool(inside.any()):
            break
        pieces.refine(left[inside], share[inside])
    pieces.states[-1] = max_pool(module, pieces.states[-1])[0]
