"""Value and exact derivatives of a map at a batch of points, to third order."""

import warnings
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from pullback.jets.checks import check_known, check_lowest, check_map, check_order, check_output, unknown
from pullback.jets.fallback import nested, nested_cost
from pullback.jets.gemm import joined
from pullback.jets.indices import count
from pullback.jets.inplace import plain_tensors
from pullback.jets.results import Jet, Known, Method, PackedJet, unpack
from pullback.jets.rules import Affine
from pullback.jets.state import JetState, start
from pullback.jets.taylor import (
    Layer,
    affine_tail,
    chunk_rows,
    is_piecewise_linear,
    layers_of,
    propagate,
    survey,
    width_of,
)
from pullback.typing import Map, Points
from pullback.validation import check_choice, check_whole


class PiecewiseLinearWarning(UserWarning):
    """Second derivatives were asked of a net that is linear piece by piece."""


def jet(
    f: Map,
    x: Points,
    order: int = 1,
    *,
    lowest: int = 0,
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
        lowest: lowest order that is wanted, 0 to ``order``; those below are left None, which saves their part
            of the last linear layers: ``jet(f, x, 1, lowest=1)`` is the Jacobian alone.
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
    check_lowest(lowest, order)
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
    known = _compute(f, x, order, lowest, chunk_size, fallback)
    if packed:
        return PackedJet(_joined(known), x.shape[1], order, known.method, lowest)
    return unpack(known)


def derivatives(f: Map, x: Points, order: int) -> list[Tensor]:
    """Value and derivatives up to ``order`` without a warning: for formulas true on each linear piece."""
    full = unpack(_compute(f, check_map(f, x), order, 0, None, "module"))
    known = (full.value, full.jacobian, full.hessian, full.third)
    return [part for part in known if part is not None]


def _joined(known: Known) -> Tensor:
    """Value and rows in one tensor, without a copy where they lie so in memory."""
    if known.value is None:
        return known.rows
    if known.order == 0:
        return known.value.unsqueeze(0)
    free = plain_tensors(known.value, known.rows)
    stack = joined(known.value, known.rows) if free else None
    return torch.cat([known.value.unsqueeze(0), known.rows]) if stack is None else stack


def _compute(f: Map, x: Tensor, order: int, lowest: int, chunk_size: int | None, fallback: str) -> Known:
    layers = layers_of(f)
    missing = unknown(layers)
    if fallback == "error":
        check_known(layers)
    brute = fallback == "nested" or (bool(missing) and layers == missing)
    method: Method = "nested" if brute else "mixed" if missing else "layerwise"
    with torch.autocast(x.device.type, enabled=False):
        if order == 0:
            value = f(x)
            check_output(value, x)
            return Known(value, value.new_empty(0, *value.shape), x.shape[1], 0, 0, method)
        body, tail = affine_tail(layers) if lowest and not brute else (layers, [])
        through = partial(nested, f) if brute else partial(propagate, body)
        m = nested_cost(x.shape[1], order) if missing or brute else 1 + count(x.shape[1], order)
        size = chunk_size or chunk_rows(x, m, width_of(layers, x))
        parts = [
            _wanted(through(start(part, order)), tail, part, lowest)
            for part in (x.split(size) if x.shape[0] else (x,))
        ]
    values = [value for value, _ in parts if value is not None]
    value, rows = _together(values, 0) if values else None, _together([rows for _, rows in parts], 1)
    return Known(value, rows, x.shape[1], lowest, order, method)


def _wanted(state: JetState, tail: list[Layer], x: Tensor, lowest: int) -> tuple[Tensor | None, Tensor]:
    """Value and rows from order ``lowest`` on behind the affine layers ``tail``; others do not pass them."""
    full = state.raised(state.order)
    if not lowest:
        check_output(state.value, x)
        return full.value, full.expanded().rows
    rows = full.rows[count(state.dim, lowest - 1) :]
    for layer in tail:
        assert isinstance(layer.rule, Affine)
        rows = layer.rule.rows(layer.module, rows)
    rows = rows.expand(-1, x.shape[0], *rows.shape[2:])
    check_output(rows[0], x)
    return None, rows


def _together(parts: list[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=axis)
