"""Contractions of the second and third derivative that never form them, and directional derivatives."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.ambient import Diagonal, Euclidean, Gaussian, LowRank, ScaleFlattening
from pullback.jets.checks import check_map, check_order, check_output
from pullback.jets.gemm import float64_cost, linear_rows
from pullback.jets.indices import indices
from pullback.jets.jet import DirectionalJet, MetricJet
from pullback.jets.reverse import Contraction, Tape, record
from pullback.jets.state import JetState, start
from pullback.jets.taylor import Layer, chunk_rows, layers_of, propagate, width_of
from pullback.typing import Ambient, Map
from pullback.validation import check_shape


def contract_hessian(
    f: Map, x: Float[Tensor, "n d"], covectors: Float[Tensor, "n q p"]
) -> Float[Tensor, "n q d d"]:
    """Σ_i λ_i ∂²f_i/∂z_a∂z_b for q covectors λ a point.

    One forward sweep of first derivatives over the hidden layers and one reverse sweep; neither the Hessian
    nor the last layer's Jacobian is formed.

    Args:
        f: a module, or a function of rows, (n, d) -> (n, p).
        x: points, (n, d).
        covectors: λ, (n, q, p).
    Returns:
        (n, q, d, d), exactly symmetric; differentiable unless grad mode is off.
    Raises:
        ValueError: covectors of another shape.
    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> contract_hessian(lambda z: z[:, :1] * z[:, 1:], x, torch.ones(1, 1, 1))
        tensor([[[[0., 1.],
                  [1., 0.]]]])
    """
    return _contract(f, x, covectors, 2)


def contract_third(
    f: Map, x: Float[Tensor, "n d"], covectors: Float[Tensor, "n q p"]
) -> Float[Tensor, "n q d d d"]:
    """Σ_i λ_i ∂³f_i/∂z_a∂z_b∂z_c for q covectors λ a point.

    Args:
        f: a module, or a function of rows, (n, d) -> (n, p).
        x: points, (n, d).
        covectors: λ, (n, q, p).
    Returns:
        (n, q, d, d, d), exactly symmetric.
    Raises:
        ValueError: covectors of another shape.
    """
    return _contract(f, x, covectors, 3)


def _contract(f: Map, x: Tensor, covectors: Tensor, order: int) -> Tensor:
    x = check_map(f, x)
    n, d = x.shape
    if covectors.ndim != 3 or covectors.shape[0] != n:
        raise ValueError(
            f"covectors: expected (n, q, p) with n={n} from x, got {tuple(covectors.shape)}; "
            "add an axis for a single covector a point"
        )
    layers = layers_of(f)
    size = _chunk(*_split(layers), x)
    with torch.autocast(x.device.type, enabled=False):
        parts = [
            _contract_chunk(layers, part, lam, order)
            for part, lam in zip(x.split(size), covectors.split(size), strict=True)
        ]
    at = indices(d, x.device)
    packed = torch.cat(parts)
    return packed[..., at.full2 if order == 2 else at.full3].unflatten(-1, (d,) * order)


def _contract_chunk(layers: list[Layer], x: Tensor, covectors: Tensor, order: int) -> Tensor:
    body, tail = _split(layers)
    tape = Tape(Contraction(order))
    state = record(body, start(x, order - 1), tape)
    check_output(state.value, x)
    p = _features(tail, state)
    if covectors.shape[2] != p:
        raise ValueError(
            f"covectors: expected (n, q, p) = ({x.shape[0]}, q, {p}), got {tuple(covectors.shape)}"
        )
    tape.pull(_pull_tail(tail, covectors.transpose(0, 1)))
    at = indices(x.shape[1], x.device)
    count = at.i.shape[0] if order == 2 else at.a.shape[0]
    return x.new_zeros(*covectors.shape[:2], count) if tape.sums.total is None else tape.sums.total


def _split(layers: list[Layer]) -> tuple[list[Layer], list[Layer]]:
    """Layers up to the last nonlinear one, and the matrices behind it, which need no forward step."""
    k = len(layers)
    while k and layers[k - 1].rule is not None and type(layers[k - 1].module) in (nn.Linear, ScaleFlattening):
        k -= 1
    return layers[:k], layers[k:]


def _chunk(body: list[Layer], tail: list[Layer], x: Tensor) -> int:
    """Points at a time: products of pairs of rows at the hidden layers, single rows in data space."""
    d = x.shape[1]
    hidden, all_widths = width_of(body, x), width_of([*body, *tail], x)
    return chunk_rows(x, 1, d * (d + 3) // 2 * hidden + d * all_widths)


def _features(tail: list[Layer], state: JetState) -> int:
    widths = [layer.module.out_features for layer in tail if isinstance(layer.module, nn.Linear)]
    return widths[-1] if widths else state.value.shape[1]


def _pull_tail(tail: list[Layer], beta: Tensor) -> Tensor:
    """Adjoints (q, n, p) in front of the last matrices."""
    for layer in reversed(tail):
        module = layer.module
        if isinstance(module, ScaleFlattening):
            beta = beta * module.scale.to(beta)
        elif isinstance(module, nn.Linear):
            beta = linear_rows(beta, module.weight.mT)
    return beta


def _tail_matrix(tail: list[Layer], width: int, x: Tensor) -> Tensor | None:
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
    body, tail = _split(layers)
    size = _chunk(body, tail, x)
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
    return [*layers, *layers_of(flattening.to(x))], None


def _metric_chunk(
    body: list[Layer], tail: list[Layer], x: Tensor, factor: Tensor | None, points: int, gram: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Metric and packed Γ of a chunk; ``gram`` keeps MᵀM between chunks."""
    n, d = x.shape
    tape = Tape(Contraction(2))
    state = record(body, start(x, 1), tape)
    check_output(state.value, x)
    A = state.expanded().first
    matrix = _tail_matrix(tail, state.value.shape[1], x)
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
        return _inner(A, A), A
    if not gram and _gram_pays(matrix, rows):
        gram.append(_gram(matrix))
    if gram:
        beta = linear_rows(A, gram[0])
        return _inner(A, beta), beta
    Y = linear_rows(A, matrix)
    return _inner(Y, Y), linear_rows(Y, matrix.mT)


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


