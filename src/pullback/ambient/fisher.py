"""Fisher metrics of likelihoods on what a decoder returns, each with its flattening map."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.ambient.base import Constant, Quadratic, count_of, double, per_feature
from pullback.ambient.flattenings import (
    BernoulliFlattening,
    CategoricalFlattening,
    NegativeBinomialFlattening,
    PoissonFlattening,
    ScaleFlattening,
)
from pullback.validation import check_positive


@dataclass(frozen=True, eq=False)
class Gaussian(Constant):
    """Fisher metric of a normal with fixed standard deviation: W = diag(1/σ²) on the mean.

    Args:
        sigma: standard deviation, a number or (p,).
    """

    sigma: Tensor | float | int

    def __post_init__(self) -> None:
        check_positive("sigma", self.sigma)

    @property
    def features(self) -> int | None:
        """Number of entries of σ."""
        return count_of(self.sigma)

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = v / σ²."""
        return v / per_feature(double(self.sigma).to(v), v) ** 2

    def whiten(self, v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """v / σ."""
        return v / per_feature(double(self.sigma).to(v), v)

    def unwhiten(self, m: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """m / σ."""
        return self.whiten(m)

    def row_traces(self, n: int, p: int) -> Float[Tensor, " n"]:
        """Σ 1/σ²."""
        return double(self.sigma).expand(p).pow(-2).sum().expand(n)

    def flattening(self) -> nn.Module:
        """phi(y) = y / σ."""
        return ScaleFlattening(double(self.sigma), -1.0)


@dataclass(frozen=True, eq=False)
class Bernoulli(Quadratic):
    """Fisher metric of a Bernoulli on its logit: W = diag(s (1 - s)), s = σ(η)."""

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = σ(η) σ(-η) v."""
        return per_feature(torch.sigmoid(y) * torch.sigmoid(-y), v) * v

    def flattening(self) -> nn.Module:
        """phi(η) = 2 atan(e^{η/2})."""
        return BernoulliFlattening()


@dataclass(frozen=True, eq=False)
class Poisson(Quadratic):
    """Fisher metric of a Poisson on its log rate: W = diag(e^η)."""

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = e^η v."""
        return per_feature(torch.exp(y), v) * v

    def flattening(self) -> nn.Module:
        """phi(η) = 2 e^{η/2}."""
        return PoissonFlattening()


@dataclass(frozen=True, eq=False)
class NegativeBinomial(Quadratic):
    """Fisher metric of a negative binomial on its log mean: W = diag(μ θ / (μ + θ)), μ = e^η.

    Args:
        dispersion: inverse dispersion θ > 0 (variance μ + μ²/θ), a number or (p,).
    Gotchas: use one fixed library size in η for a whole computation, else a path mixes depth with biology.
    """

    dispersion: Tensor | float | int

    def __post_init__(self) -> None:
        check_positive("dispersion", self.dispersion)

    @property
    def features(self) -> int | None:
        """Number of entries of θ."""
        return count_of(self.dispersion)

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = θ σ(η - ln θ) v, which neither overflows nor divides."""
        theta = double(self.dispersion).to(v)
        return per_feature(theta * torch.sigmoid(y - torch.log(theta)), v) * v

    def flattening(self) -> nn.Module:
        """phi(η) = 2 √θ asinh(e^{(η - ln θ)/2})."""
        return NegativeBinomialFlattening(double(self.dispersion))


@dataclass(frozen=True, eq=False)
class Categorical(Quadratic):
    """Fisher metric of a multinomial on its logits: W = count (diag s - s sᵀ), s = softmax η.

    Args:
        count: number of draws.
    """

    count: float | int = 1

    def __post_init__(self) -> None:
        check_positive("count", self.count)

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = count · s (v - <s, v>)."""
        s = per_feature(torch.softmax(y, dim=-1), v)
        return self.count * s * (v - (s * v).sum(1, keepdim=True))

    def flattening(self) -> nn.Module:
        """phi(η) = 2 √count · exp(½ log_softmax η)."""
        return CategoricalFlattening(self.count)
