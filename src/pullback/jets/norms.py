"""Rules of the layers that normalise each point by its own features: layer, RMS, group and instance norm."""

from typing import Any

import torch
from torch import Tensor

from pullback.jets.elementwise import elementwise, multiply
from pullback.jets.indices import indices
from pullback.jets.state import JetState


def normalize(state: JetState, eps: float, *, centre: bool) -> JetState:
    """c r with r = (mean c² + eps)^(-1/2) over the last axis; c = v minus its mean if ``centre``."""
    d, order, n = state.dim, state.order, state.value.shape[0]
    value, rows = state.value, state.expanded().rows
    if centre:
        value, rows = value - value.mean(-1, keepdim=True), rows - rows.mean(-1, keepdim=True)
    c = JetState(value, rows, d, order, state.level)
    return multiply(c, elementwise(_mean_square(c, n, eps), _inverse_root(value, eps, order)))


def _mean(u: Tensor, w: Tensor) -> Tensor:
    return (u * w).mean(-1, keepdim=True)


def _mean_square(c: JetState, n: int, eps: float) -> JetState:
    """s = mean(c²) + eps and its derivatives, with a last axis of length 1."""
    v, J, H, K = c.value, c.first, c.second, c.third
    rows = [2 * _mean(v, J)]
    if c.order > 1:
        at = indices(c.dim, v.device)
        inner = _mean(J[at.i], J[at.j])
        rows.append(2 * (inner if H is None else inner + _mean(v, H)))
    if c.order > 2:
        third = torch.zeros_like(v[..., :1]).expand(at.a.shape[0], *v.shape[:-1], 1)
        if H is not None:
            third = third + _mean(H[at.ab], J[at.c]) + _mean(H[at.ac], J[at.b]) + _mean(H[at.bc], J[at.a])
        rows.append(2 * (third if K is None else third + _mean(v, K)))
    return JetState(_mean(v, v) + eps, torch.cat(rows), c.dim, c.order, level=c.order)


def _inverse_root(c: Tensor, eps: float, order: int) -> tuple[Tensor, ...]:
    """s^(-1/2) and its derivatives at s = mean(c²) + eps."""
    s = _mean(c, c) + eps
    r = torch.rsqrt(s)
    return (r, -r / (2 * s), 3 * r / (4 * s * s), -15 * r / (8 * s**3))[: order + 1]


def _affine_after(state: JetState, weight: Tensor | None, bias: Tensor | None) -> JetState:
    value = state.value if weight is None else state.value * weight
    rows = state.rows if weight is None else state.rows * weight
    value = value if bias is None else value + bias
    return JetState(value, rows, state.dim, state.order, state.level, owned=True)


def reshaped(state: JetState, shape: tuple[int, ...]) -> JetState:
    """The state with feature axes of another ``shape``."""
    n = state.value.shape[0]
    rows = state.rows.reshape(*state.rows.shape[:2], *shape)
    return JetState(state.value.reshape(n, *shape), rows, state.dim, state.order, state.level)


def layer_norm(module: Any, state: JetState, *, centre: bool = True) -> JetState:
    shape = tuple(state.value.shape[1:])
    outer = shape[: len(shape) - len(module.normalized_shape)]
    eps = module.eps if module.eps is not None else torch.finfo(state.value.dtype).eps
    flat = normalize(reshaped(state, (*outer, -1)), eps, centre=centre)
    return _affine_after(reshaped(flat, shape), module.weight, getattr(module, "bias", None))


def rms_norm(module: Any, state: JetState) -> JetState:
    return layer_norm(module, state, centre=False)


def group_norm(module: Any, state: JetState) -> JetState:
    return _grouped(state, module.num_groups, module.eps, module.weight, module.bias)


def instance_norm(module: Any, state: JetState) -> JetState:
    if module.track_running_stats and not module.training:
        scale = torch.rsqrt(module.running_var + module.eps)
        per_channel = (-1, *(1,) * (state.value.ndim - 2))
        shift = (-module.running_mean * scale).reshape(per_channel)
        plain = _affine_after(state, scale.reshape(per_channel), shift)
        return _channelwise(plain, module.weight, module.bias)
    return _grouped(state, state.value.shape[1], module.eps, module.weight, module.bias)


def _grouped(
    state: JetState, groups: int, eps: float, weight: Tensor | None, bias: Tensor | None
) -> JetState:
    shape = tuple(state.value.shape[1:])
    flat = normalize(reshaped(state, (groups, -1)), eps, centre=True)
    return _channelwise(reshaped(flat, shape), weight, bias)


def _channelwise(state: JetState, weight: Tensor | None, bias: Tensor | None) -> JetState:
    per_channel = (-1, *(1,) * (state.value.ndim - 2))
    return _affine_after(
        state,
        None if weight is None else weight.reshape(per_channel),
        None if bias is None else bias.reshape(per_channel),
    )
