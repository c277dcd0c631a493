"""Embeddings of least width: the same lengths from fewer outputs."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pullback.ambient import ScaleFlattening
from pullback.jets import Stack

# Below this ratio of the diagonal of R, the derivative of a QR factorisation has no digits left.
LEAST_PIVOT = 1e-5


def leaves(module: nn.Module) -> list[nn.Module]:
    """The modules that a container applies in order; a module of unknown forward is one leaf."""
    if type(module) is nn.Sequential:
        children: Iterable[nn.Module] = module
    elif callable(getattr(module, "jet_layers", None)):
        children = module.jet_layers()  # type: ignore[operator]
    else:
        return [module]
    return [leaf for child in children for leaf in leaves(child)]


def compact(embedding: nn.Module, *, live: bool = False) -> nn.Module:
    """An embedding of the same metric whose trailing linear layers are one layer of least width.

    |W(h - h')| = |R(h - h')| for W = QR, so no length changes.

    Args:
        embedding: a module (n, d) -> (n, q).
        live: keep the result differentiable with respect to the weights, where they ask for it; a matrix
            whose factorisation cannot be differentiated is then left as it is.
    Returns: ``embedding`` itself where nothing is gained.
    """
    layers = leaves(embedding)
    last = layers[-1] if layers else None
    if type(last) is Stack and _plain(last):
        branches = [compact(f, live=live) if isinstance(f, nn.Module) else f for f in last.branches]
        if all(new is old for new, old in zip(branches, last.branches, strict=True)):
            return embedding
        return nn.Sequential(*layers[:-1], Stack(*branches, scales=last.scales))
    tail = len(layers)
    while (
        tail
        and _plain(layers[tail - 1])
        and type(layers[tail - 1]) in (nn.Linear, ScaleFlattening, nn.Identity)
    ):
        tail -= 1
    linear = [layer for layer in layers[tail:] if type(layer) is not nn.Identity]
    if not linear or not isinstance(linear[0], nn.Linear):
        return embedding
    with torch.set_grad_enabled(live and torch.is_grad_enabled()):
        reduced = _reduced(linear)
    return embedding if reduced is None else nn.Sequential(*layers[:tail], reduced)


def _plain(module: nn.Module) -> bool:
    return not (module._forward_hooks or module._forward_pre_hooks)


def _reduced(linear: list[nn.Module]) -> nn.Module | None:
    """One layer with the lengths of several, or None if it would be no smaller."""
    matrix: Tensor = linear[0].weight  # type: ignore[assignment]
    for layer in linear[1:]:
        if isinstance(layer, ScaleFlattening):
            matrix = layer.scale.to(matrix).reshape(-1, 1) * matrix
        else:
            matrix = layer.weight @ matrix  # type: ignore[operator]
    q, h = matrix.shape
    if len(linear) == 1 and q <= h:
        return None
    if q > h:
        wide = matrix.double()
        graph = wide.requires_grad
        R = torch.linalg.qr(wide, mode="reduced" if graph else "r").R
        pivots = R.detach().diagonal().abs()
        if graph and bool(pivots.min() < LEAST_PIVOT * pivots.max()):
            return None
        matrix = R.to(matrix.dtype)
    layer = nn.Linear(h, matrix.shape[0], bias=False, device="meta", dtype=matrix.dtype)
    if matrix.requires_grad:
        del layer.weight
        layer.weight = matrix  # type: ignore[assignment]
    else:
        layer.weight = nn.Parameter(matrix, requires_grad=False)
    return layer
