"""The least change of codes after which linear decoders give other values."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

REACHABLE = 1e-3
"""Singular values of a decoder below this part of its largest are not inverted: steps would be huge."""


def steered(
    z: Float[Tensor, "b d"],
    now: Mapping[str, Float[Tensor, "b m"]],
    wanted: Mapping[str, Tensor],
    W: Mapping[str, Tensor],
    A: Mapping[str, Tensor],
) -> Float[Tensor, "b d"]:
    """z + Σ_q (y_q - ŷ_q(z)) A_q⁺ W_q: nothing moves but the subspaces of the quantities that are wanted.

    Args:
        z: codes.
        now: name -> what the decoders give at z, (b, m).
        wanted: name -> what they shall give, (b, m) or (1, m). Where a decoder has more columns than rows,
            the nearest values that it can give.
        W: name -> orthonormal rows (k, d), orthogonal to those of the others.
        A: name -> decoder (k, m).
    """
    moved = z
    for q, y in wanted.items():
        inverse = torch.linalg.pinv(A[q].double(), rtol=REACHABLE).to(z)
        moved = moved + (y - now[q]) @ inverse @ W[q].to(z)
    return moved
