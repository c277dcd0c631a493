"""Exact derivatives through a map without a rule: nested forward mode on the Taylor polynomial before it.

The derivatives at ε = 0 of ``m(v + J ε + H[ε, ε]/2 + K[ε, ε, ε]/6)`` are those behind the map m, so an
unknown layer costs nested differentiation in d directions while the rest of a network stays layer by layer.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pullback.jets.indices import indices
from pullback.jets.state import JetState
from pullback.typing import Map


class _Primitives(TorchFunctionMode):
    """Evaluates operations whose nested derivatives are wrong or missing by elementary ones.

    Nested forward mode through ``layer_norm`` and ``instance_norm`` differs from the true second derivative
    by a term of its own size (torch 2.13); ``prelu`` and ``rrelu`` fail under vmap, ``glu`` has no nested
    derivative, and the derivatives of ``celu`` carry a constant in single precision.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        replacement = _REPLACED.get(func, func)
        return replacement(*args, **(kwargs or {}))


def _standardize(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(dims, keepdim=True) + eps)


def _layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    y = _standardize(input, tuple(range(-len(normalized_shape), 0)), eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    per_channel = (-1, *(1,) * (input.ndim - 2))
    if use_input_stats:
        y = _standardize(input, tuple(range(2, input.ndim)), eps)
    else:
        assert running_mean is not None
        assert running_var is not None
        y = (input - running_mean.reshape(per_channel)) * torch.rsqrt(running_var + eps).reshape(per_channel)
    y = y if weight is None else y * weight.reshape(per_channel)
    return y if bias is None else y + bias.reshape(per_channel)


def _prelu(input: Tensor, weight: Tensor) -> Tensor:
    if weight.numel() > 1:
        weight = weight.reshape(-1, *(1,) * (input.ndim - 2))
    return torch.where(input >= 0, input, weight * input)


def _rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    return torch.where(input > 0, input, (lower + upper) / 2 * input)


def _celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    return torch.where(input > 0, input, alpha * torch.expm1(input.clamp(max=0) / alpha))


def _glu(input: Tensor, dim: int = -1) -> Tensor:
    left, right = input.chunk(2, dim)
    return left * torch.sigmoid(right)


_REPLACED: dict[Callable, Callable] = {
    F.celu: _celu,
    torch.celu: _celu,
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.instance_norm: _instance_norm,
    torch.instance_norm: _instance_norm,
    F.glu: _glu,
    F.rrelu: _rrelu,
    F.prelu: _prelu,
    torch.prelu: _prelu,
}


@contextmanager
def differentiable() -> Iterator[None]:
    """Grad mode on and inference mode off, whatever the caller's modes: nested transforms need both.

    Under ``no_grad`` the nested forward derivatives of SiLU and Mish are not implemented.
    """
    with torch.inference_mode(False), torch.enable_grad(), _Primitives():
        yield


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor, copied if it was made in inference mode (autograd refuses those)."""
    return tensor.clone() if tensor.is_inference() else tensor


def _derivatives(g: Callable[[Tensor], Tensor], at: Tensor, order: int) -> tuple[Tensor, ...]:
    """g and its derivatives to ``order``, by forward mode nested in itself; derivative axes last."""

    def raise_order(inner: Callable) -> Callable:
        def outer(point: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            derivative, lower = torch.func.jacfwd(inner, has_aux=True)(point)
            return derivative, (*lower, derivative)

        return outer

    def with_value(point: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        value = g(point)
        return value, (value,)

    function: Callable = with_value
    for _ in range(order):
        function = raise_order(function)
    return function(at)[1]


def _weights(d: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Coefficients of the packed monomials ε_i ε_j and ε_a ε_b ε_c in H[ε, ε]/2 and K[ε, ε, ε]/6."""
    at = indices(d, device)
    return torch.bincount(at.full2).to(dtype) / 2, torch.bincount(at.full3).to(dtype) / 6


def _polynomial(v: Tensor, rows: Tensor, eps: Tensor, level: int) -> Tensor:
    """v + Jε + H[ε, ε]/2 + K[ε, ε, ε]/6 of one point, from packed rows (m, *shape)."""
    monomials = [eps]
    if level > 1:
        at = indices(eps.shape[0], eps.device)
        w2, w3 = _weights(eps.shape[0], eps.device, eps.dtype)
        monomials.append(w2 * eps[at.i] * eps[at.j])
        if level > 2:
            monomials.append(w3 * eps[at.a] * eps[at.b] * eps[at.c])
    return v + torch.tensordot(torch.cat(monomials), rows, dims=1)


def nested(module: Map, state: JetState) -> JetState:
    """The state behind ``module``, by nested forward mode."""
    d, order = state.dim, state.order
    quiet = not torch.is_grad_enabled()
    with differentiable():
        value, rows = ordinary(state.value), ordinary(state.rows)

        def at_point(v: Tensor, r: Tensor) -> tuple[Tensor, ...]:
            zero = torch.zeros(d, dtype=v.dtype, device=v.device)

            def g(eps: Tensor) -> Tensor:
                return module(_polynomial(v, r, eps, state.level).unsqueeze(0)).squeeze(0)

            return _derivatives(g, zero, order)

        constant = rows.shape[1] == 1 != value.shape[0]
        mapped = torch.func.vmap(at_point, in_dims=(0, None if constant else 1))
        try:
            full = mapped(value, rows.squeeze(1) if constant else rows)
        except NotImplementedError as error:
            name = type(module).__name__ if isinstance(module, torch.nn.Module) else repr(module)
            raise NotImplementedError(
                f"{name}: nested forward-mode derivatives are not implemented for one of its operations; "
                "write it with primitive operations, or give it a rule with register_jet_rule"
            ) from error
        result = _pack(full, d, order)
    if quiet:
        result = JetState(result.value.detach(), result.rows.detach(), d, order, result.level)
    return result


def _pack(full: tuple[Tensor, ...], d: int, order: int) -> JetState:
    """Derivative axes from last to first, each symmetric entry once."""
    value, *derivatives = full
    at = indices(d, value.device)
    packed = []
    for k, array in enumerate(derivatives, start=1):
        array = array.movedim(tuple(range(-k, 0)), tuple(range(k)))
        if k == 2:
            array = array[at.i, at.j]
        elif k == 3:
            array = array[at.a, at.b, at.c]
        packed.append(array)
    return JetState(value, torch.cat(packed), d, order, level=order)


def contracted(module: Map, state: JetState, beta: Tensor, order: int) -> Tensor:
    """Σ_i β_i times the derivative of ``order`` of ``module`` along the state, packed, (n, q, d2 or d3).

    That is the derivative at ε = 0 of the scalar <β, m(v + Jε + H[ε, ε]/2)>: one reverse pass, then forward
    mode, so memory grows with d and not with d².
    """
    d = state.dim
    at = indices(d, state.value.device)
    if 0 in beta.shape[:2]:
        return beta.new_zeros(beta.shape[1], beta.shape[0], len(at.i if order == 2 else at.a))
    quiet = not torch.is_grad_enabled()
    with differentiable():
        value, rows = ordinary(state.value), ordinary(state.expanded().rows)

        def at_covector(v: Tensor, r: Tensor, covector: Tensor) -> Tensor:
            def scalar(eps: Tensor) -> Tensor:
                y = module(_polynomial(v, r, eps, state.level).unsqueeze(0)).squeeze(0)
                return (covector * y).sum()

            function = torch.func.grad(scalar)
            for _ in range(order - 1):
                function = torch.func.jacfwd(function)
            result = function(torch.zeros(d, dtype=v.dtype, device=v.device))
            # vmap cannot move the axis of a result that depends on nothing, as behind a constant module.
            return result + 0 * covector.sum()

        over_points = torch.func.vmap(at_covector, in_dims=(0, 1, 0))
        full = torch.func.vmap(over_points, in_dims=(None, None, 0), out_dims=1)(value, rows, ordinary(beta))
        packed = full[..., at.i, at.j] if order == 2 else full[..., at.a, at.b, at.c]
    return packed.detach() if quiet else packed


def nested_cost(d: int, order: int) -> int:
    """Rows that nested forward mode holds at once, for one point."""
    return int(math.pow(1 + d, order))
