"""Value and exact derivatives of a map at a batch of points, to third order."""

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.graph import transforms_active
from pullback.jets.checks import check_known, check_map, check_order, check_output, unknown
from pullback.jets.fallback import nested, nested_cost
from pullback.jets.graph import spread
from pullback.jets.indices import count, indices
from pullback.jets.state import JetState, start
from pullback.jets.taylor import chunk_rows, is_piecewise_linear, layers_of, propagate, survey, width_of
from pullback.typing import Map, Points
from pullback.validation import check_choice, check_whole

Method = Literal["layerwise", "mixed", "nested"]


class PiecewiseLinearWarning(UserWarning):
    """Second derivatives were asked of a net that is linear piece by piece."""


@dataclass(frozen=True, eq=False)
class Jet:
    """What is known of a map f: R^d -> R^p at n points. Orders that were not asked for are None.

    Attributes:
        value: f, (n, p); None where only derivatives are known.
        jacobian: ∂f_i/∂z_a, (n, p, d).
        hessian: ∂²f_i/∂z_a∂z_b, (n, p, d, d).
        third: ∂³f_i/∂z_a∂z_b∂z_c, (n, p, d, d, d).
        method: how it was computed: "layerwise", "nested" or "mixed".
    """

    value: Float[Tensor, "n p"] | None
    jacobian: Float[Tensor, "n p d"] | None
    hessian: Float[Tensor, "n p d d"] | None = None
    third: Float[Tensor, "n p d d d"] | None = None
    method: Method | None = None


@dataclass(frozen=True, eq=False)
class PackedJet:
    """A jet that stores every symmetric derivative once.

    Attributes:
        rows: (m, n, p): the value, then J_a, H_ab (a <= b), K_abc (a <= b <= c), multi-indices in the order
            of ``itertools.combinations_with_replacement``.
        d: number of variables.
        order: highest order stored.
        method: how it was computed.
    """

    rows: Float[Tensor, "m n p"]
    d: int
    order: int
    method: Method | None = None

    def unpack(self) -> Jet:
        """The same jet with full derivative arrays."""
        return _unpack(self.rows[0], self.rows[1:], self.d, self.order, self.method)


@dataclass(frozen=True, eq=False)
class DirectionalJet:
    """Derivatives of t -> f(z + t v) at t = 0: f, J v, H[v, v], K[v, v, v], each (n, p)."""

    value: Float[Tensor, "n p"]
    first: Float[Tensor, "n p"]
    second: Float[Tensor, "n p"] | None = None
    third: Float[Tensor, "n p"] | None = None


@dataclass(frozen=True, eq=False)
class MetricJet:
    """A pullback metric and its Christoffel symbols of the first kind.

    Attributes:
        metric: g_ab = <J_a, W J_b>, (n, d, d).
        christoffel_first: Γ_{c,ab} = <J_c, W H_ab>, (n, d, d, d), index c first.
    """

    metric: Float[Tensor, "n d d"]
    christoffel_first: Float[Tensor, "n d d d"]


def _unpack(value: Tensor, rows: Tensor, d: int, order: int, method: Method | None) -> Jet:
    at = indices(d, rows.device)
    sizes = [count(d, k) - count(d, k - 1) for k in range(1, order + 1)]
    pieces = list(rows.split(sizes)) if order > 1 else [rows]
    jacobian = pieces[0].permute(1, 2, 0) if order > 0 else None
    hessian = _full(pieces[1], at.full2, d, 2) if order > 1 else None
    third = _full(pieces[2], at.full3, d, 3) if order > 2 else None
    return Jet(value, jacobian, hessian, third, method)


def _full(rows: Tensor, positions: Tensor, d: int, k: int) -> Tensor:
    """Packed rows (m, n, p) to (n, p, d, .., d)."""
    if d > 1:
        graph = rows.requires_grad and not transforms_active(rows)
        rows = spread(rows, positions) if graph else rows.index_select(0, positions)
    return rows.permute(1, 2, 0).unflatten(2, (d,) * k)


