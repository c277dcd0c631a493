"""The cross entropy between the graph of the data and that of the embedding, sampled and in full."""

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

ATTRACTION_FLOOR = 1e-12
REPULSION_FLOOR = 1e-3


def umap_loss(
    head: Float[Tensor, "b d"],
    tail: Float[Tensor, "b d"],
    negative_head: Float[Tensor, "c d"],
    negative_tail: Float[Tensor, "c d"],
    a: float,
    b: float,
    *,
    repulsion_strength: float = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
) -> Float[Tensor, ""]:
    """Cross entropy of pairs drawn along edges and of pairs drawn at random.

    With q = a |x - y|^(2b) the membership is p = 1/(1 + q); an edge costs -log p = log(1 + q), a random pair
    -log(1 - p) = log(1 + 1/q), times ``repulsion_strength``. Both come from log q = log a + b log(|x - y|² +
    ε) and are finite with finite gradients everywhere: ε is 1e-12 along edges and 1e-3 between random pairs.

    Args:
        head, tail: ends of the edges, (b, d).
        negative_head, negative_tail: ends of the random pairs, (c, d).
        a, b: of `curve_parameters`.
        repulsion_strength: weight of the random pairs.
        reduction: "mean" over all b + c terms, or their "sum".
    Returns: a number; differentiable once.
    Example:
        >>> import torch
        >>> x, y = torch.zeros(1, 2), torch.ones(1, 2)
        >>> umap_loss(x, y, x, y, 1.5, 0.9)
        tensor(0.7937)
    """
    # The sign is that of log q: + draws together, - pushes apart.
    pull = _PairLoss.apply(head, tail, a, b, 1.0, ATTRACTION_FLOOR)
    push = _PairLoss.apply(negative_head, negative_tail, a, b, -1.0, REPULSION_FLOOR)
    total = pull + repulsion_strength * push
    return total / (len(head) + len(negative_head)) if reduction == "mean" else total


class _PairLoss(torch.autograd.Function):
    """Σ softplus(± log q) over pairs, and its gradient, which needs one number a pair to be kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, a: float, b: float, sign: float, floor: float) -> Tensor:
        between = x - y
        square = between.square().sum(1).add_(floor)
        logit = square.log().mul_(sign * b).add_(sign * float(np.log(a)))
        # d/ds softplus(± log q) = ± b sigmoid(± log q) / s, and ds/dx = 2 (x - y)
        ctx.save_for_backward(between.mul_((logit.sigmoid().div_(square)).mul_(2 * sign * b)[:, None]))
        return softplus(logit).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        slope = ctx.saved_tensors[0] * outputs[0]
        return slope, -slope, None, None, None, None


def full_cross_entropy(
    z: Float[Tensor, "n d"], graph: sparse.csr_matrix, a: float, b: float, *, repulsion_strength: float = 1.0
) -> Float[Tensor, ""]:
    """Σ over pairs i < j of w log(1 + q) + γ (1 - w) log(1 + 1/q): what the samples stand for; n² memory.

    A reference for small n; the same floors as `umap_loss`.

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
    near = np.log(a) + b * (square + ATTRACTION_FLOOR).log()
    far = np.log(a) + b * (square + REPULSION_FLOOR).log()
    return (w * softplus(near) + repulsion_strength * (1 - w) * softplus(-far)).sum()
