"""The gauge as a term of a training loss: any batch, any decoder, differentiable to points and decoder.

For few latent dimensions the metric is exact. For many it is asked for products g v with random signs v only:
one forward and one reverse derivative a probe, whatever d is,

    ḡ ≈ Σ vᵀ g v / ν        P ≈ ½ μ Σ ‖g v/ḡ - Gref v‖²

which is 0 where the metric matches, and right on average for a given ḡ; through ḡ it is a biased, consistent
estimate.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.ambient import Constant, LowRank
from pullback.jets import directional_jet
from pullback.jets.once import differentiable_once
from pullback.penalties.gauge import check_mean, eye_like, residual_square, traces
from pullback.penalties.weighting import embedding
from pullback.typing import Ambient, Map

Estimator = Literal["auto", "exact", "hutchinson"]
Reduce = Callable[[Tensor], Tensor]
"""Sum over processes, with gradient."""

EXACT_UP_TO = 16
"""Latent dimensions for which "auto" computes the metric itself."""


def estimator_for(estimator: Estimator, d: int) -> Literal["exact", "hutchinson"]:
    """What an option means for d latent dimensions."""
    if estimator == "auto":
        return "exact" if d <= EXACT_UP_TO else "hutchinson"
    return estimator


def exact_square(
    metric: Float[Tensor, "n d d"], reference: Float[Tensor, "*n d d"] | None, reduce: Reduce | None
) -> tuple[Tensor, Tensor | int]:
    """Σ ‖R‖² over all rows of all processes, and their number."""
    if reduce is None:
        wanted = None if reference is None else reference.to(metric)
        return _Square.apply(metric, wanted), metric.shape[0]  # type: ignore[return-value]
    wanted = eye_like(reference, metric)
    mean, rows = _mean(traces(metric).sum(), metric.shape[0], metric.shape[1], reduce)
    return reduce((metric / mean - wanted).square().sum()), rows


class _Square(torch.autograd.Function):
    """Σ ‖g/ḡ - Gref‖² of one process as one node, whose adjoint is 2 A: once differentiable.

    Without a reference it is the identity, and Σ R:(g/ḡ) = Σ ‖R‖².
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, wanted: Tensor | None) -> Tensor:  # type: ignore[override]
        square, slope, mean = residual_square(g.clone(), wanted)
        ctx.save_for_backward(slope)
        ctx.factor = 2 / mean
        return square

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, scale: Tensor) -> Any:
        return ctx.saved_tensors[0] * (ctx.factor * scale), None


def probed_square(
    decoder: Map,
    z: Tensor,
    ambient: Ambient,
    reference: Tensor | None,
    *,
    probes: int,
    reduce: Reduce | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """The same from random products.

    Raises:
        TypeError: an ambient without a flattening map, for which the exact metric must be used.
    """
    found = embedding(decoder, ambient, z)
    if found is None:
        raise TypeError(
            f"ambient: expected one with a flattening map for estimator='hutchinson', got "
            f"{type(ambient).__name__}; use estimator='exact'"
        )
    f, constant = found
    v = _signs(z, probes, generator)
    points = z.repeat(probes, 1)
    product = _metric_times(f, points, v, constant, probes)
    trace = (v * product).sum() / probes
    mean, rows = _mean(trace, z.shape[0], z.shape[1], reduce)
    wanted = v if reference is None else _reference_times(reference, v, z, probes)
    square = (product / mean - wanted).square().sum() / probes
    return (square if reduce is None else reduce(square)), rows


def _mean(trace: Tensor, n: int, d: int, reduce: Reduce | None) -> tuple[Tensor, Tensor]:
    """ḡ and the number of rows, over all processes."""
    rows = trace.new_tensor(float(n))
    if reduce is not None:
        trace, rows = reduce(torch.stack([trace, rows])).unbind()
    mean = trace / (rows * d)
    check_mean(mean)
    return mean, rows


def _signs(z: Tensor, probes: int, generator: torch.Generator | None) -> Tensor:
    where = generator.device if generator is not None else z.device
    bits = torch.randint(2, (probes * z.shape[0], z.shape[1]), generator=generator, device=where)
    return (2 * bits - 1).to(z)


def _metric_times(f: Map, points: Tensor, v: Tensor, ambient: Constant, probes: int) -> Tensor:
    """g v = Jᵀ W (J v): a directional derivative and a reverse sweep, both with graph."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        at = points if points.requires_grad else points.detach().requires_grad_()
        along = directional_jet(f, at, v, order=1)
        ambient = _repeated(ambient, probes)
        pushed = along.first.unsqueeze(-1)
        weighted = ambient.unwhiten(ambient.whiten(pushed)).squeeze(-1)
        (product,) = torch.autograd.grad(along.value, at, weighted, create_graph=keep)
    return product


def _repeated(ambient: Constant, probes: int) -> Constant:
    """An ambient with one factor a row, for rows that stand there once a probe."""
    if probes == 1 or not isinstance(ambient, LowRank):
        return ambient
    factor = ambient.factor
    if not isinstance(factor, Tensor) or factor.ndim == 2:
        return ambient
    return replace(ambient, factor=factor.repeat(probes, 1, 1))


def _reference_times(reference: Tensor, v: Tensor, z: Tensor, probes: int) -> Tensor:
    matrices = reference.to(z)
    matrices = matrices.repeat(probes, 1, 1) if matrices.ndim == 3 else matrices
    return (matrices @ v.unsqueeze(-1)).squeeze(-1)
