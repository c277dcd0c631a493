"""The matrices behind the last nonlinear layer: contractions fold them together and carry no rows through."""

import torch
from torch import Tensor, nn

from pullback.ambient import ScaleFlattening
from pullback.jets.gemm import linear_rows
from pullback.jets.state import JetState
from pullback.jets.taylor import Layer, chunk_rows, width_of


def split(layers: list[Layer]) -> tuple[list[Layer], list[Layer]]:
    """Layers up to the last nonlinear one, and the matrices behind it, which need no forward step."""
    k = len(layers)
    while k and layers[k - 1].rule is not None and type(layers[k - 1].module) in (nn.Linear, ScaleFlattening):
        k -= 1
    return layers[:k], layers[k:]


def features(tail: list[Layer], state: JetState) -> int:
    widths = [layer.module.out_features for layer in tail if isinstance(layer.module, nn.Linear)]
    return widths[-1] if widths else state.value.shape[1]


def pull_tail(tail: list[Layer], beta: Tensor) -> Tensor:
    """Adjoints (q, n, p) in front of the last matrices."""
    for layer in reversed(tail):
        module = layer.module
        if isinstance(module, ScaleFlattening):
            beta = beta * module.scale.to(beta)
        elif isinstance(module, nn.Linear):
            beta = linear_rows(beta, module.weight.mT)
    return beta


def tail_matrix(tail: list[Layer], width: int, x: Tensor) -> Tensor | None:
    """The product of the last matrices, (p, h), multiplied from the output side; None if there are none."""
    matrix: Tensor | None = None
    scale: Tensor | None = None
    for layer in reversed(tail):
        module = layer.module
        if isinstance(module, nn.Linear):
            weight = module.weight if scale is None else scale.unsqueeze(-1) * module.weight
            matrix, scale = (weight if matrix is None else matrix @ weight), None
        elif isinstance(module, ScaleFlattening):
            factor = module.scale.to(x)
            if matrix is not None:
                matrix = matrix * factor
            else:
                scale = factor if scale is None else scale * factor
    if scale is not None:
        return torch.diag(scale.expand(width))
    return matrix


def chunk(body: list[Layer], tail: list[Layer], x: Tensor) -> int:
    """Points at a time: products of pairs of rows at the hidden layers, single rows in data space."""
    d = x.shape[1]
    hidden, all_widths = width_of(body, x), width_of([*body, *tail], x)
    return chunk_rows(x, 1, d * (d + 3) // 2 * hidden + d * all_widths)
