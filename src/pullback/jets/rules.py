"""One rule a layer type: how value and derivative rows pass through it.

A rule is any callable (module, state) -> state. Two kinds are objects, because contractions use more of them
than the forward step: `Affine` layers apply a linear map to every row, `Elementwise` layers a function whose
derivatives are known in closed form.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.ambient import CategoricalFlattening, ScaleFlattening
from pullback.graph import transforms_active
from pullback.jets import activations
from pullback.jets.elementwise import elementwise, multiply, scaled
from pullback.jets.gemm import linear_node, linear_rows
from pullback.jets.graph import HIGHEST, elementwise_node
from pullback.jets.indices import indices
from pullback.jets.inplace import plain_tensors
from pullback.jets.norms import group_norm, instance_norm, layer_norm, rms_norm
from pullback.jets.piecewise import PIECEWISE, Slopes
from pullback.jets.quick import QUICK
from pullback.jets.state import JetState

Rule = Callable[[Any, JetState], JetState]


@dataclass(frozen=True)
class Affine:
    """A layer y = A v + b.

    Attributes:
        linear: applies A alone to a batch that the rows are folded into.
        fresh: whether the result never shares memory with the input.
    """

    linear: Callable[[Any, Tensor], Tensor]
    fresh: bool = True

    def __call__(self, module: Any, state: JetState) -> JetState:
        if type(module) is nn.Linear and state.rows.shape[1] == state.value.shape[0]:
            return _full_linear(module, state)
        rows = self.rows(module, state.rows)
        owned = self.fresh or state.owned
        return JetState(
            self.value(module, state.value), rows, state.dim, state.order, state.level, owned=owned
        )

    def value(self, module: Any, x: Tensor) -> Tensor:
        """A x + b of a batch."""
        if type(module) is not nn.Linear:
            return module(x)
        result = linear_rows(x, module.weight)
        return result if module.bias is None else result + module.bias

    def rows(self, module: Any, rows: Tensor) -> Tensor:
        """A applied to rows (m, n, *shape)."""
        return self.linear(module, rows.flatten(0, 1)).unflatten(0, rows.shape[:2])


@dataclass(frozen=True)
class Elementwise:
    """A smooth activation with a table of derivatives, and perhaps a quicker one for use without a graph."""

    table: activations.Table
    quick: activations.Table | None = None

    def __call__(self, module: Any, state: JetState) -> JetState:
        if state.order > HIGHEST or not self._is_node(module, state):
            return elementwise(state, self.derivatives(module, state.value, state.order))
        return elementwise_node(state, lambda value, order: self.derivatives(module, value, order))

    def _is_node(self, module: Any, state: JetState) -> bool:
        """Whether only the state is differentiated through, by plain reverse mode."""
        if not torch.is_grad_enabled() or not (state.value.requires_grad or state.rows.requires_grad):
            return False
        own = any(tensor.requires_grad for tensor in (*module.parameters(), *module.buffers()))
        return not own and not transforms_active(state.value, state.rows)

    def derivatives(self, module: Any, value: Tensor, order: int) -> activations.Derivatives:
        """(f, f', .., f^(order)) at ``value``."""
        if self.quick is not None and plain_tensors(value):
            return self.quick(module, value, order)
        return self.table(module, value, order)


@dataclass(frozen=True)
class Piecewise:
    """An activation that is linear piece by piece."""

    slopes: Slopes

    def __call__(self, module: Any, state: JetState) -> JetState:
        return scaled(state, *self.slopes(module, state.value))


def _itself(module: Any, x: Tensor) -> Tensor:
    return module(x)


def _full_linear(module: Any, state: JetState) -> JetState:
    """A linear layer as one matrix product; the bias goes to the value only."""
    weight, bias = module.weight, module.bias
    if transforms_active(state.value, state.rows, weight):
        rows, value = linear_rows(state.rows, weight), F.linear(state.value, weight, bias)
    else:
        value, rows = linear_node(state.value, state.rows, weight, bias)
    return JetState(value, rows, state.dim, state.order, state.level, owned=not rows.requires_grad)


def _linear(module: Any, x: Tensor) -> Tensor:
    return linear_rows(x, module.weight)


def _convolution(module: Any, x: Tensor) -> Tensor:
    return module._conv_forward(x, module.weight, None)  # type: ignore[operator]


def _transposed(function: Callable) -> Callable[[Any, Tensor], Tensor]:
    def apply(module: Any, x: Tensor) -> Tensor:
        m = module
        return function(x, m.weight, None, m.stride, m.padding, m.output_padding, m.groups, m.dilation)

    return apply


def batch_norm_scale(module: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch normalisation in eval mode, one a channel."""
    scale = torch.rsqrt(module.running_var + module.eps)
    scale = scale if module.weight is None else scale * module.weight
    shift = -module.running_mean * scale
    return scale, shift if module.bias is None else shift + module.bias


def _batch_norm(module: Any, x: Tensor) -> Tensor:
    return x * batch_norm_scale(module)[0].reshape(-1, *(1,) * (x.ndim - 2))


def _scale(module: Any, x: Tensor) -> Tensor:
    return x * module.scale.to(x)


def _constant_pad(module: Any, x: Tensor) -> Tensor:
    return F.pad(x, module.padding)


AFFINE: dict[type[nn.Module], Callable[[Any, Tensor], Tensor]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.ConvTranspose1d: _transposed(F.conv_transpose1d),
    nn.ConvTranspose2d: _transposed(F.conv_transpose2d),
    nn.ConvTranspose3d: _transposed(F.conv_transpose3d),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    ScaleFlattening: _scale,
    **dict.fromkeys((nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d), _constant_pad),
    **dict.fromkeys(
        (
            nn.AvgPool1d,
            nn.AvgPool2d,
            nn.AvgPool3d,
            nn.AdaptiveAvgPool1d,
            nn.AdaptiveAvgPool2d,
            nn.AdaptiveAvgPool3d,
            nn.Upsample,
            nn.UpsamplingNearest2d,
            nn.UpsamplingBilinear2d,
            nn.Flatten,
            nn.Unflatten,
            nn.PixelShuffle,
            nn.PixelUnshuffle,
            nn.ChannelShuffle,
            nn.ZeroPad1d,
            nn.ZeroPad2d,
            nn.ZeroPad3d,
            nn.ReflectionPad1d,
            nn.ReflectionPad2d,
            nn.ReflectionPad3d,
            nn.ReplicationPad1d,
            nn.ReplicationPad2d,
            nn.ReplicationPad3d,
            nn.CircularPad1d,
            nn.CircularPad2d,
            nn.CircularPad3d,
        ),
        _itself,
    ),
}
"""Linear part of each affine layer type."""


def log_softmax(state: JetState, dim: int) -> JetState:
    """v - L with L = log Σ e^v over feature axis ``dim``; its derivatives are the cumulants of softmax(v)."""
    v, J, H, K = state.value, state.expanded().first, state.second, state.third
    axis = dim if dim < 0 else dim - v.ndim
    y = torch.log_softmax(v, dim=axis)
    s = torch.exp(y)

    def mean(u: Tensor) -> Tensor:
        return (s * u).sum(axis, keepdim=True)

    C = J - mean(J)
    rows = [C]
    if state.order > 1:
        at = indices(state.dim, v.device)
        CC = C[at.i] * C[at.j]
        rows.append(-mean(CC) if H is None else H - mean(CC + H))
    if state.order > 2:
        third = CC[at.ab] * C[at.c]
        if H is not None:
            third = third + H[at.ab] * C[at.c] + H[at.ac] * C[at.b] + H[at.bc] * C[at.a]
        rows.append(-mean(third) if K is None else K - mean(third + K))
    rows = [row.expand(-1, *C.shape[1:]) for row in rows]
    return JetState(y, torch.cat(rows), state.dim, state.order, level=state.order, owned=True)


def _log_softmax(module: Any, state: JetState) -> JetState:
    if module.dim is None:
        raise ValueError("LogSoftmax: expected dim to be set, got None; write nn.LogSoftmax(dim=-1)")
    return log_softmax(state, module.dim)


def _categorical(module: Any, state: JetState) -> JetState:
    half = log_softmax(state, -1)
    f = 2 * module.count**0.5 * torch.exp(half.value / 2)
    return elementwise(half, (f, f / 2, f / 4, f / 8)[: state.order + 1])


def _glu(module: Any, state: JetState) -> JetState:
    axis = module.dim if module.dim < 0 else module.dim - state.value.ndim
    values, rows = state.value.chunk(2, axis), state.rows.chunk(2, axis)
    u, w = (JetState(v, r, state.dim, state.order, state.level) for v, r in zip(values, rows, strict=True))
    return multiply(u, elementwise(w, activations.logistic(w.value, state.order)))


def max_pool(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output of a max pooling and the flat spatial positions that it takes."""
    m = module
    pool = {nn.MaxPool1d: F.max_pool1d, nn.MaxPool2d: F.max_pool2d, nn.MaxPool3d: F.max_pool3d}[type(m)]
    return pool(x, m.kernel_size, m.stride, m.padding, m.dilation, ceil_mode=m.ceil_mode, return_indices=True)


def _max_pool(module: Any, state: JetState) -> JetState:
    value, positions = max_pool(module, state.value)
    rows = state.expanded().rows
    flat = rows.flatten(3)
    taken = flat.gather(-1, positions.flatten(2).expand(*flat.shape[:3], -1))
    return JetState(
        value, taken.reshape(rows.shape[0], *value.shape), state.dim, state.order, state.level, owned=True
    )


SKIPPED = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
"""Layers that do nothing in eval mode; the jet passes them by."""

DENSE = (nn.LogSoftmax, CategoricalFlattening)
"""Layers, often the last, that couple all features: contractions avoid their packed second derivatives."""

MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)

LEAVES: dict[type[nn.Module], Rule] = {
    **{kind: Affine(linear, fresh=linear is not _itself) for kind, linear in AFFINE.items()},
    **{kind: Elementwise(table, QUICK.get(kind)) for kind, table in activations.SMOOTH.items()},
    **{kind: Piecewise(slopes) for kind, slopes in PIECEWISE.items()},
    **dict.fromkeys(MAX_POOLS, _max_pool),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), instance_norm),
    nn.LayerNorm: layer_norm,
    nn.RMSNorm: rms_norm,
    nn.GroupNorm: group_norm,
    nn.LogSoftmax: _log_softmax,
    nn.GLU: _glu,
    CategoricalFlattening: _categorical,
}
"""Rules of the layer types that hold no other layers."""
