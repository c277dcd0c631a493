"""Where to cut an interval on a line: at the kinks that units seem to pass inside of it, or in the middle."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullback.attribution.lines import Lines
from pullback.jets.margin import levels
from pullback.jets.rules import MAX_POOLS
from pullback.jets.sweep import Sweep

NEAREST = 1e-12


def split_places(
    line: Lines, low: Float[Tensor, " k"], high: Float[Tensor, " k"], owner: Int[Tensor, " k"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Intervals (low, high, owner) that the given ones are cut into, in order.

    A unit with values of opposite sign at the ends passes its kink near where the chord does. The estimate
    becomes exact fast as intervals shrink, because units are smooth between kinks.
    """
    k = len(low)
    sweep = Sweep("derivative")
    sweep.record(line.network.tail, line.at(torch.cat([low, high]), owner.repeat(2)))
    interval, share = [], []
    for kink in sweep.kinks:
        if type(kink.module) in MAX_POOLS:
            continue
        flat = kink.value.flatten(1)
        for level in levels(kink.module):
            left, right = flat[:k] - level, flat[k:] - level
            at, unit = ((left > 0) & (right < 0) | (left < 0) & (right > 0)).nonzero(as_tuple=True)
            first, second = left[at, unit], right[at, unit]
            interval.append(at)
            share.append(first / (first - second))
    at = torch.cat(interval) if interval else owner.new_zeros(0)
    part = torch.cat(share) if share else low.new_zeros(0)
    inside = (part > NEAREST) & (part < 1 - NEAREST)
    at, part = at[inside], part[inside]
    uncrossed = torch.ones(k, dtype=torch.bool, device=low.device)
    uncrossed[at] = False
    middle = uncrossed.nonzero().flatten()
    at = torch.cat([at, middle])
    part = torch.cat([part, low.new_full((len(middle),), 0.5)])
    ends = torch.arange(k, device=low.device)
    at = torch.cat([at, ends, ends])
    part = torch.cat([part, torch.zeros_like(low), torch.ones_like(low)])
    order = torch.argsort(part, stable=True)
    order = order[torch.argsort(at[order], stable=True)]
    at, part = at[order], part[order]
    place = low[at] + part * (high - low)[at]
    place = torch.where(part == 1, high[at], place)
    inner = (at[1:] == at[:-1]) & (place[1:] > place[:-1])
    return place[:-1][inner], place[1:][inner], owner[at[:-1][inner]]
