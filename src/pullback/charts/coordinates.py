"""Checks and simple maps of coordinates that all charts share."""

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.validation import check_choice, check_points


def check_coordinates(t: object, c: int, order: int = 0) -> None:
    """Raise unless ``t`` is (n, c) floating point and ``order`` 0, 1 or 2."""
    check_choice("order", order, (0, 1, 2))
    check_points("t", t, c, finite=False)


def check_embedding(Y: object, c: int, minimum: int = 1) -> Tensor:
    """The embedding, if it is finite, with at least ``c`` columns and ``minimum`` rows."""
    Y = check_points("Y", Y)
    if Y.shape[1] < c or Y.shape[0] < minimum:
        raise ValueError(
            f"Y: expected (n, q) with n >= {minimum} and q >= {c}, got {tuple(Y.shape)}; "
            "embed in more dimensions"
        )
    return Y


def even_ranks(y: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Ranks, evenly from -1 to 1 without the ends."""
    order = y.argsort()
    ranks = torch.empty_like(y)
    ranks[order] = torch.arange(len(y), dtype=y.dtype, device=y.device)
    return 2 * (ranks + 0.5) / len(y) - 1


def smoothly(t: Tensor, dt: Tensor) -> Tensor:
    """A step inside (-1, 1) through t = tanh u; at most one unit of u, because 1 - t² may be tiny."""
    inside = t.clamp(-1 + 1e-6, 1 - 1e-6)
    u = torch.atanh(inside) + (dt / (1 - inside.square())).clamp(-1, 1)
    return torch.tanh(u)
