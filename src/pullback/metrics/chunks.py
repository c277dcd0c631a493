"""A function of many points, a bounded number at a time, with and without a graph.

Where a graph is recorded a chunk is computed again on the way back instead of being kept, so that the memory
does not grow with the number of points.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pullback.typing import Map

Function = Callable[[Tensor], Tensor]


def by_chunks(function: Function, z: Tensor, size: int, *owners: Map | Tensor | None) -> Tensor:
    """function(z) of ``size`` rows at a time.

    Args:
        function: treats its rows independently.
        owners: modules and tensors that ``function`` uses, for derivatives with respect to what they hold;
            whatever else it uses is found, too, at the price of some memory a chunk.
    """
    if len(z) <= size:
        return function(z)
    if torch.is_grad_enabled():
        known = [tensor for owner in owners for tensor in _held(owner) if tensor.requires_grad]
        if _uses_more(function(z[:1]), z, known):
            parts = [
                checkpoint(function, part, use_reentrant=False, preserve_rng_state=False)
                for part in z.split(size)
            ]
            return torch.cat(parts)  # type: ignore[arg-type]
        if z.requires_grad or known:
            return _Chunked.apply(function, size, z, *known)
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


def _uses_more(value: Tensor, z: Tensor, known: list[Tensor]) -> bool:
    """Whether the graph of ``value`` leads to tensors other than ``z`` and those known."""
    leaves = {id(tensor) for tensor in (z, *known)}
    seen: set[Any] = {tensor.grad_fn for tensor in (z, *known) if tensor.grad_fn is not None}
    open_nodes = [value.grad_fn] if value.grad_fn is not None else []
    while open_nodes:
        node: Any = open_nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable") and id(node.variable) not in leaves:
            return True
        open_nodes += [before for before, _ in node.next_functions if before is not None]
    return False


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
