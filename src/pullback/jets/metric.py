"""Pullback metric and Christoffel symbols of the first kind, without second derivatives of the outputs."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.ambient import Diagonal, Euclidean, Gaussian, LowRank
from pullback.jets.checks import check_map, check_output
from pullback.jets.gemm import float64_cost, linear_rows
from pullback.jets.indices import indices
from pullback.jets.results import MetricJet
from pullback.jets.reverse import Contraction, Tape, record
from pullback.jets.state import start
from pullback.jets.tail import chunk, split, tail_matrix
from pullback.jets.taylor import Layer, layers_of
from pullback.products import row_products
from pullback.typing import Ambient, Map


def metric_jet(f: Map, x: Float[Tensor, "n d"], ambient: Ambient | None = None) -> MetricJet:
    """Pullback metric g = Jᵀ W J and Γ_{c,ab} = <J_c, W ∂_a∂_b f>, for a W that is constant in z.

    With W = U Uᵀ and M the last matrices of the network times Uᵀ, only first derivatives A at the last hidden
    layer are carried: g = Aᵀ MᵀM A, and the rows A MᵀM are swept back for Γ. MᵀM (h, h) is formed in float64
    where there are many points, so that p is touched once and not per point.

    Args:
        f: a module, or a function of rows, (n, d) -> (n, p).
        x: points, (n, d).
        ambient: Euclidean (None), Diagonal, Gaussian or LowRank with a constant factor or one factor a point.
    Returns:
        `MetricJet`; the derivative of the metric is ∂_e g_ab = Γ_{b,ae} + Γ_{a,be}.
    Raises:
        TypeError: W depends on the point, so that further terms belong to the derivative of the metric.
    Example:
        >>> import torch
        >>> square = metric_jet(lambda z: z**2, torch.tensor([[1.0]]))
        >>> square.metric.item(), square.christoffel_first.item()
        (4.0, 4.0)
    """
    x = check_map(f, x)
    layers, factor = _with_ambient(layers_of(f), ambient, x)
    d = x.shape[1]
    body, tail = split(layers)
    size = chunk(body, tail, x)
    factors = factor.split(size) if factor is not None else [None] * len(x.split(size))
    with torch.autocast(x.device.type, enabled=False):
        gram: list[Tensor] = []
        parts = [
            _metric_chunk(body, tail, part, u, x.shape[0], gram)
            for part, u in zip(x.split(size), factors, strict=True)
        ]
    metric, christoffel = (torch.cat(column) for column in zip(*parts, strict=True))
    christoffel = christoffel[..., indices(d, x.device).full2].unflatten(-1, (d, d))
    return MetricJet((metric + metric.mT) / 2, christoffel)


def _with_ambient(
    layers: list[Layer], ambient: Ambient | None, x: Tensor
) -> tuple[list[Layer], Tensor | None]:
    """Layers that end in data space with the identity metric, or one factor U a point beside them."""
    if ambient is None or isinstance(ambient, Euclidean):
        return layers, None
    constant = isinstance(ambient, Diagonal | Gaussian)
    if isinstance(ambient, LowRank) and isinstance(ambient.factor, Tensor):
        constant = ambient.factor.ndim == 2
        if not constant:
            if ambient.factor.shape[0] != x.shape[0]:
                raise ValueError(
                    f"ambient: expected one factor a point, (n, p, r) with n={x.shape[0]}, "
                    f"got {tuple(ambient.factor.shape)}"
                )
            return layers, ambient.factor.to(x)
    if not constant:
        raise TypeError(
            f"ambient: expected Euclidean, Diagonal, Gaussian or LowRank with a factor tensor, got "
            f"{type(ambient).__name__}, whose W changes with the point; use metrics.PullbackMetric"
        )
    flattening = ambient.flattening()
    assert flattening is not None
    _check_features(layers, ambient)
    return [*layers, *layers_of(flattening.to(x))], None


def _check_features(layers: list[Layer], ambient: Ambient) -> None:
    """Raise ``ValueError`` where a weight or factor is made for another number of features."""
    if not layers or not isinstance(layers[-1].module, nn.Linear):
        return
    p = layers[-1].module.out_features
    if isinstance(ambient, LowRank) and isinstance(ambient.factor, Tensor) and ambient.factor.shape[0] != p:
        raise ValueError(f"ambient: expected a factor with p={p} rows, got {tuple(ambient.factor.shape)}")
    weight = getattr(ambient, "weight", getattr(ambient, "sigma", None))
    if isinstance(weight, Tensor) and weight.numel() not in (1, p):
        raise ValueError(f"ambient: expected a weight for p={p} features, got {tuple(weight.shape)}")


def _metric_chunk(
    body: list[Layer], tail: list[Layer], x: Tensor, factor: Tensor | None, points: int, gram: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Metric and packed Γ of a chunk; ``gram`` keeps MᵀM between chunks."""
    n, d = x.shape
    tape = Tape(Contraction(2))
    state = record(body, start(x, 1), tape)
    check_output(state.value, x)
    A = state.expanded().first
    matrix = tail_matrix(tail, state.value.shape[1], x)
    if factor is not None:
        metric, beta = _lowered_by_factor(A, matrix, factor)
    else:
        metric, beta = _lowered(A, matrix, d * points, gram)
    tape.pull(beta)
    total = tape.sums.total
    return metric, x.new_zeros(n, d, d * (d + 1) // 2) if total is None else total


def _lowered(A: Tensor, matrix: Tensor | None, rows: int, gram: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Metric Aᵀ MᵀM A and adjoint rows A MᵀM at the last hidden layer."""
    if matrix is None:
        return row_products(A, A), A
    if not gram and _gram_pays(matrix, rows):
        gram.append(_gram(matrix))
    if gram:
        beta = linear_rows(A, gram[0])
        return row_products(A, beta), beta
    Y = linear_rows(A, matrix)
    return row_products(Y, Y), linear_rows(Y, matrix.mT)


def _lowered_by_factor(A: Tensor, matrix: Tensor | None, factor: Tensor) -> tuple[Tensor, Tensor]:
    """The same with W = U Uᵀ between, one U (p, r) a point."""
    Y = A if matrix is None else linear_rows(A, matrix)
    if factor.shape[1] != Y.shape[-1]:
        raise ValueError(
            f"ambient: expected factors (n, p, r) with p={Y.shape[-1]}, got {tuple(factor.shape)}"
        )
    short = torch.bmm(Y.transpose(0, 1), factor)
    beta = torch.bmm(short, factor.mT).transpose(0, 1)
    return torch.bmm(short, short.mT), beta if matrix is None else linear_rows(beta, matrix.mT)


def _gram_pays(matrix: Tensor, rows: int) -> bool:
    """Whether MᵀM once and A MᵀM take less time than (A Mᵀ) M for ``rows`` rows of A."""
    p, h = matrix.shape
    return float64_cost(matrix) * h * p + rows * h < 2 * rows * p


def _gram(matrix: Tensor) -> Tensor:
    """MᵀM, which squares the condition number: float32 is accumulated in float64 where that is quick."""
    if matrix.dtype == torch.float32 and matrix.device.type == "cpu":
        wide = matrix.double()
        return (wide.mT @ wide).float()
    return matrix.mT @ matrix
