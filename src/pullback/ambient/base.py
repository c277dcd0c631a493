"""What the ambient metrics share."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


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


class Constant(Quadratic):
    """W = U Uᵀ that is the same at every value of the decoder: Uᵀ v, U m and tr W, never W."""

    @property
    def constant(self) -> bool:
        """Whether U is known without a point."""
        return True

    def flattening(self) -> nn.Module | None:
        """phi(y) = Uᵀ y, where U is one for all rows."""
        raise NotImplementedError

    def whiten(self, v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n r *k"]:
        """Uᵀ v, as long as v is by W: |Uᵀ v|² = vᵀ W v."""
        raise NotImplementedError

    def unwhiten(self, m: Float[Tensor, "n r *k"]) -> Float[Tensor, "n p *k"]:
        """U m, so that W v = U (Uᵀ v)."""
        raise NotImplementedError

    def row_traces(self, n: int, p: int) -> Float[Tensor, " n"]:
        """tr W of n rows with p features."""
        raise NotImplementedError
