"""Metrics of data space that are the same everywhere, or known by a factor: W = I, diag(w), U Uᵀ."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.ambient.base import Constant, count_of, double, per_feature
from pullback.ambient.flattenings import ScaleFlattening
from pullback.validation import check_choice, check_finite, check_positive

Factor = Tensor | Callable[[Tensor], Tensor]
Provenance = Literal["behavioral_fisher", "whitened_structured", "output_fisher", "output_fisher_downstream"]


@dataclass(frozen=True, eq=False)
class Euclidean(Constant):
    """W = I on the decoder's output."""

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = v."""
        return v

    def whiten(self, v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """v."""
        return v

    def unwhiten(self, m: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """m."""
        return m

    def row_traces(self, n: int, p: int) -> Float[Tensor, " n"]:
        """p."""
        return torch.full((n,), float(p), dtype=torch.float64)

    def flattening(self) -> nn.Module:
        """The identity."""
        return nn.Identity()


@dataclass(frozen=True, eq=False)
class Diagonal(Constant):
    """W = diag(weight), one positive weight a feature.

    Args:
        weight: (p,), or a number.
    Raises:
        ValueError: a weight is not positive, naming the first index.
    Example:
        >>> import torch
        >>> Diagonal(torch.tensor([1.0, 4.0])).apply(torch.zeros(1, 2), torch.ones(1, 2))
        tensor([[1., 4.]])
    """

    weight: Tensor | float | int

    def __post_init__(self) -> None:
        check_positive("weight", self.weight)

    @property
    def features(self) -> int | None:
        """Number of weights."""
        return count_of(self.weight)

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = weight · v."""
        return per_feature(double(self.weight).to(v), v) * v

    def whiten(self, v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """√weight · v."""
        return per_feature(double(self.weight).to(v).sqrt(), v) * v

    def unwhiten(self, m: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """√weight · m."""
        return self.whiten(m)

    def row_traces(self, n: int, p: int) -> Float[Tensor, " n"]:
        """Σ weight."""
        return double(self.weight).expand(p).sum().expand(n)

    def flattening(self) -> nn.Module:
        """phi(y) = √weight · y."""
        return ScaleFlattening(double(self.weight), 0.5)


@dataclass(frozen=True, eq=False)
class LowRank(Constant):
    """W = U Uᵀ with a factor U of r columns; W is never formed.

    Args:
        factor: U (p, r); or one factor a row, (n, p, r), for the rows that it was made for; or a function of
            the latent point, (n, d) -> (n, p, r).
        provenance: where the factor comes from, which decides whether it weighs a likelihood, too. From
            probes of behaviour or a whitening of structured noise, "behavioral_fisher" and
            "whitened_structured", or if nothing is said, it does. The Fisher information of a model's output
            near ("output_fisher") or further on ("output_fisher_downstream") measures only: errors weighed by
            it would count the model's own certainty twice.
    Gotchas: geometry at arbitrary latent points needs (p, r) or the function. For r < d the pullback is
        degenerate; for r = d it is flat.
    Example:
        >>> import torch
        >>> LowRank(torch.tensor([[1.0], [2.0]])).quadratic(torch.zeros(1, 2), torch.ones(1, 2))
        tensor([9.])
    """

    factor: Factor
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        if self.provenance is not None:
            check_choice("provenance", self.provenance, get_args(Provenance))
        if not isinstance(self.factor, Tensor):
            if not callable(self.factor):
                raise TypeError(
                    f"factor: expected a tensor or a function of z, got {type(self.factor).__name__}"
                )
            return
        if self.factor.ndim not in (2, 3) or not self.factor.is_floating_point():
            raise ValueError(
                f"factor: expected (p, r) or (n, p, r) floating point, got shape {tuple(self.factor.shape)} "
                f"{str(self.factor.dtype).removeprefix('torch.')}; pass a factor U, not W = U Uᵀ"
            )
        check_finite("factor", self.factor)

    @property
    def features(self) -> int | None:
        """Rows of the factor."""
        return self.factor.shape[-2] if isinstance(self.factor, Tensor) else None

    def at(self, z: Float[Tensor, "n d"]) -> "LowRank":
        """The ambient at latent points: a factor that is a function of z becomes one factor a row."""
        if isinstance(self.factor, Tensor):
            return self
        # Without the checks of a new one: under a transform the numbers cannot be looked at.
        here = object.__new__(LowRank)
        object.__setattr__(here, "factor", self.factor(z))
        object.__setattr__(here, "provenance", self.provenance)
        return here

    def _matrix(self) -> Tensor:
        if not isinstance(self.factor, Tensor):
            raise TypeError("factor: a function of z has no value at a data point; call ambient.at(z) first")
        return self.factor

    @property
    def weighs_likelihood(self) -> bool:
        """Whether a likelihood that is given this weight whitens its errors by it."""
        return self.provenance not in ("output_fisher", "output_fisher_downstream")

    @property
    def constant(self) -> bool:
        """Whether the factor is a tensor."""
        return isinstance(self.factor, Tensor)

    def whiten(self, v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n r *k"]:
        """Uᵀ v, the only product with v that a computation needs."""
        factor = self._matrix().to(v)
        if v.ndim == 3:
            return factor.mT @ v
        return v @ factor if factor.ndim == 2 else (factor.mT @ v.unsqueeze(-1)).squeeze(-1)

    def unwhiten(self, m: Float[Tensor, "n r *k"]) -> Float[Tensor, "n p *k"]:
        """U m."""
        factor = self._matrix().to(m)
        if m.ndim == 3:
            return factor @ m
        return m @ factor.mT if factor.ndim == 2 else (factor @ m.unsqueeze(-1)).squeeze(-1)

    def row_traces(self, n: int, p: int) -> Float[Tensor, " n"]:
        """|U|² of each row's factor."""
        return self._matrix().square().sum((-2, -1)).expand(n)

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = U (Uᵀ v)."""
        return self.unwhiten(self.whiten(v))

    def quadratic(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
        """|Uᵀ v|²."""
        return self.whiten(v).square().sum(-1)

    def flattening(self) -> nn.Module | None:
        """phi(y) = Uᵀ y as a bias-free linear layer; None where U changes from row to row."""
        if not isinstance(self.factor, Tensor) or self.factor.ndim == 3:
            return None
        p, r = self.factor.shape
        layer = nn.Linear(p, r, bias=False, device="meta", dtype=self.factor.dtype)
        layer.weight = nn.Parameter(self.factor.detach().mT.contiguous(), requires_grad=False)
        return layer