def jet(
    f: Map,
    x: Points,
    order: int = 1,
    *,
    packed: bool = False,
    chunk_size: int | None = None,
    fallback: Literal["module", "nested", "error"] = "module",
) -> Jet | PackedJet:
    """Value and exact derivatives of ``f`` at ``x``, layer by layer.

    Derivative rows pass through each layer by its closed-form rule (Taylor mode: one GEMM for all rows of a
    linear layer, Faà di Bruno's formula for an activation); layers without a rule are differentiated by
    nested forward mode on the polynomial in front of them. Exact to rounding either way.

    Griewank, Utke, Walther 2000, "Evaluating higher derivative tensors by forward propagation of univariate
    Taylor series".

    Args:
        f: a module, or a function of rows, (n, d) -> (n, p); a plain function is one unknown map.
        x: points, (n, d).
        order: highest order, 0 to 3.
        packed: return a `PackedJet`, which stores each symmetric entry once.
        chunk_size: points at a time; None picks it to bound the memory in use.
        fallback: for layers without a rule: "module" differentiates that layer, "nested" the whole map by
            brute force, "error" refuses.
    Returns:
        A `Jet` (or `PackedJet`); differentiable with respect to ``x`` and parameters unless grad mode is off.
    Raises:
        ValueError: wrong order, shape or mode, see the message.
        TypeError: parameters of another dtype than ``x``, or an unknown layer with ``fallback="error"``.
    Warns:
        PiecewiseLinearWarning: order >= 2 of a net that is linear piece by piece.
    Gotchas: forward mode costs ``d`` passes; for an encoder (many inputs) use `local_affine` or reverse mode.
    Example:
        >>> import torch
        >>> from torch import nn
        >>> f = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5))
        >>> result = jet(f, torch.zeros(4, 2), order=2)
        >>> result.jacobian.shape, result.hessian.shape, result.third
        (torch.Size([4, 5, 2]), torch.Size([4, 5, 2, 2]), None)
    """
    check_order(order)
    check_choice("fallback", fallback, ("module", "nested", "error"))
    x = check_map(f, x)
    if chunk_size is not None:
        check_whole("chunk_size", chunk_size)
    if order > 1 and is_piecewise_linear(list(survey(layers_of(f)))):
        warnings.warn(
            "second derivatives vanish almost everywhere; use a smooth activation (Softplus, SiLU, GELU, "
            "Tanh) for curvature and geodesics",
            PiecewiseLinearWarning,
            stacklevel=2,
        )
    with torch.autocast(x.device.type, enabled=False):
        state, method = _compute(f, x, order, chunk_size, fallback)
    if packed:
        rows = state.value.unsqueeze(0) if order == 0 else state.complete()
        return PackedJet(rows, x.shape[1], order, method)
    return _unpack(state.value, state.rows, x.shape[1], order, method)


def derivatives(f: Map, x: Points, order: int) -> list[Tensor]:
    """Value and derivatives up to ``order`` without a warning: for formulas true on each linear piece."""
    x = check_map(f, x)
    with torch.autocast(x.device.type, enabled=False):
        state, method = _compute(f, x, order, None, "module")
    full = _unpack(state.value, state.rows, x.shape[1], order, method)
    known = (full.value, full.jacobian, full.hessian, full.third)
    return [part for part in known if part is not None]


def _compute(f: Map, x: Tensor, order: int, chunk_size: int | None, fallback: str) -> tuple[JetState, Method]:
    layers = layers_of(f)
    missing = unknown(layers)
    if fallback == "error":
        check_known(layers)
    brute = fallback == "nested" or (bool(missing) and layers == missing)
    method: Method = "nested" if brute else "mixed" if missing else "layerwise"
    if order == 0:
        value = f(x)
        check_output(value, x)
        return JetState(value, value.new_empty(0, *value.shape), x.shape[1], 0, level=0), method
    through = partial(nested, f) if brute else partial(propagate, layers)
    m = nested_cost(x.shape[1], order) if missing or brute else 1 + count(x.shape[1], order)
    size = chunk_size or chunk_rows(x, m, width_of(layers, x))
    return _by_chunks(through, x, order, size), method


def _by_chunks(through: partial[JetState], x: Tensor, order: int, size: int) -> JetState:
    """The final state with all rows stored, chunk by chunk."""
    chunks = []
    for part in x.split(size) if x.shape[0] else (x,):
        state = through(start(part, order))
        check_output(state.value, part)
        chunks.append(state.raised(order).expanded())
    if len(chunks) == 1:
        return chunks[0]
    value = torch.cat([chunk.value for chunk in chunks])
    rows = torch.cat([chunk.rows for chunk in chunks], dim=1)
    return JetState(value, rows, x.shape[1], order, level=order)
