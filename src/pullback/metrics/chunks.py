"""A function of many points, a bounded number at a time, with and without a graph.

Where a graph is recorded a chunk is computed again on the way back instead of being kept, so that the memory
does not grow with the number of points. Not by torch.utils.checkpoint, which refuses torch.func.vjp inside.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pullback.jets.gemm import transforms_active
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
        twice = torch.is_grad_enabled()
        needed = [tensor for tensor, wanted in zip(known, ctx.needs_input_grad[3:], strict=True) if wanted]
        totals: list[Tensor | None] = [None] * len(needed)
        to_z = []
        for first in range(0, len(z), ctx.size):
            rows = slice(first, first + ctx.size)
            with torch.enable_grad():
                part = z[rows] if twice else z[rows].detach().requires_grad_()
                part = part if part.requires_grad else part.detach().requires_grad_()
                value = ctx.function(part)
            found = torch.autograd.grad(
                value, [part, *needed], g[rows], create_graph=twice, allow_unused=True
            )
            to_z.append(torch.zeros_like(part) if found[0] is None else found[0])
            for k, gradient in enumerate(found[1:]):
                if gradient is not None:
                    total = totals[k]
                    totals[k] = gradient if total is None else total + gradient
        back = iter(totals)
        to_known = [next(back) if wanted else None for wanted in ctx.needs_input_grad[3:]]
        return None, None, torch.cat(to_z) if ctx.needs_input_grad[2] else None, *to_known
