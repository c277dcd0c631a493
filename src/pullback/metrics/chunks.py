"""A function of many points, a bounded number at a time, with and without a graph.

Where a graph is recorded a chunk is computed again on the way back instead of being kept, so that the memory
does not grow with the number of points.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pullback.graph import gradients_again, transforms_active
from pullback.typing import Map

Function = Callable[[Tensor], Tensor]


def by_chunks(function: Function, z: Tensor, size: int, *owners: Map | Tensor | None) -> Tensor:
    """function(z) of ``size`` rows at a time.

    Args:
        function: treats its rows independently.
        owners: modules and tensors that ``function`` uses, for derivatives with respect to what they hold;
            leaves that it uses besides are found. With a graph made before the call that no owner holds, as
            of weights computed once for several calls, and under function transforms every chunk keeps its
            graph.
    """
    if len(z) <= size:
        return function(z)
    known: list[Tensor] = []
    apart = transforms_active(z)
    if torch.is_grad_enabled() and not apart:
        known = [tensor for owner in owners for tensor in _held(owner) if tensor.requires_grad]
        more = _more(function, z, known)
        leaves = [node.variable for node in more if hasattr(node, "variable")]
        known, apart = known + leaves, len(leaves) < len(more)
    if apart:
        return torch.cat([function(part) for part in z.split(size)])
    if torch.is_grad_enabled() and (z.requires_grad or known):
        return _Chunked.apply(function, size, z, *known)  # type: ignore[return-value]
    return _filled(function, z, size)


def _filled(function: Function, z: Tensor, size: int) -> Tensor:
    """The values, written where they stay: small results between large temporary ones fragment the memory."""
    result: Tensor | None = None
    with torch.no_grad():
        for first in range(0, len(z), size):
            part = function(z[first : first + size])
            if result is None:
                result = part.new_empty(len(z), *part.shape[1:])
            result[first : first + size] = part
    assert result is not None
    return result


def _held(owner: Map | Tensor | None) -> Iterator[Tensor]:
    """Tensors of a module: parameters, buffers and plain attributes."""
    if isinstance(owner, Tensor):
        yield owner
    elif isinstance(owner, nn.Module):
        for module in owner.modules():
            kept = (*module._parameters.values(), *module._buffers.values(), *vars(module).values())
            yield from (tensor for tensor in kept if isinstance(tensor, Tensor))


def _more(function: Function, z: Tensor, known: list[Tensor]) -> set[Any]:
    """Nodes that the function leads back to besides those behind ``z`` and the tensors known.

    What the graphs of two calls have in common was there before them, or stays after them.
    """
    first = _graph(function(z[:1]), z, known)
    return first & _graph(function(z[:1]), z, known)


def _graph(value: Tensor, z: Tensor, known: list[Tensor]) -> set[Any]:
    """The nodes between ``value`` and ``z`` and the tensors known, and those beside."""
    leaves = {id(tensor) for tensor in (z, *known)}
    ends = {tensor.grad_fn for tensor in (z, *known)}
    found: set[Any] = set()
    open_nodes = [value.grad_fn]
    while open_nodes:
        node: Any = open_nodes.pop()
        if node is None or node in ends or node in found or id(getattr(node, "variable", None)) in leaves:
            continue
        found.add(node)
        open_nodes += [before for before, _ in node.next_functions]
    return found


class _Chunked(torch.autograd.Function):
    """The function as one node of the graph, which keeps its inputs alone."""

    @staticmethod
    def forward(ctx: Any, function: Function, size: int, z: Tensor, *known: Tensor) -> Tensor:  # type: ignore[override]
        ctx.function, ctx.size = function, size
        ctx.save_for_backward(z, *known)
        return _filled(function, z, size)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        z, *known = ctx.saved_tensors
        z = z if torch.is_grad_enabled() else z.detach()
        wanted = ctx.needs_input_grad[3:]

        def at(part: Tensor, *_: Tensor) -> Tensor:
            return ctx.function(part)

        to_z: list[Tensor] = []
        totals: list[Tensor | None] = [None] * len(known)
        for first in range(0, len(z), ctx.size):
            part, slope = z[first : first + ctx.size], g[first : first + ctx.size]
            of_part, *of_known = gradients_again(at, (part, *known), (True, *wanted), slope)
            to_z.append(torch.zeros_like(part) if of_part is None else of_part)
            totals = [_sum(total, one) for total, one in zip(totals, of_known, strict=True)]
        return None, None, torch.cat(to_z) if ctx.needs_input_grad[2] else None, *totals


def _sum(total: Tensor | None, one: Tensor | None) -> Tensor | None:
    if total is None or one is None:
        return one if total is None else total
    return total + one
