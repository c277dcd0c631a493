"""The cross entropy between the graph of the data and that of the embedding, sampled and in full."""

import math
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor
from torch.nn.functional import softplus

from pullback.jets.once import differentiable_once
from pullback.validation import check_choice

ATTRACTION_FLOOR = 1e-12
REPULSION_FLOOR = 1e-3
Reduction = Literal["mean", "sum"]


def umap_loss(
    head: Float[Tensor, "b d"],
    tail: Float[Tensor, "b d"],
    negative_head: Float[Tensor, "c d"],
    negative_tail: Float[Tensor, "c d"],
    a: float,
    b: float,
    *,
    repulsion_strength: float = 1.0,
    reduction: Reduction = "mean",
) -> Float[Tensor, ""]:
    """Cross entropy of pairs drawn along edges and of pairs drawn at random.

    With q = a |x - y|^(2b) the membership is p = 1/(1 + q); an edge costs -log p = log(1 + q), a random pair
    -log(1 - p) = log(1 + 1/q), times ``repulsion_strength``. Both come from
    log q = log a + b log(|x - y|² + ε) and are finite with finite gradients everywhere: ε is 1e-12 along
    edges and 1e-3 between random pairs.

    Sainburg, McInnes and Gentner 2021, "Parametric UMAP embeddings for representation and semisupervised
    learning".

    Args:
        head, tail: ends of the edges, (b, d).
        negative_head, negative_tail: ends of the random pairs, (c, d).
        a, b: of `curve_parameters`.
        repulsion_strength: weight of the random pairs.
        reduction: "mean" over all b + c terms, or their "sum".
    Returns: a number; differentiable once.
    Raises:
        ValueError: an unknown reduction.
    Example:
        >>> import torch
        >>> x, y = torch.zeros(1, 2), torch.ones(1, 2)
        >>> umap_loss(x, y, x, y, 1.5, 0.9)
        tensor(0.7937)
    """
    check_choice("reduction", reduction, ("mean", "sum"))
    pull: Any = _PairLoss.apply(head, tail, a, b, 1.0, ATTRACTION_FLOOR)
    push: Any = _PairLoss.apply(negative_head, negative_tail, a, b, -1.0, REPULSION_FLOOR)
    total = pull + repulsion_strength * push
    return total / (len(head) + len(negative_head)) if reduction == "mean" else total


def umap_loss_at(
    codes: Float[Tensor, "n d"],
    places: Int[Tensor, "2 c"],
    edges: int,
    a: float,
    b: float,
    *,
    repulsion_strength: float = 1.0,
    reduction: Reduction = "mean",
) -> Float[Tensor, ""]:
    """`umap_loss` of pairs of rows of one table, several times as fast as gathering their ends.

    Args:
        codes: embedding, (n, d).
        places: rows at both ends of each pair, (2, c): first the edges, then the random pairs.
        edges: how many of the pairs are edges.
        a, b, repulsion_strength, reduction: as in `umap_loss`.
    Returns: a number; differentiable once.
    Raises:
        ValueError: an unknown reduction.
    Example:
        >>> import torch
        >>> codes = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        >>> umap_loss_at(codes, torch.tensor([[0, 0], [1, 1]]), 1, 1.5, 0.9)
        tensor(0.7937)
    """
    check_choice("reduction", reduction, ("mean", "sum"))
    total: Any = _PlacedLoss.apply(codes, places, edges, a, b, repulsion_strength)
    return total / places.shape[1] if reduction == "mean" else total


def _pairs(between: Tensor, a: float, b: float, sign: float, floor: float) -> tuple[Tensor, Tensor]:
    """Σ softplus(± log q) of differences (d, c), which are overwritten by its gradient.

    The sign + draws together, - pushes apart. d/ds softplus(± log q) = ± b sigmoid(± log q) / s with
    s = |x - y|² + ε, and ds/dx = 2 (x - y).
    """
    square = between.square().sum(0).add_(floor)
    logit = square.log().mul_(sign * b).add_(sign * math.log(a))
    slope = logit.sigmoid().div_(square).mul_(2 * sign * b)
    return softplus(logit).sum(), between.mul_(slope)


class _PairLoss(torch.autograd.Function):
    """Pairs whose ends are given: only the gradient is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, a: float, b: float, sign: float, floor: float) -> Tensor:
        value, slope = _pairs((x - y).T.contiguous(), a, b, sign, floor)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        slope = (ctx.saved_tensors[0] * outputs[0]).T
        return slope, -slope, None, None, None, None


class _PlacedLoss(torch.autograd.Function):
    """Pairs of rows of one table: the gradient is summed to its rows at once, coordinate by coordinate."""

    @staticmethod
    def forward(
        ctx: Any, codes: Tensor, places: Tensor, edges: int, a: float, b: float, strength: float
    ) -> Tensor:
        columns = codes.T.contiguous()
        ends = columns.index_select(1, places.flatten())
        between = ends[:, : places.shape[1]] - ends[:, places.shape[1] :]
        pull, _ = _pairs(between[:, :edges], a, b, 1.0, ATTRACTION_FLOOR)
        push, slopes = _pairs(between[:, edges:], a, b, -1.0, REPULSION_FLOOR)
        slopes.mul_(strength)  # a part of between
        gradient = torch.zeros_like(columns)
        for row, slope in zip(gradient, between, strict=True):
            row.scatter_add_(0, places[0], slope).scatter_add_(0, places[1], -slope)
        ctx.save_for_backward(gradient)
        return pull + strength * push

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        return (ctx.saved_tensors[0] * outputs[0]).T, None, None, None, None, None


def full_cross_entropy(
    z: Float[Tensor, "n d"], graph: sparse.csr_matrix, a: float, b: float, *, repulsion_strength: float = 1.0
) -> Float[Tensor, ""]:
    """Σ over pairs i < j of w log(1 + q) + γ (1 - w) log(1 + 1/q): what the samples stand for; n² memory.

    A reference for small n, with the floors of `umap_loss`.

    Args:
        z: embedding, (n, d).
        graph: memberships w, (n, n), symmetric.
        a, b: of `curve_parameters`.
        repulsion_strength: γ.
    Returns: a number.
    """
    i, j = torch.triu_indices(len(z), len(z), 1, device=z.device)
    w = torch.as_tensor(graph.toarray(), dtype=z.dtype, device=z.device)[i, j]
    square = (z[i] - z[j]).square().sum(1)
    near = math.log(a) + b * (square + ATTRACTION_FLOOR).log()
    far = math.log(a) + b * (square + REPULSION_FLOOR).log()
    return (w * softplus(near) + repulsion_strength * (1 - w) * softplus(-far)).sum()
