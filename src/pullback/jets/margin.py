"""How far a point is from the next kink of a piecewise-linear network."""

import math
from typing import Any

import torch
from torch import Tensor

from pullback.jets.rules import MAX_POOLS, max_pool
from pullback.jets.sweep import Kinks, windows


def relative_margin(kinks: list[Kinks], x: Tensor) -> Tensor:
    """min_k |a_k - κ| / rms(a) over hidden units k with kinks κ, (n,).

    Entries of a pooling window that are equal to its maximum are passed over: they come from saturated units.
    """
    margin = x.new_full((x.shape[0],), float("inf"))
    for kink in kinks:
        scale = torch.sqrt((kink.value * kink.value).flatten(1).mean(1))
        gaps, pairs = _gaps(kink)
        gaps = gaps.flatten(1)
        if pairs is not None:
            gaps = torch.where(gaps > 0, gaps, torch.full_like(gaps, float("inf")))
        nearest = gaps.amin(1)
        margin = torch.minimum(margin, nearest / scale.clamp_min(torch.finfo(x.dtype).tiny))
    return margin.detach()


@torch.no_grad()
def exact_margin(kinks: list[Kinks], x: Tensor) -> Tensor:
    """min_k |a_k - κ| / |∂a_k/∂x|: the radius of the ball around each point in which no unit changes."""
    margin = x.new_full((x.shape[0],), float("inf"))
    for kink in kinks:
        units = math.prod(kink.value.shape[1:])
        rows = torch.eye(units, dtype=x.dtype, device=x.device).view(units, 1, *kink.value.shape[1:])
        jacobian = kink.sweep.pull_from(kink.position, rows).expand(-1, x.shape[0], -1)
        distance, pairs = _gaps(kink)
        slope = jacobian.norm(dim=-1).T if pairs is None else _pair_slopes(jacobian, kink, pairs)
        ratio = distance.flatten(1) / slope.flatten(1)
        # a unit that does not depend on x never reaches its kink, even where it sits on it
        ratio = torch.where(slope.flatten(1) > 0, ratio, torch.full_like(ratio, float("inf")))
        margin = torch.minimum(margin, ratio.amin(1))
    return margin


def _gaps(kink: Kinks) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Distances to the nearest kink; for a pooling, of each window's maximum to its other entries."""
    if type(kink.module) in MAX_POOLS:
        return _window_gaps(kink.module, kink.value)
    first, *others = levels(kink.module)
    gap = (kink.value - first).abs()
    for level in others:
        gap = torch.minimum(gap, (kink.value - level).abs())
    return gap, None


def levels(module: Any) -> tuple[float, ...]:
    """Where an activation has its kinks."""
    return (float(module.min_val), float(module.max_val)) if hasattr(module, "min_val") else (0.0,)


def _window_gaps(module: Any, value: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """(n, channels, entries, outputs) and the flat positions of entries and maxima."""
    pooled, winners = max_pool(module, value)
    positions, valid = (t.to(value.device) for t in windows(module, pooled.shape[2:], value.shape[2:]))
    flat = value.flatten(2)
    gaps = pooled.flatten(2).unsqueeze(2) - flat[..., positions]
    winners = winners.flatten(2).unsqueeze(2)
    other = valid & (positions != winners)
    return torch.where(other, gaps, torch.full_like(gaps, float("inf"))), (positions, winners)


def _pair_slopes(jacobian: Tensor, kink: Kinks, pairs: tuple[Tensor, Tensor]) -> Tensor:
    """|∂(a_max - a_j)/∂x| for each entry of each window."""
    positions, winners = pairs
    n, channels = kink.value.shape[:2]
    spatial = math.prod(kink.value.shape[2:])
    per_unit = jacobian.transpose(0, 1).reshape(n, channels, spatial, jacobian.shape[-1])
    entries = per_unit[:, :, positions]
    at = winners.squeeze(2).unsqueeze(-1).expand(-1, -1, -1, jacobian.shape[-1])
    best = per_unit.gather(2, at).unsqueeze(2)
    return (best - entries).norm(dim=-1)
