"""∫_0^1 ∂f/∂x (b + t (a - b)) dt: exact where f is linear piece by piece, else by quadrature.

Sundararajan, Taly and Yan 2017, "Axiomatic attribution for deep networks", define the contributions
(a_j - b_j) ∫ ∂f_i/∂x_j dt; they sum to f(a) - f(b). How far the sum is off says how good the integral is,
without a reference, for a whole line and for every interval of it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullback.attribution.breakpoints import breakpoints
from pullback.attribution.crossings import split_places
from pullback.attribution.lines import Lines

FIRST_NODES, MOST_NODES, KINKED_NODES = 16, 512, 32
INTERVAL_NODES = 8
LARGEST_ROUNDS = 200


@dataclass(frozen=True, eq=False)
class Integral:
    """Mean derivative along each line.

    Attributes:
        rows: by the raw features, (d, m, p).
        pieces: linear pieces, or intervals of a quadrature, (m,).
        nodes: points at which the derivative was taken, (m,); 0 where the integral is exact.
    """

    rows: Float[Tensor, "d m p"]
    pieces: Int[Tensor, " m"]
    nodes: Int[Tensor, " m"]


def exact_integral(line: Lines, most: int) -> tuple[Integral, Tensor]:
    """The integral through all pieces, and the lines that have more than ``most`` of them (left at 0)."""
    m = len(line)
    found = breakpoints(line.network.tail, line.origin, line.origin + line.way, most)
    middle, length, owner = found.lengths()
    rows = line.finish(line.accumulate(line.blank(), middle, length, owner))
    pieces = torch.bincount(owner, minlength=m)
    left = torch.cat(found.dropped) if found.dropped else owner.new_zeros(0)
    return Integral(rows, pieces, torch.zeros_like(pieces)), left


@lru_cache(maxsize=16)
def _gauss(count: int) -> tuple[np.ndarray, np.ndarray]:
    x, w = np.polynomial.legendre.leggauss(count)
    return (x + 1) / 2, w / 2


def _nodes(count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(torch.from_numpy(part).to(like) for part in _gauss(count))  # type: ignore[return-value]


def quadrature(
    line: Lines, step: Float[Tensor, "m p"], change: Float[Tensor, "m d"], tol: float, most: int
) -> Integral:
    """Gauss-Legendre with as many nodes as each line needs; lines with kinks are cut into intervals.

    Args:
        step: a - b in the raw features.
        change: f(a) - f(b).
        tol: bound on |Σ_j C_ij - change_i| / Σ_j |C_ij|.
        most: intervals that a line may be cut into.
    """
    m, smooth = len(line), line.network.smooth
    everyone = torch.arange(m, device=step.device)
    result, scale = None, change.new_zeros(m, change.shape[1])
    nodes, pieces = torch.zeros_like(everyone), torch.ones_like(everyone)
    count, active = FIRST_NODES, everyone
    while len(active):
        some = line.pick(active)
        rows = some.finish(_gauss_sum(some, count))
        result = rows if result is None else result.index_copy_(1, active, rows)
        nodes[active] += count
        contributions = rows * step[active]
        scale[active] = contributions.abs().sum(-1).T
        error = (contributions.sum(-1).T - change[active]).abs()
        active = active[(error > tol * scale[active]).any(1)]
        if count >= (MOST_NODES if smooth else KINKED_NODES):
            break
        count *= 2
    if result is None:
        result = line.finish(line.blank())
    if len(active) and not smooth:
        rows, cut, used = _bisected(line.pick(active), tol * scale[active], most)
        result = result.index_copy(1, active, line.pick(active).finish(rows))
        pieces[active], nodes[active] = cut, nodes[active] + used
    return Integral(result, pieces, nodes)


def _gauss_sum(line: Lines, count: int) -> Tensor:
    m = len(line)
    t, w = _nodes(count, line.origin)
    owner = torch.arange(m, device=t.device).repeat_interleave(count)
    return line.accumulate(line.blank(), t.repeat(m), w.repeat(m), owner)


@dataclass
class _Intervals:
    """Intervals that wait for a verdict: where they are, their sums of derivatives and their errors."""

    low: Tensor
    high: Tensor
    owner: Tensor
    rows: Tensor
    error: Tensor


def _measured(line: Lines, low: Tensor, high: Tensor, owner: Tensor, bound: Tensor) -> _Intervals:
    """Integrals over intervals and their largest errors in units of the bound on the whole line."""
    t, w = _nodes(INTERVAL_NODES, line.origin)
    length = high - low
    places = (low.unsqueeze(1) + length.unsqueeze(1) * t).flatten()
    weights = (length.unsqueeze(1) * w).flatten()
    k = len(low)
    wide = line.pick(owner)
    own = torch.arange(k, device=low.device).repeat_interleave(INTERVAL_NODES)
    rows = wide.accumulate(wide.blank(), places, weights, own)
    ends = line.values(line.at(torch.cat([low, high]), owner.repeat(2)))
    change = ends[k:] - ends[:k]
    error = (
        (wide.changes(rows) - change).abs() / bound[owner].clamp_min(torch.finfo(bound.dtype).tiny)
    ).amax(1)
    return _Intervals(low, high, owner, rows, error)


def _bisected(line: Lines, bound: Float[Tensor, "m d"], most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of derivatives, intervals and nodes of each line; the worst are cut until ``bound`` holds."""
    m = len(line)
    device = bound.device
    total = line.blank()
    settled = torch.zeros(m, dtype=bound.dtype, device=device)
    cut, used = (torch.zeros(m, dtype=torch.long, device=device) for _ in range(2))
    zero, one = (torch.full((m,), end, dtype=bound.dtype, device=device) for end in (0.0, 1.0))
    pending = _measured(line, zero, one, torch.arange(m, device=device), bound)
    used += INTERVAL_NODES
    for _ in range(LARGEST_ROUNDS):
        waiting = torch.bincount(pending.owner, minlength=m)
        whole = settled.index_add(0, pending.owner, pending.error)
        done = (whole <= 1) | (cut + waiting >= most)
        # what is small beside the room that is left is settled, so that a line ends with few waiting
        share = (1 - settled).clamp_min(0) / (4 * waiting.clamp_min(1))
        good = done[pending.owner] | (pending.error <= share[pending.owner])
        total.index_add_(1, pending.owner[good], pending.rows[:, good])
        settled.index_add_(0, pending.owner[good], pending.error[good])
        cut += torch.bincount(pending.owner[good], minlength=m)
        bad = ~good
        if not bool(bad.any()):
            break
        low, high, owner = split_places(line, pending.low[bad], pending.high[bad], pending.owner[bad])
        pending = _measured(line, low, high, owner, bound)
        used += INTERVAL_NODES * torch.bincount(owner, minlength=m)
    else:
        total.index_add_(1, pending.owner, pending.rows)
        cut += torch.bincount(pending.owner, minlength=m)
    return total, cut, used