def _inner(A: Tensor, B: Tensor) -> Tensor:
    """<A_a, B_b> a point, from rows (d, n, h)."""
    return torch.bmm(A.transpose(0, 1), B.permute(1, 2, 0))


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


def directional_jet(
    f: Map, x: Float[Tensor, "n d"], v: Float[Tensor, "n d"], order: int = 2
) -> DirectionalJet:
    """Derivatives of t -> f(x + t v) at t = 0, one direction a point: J v, H[v, v], K[v, v, v].

    Carries one row an order instead of d, d(d+1)/2 and so on.

    Args:
        f: a module, or a function of rows, (n, d) -> (n, p).
        x: points, (n, d).
        v: directions, (n, d).
        order: highest order, 1 to 3.
    Returns:
        `DirectionalJet`, each entry (n, p), None above ``order``.
    Raises:
        ValueError: ``v`` of another shape than ``x``.
    Example:
        >>> import torch
        >>> cube = directional_jet(lambda z: z**3, torch.tensor([[1.0]]), torch.tensor([[2.0]]), order=3)
        >>> cube.first.item(), cube.second.item(), cube.third.item()
        (6.0, 24.0, 48.0)
    """
    check_order(order, lowest=1)
    x = check_map(f, x)
    check_shape("v", v, x.shape, "one direction a point")
    layers = layers_of(f)
    size = chunk_rows(x, 1 + order, width_of(layers, x))
    with torch.autocast(x.device.type, enabled=False):
        parts = [
            _along(layers, JetState(part, u.unsqueeze(0), 1, order))
            for part, u in zip(x.split(size), v.split(size), strict=True)
        ]
    return DirectionalJet(*torch.cat(parts, dim=1))


def _along(layers: list[Layer], state: JetState) -> Tensor:
    result = propagate(layers, state)
    check_output(result.value, state.value)
    return result.complete()


def tangential_acceleration(f: Map, x: Float[Tensor, "n d"], v: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Jᵀ H[v, v]: the tangential part of the acceleration of t -> f(x + t v), as a covector.

    A geodesic of the pullback metric solves g z'' = -Jᵀ H[z', z']. Two directional rows go forward, one
    adjoint comes back.

    Args:
        f: a module, or a function of rows, (n, d) -> (n, p).
        x: points, (n, d).
        v: velocities, (n, d).
    Returns:
        (n, d).
    Example:
        >>> import torch
        >>> tangential_acceleration(lambda z: z**2, torch.tensor([[1.0]]), torch.tensor([[1.0]]))
        tensor([[4.]])
    """
    x = check_map(f, x)
    check_shape("v", v, x.shape, "one velocity a point")
    body, tail = _split(layers_of(f))
    size = _chunk(body, tail, x)
    with torch.autocast(x.device.type, enabled=False):
        parts = [
            _tangential(body, tail, part, u) for part, u in zip(x.split(size), v.split(size), strict=True)
        ]
    return torch.cat(parts)


def _tangential(body: list[Layer], tail: list[Layer], x: Tensor, v: Tensor) -> Tensor:
    tape = Tape(Contraction(0))
    state = record(body, JetState(x, v.unsqueeze(0), 1, 2), tape)
    check_output(state.value, x)
    second = state.raised(2).second
    assert second is not None
    matrix = _tail_matrix(tail, state.value.shape[1], x)
    if matrix is not None:
        second = linear_rows(linear_rows(second, matrix), matrix.mT)
    return tape.pull(second).squeeze(0)
