"""The metric that a decoder pulls back, differentiable to the points and to the decoder, p touched once.

With M the matrices behind the last nonlinear layer and A (d, n, h) the first derivatives in front of them,
g_ab = <A_a, MᵀM A_b>. Where there are many points MᵀM is formed once, (h, h), so that no row of width p is.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.ambient import Euclidean, LowRank
from pullback.jets import Jet, jet
from pullback.jets.checks import check_map, check_output
from pullback.jets.gemm import linear_rows, times_transposed
from pullback.jets.state import start
from pullback.jets.tail import split, tail_matrix
from pullback.jets.taylor import layers_of, propagate
from pullback.penalties.chain_metric import chain_metric, chain_square
from pullback.penalties.sampled_gauge import exact_square
from pullback.penalties.weighting import check_fits, embedding
from pullback.products import column_products, gram, row_products
from pullback.typing import Ambient, Map


def trained_metric(decoder: Map, z: Float[Tensor, "n d"], ambient: Ambient) -> Float[Tensor, "n d d"]:
    """`pulled_metric` for a training step, which may be differentiable only once."""
    quick = chain_metric(decoder, z) if isinstance(ambient, Euclidean) else None
    return pulled_metric(decoder, z, ambient) if quick is None else quick


def trained_square(
    decoder: Map,
    z: Float[Tensor, "n d"],
    ambient: Ambient,
    reference: Float[Tensor, "*n d d"] | None,
    factor: float,
) -> Float[Tensor, ""]:
    """factor · Σ ‖g/ḡ - Gref‖² for a training step of one process, which may be differentiable only once."""
    if isinstance(ambient, Euclidean):
        wanted = None if reference is None else reference.to(z)
        quick = chain_square(decoder, z, wanted, factor)
        if quick is not None:
            return quick
    return factor * exact_square(pulled_metric(decoder, z, ambient), reference, None)[0]


def pulled_metric(decoder: Map, z: Float[Tensor, "n d"], ambient: Ambient) -> Float[Tensor, "n d d"]:
    """g = Jᵀ W J at points (n, d), for any ambient."""
    found = embedding(decoder, ambient, z)
    if found is None:
        return _by_apply(decoder, z, ambient)
    f, constant = found
    if not isinstance(constant, Euclidean):
        M = constant.whiten(_jacobian(f, z, constant))
        return gram(M)
    return _by_layers(f, z)


def jacobian_at(decoder: Map, z: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n p"], Float[Tensor, "n p d"]]:
    """Value (n, p) and Jacobian (n, p, d)."""
    found = jet(decoder, z, 1)
    assert isinstance(found, Jet)
    assert found.value is not None
    assert found.jacobian is not None
    return found.value, found.jacobian


def _jacobian(f: Map, z: Tensor, ambient: Ambient) -> Tensor:
    found = jet(f, z, 1, lowest=1)
    assert isinstance(found, Jet)
    assert found.jacobian is not None
    J = found.jacobian
    check_fits(ambient, J.shape[0], J.shape[1])
    return J


def _by_apply(decoder: Map, z: Tensor, ambient: Ambient) -> Tensor:
    """W(y) that no flattening has: Jᵀ (W J)."""
    value, J = jacobian_at(decoder, z)
    if isinstance(ambient, LowRank) and not ambient.constant:
        M = ambient.at(z).whiten(J)
        return gram(M)
    g = column_products(J, ambient.apply(value, J))
    return (g + g.mT) / 2


def _by_layers(f: Map, z: Tensor) -> Tensor:
    """Euclidean data space: first derivatives up to the last hidden layer, then one matrix."""
    z = check_map(f, z)
    body, tail = split(layers_of(f))
    with torch.autocast(z.device.type, enabled=False):
        state = propagate(body, start(z, 1)).expanded()
        check_output(state.value, z)
        A, matrix = state.first, tail_matrix(tail, state.value.shape[1], z)
        if matrix is None:
            return row_products(A, A)
        p, h = matrix.shape
        if h * (p + z.numel()) < z.numel() * p:
            return row_products(A, linear_rows(A, _Gram.apply(matrix)))
        rows = linear_rows(A, matrix)
        return row_products(rows, rows)


class _Gram(torch.autograd.Function):
    """MᵀM, whose adjoint is one product: M (S + Sᵀ)."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(matrix)
        return times_transposed(matrix.mT, matrix.mT)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        (matrix,) = ctx.saved_tensors
        return times_transposed(matrix, g + g.mT)
