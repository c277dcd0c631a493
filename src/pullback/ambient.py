"""Ambient metrics: the metric W of data space, known by what it does and never formed.

An ambient multiplies vectors of data space by W(y). Where W is the pullback of a flat metric, it also offers
the flattening map phi with W(y) = (d phi)ᵀ(d phi); then phi after a decoder is an isometric embedding of the
latent space, and every formula for surfaces in Euclidean space applies to it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.validation import check_finite, check_positive

Factor = Tensor | Callable[[Tensor], Tensor]


class ScaleFlattening(nn.Module):
    """phi(y) = scale · y, one positive factor a feature."""

    scale: Tensor

    def __init__(self, scale: Tensor):
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, y: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        return y * self.scale.to(y)


class BernoulliFlattening(nn.Module):
    """phi(η) = 2 atan(e^{η/2}) of a logit, in the form that overflows on neither side."""

    def forward(self, y: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        low = 2 * torch.atan(torch.exp(y.clamp(max=0) / 2))
        high = math.pi - 2 * torch.atan(torch.exp(-y.clamp(min=0) / 2))
        return torch.where(y > 0, high, low)


class PoissonFlattening(nn.Module):
    """phi(η) = 2 e^{η/2} of a log rate."""

    def forward(self, y: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        return 2 * torch.exp(y / 2)


class NegativeBinomialFlattening(nn.Module):
    """phi(η) = 2 √θ asinh(e^{(η - ln θ)/2}) of a log mean, θ the inverse dispersion."""

    dispersion: Tensor

    def __init__(self, dispersion: Tensor):
        super().__init__()
        self.register_buffer("dispersion", dispersion)

    def forward(self, y: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        theta = self.dispersion.to(y)
        u = (y - torch.log(theta)) / 2
        low = torch.asinh(torch.exp(u.clamp(max=0)))
        tail = u.clamp(min=0)
        high = tail + torch.log1p(torch.sqrt(1 + torch.exp(-2 * tail)))
        return 2 * torch.sqrt(theta) * torch.where(u > 0, high, low)


class CategoricalFlattening(nn.Module):
    """phi(η) = 2 √count · exp(½ log_softmax η) of logits: a point of the sphere of radius 2 √count."""

    def __init__(self, count: float | int):
        super().__init__()
        self.count = count

    def forward(self, y: Float[Tensor, "n *groups k"]) -> Float[Tensor, "n *groups k"]:
        return 2 * math.sqrt(self.count) * torch.exp(torch.log_softmax(y, dim=-1) / 2)


def _per_feature(coefficient: Tensor, v: Tensor) -> Tensor:
    """``coefficient`` (n, p) or (p,) ready to multiply ``v`` (n, p) or (n, p, k)."""
    return coefficient.unsqueeze(-1) if v.ndim == 3 else coefficient


def _double(value: Tensor | float | int) -> Tensor:
    """A tensor as it is, a number in double precision: only the data that it meets decides the rounding."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


