"""The metric of a decoder of linear layers and smooth activations as one node of the autograd graph.

A training step of a small network is mostly the cost of its many operations. Here value and d tangents run
through a layer as one matrix of (1 + d) n rows, and the way back is written out. With bars for adjoints,
pre-activations a, tangents t of a and T = f' t behind the activation, S̃ = S̄ + S̄ᵀ,

    g_ab = <W T_a, W T_b>       T̄_a = Wᵀ W Σ_b S̃_ab T_b        W̄ = Σ_ab S̃_ab (W T_a) T_bᵀ
    t̄ = f' T̄                    ā = f'' Σ_a t_a T̄_a + f' v̄

The last matrix W (p, h) meets the rows either as it is or, where there are many points, as WᵀW, formed once.
A training step takes the square Σ ‖g/ḡ - Gref‖² from the same node.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.graph import transforms_active
from pullback.jets.activations import SMOOTH, Table
from pullback.jets.checks import check_map
from pullback.jets.gemm import plain_product
from pullback.jets.once import differentiable_once
from pullback.jets.quick import QUICK
from pullback.jets.taylor import steps_of
from pullback.penalties.gauge import residual_square
from pullback.products import mixed_rows
from pullback.typing import Map


@dataclass(frozen=True, eq=False)
class Chain:
    """Linear, activation, .., linear.

    Attributes:
        linear: the linear layers, at least two.
        activations: those between them, and the functions that give their derivatives.
    """

    linear: list[nn.Linear]
    activations: list[nn.Module]

    @property
    def tables(self) -> list[Table]:
        """Derivatives of each activation."""
        kinds = [type(activation) for activation in self.activations]
        return [QUICK.get(kind, SMOOTH.get(kind)) for kind in kinds]  # type: ignore[misc]

    @property
    def parameters(self) -> list[Tensor | None]:
        """Weight and bias of each linear layer but the last, and the last weight."""
        pairs = [(layer.weight, layer.bias) for layer in self.linear[:-1]]
        return [*(part for pair in pairs for part in pair), self.linear[-1].weight]


def chain_of(decoder: Map) -> Chain | None:
    """The layers of a decoder that is such a chain, else None."""
    if not isinstance(decoder, nn.Module):
        return None
    steps = steps_of(decoder)
    if steps is None or len(steps) < 3 or len(steps) % 2 == 0:
        return None
    linear, activations = steps[::2], steps[1::2]
    if any(type(module) is not nn.Linear for module in linear):
        return None
    if any(type(module) not in SMOOTH for module in activations):
        return None
    return Chain(linear, activations)  # type: ignore[arg-type]


def chain_metric(decoder: Map, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d d"] | None:
    """g = JᵀJ of a chain, once differentiable to points and parameters; None for other maps."""
    return _applied(_ChainMetric, decoder, z)


def chain_square(
    decoder: Map, z: Float[Tensor, "n d"], wanted: Float[Tensor, "*n d d"] | None, factor: float
) -> Float[Tensor, ""] | None:
    """factor · Σ ‖g/ḡ - Gref‖² of a chain, the identity for None; once differentiable. None for other maps.

    Raises:
        DegenerateMetricError: ḡ = 0.
    """
    return _applied(_ChainSquare, decoder, z, wanted, factor)


def _applied(
    node: type[torch.autograd.Function], decoder: Map, z: Float[Tensor, "n d"], *options: Any
) -> Tensor | None:
    chain = chain_of(decoder)
    if chain is None or transforms_active(z):
        return None
    parameters = chain.parameters
    if any(part is not None and part.dtype != z.dtype for part in parameters):
        check_map(decoder, z)  # says so
    if not torch.is_autocast_enabled(z.device.type):
        return node.apply(z, chain, *options, *parameters)  # type: ignore[return-value]
    with torch.autocast(z.device.type, enabled=False):
        return node.apply(z, chain, *options, *parameters)  # type: ignore[return-value]


def _plain_softplus(activation: nn.Module, dtype: torch.dtype) -> bool:
    """Whether it is ln(1 + e^a), to rounding: the switch to a straight line at the threshold is not seen."""
    if type(activation) is not nn.Softplus or activation.beta != 1:
        return False
    return math.exp(-activation.threshold) <= torch.finfo(dtype).eps / 8


def _slopes(activation: nn.Module, table: Table, a: Tensor) -> tuple[Tensor, Tensor]:
    """f' and f''; of the commonest activation without f, and f'' = f' (1 - f') to rounding of f'."""
    if _plain_softplus(activation, a.dtype):
        slope = torch.sigmoid(a)
        return slope, torch.addcmul(slope, slope, slope, value=-1)
    return table(activation, a, 2)[1:]  # type: ignore[return-value]


def _layer(activation: nn.Module, table: Table, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if _plain_softplus(activation, a.dtype):
        return nn.functional.softplus(a), *_slopes(activation, table, a)
    return table(activation, a, 2)  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class _Swept:
    """What a way through the chain leaves for the way back.

    Attributes:
        layers: for each hidden layer tangents in front (d, n or 1, h), f', f'' and, but for the last, what
            came out (1 + d, n, h).
        ends: T and T WᵀW, (2, d, n, h).
        images: T Wᵀ, (d n, p), or None where WᵀW was formed.
    """

    layers: list[tuple[Tensor, ...]]
    ends: Float[Tensor, "2 d n h"]
    images: Tensor | None


def _sweep(
    z: Float[Tensor, "n d"], chain: Chain, parameters: Sequence[Any]
) -> tuple[Float[Tensor, "n d d"], _Swept]:
    """The metric, and what its derivative needs."""
    n, d = z.shape
    tables, activations = chain.tables, chain.activations
    weight, bias = parameters[:2]
    value = torch.mm(z, weight.mT) if bias is None else torch.addmm(bias, z, weight.mT)
    tangents = weight.mT.unsqueeze(1)
    layers: list[tuple[Tensor, ...]] = []
    for k in range(1, len(activations)):
        f, slope, bend = _layer(activations[k - 1], tables[k - 1], value)
        weight, bias = parameters[2 * k : 2 * k + 2]
        stack = torch.empty(1 + d, *f.shape, dtype=z.dtype, device=z.device)
        stack[0] = f
        torch.mul(tangents, slope, out=stack[1:])
        layers.append((tangents, slope, bend, stack))
        rows = plain_product(stack.flatten(0, 1), weight.mT).view(1 + d, n, len(weight))
        value, tangents = rows[0], rows[1:]
        if bias is not None:
            value.add_(bias)
    slope, bend = _slopes(activations[-1], tables[-1], value)
    layers.append((tangents, slope, bend))
    last = parameters[-1]
    p, h = last.shape
    ends = torch.empty(2, d, n, h, dtype=z.dtype, device=z.device)
    T, back = ends.unbind()
    torch.mul(tangents, slope, out=T)
    # multiplications there and back: p n d h thrice, or p h² and n d h² twice
    images = None
    if 2 * h * (p + n * d) < 3 * n * d * p:
        torch.mm(T.flatten(0, 1), plain_product(last.mT, last), out=back.flatten(0, 1))
    else:
        images = plain_product(T.flatten(0, 1), last.mT)
        torch.mm(images, last, out=back.flatten(0, 1))
    return torch.bmm(T.transpose(0, 1), back.permute(1, 2, 0)), _Swept(layers, ends, images)


def _over_rows(a: Float[Tensor, "m n h"], b: Float[Tensor, "m n k"]) -> Float[Tensor, "h k"]:
    """Σ over all rows of a bᵀ."""
    return plain_product(a.flatten(0, 1).mT, b.flatten(0, 1))


def _sweep_back(
    sym: Float[Tensor, "n d d"], z: Tensor, parameters: Sequence[Any], swept: _Swept, to_points: bool
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Adjoints of points and parameters for the adjoint S + Sᵀ of the metric."""
    grads: list[Tensor | None] = [None] * len(parameters)
    U, behind = mixed_rows(sym, swept.ends).unbind()
    if swept.images is None:
        grads[-1] = plain_product(parameters[-1], _over_rows(swept.ends[0], U))
    else:
        grads[-1] = plain_product(swept.images.mT, U.flatten(0, 1))
    tangents, slope, bend = swept.layers[-1]
    front = torch.empty(1 + len(U), *slope.shape, dtype=z.dtype, device=z.device)
    of_value, of_tangents = front[0], front[1:]
    torch.sum(tangents * behind, 0, out=of_value).mul_(bend)
    torch.mul(behind, slope, out=of_tangents)
    for k in range(len(swept.layers) - 1, 0, -1):
        weight, bias = parameters[2 * k : 2 * k + 2]
        tangents, slope, bend, stack = swept.layers[k - 1]
        grads[2 * k] = _over_rows(front, stack)
        grads[2 * k + 1] = None if bias is None else of_value.sum(0)
        back = plain_product(front.flatten(0, 1), weight).view_as(stack)
        front = back * slope
        of_value, of_tangents = front[0], front[1:]
        of_value.addcmul_((tangents * back[1:]).sum(0), bend)
    weight, bias = parameters[:2]
    grads[0] = torch.addmm(of_tangents.sum(1).mT, of_value.mT, z)
    grads[1] = None if bias is None else of_value.sum(0)
    return of_value @ weight if to_points else None, grads


class _ChainMetric(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, chain: Chain, *parameters: Any) -> Tensor:  # type: ignore[override]
        metric, ctx.swept = _sweep(z, chain, parameters)
        ctx.by_gram = ctx.swept.images is None
        ctx.save_for_backward(z, *parameters)
        return metric

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, S: Tensor) -> Any:
        z, *parameters = ctx.saved_tensors
        to_points, grads = _sweep_back(S + S.mT, z, parameters, ctx.swept, ctx.needs_input_grad[0])
        return to_points, None, *grads


class _ChainSquare(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, chain: Chain, wanted: Tensor | None, factor: float, *parameters: Any
    ) -> Tensor:  # type: ignore[override]
        metric, ctx.swept = _sweep(z, chain, parameters)
        square, ctx.slope, mean = residual_square(metric, wanted)
        # twice for the square, twice for S + Sᵀ
        ctx.factor = 4 * factor / mean
        ctx.save_for_backward(z, *parameters)
        return square.mul_(factor)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, scale: Tensor) -> Any:
        z, *parameters = ctx.saved_tensors
        sym = ctx.slope * (ctx.factor * scale)
        to_points, grads = _sweep_back(sym, z, parameters, ctx.swept, ctx.needs_input_grad[0])
        return to_points, None, None, None, *grads
