"""What the ambient metrics share."""

import torch
from jaxtyping import Float
from torch import Tensor


def per_feature(coefficient: Tensor, v: Tensor) -> Tensor:
    """``coefficient`` (n, p) or (p,) ready to multiply ``v`` (n, p) or (n, p, k)."""
    return coefficient.unsqueeze(-1) if v.ndim == 3 else coefficient


def double(value: Tensor | float | int) -> Tensor:
    """A tensor as it is, a number in double precision: only the data that it meets decides the rounding."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def count_of(value: Tensor | float | int) -> int | None:
    """For how many features there is an entry; None where one serves all."""
    return value.numel() if isinstance(value, Tensor) and value.numel() > 1 else None


class Quadratic:
    """vᵀ W v from `apply`.

    Attributes:
        features: number of outputs that W is made for, or None where it takes any.
    """

    @property
    def features(self) -> int | None:
        return None

    def apply(self, y: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError

    def quadratic(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
        """Squared length vᵀ W(y) v of one vector per point."""
        return (v * self.apply(y, v)).sum(-1)
