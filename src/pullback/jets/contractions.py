"""Contractions of the second and third derivative that never form them."""

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.jets.checks import check_map, check_output
from pullback.jets.indices import indices
from pullback.jets.reverse import Contraction, Tape, record
from pullback.jets.state import start
from pullback.jets.tail import chunk, features, pull_tail, split
from pullback.jets.taylor import Layer, layers_of
from pullback.typing import Map


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
    Example:
        >>> import torch
        >>> contract_third(lambda z: z**3, torch.tensor([[2.0]]), torch.ones(1, 1, 1)).item()
        6.0
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
    size = chunk(*split(layers), x)
    with torch.autocast(x.device.type, enabled=False):
        parts = [
            _contract_chunk(layers, part, lam, order)
            for part, lam in zip(x.split(size), covectors.split(size), strict=True)
        ]
    at = indices(d, x.device)
    packed = torch.cat(parts)
    return packed[..., at.full2 if order == 2 else at.full3].unflatten(-1, (d,) * order)


def _contract_chunk(layers: list[Layer], x: Tensor, covectors: Tensor, order: int) -> Tensor:
    body, tail = split(layers)
    tape = Tape(Contraction(order))
    state = record(body, start(x, order - 1), tape)
    check_output(state.value, x)
    p = features(tail, state)
    if covectors.shape[2] != p:
        raise ValueError(
            f"covectors: expected (n, q, p) = ({x.shape[0]}, q, {p}), got {tuple(covectors.shape)}"
        )
    tape.pull(pull_tail(tail, covectors.transpose(0, 1)))
    at = indices(x.shape[1], x.device)
    count = at.i.shape[0] if order == 2 else at.a.shape[0]
    return x.new_zeros(*covectors.shape[:2], count) if tape.sums.total is None else tape.sums.total
