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
from pullback.jets.gemm import times_transposed, transforms_active
from pullback.jets.quick import QUICK
from pullback.jets.taylor import layers_of
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
    layers = layers_of(decoder)
    modules = [layer.module for layer in layers]
    if len(modules) < 3 or len(modules) % 2 == 0 or any(layer.rule is None for layer in layers):
        return None
    linear, activations = modules[::2], modules[1::2]
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
    z = check_map(decoder, z)
    with torch.autocast(z.device.type, enabled=False):
        return _ChainMetric.apply(z, chain, *chain.parameters)  # type: ignore[return-value]


def _mixed(sym: Float[Tensor, "n d d"], rows: Float[Tensor, "d n h"]) -> Float[Tensor, "d n h"]:
    """Σ_b sym_ab rows_b, by columns where there are few."""
    d = rows.shape[0]
    if d > 4:
        return torch.bmm(sym, rows.transpose(0, 1)).transpose(0, 1).contiguous()
    weights = sym.permute(1, 2, 0).unsqueeze(-1)
    result = weights[:, 0] * rows[0]
    for b in range(1, d):
        result.addcmul_(weights[:, b], rows[b])
    return result


def _product(a: Float[Tensor, "m n h"], b: Float[Tensor, "m n k"]) -> Float[Tensor, "h k"]:
    """Σ over all rows of a bᵀ."""
    return times_transposed(a.flatten(0, 1).mT, b.flatten(0, 1).mT)


class _ChainMetric(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, chain: Chain, *parameters: Any) -> Tensor:  # type: ignore[override]
        n, d = z.shape
        stack: Tensor | None = None
        kept: list[Tensor] = []
        for k, (table, module) in enumerate(zip(chain.tables, chain.activations, strict=True)):
            weight, bias = parameters[2 * k : 2 * k + 2]
            if stack is None:
                value, tangents = times_transposed(z, weight), weight.mT.unsqueeze(1)
            else:
                rows = times_transposed(stack.flatten(0, 1), weight).view(1 + d, n, len(weight))
                value, tangents = rows[0], rows[1:]
            f, slope, bend = table(module, value if bias is None else value.add_(bias), 2)
            kept += [tangents, slope, bend] if stack is None else [stack, tangents, slope, bend]
            stack = torch.empty(1 + d, *f.shape, dtype=z.dtype, device=z.device)
            stack[0] = f
            torch.mul(tangents, slope, out=stack[1:])
        assert stack is not None
        T, last = stack[1:], parameters[-1]
        p, h = last.shape
        ctx.chain, ctx.by_gram = chain, h * (p + n * d) < n * d * p
        matrix = times_transposed(last.mT, last.mT) if ctx.by_gram else last
        R = times_transposed(T.flatten(0, 1), matrix).view(d, n, len(matrix))
        ctx.save_for_backward(z, *parameters, *kept, T, R)
        left = T if ctx.by_gram else R
        return torch.bmm(left.transpose(0, 1), R.permute(1, 2, 0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, S: Tensor) -> Any:
        z, *saved = ctx.saved_tensors
        count = 2 * len(ctx.chain.activations) + 1
        parameters, kept, T, R = saved[:count], saved[count:-2], saved[-2], saved[-1]
        grads: list[Tensor | None] = [None] * count
        sym, last = S + S.mT, parameters[-1]
        U = _mixed(sym, T)
        if ctx.by_gram:
            grads[-1] = times_transposed(last, _product(U, T))
            behind = _mixed(sym, R)
        else:
            grads[-1] = _product(R, U)
            behind = _mixed(sym, times_transposed(R.flatten(0, 1), last.mT).view_as(T))
        of_value: Tensor | None = None
        for k in reversed(range(len(ctx.chain.activations))):
            weight, bias = parameters[2 * k : 2 * k + 2]
            tangents, slope, bend = kept[-3:]
            front = torch.empty(1 + len(T), *slope.shape, dtype=z.dtype, device=z.device)
            torch.sum(tangents * behind, 0, out=front[0]).mul_(bend)
            if of_value is not None:
                front[0].addcmul_(slope, of_value)
            torch.mul(behind, slope, out=front[1:])
            grads[2 * k + 1] = None if bias is None else front[0].sum(0)
            if k == 0:
                grads[0] = front[0].mT @ z + front[1:].sum(1).mT
                return front[0] @ weight if ctx.needs_input_grad[0] else None, None, *grads
            stack = kept[-4]
            grads[2 * k] = _product(front, stack)
            back = times_transposed(front.flatten(0, 1), weight.mT).view_as(stack)
            of_value, behind = back[0], back[1:]
            kept = kept[:-4]
        raise AssertionError("a chain has an activation")
