"""The reverse sweep behind `local_affine`: slopes of a forward pass turned into a matrix and an offset.

Forward, each layer keeps what its transpose needs. Backward, rows G start as the identity of the output and
pass the layers from last to first; what a layer adds by itself (a bias, the offset of an activation's piece)
goes to the offset as G times it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product as cartesian
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pullback.jets.modules import Product, Residual, Stack, check_branch
from pullback.jets.reverse import transpose, vjp
from pullback.jets.rules import MAX_POOLS, Affine, Elementwise, Piecewise, max_pool
from pullback.jets.taylor import Layer, layers_of

AffineMap = Literal["derivative", "local_linear"]
Step = Callable[[Tensor, "Offset | None"], Tensor]
"""Rows (d, n or 1, *shape) behind a layer to rows in front of it."""

INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, *INSTANCE_NORMS)
"""Layers with a scale that depends on the point: the two maps differ there."""


@dataclass
class Offset:
    """Sum of what the layers add, (d, n or 1)."""

    total: Tensor | None = None

    def add(self, rows: Tensor, shift: Tensor) -> None:
        part = (rows * shift).flatten(2).sum(-1)
        self.total = part if self.total is None else self.total + part


@dataclass(frozen=True)
class Kinks:
    """Where an activation changes its piece: the layer's input and the step that it stands in front of.

    Attributes:
        value: (n, *shape).
        module: the activation or the pooling.
        sweep, position: the steps before it are ``sweep.steps[:position]``.
    """

    value: Tensor
    module: Any
    sweep: "Sweep"
    position: int


@dataclass
class Sweep:
    """The steps of a list of layers, in forward order, and where the list stands in an outer one.

    Attributes:
        map: which derivative of a norm.
        outer: the sweep that this one is a branch of, and where.
        own: take values from the layers' own forward pass, so that they are evidence of the steps.
    """

    map: AffineMap
    outer: "tuple[Sweep, int] | None" = None
    own: bool = False
    steps: list[Step] = field(default_factory=list)
    kinks: list[Kinks] = field(default_factory=list)

    def pull(self, rows: Tensor, offset: Offset | None, down_to: int = 0) -> Tensor:
        """Rows in front of step ``down_to`` (the first: the input of the list) from rows at its output."""
        for step in reversed(self.steps[down_to:]):
            rows = step(rows, offset)
        return rows

    def pull_from(self, position: int, rows: Tensor) -> Tensor:
        """Rows at the input of the net from rows in front of step ``position``."""
        for step in reversed(self.steps[:position]):
            rows = step(rows, None)
        return rows if self.outer is None else self.outer[0].pull_from(self.outer[1], rows)

    def inside(self) -> "Sweep":
        """A sweep for a branch that starts at the present position."""
        return Sweep(self.map, outer=(self, len(self.steps)), own=self.own, kinks=self.kinks)

    def record(self, layers: list[Layer], value: Tensor) -> Tensor:
        """The value behind ``layers``, their steps appended."""
        for layer in layers:
            value, step = _step(self, layer, value)
            self.steps.append(step)
        return value


def _step(sweep: Sweep, layer: Layer, value: Tensor) -> tuple[Tensor, Step]:
    rule, module = layer.rule, layer.module
    if not isinstance(module, nn.Module) or rule is None:
        return _derivative_step(module, value)
    if isinstance(rule, Affine):
        return rule.value(module, value) if not sweep.own else module(value), _affine_step(
            rule, module, value
        )
    if isinstance(rule, Piecewise):
        sweep.kinks.append(Kinks(value, module, sweep, len(sweep.steps)))
        slope, shift = rule.slopes(module, value)
        # in place, the layer would overwrite what its kinks are measured from
        own = sweep.own and not getattr(module, "inplace", False)
        return module(value) if own else _piecewise_value(slope, shift, value), _piecewise_step(slope, shift)
    if isinstance(rule, Elementwise):
        f, slope = rule.derivatives(module, value, 1)
        return f, lambda rows, _: rows * slope
    if type(module) in MAX_POOLS:
        sweep.kinks.append(Kinks(value, module, sweep, len(sweep.steps)))
        return _pool_step(module, value)
    if type(module) in NORMS:
        y, step = _norm_step(sweep.map, module, value)
        return module(value) if sweep.own else y, step
    if type(module) is Residual:
        inner = sweep.inside()
        branch = inner.record(layers_of(module.block), value)
        check_branch(value, branch)
        return value + branch, lambda rows, offset: rows + inner.pull(rows, offset)
    if type(module) is Product:
        return _product_step(sweep, module, value)
    if type(module) is Stack:
        return _stack_step(sweep, module, value)
    return _derivative_step(module, value)


def _affine_step(rule: Affine, module: nn.Module, value: Tensor) -> Step:
    shape = tuple(value.shape[1:])
    shift = module.bias if type(module) is nn.Linear else rule.value(module, value.new_zeros(1, *shape))

    def step(rows: Tensor, offset: Offset | None) -> Tensor:
        if offset is not None and shift is not None:
            offset.add(rows, shift)
        return transpose(rule, module, rows, shape)

    return step


def _piecewise_value(slope: Tensor, shift: Tensor | None, value: Tensor) -> Tensor:
    result = slope * value
    return result if shift is None else result + shift


def _piecewise_step(slope: Tensor, shift: Tensor | None) -> Step:
    def step(rows: Tensor, offset: Offset | None) -> Tensor:
        if offset is not None and shift is not None:
            offset.add(rows, shift)
        return rows * slope

    return step


def _pool_step(module: nn.Module, value: Tensor) -> tuple[Tensor, Step]:
    pooled, positions = max_pool(module, value)
    at = positions.flatten(2)

    def step(rows: Tensor, _: Offset | None) -> Tensor:
        rows = rows.expand(-1, *pooled.shape).flatten(3)
        empty = rows.new_zeros(*rows.shape[:3], math.prod(value.shape[2:]))
        return empty.scatter_add(-1, at.expand_as(rows), rows).unflatten(-1, value.shape[2:])

    return pooled, step


def _product_step(sweep: Sweep, module: Product, value: Tensor) -> tuple[Tensor, Step]:
    left, right = sweep.inside(), sweep.inside()
    u = left.record(layers_of(module.left), value)
    w = right.record(layers_of(module.right), value)
    return u * w, lambda rows, _: left.pull(rows * w, None) + right.pull(rows * u, None)


def _stack_step(sweep: Sweep, module: Stack, value: Tensor) -> tuple[Tensor, Step]:
    inner = [sweep.inside() for _ in module.branches]
    outputs = [branch.record(layers_of(f), value) for branch, f in zip(inner, module.branches, strict=True)]
    sizes = [output.shape[-1] for output in outputs]

    def step(rows: Tensor, offset: Offset | None) -> Tensor:
        parts = module.scaled(rows.split(sizes, dim=-1))
        first, *others = (branch.pull(part, offset) for branch, part in zip(inner, parts, strict=True))
        for other in others:
            first = first + other  # a branch without activations has one row for all points
        return first

    return torch.cat(module.scaled(outputs), dim=-1), step


def _derivative_step(module: Any, value: Tensor) -> tuple[Tensor, Step]:
    """Any other map: reverse-mode differentiation of that layer."""

    def step(rows: Tensor, _: Offset | None) -> Tensor:
        return vjp(module, value, rows.expand(-1, value.shape[0], *rows.shape[2:]))

    return module(value), step


def _norm_step(kind: AffineMap, module: Any, value: Tensor) -> tuple[Tensor, Step]:
    """y = γ c r + β with c the centred input: r is a constant of the "local_linear" map."""
    if type(module) in INSTANCE_NORMS and module.track_running_stats and not module.training:
        rule = Affine(lambda m, x: m(x) - m(torch.zeros_like(x)))
        return rule.value(module, value), _affine_step(rule, module, value)
    groups, weight, bias, centred = _norm_layout(module, value)
    flat = value.reshape(groups)
    c = flat - flat.mean(-1, keepdim=True) if centred else flat
    eps = module.eps if module.eps is not None else torch.finfo(value.dtype).eps
    r = torch.rsqrt((c * c).mean(-1, keepdim=True) + eps)
    unit = c * r

    def step(rows: Tensor, offset: Offset | None) -> Tensor:
        if offset is not None and bias is not None:
            offset.add(rows, bias)
        rows = rows if weight is None else rows * weight
        shape = rows.shape
        rows = rows.reshape(*shape[:2], *groups[1:])
        if kind == "derivative":
            rows = rows - unit * (rows * unit).mean(-1, keepdim=True)
        rows = rows * r
        rows = rows - rows.mean(-1, keepdim=True) if centred else rows
        return rows.reshape(shape[0], *value.shape)

    y = unit.reshape(value.shape)
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias), step


def _norm_layout(module: Any, value: Tensor) -> tuple[tuple[int, ...], Tensor | None, Tensor | None, bool]:
    """Shape whose last axis is normalised together, γ and β that broadcast, and whether to centre."""
    n, shape = value.shape[0], tuple(value.shape[1:])
    weight, bias = module.weight, getattr(module, "bias", None)
    if type(module) in (nn.LayerNorm, nn.RMSNorm):
        outer = shape[: len(shape) - len(module.normalized_shape)]
        width = math.prod(module.normalized_shape)
        return (n, *outer, width), weight, bias, type(module) is nn.LayerNorm
    groups = module.num_groups if type(module) is nn.GroupNorm else shape[0]
    per_channel = (-1, *(1,) * (len(shape) - 1))
    weight = None if weight is None else weight.reshape(per_channel)
    bias = None if bias is None else bias.reshape(per_channel)
    return (n, groups, math.prod(shape) // groups), weight, bias, True


def windows(module: Any, pooled: tuple[int, ...], spatial: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Flat input positions of each entry of each pooling window, (entries, outputs), and which exist."""

    def each(option: Any) -> tuple[int, ...]:
        return (option,) * len(spatial) if isinstance(option, int) else tuple(option)

    kernel, stride = each(module.kernel_size), each(module.stride)
    padding, dilation = each(module.padding), each(module.dilation)
    grid = torch.meshgrid(*(torch.arange(length) for length in pooled), indexing="ij")
    positions, valid = [], []
    for entry in cartesian(*(range(length) for length in kernel)):
        flat = torch.zeros(pooled, dtype=torch.long)
        inside = torch.ones(pooled, dtype=torch.bool)
        for axis, length in enumerate(spatial):
            at = grid[axis] * stride[axis] - padding[axis] + entry[axis] * dilation[axis]
            inside &= (at >= 0) & (at < length)
            flat = flat * length + at.clamp(0, length - 1)
        positions.append(flat.flatten())
        valid.append(inside.flatten())
    return torch.stack(positions), torch.stack(valid)
