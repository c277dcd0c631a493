"""One reverse sweep that turns covectors of the output into contractions of the second or third derivative.

With A and B the first and second derivatives of a layer's input and β the adjoint behind it,

    Σ_i λ_i H_i = Σ_layers β · D²m[A, A]
    Σ_i λ_i K_i = Σ_layers β · (D³m[A, A, A] + D²m[B, A] + D²m[A, B] + ..)

so only derivatives of lower order are carried forward and no array of size p d² exists. For an activation
β · D²m[A_a, A_b] is Σ_k β_k f''_k A_ka A_kb. A linear layer adds nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from pullback.jets.elementwise import add, elementwise, multiply, scaled
from pullback.jets.fallback import contracted, differentiable, ordinary
from pullback.jets.gemm import linear_rows
from pullback.jets.indices import indices
from pullback.jets.inplace import pair_products
from pullback.jets.modules import Product, Residual, Stack, check_branch
from pullback.jets.rules import DENSE, Affine, Elementwise, Piecewise
from pullback.jets.state import JetState
from pullback.jets.taylor import Layer, layers_of, stacked
from pullback.products import row_products

Pull = Callable[[Tensor], Tensor]
"""Adjoints behind a layer (q, n, *shape) to adjoints in front of it."""


@dataclass
class Contraction:
    """Sum over layers of packed contributions, (n, q, d2) or (n, q, d3).

    Attributes:
        order: 2 or 3, or 0 where nothing is to be added up.
    """

    order: int
    total: Tensor | None = None

    def add(self, part: Tensor) -> None:
        self.total = part if self.total is None else self.total + part


@dataclass
class Tape:
    """What the reverse sweep needs of the forward one: a pull for each step, in forward order."""

    sums: Contraction
    pulls: list[Pull] = field(default_factory=list)

    def pull(self, beta: Tensor) -> Tensor:
        """Adjoints at the input of the recorded layers; contributions go to ``sums``."""
        for pull in reversed(self.pulls):
            beta = pull(beta)
        return beta


def record(layers: list[Layer], state: JetState, tape: Tape) -> JetState:
    """The state behind ``layers``, with their pulls written to the tape."""
    for layer in layers:
        state, pull = _step(layer, state, tape.sums)
        tape.pulls.append(pull)
    return state


def _step(layer: Layer, state: JetState, sums: Contraction) -> tuple[JetState, Pull]:
    rule, module = layer.rule, layer.module
    state = state.shared()
    if isinstance(module, nn.Module):
        if isinstance(rule, Affine):
            shape = tuple(state.value.shape[1:])
            return rule(module, state), lambda beta: transpose(rule, module, beta, shape)
        if isinstance(rule, Elementwise):
            return _elementwise_step(rule, module, state, sums)
        if isinstance(rule, Piecewise):
            slope, offset = rule.slopes(module, state.value)
            return scaled(state, slope, offset), lambda beta: beta * slope
        if rule is not None and type(module) is Residual:
            return _residual_step(module, state, sums)
        if rule is not None and type(module) is Product:
            return _product_step(module, state, sums)
        if rule is not None and type(module) is Stack:
            return _stack_step(module, state, sums)
    return layer.step(state), lambda beta: _general_pull(layer, state, beta, sums)


def _elementwise_step(
    rule: Elementwise, module: nn.Module, state: JetState, sums: Contraction
) -> tuple[JetState, Pull]:
    f = rule.derivatives(module, state.value, max(state.order, sums.order))
    return elementwise(state, f[: state.order + 1]), partial(_elementwise_pull, f, state, sums)


def _elementwise_pull(f: tuple[Tensor, ...], state: JetState, sums: Contraction, beta: Tensor) -> Tensor:
    if sums.order == 2:
        sums.add(_second(beta * f[2], state.first))
    elif sums.order == 3:
        raised = elementwise(replace(state, order=3), f)
        sums.add(_dot(beta, raised.third))
    return beta * f[1]


def _second(t: Tensor, A: Tensor) -> Tensor:
    """Σ_k t_k A_ka A_kb, packed: t (q, n, *shape), A (d, n or 1, *shape) -> (n, q, d2)."""
    q, n, d = t.shape[0], t.shape[1], A.shape[0]
    t, A = t.flatten(2), A.flatten(2)
    if A.shape[1] == 1 or 2 * q > d + 1:
        return _dot(t, pair_products(A))
    weighted = (t.unsqueeze(1) * A).permute(2, 0, 1, 3).flatten(1, 2)
    at = indices(d, A.device)
    full = torch.bmm(weighted, A.permute(1, 2, 0)).view(n, q, d, d)
    return full[:, :, at.i, at.j]


def _dot(beta: Tensor, rows: Tensor | None) -> Tensor:
    """Σ over features: beta (q, n, *shape), rows (m, n or 1, *shape) -> (n, q, m)."""
    assert rows is not None
    beta, rows = beta.flatten(2), rows.flatten(2)
    if rows.shape[1] == 1:
        return (beta @ rows.squeeze(1).mT).transpose(0, 1)
    return row_products(beta, rows)


def _residual_step(module: Residual, state: JetState, sums: Contraction) -> tuple[JetState, Pull]:
    inner = Tape(sums)
    branch = record(layers_of(module.block), state, inner)
    check_branch(state.value, branch.value)
    return add(state, branch), lambda beta: beta + inner.pull(beta)


def _product_step(module: Product, state: JetState, sums: Contraction) -> tuple[JetState, Pull]:
    left, right = Tape(sums), Tape(sums)
    u = record(layers_of(module.left), state, left)
    w = record(layers_of(module.right), state, right)
    return multiply(u, w), partial(_product_pull, (u, left), (w, right))


def _product_pull(left: tuple[JetState, Tape], right: tuple[JetState, Tape], beta: Tensor) -> Tensor:
    (u, left_tape), (w, right_tape) = left, right
    sums = left_tape.sums
    if sums.order:
        raised = multiply(replace(u, order=sums.order), replace(w, order=sums.order))
        sums.add(_dot(beta, _top(raised, sums.order)))
    return left_tape.pull(beta * w.value) + right_tape.pull(beta * u.value)


def _stack_step(module: Stack, state: JetState, sums: Contraction) -> tuple[JetState, Pull]:
    tapes = [Tape(sums) for _ in module.branches]
    outputs = [
        record(layers_of(branch), state, tape) for branch, tape in zip(module.branches, tapes, strict=True)
    ]
    sizes = [output.value.shape[-1] for output in outputs]

    def pull(beta: Tensor) -> Tensor:
        parts = module.scaled(beta.split(sizes, dim=-1))
        return torch.stack([t.pull(part) for t, part in zip(tapes, parts, strict=True)]).sum(0)

    return stacked(module, outputs), pull


def _top(state: JetState, order: int) -> Tensor | None:
    return state.third if order == 3 else state.second


def _general_pull(layer: Layer, state: JetState, beta: Tensor, sums: Contraction) -> Tensor:
    """Any other layer: its rule one order up from a state without that order, or nested differentiation."""
    if sums.order:
        if layer.rule is None or type(layer.module) in DENSE:
            sums.add(contracted(layer.module, state, beta, sums.order))
        else:
            top = _top(layer.step(replace(state, order=sums.order)), sums.order)
            if top is not None:
                sums.add(_dot(beta, top))
    return vjp(layer.module, state.value, beta)


def transpose(rule: Affine, module: nn.Module, beta: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Aᵀ β of an affine layer with input ``shape``."""
    if type(module) is nn.Linear:
        return linear_rows(beta, module.weight.mT)
    point = torch.zeros(beta.shape[1], *shape, dtype=beta.dtype, device=beta.device)
    return vjp(lambda x: rule.linear(module, x), point, beta)


def vjp(function: Callable[[Tensor], Tensor], at: Tensor, beta: Tensor) -> Tensor:
    """βᵀ D function(at), for q adjoints (q, n, *shape)."""
    quiet = not torch.is_grad_enabled()
    with differentiable():
        points = ordinary(at).expand(beta.shape[0], *at.shape).flatten(0, 1)
        value, pull, *_ = torch.func.vjp(function, points)
        result = pull(ordinary(beta).reshape(value.shape))[0]
    result = result.unflatten(0, beta.shape[:2])
    return result.detach() if quiet else result
