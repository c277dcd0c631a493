"""The metric of a decoder of linear layers and smooth activations as one node of the autograd graph.

A training step of a small network is mostly the cost of its many operations. Here value and d tangents run
through a layer as one matrix of (1 + d) n rows, and the way back is written out. With bars for adjoints,
pre-activations a, tangents t of a and T = f' t behind the activation, S̃ = S̄ + S̄ᵀ,

    g_ab = <W T_a, W T_b>       T̄_a = Wᵀ W Σ_b S̃_ab T_b        W̄ = Σ_ab S̃_ab (W T_a) T_bᵀ
    t̄ = f' T̄                    ā = f'' Σ_a t_a T̄_a + f' v̄

The last matrix W (p, h) meets the rows either as it is or, where there are many points, as WᵀW, formed once.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pullback.jets.activations import SMOOTH, Table
from pullback.jets.checks import check_map
from pullback.jets.gemm import plain_product, transforms_active
from pullback.jets.quick import QUICK
from pullback.jets.taylor import steps_of
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
    chain = chain_of(decoder)
    if chain is None or transforms_active(z):
        return None
    parameters = chain.parameters
    if any(part is not None and part.dtype != z.dtype for part in parameters):
        check_map(decoder, z)  # says so
    if not torch.is_autocast_enabled(z.device.type):
        return _ChainMetric.apply(z, chain, *parameters)  # type: ignore[return-value]
    with torch.autocast(z.device.type, enabled=False):
        return _ChainMetric.apply(z, chain, *parameters)  # type: ignore[return-value]


def _mixed(weights: Float[Tensor, "d d n 1"], rows: Float[Tensor, "d n h"]) -> Float[Tensor, "d n h"]:
    """Σ_b weights_ba rows_b, by columns where there are few."""
    if len(rows) > 4:
        sym = weights.squeeze(-1).permute(2, 1, 0)
        return torch.bmm(sym, rows.transpose(0, 1)).transpose(0, 1).contiguous()
    first, *others = zip(weights.unbind(), rows.unbind(), strict=True)
    result = first[0] * first[1]
    for weight, row in others:
        result.addcmul_(weight, row)
    return result


def _over_rows(a: Float[Tensor, "m n h"], b: Float[Tensor, "m n k"]) -> Float[Tensor, "h k"]:
    """Σ over all rows of a bᵀ."""
    return plain_product(a.flatten(0, 1).mT, b.flatten(0, 1))


class _ChainMetric(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, chain: Chain, *parameters: Any) -> Tensor:  # type: ignore[override]
        n, d = z.shape
        kept: list[Tensor] = []
        weight, bias = parameters[:2]
        value = torch.mm(z, weight.mT) if bias is None else torch.addmm(bias, z, weight.mT)
        tangents = weight.mT.unsqueeze(1)
        tables, activations = chain.tables, chain.activations
        for k in range(1, len(activations)):
            f, slope, bend = tables[k - 1](activations[k - 1], value, 2)
            weight, bias = parameters[2 * k : 2 * k + 2]
            stack = torch.empty(1 + d, *f.shape, dtype=z.dtype, device=z.device)
            stack[0] = f
            torch.mul(tangents, slope, out=stack[1:])
            kept += [tangents, slope, bend, stack]
            rows = plain_product(stack.flatten(0, 1), weight.mT).view(1 + d, n, len(weight))
            value, tangents = rows[0], rows[1:]
            if bias is not None:
                value.add_(bias)
        _, slope, bend = tables[-1](activations[-1], value, 2)
        T, last = tangents * slope, parameters[-1]
        p, h = last.shape
        # multiplications there and back: p n d h thrice, or p h² and n d h² twice
        ctx.chain, ctx.by_gram = chain, 2 * h * (p + n * d) < 3 * n * d * p
        matrix = plain_product(last.mT, last) if ctx.by_gram else last.mT
        R = plain_product(T.flatten(0, 1), matrix).view(d, n, matrix.shape[1])
        ctx.save_for_backward(z, *parameters, *kept, tangents, slope, bend, T, R)
        left = T if ctx.by_gram else R
        return torch.bmm(left.transpose(0, 1), R.permute(1, 2, 0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, S: Tensor) -> Any:
        z, *saved = ctx.saved_tensors
        hidden = len(ctx.chain.activations)
        count = 2 * hidden + 1
        parameters, kept, T, R = saved[:count], saved[count:-2], saved[-2], saved[-1]
        grads: list[Tensor | None] = [None] * count
        sym, last = (S + S.mT).permute(1, 2, 0).unsqueeze(-1), parameters[-1]
        U = _mixed(sym, T)
        if ctx.by_gram:
            grads[-1] = plain_product(last, _over_rows(T, U))
            behind = _mixed(sym, R)
        else:
            grads[-1] = _over_rows(R, U)
            behind = _mixed(sym, plain_product(R.flatten(0, 1), last).view_as(T))
        tangents, slope, bend = kept[-3:]
        front = torch.empty(1 + len(T), *slope.shape, dtype=z.dtype, device=z.device)
        of_value, of_tangents = front[0], front[1:]
        torch.sum(tangents * behind, 0, out=of_value).mul_(bend)
        torch.mul(behind, slope, out=of_tangents)
        for k in range(hidden - 1, 0, -1):
            weight, bias = parameters[2 * k : 2 * k + 2]
            tangents, slope, bend, stack = kept[4 * k - 4 : 4 * k]
            grads[2 * k] = _over_rows(front, stack)
            grads[2 * k + 1] = None if bias is None else of_value.sum(0)
            back = plain_product(front.flatten(0, 1), weight).view_as(stack)
            front = back * slope
            of_value, of_tangents = front[0], front[1:]
            of_value.addcmul_((tangents * back[1:]).sum(0), bend)
        weight, bias = parameters[:2]
        grads[0] = torch.addmm(of_tangents.sum(1).mT, of_value.mT, z)
        grads[1] = None if bias is None else of_value.sum(0)
        return of_value @ weight if ctx.needs_input_grad[0] else None, None, *grads