class _Quadratic:
    """vᵀ W v from `apply`."""

    def apply(self, y: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError

    def quadratic(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
        """Squared length vᵀ W(y) v of one vector per point."""
        return (v * self.apply(y, v)).sum(-1)


@dataclass(frozen=True, eq=False)
class Euclidean(_Quadratic):
    """W = I on the decoder's output."""

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = v."""
        return v

    def flattening(self) -> nn.Module:
        """The identity."""
        return nn.Identity()


@dataclass(frozen=True, eq=False)
class Diagonal(_Quadratic):
    """W = diag(weight), one positive weight a feature.

    Args:
        weight: (p,), or a scalar.
    Raises:
        ValueError: a weight is not positive, naming the first index.
    Example:
        >>> import torch
        >>> Diagonal(torch.tensor([1.0, 4.0])).apply(torch.zeros(1, 2), torch.ones(1, 2))
        tensor([[1., 4.]])
    """

    weight: Tensor

    def __post_init__(self) -> None:
        check_positive("weight", self.weight)

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = weight · v."""
        return _per_feature(self.weight.to(v), v) * v

    def flattening(self) -> nn.Module:
        """phi(y) = √weight · y."""
        return ScaleFlattening(torch.sqrt(self.weight))


@dataclass(frozen=True, eq=False)
class Gaussian(_Quadratic):
    """Fisher metric of a normal with fixed standard deviation: W = diag(1/σ²) on the mean.

    Args:
        sigma: standard deviation, a number or (p,).
    """

    sigma: Tensor | float | int

    def __post_init__(self) -> None:
        check_positive("sigma", self.sigma)

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = v / σ²."""
        return v / _per_feature(_double(self.sigma).to(v), v) ** 2

    def flattening(self) -> nn.Module:
        """phi(y) = y / σ."""
        return ScaleFlattening(1 / _double(self.sigma))


@dataclass(frozen=True, eq=False)
class LowRank(_Quadratic):
    """W = U Uᵀ with a factor U of r columns; W is never formed.

    Args:
        factor: U (p, r); or one factor a row, (n, p, r), for the rows that it was made for; or a function of
            the latent point, (n, d) -> (n, p, r).
    Gotchas: geometry at arbitrary latent points needs (p, r) or the function. For r < d the pullback is
        degenerate; for r = d it is flat.
    Example:
        >>> import torch
        >>> LowRank(torch.tensor([[1.0], [2.0]])).quadratic(torch.zeros(1, 2), torch.ones(1, 2))
        tensor([9.])
    """

    factor: Factor

    def __post_init__(self) -> None:
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

    def at(self, z: Float[Tensor, "n d"]) -> "LowRank":
        """The ambient at latent points: a factor that is a function of z becomes one factor a row."""
        if isinstance(self.factor, Tensor):
            return self
        # Without the checks of a new one: under a transform the numbers cannot be looked at.
        here = object.__new__(LowRank)
        object.__setattr__(here, "factor", self.factor(z))
        return here

    def _matrix(self) -> Tensor:
        if not isinstance(self.factor, Tensor):
            raise TypeError("factor: a function of z has no value at a data point; call ambient.at(z) first")
        return self.factor

    def project(self, v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n r *k"]:
        """Uᵀ v, the only product with v that a computation needs."""
        factor = self._matrix().to(v)
        if v.ndim == 3:
            return factor.mT @ v
        return v @ factor if factor.ndim == 2 else (factor.mT @ v.unsqueeze(-1)).squeeze(-1)

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = U (Uᵀ v)."""
        factor, short = self._matrix().to(v), self.project(v)
        if v.ndim == 3:
            return factor @ short
        return short @ factor.mT if factor.ndim == 2 else (factor @ short.unsqueeze(-1)).squeeze(-1)

    def quadratic(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
        """|Uᵀ v|²."""
        return self.project(v).square().sum(-1)

    def flattening(self) -> nn.Module | None:
        """phi(y) = Uᵀ y as a bias-free linear layer; None where U changes from row to row."""
        if not isinstance(self.factor, Tensor) or self.factor.ndim == 3:
            return None
        p, r = self.factor.shape
        layer = nn.Linear(p, r, bias=False, device="meta", dtype=self.factor.dtype)
        layer.weight = nn.Parameter(self.factor.detach().mT.contiguous(), requires_grad=False)
        return layer


@dataclass(frozen=True, eq=False)
class Bernoulli(_Quadratic):
    """Fisher metric of a Bernoulli on its logit: W = diag(s (1 - s)), s = σ(η)."""

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = σ(η) σ(-η) v."""
        return _per_feature(torch.sigmoid(y) * torch.sigmoid(-y), v) * v

    def flattening(self) -> nn.Module:
        """phi(η) = 2 atan(e^{η/2})."""
        return BernoulliFlattening()


@dataclass(frozen=True, eq=False)
class Poisson(_Quadratic):
    """Fisher metric of a Poisson on its log rate: W = diag(e^η)."""

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = e^η v."""
        return _per_feature(torch.exp(y), v) * v

    def flattening(self) -> nn.Module:
        """phi(η) = 2 e^{η/2}."""
        return PoissonFlattening()


@dataclass(frozen=True, eq=False)
class NegativeBinomial(_Quadratic):
    """Fisher metric of a negative binomial on its log mean: W = diag(μ θ / (μ + θ)), μ = e^η.

    Args:
        dispersion: inverse dispersion θ > 0 (variance μ + μ²/θ), a number or (p,).
    Gotchas: use one fixed library size in η for a whole computation, else a path mixes depth with biology.
    """

    dispersion: Tensor | float | int

    def __post_init__(self) -> None:
        check_positive("dispersion", self.dispersion)

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = θ σ(η - ln θ) v, which neither overflows nor divides."""
        theta = _double(self.dispersion).to(v)
        return _per_feature(theta * torch.sigmoid(y - torch.log(theta)), v) * v

    def flattening(self) -> nn.Module:
        """phi(η) = 2 √θ asinh(e^{(η - ln θ)/2})."""
        return NegativeBinomialFlattening(_double(self.dispersion))


@dataclass(frozen=True, eq=False)
class Categorical(_Quadratic):
    """Fisher metric of a multinomial on its logits: W = count (diag s - s sᵀ), s = softmax η.

    Args:
        count: number of draws.
    """

    count: float | int = 1

    def __post_init__(self) -> None:
        check_positive("count", self.count)

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = count · s (v - <s, v>)."""
        s = _per_feature(torch.softmax(y, dim=-1), v)
        return self.count * s * (v - (s * v).sum(1, keepdim=True))

    def flattening(self) -> nn.Module:
        """phi(η) = 2 √count · exp(½ log_softmax η)."""
        return CategoricalFlattening(self.count)


@dataclass(frozen=True, eq=False)
class LearnedGaussian(_Quadratic):
    """Fisher metric of a normal on (mean, log σ), side by side in the decoder's output: 1/σ² and 2.

    It is a product of hyperbolic planes, so no flattening exists and geometry takes the tensor path.
    """

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = (v_mean / σ², 2 v_logσ)."""
        log_sigma = y.chunk(2, dim=1)[1]
        diagonal = torch.cat([torch.exp(-2 * log_sigma), torch.full_like(log_sigma, 2)], dim=1)
        return _per_feature(diagonal, v) * v

    def flattening(self) -> None:
        """None: the metric is curved."""
        return None
