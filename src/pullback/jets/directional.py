"""Derivatives along one direction a point."""

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.jets.checks import check_map, check_order, check_output
from pullback.jets.gemm import linear_rows
from pullback.jets.results import DirectionalJet
from pullback.jets.reverse import Contraction, Tape, record
from pullback.jets.state import JetState
from pullback.jets.tail import chunk, split, tail_matrix
from pullback.jets.taylor import Layer, chunk_rows, layers_of, propagate, width_of
from pullback.typing import Map
from pullback.validation import check_shape


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
    body, tail = split(layers_of(f))
    size = chunk(body, tail, x)
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
    matrix = tail_matrix(tail, state.value.shape[1], x)
    if matrix is not None:
        second = linear_rows(linear_rows(second, matrix), matrix.mT)
    return tape.pull(second).squeeze(0)
