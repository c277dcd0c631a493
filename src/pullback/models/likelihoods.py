"""Likelihoods: what a decoder's output says about data, with every constant.

A likelihood turns the flat rows of a decoder into a density, an expected value and samples, and names the
Fisher metric of its family, so that the pullback of ``likelihood.ambient()`` by
``model.embedding_map()`` measures with the same ruler that trained the model.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from pullback import ambient
from pullback.models import densities
from pullback.models.counts import NegativeBinomial, Poisson
from pullback.models.links import PairLink
from pullback.models.support import bad_entry, check_feature_count, drawn_on, refuse_library
from pullback.typing import Ambient
from pullback.validation import check_choice, check_finite, check_positive, check_whole

__all__ = ["Bernoulli", "Categorical", "Gaussian", "NegativeBinomial", "Poisson", "make_likelihood"]

Scale = float | Literal["shared", "per_feature", "network"]
Library = Tensor | float | None


class Gaussian(nn.Module):
    """log p = Σ_i -½((x_i - μ_i)/σ_i)² - log σ_i - ½ log 2π.

    Args:
        scale: σ, a number; or learned: "shared" (one for all features), "per_feature", or "network" (the
            decoder returns log σ behind μ: ``(b, 2p)``). A learned log σ is kept in [-7, 7].
        n_features: number of features p; needed for "per_feature" alone.
    Example:
        >>> import torch
        >>> Gaussian().log_prob(torch.zeros(1, 2), torch.zeros(1, 2))
        tensor([-1.8379])
    """

    def __init__(self, scale: Scale | int = 1.0, *, n_features: int | None = None):
        super().__init__()
        if isinstance(scale, str):
            check_choice("scale", scale, ("shared", "per_feature", "network"))
        else:
            check_positive("scale", scale)
        self.scale: Scale = scale
        if scale == "shared":
            self.log_scale = nn.Parameter(torch.zeros(()))
        elif scale == "per_feature":
            check_feature_count("scale", "per_feature", n_features)
            self.log_scale = nn.Parameter(torch.zeros(n_features or 0))

    def extra_repr(self) -> str:
        return f"scale={self.scale!r}"

    def n_params(self, p: int) -> int:
        """Width of the decoder's output for p features."""
        return 2 * p if self.scale == "network" else p

    def split(self, params: Tensor) -> tuple[Tensor, Tensor | float]:
        """(μ, log σ) of the decoder's output; log σ as it enters the density, within its bounds."""
        if not isinstance(self.scale, str):
            return params, math.log(self.scale)
        limit = densities.LOG_SCALE_LIMIT
        if self.scale == "network":
            mean, log_scale = params.chunk(2, dim=-1)
            return mean, log_scale.clamp(-limit, limit)
        return params, self.log_scale.clamp(-limit, limit)

    def log_prob(self, x: Float[Tensor, "*b p"], params: Float[Tensor, "*n q"]) -> Float[Tensor, "..."]:
        """log p(x | params), summed over features: ``(b,)``."""
        return densities.normal(x, *self.split(params)).sum(-1)

    def score(self, x: Float[Tensor, "*b p"], params: Float[Tensor, "*n q"]) -> Tensor | None:
        """∂ log p/∂params = (x - μ)/σ²; None where a network gives σ."""
        if self.scale == "network":
            return None
        mean, log_scale = self.split(params)
        precision = torch.exp(-2 * log_scale) if isinstance(log_scale, Tensor) else math.exp(-2 * log_scale)
        return (x - mean) * precision

    def mean(self, params: Float[Tensor, "*n q"], library: Library = None) -> Float[Tensor, "*n p"]:
        """μ."""
        refuse_library(library)
        return self.split(params)[0]

    def sample(
        self,
        params: Float[Tensor, "*n q"],
        generator: torch.Generator | None = None,
        library: Library = None,
    ) -> Float[Tensor, "*n p"]:
        """μ + σ ε with ε drawn from ``generator``."""
        refuse_library(library)
        mean, log_scale = self.split(params)
        noise = drawn_on(mean, generator, lambda like: torch.empty_like(like).normal_(generator=generator))
        return mean + noise * torch.exp(torch.as_tensor(log_scale).to(mean))

    def ambient(self) -> Ambient:
        """Fisher metric: 1/σ² on the mean, or that of (mean, log σ) where the network gives both."""
        if self.scale == "network":
            return ambient.LearnedGaussian()
        if not isinstance(self.scale, str):
            return ambient.Gaussian(self.scale)
        limit = densities.LOG_SCALE_LIMIT
        return ambient.Gaussian(torch.exp(self.log_scale.detach().clamp(-limit, limit)))

    def link(self, library: Library = None) -> nn.Module:
        """The decoder's output is what `ambient` expects; a network's log σ is bounded first."""
        refuse_library(library)
        limit = densities.LOG_SCALE_LIMIT
        return PairLink(nn.Identity(), -limit, limit) if self.scale == "network" else nn.Identity()

    def library_size(self, x: Tensor) -> None:
        """None: there are no counts to divide."""

    def check(self, x: Float[Tensor, "n p"]) -> None:
        """Raise ``ValueError`` at NaN or infinity."""
        check_finite("x", x)


class Bernoulli(nn.Module):
    """log p = Σ_i x_i log σ(l_i) + (1 - x_i) log σ(-l_i), with logits l from the decoder.

    Args:
        strict: targets must be 0 or 1. False also accepts grey values in [0, 1]; the sum is then a
            cross-entropy and no log density.
    Example:
        >>> import torch
        >>> Bernoulli().log_prob(torch.ones(1, 1), torch.zeros(1, 1))
        tensor([-0.6931])
    """

    def __init__(self, strict: bool = True):
        super().__init__()
        self.strict = strict

    def extra_repr(self) -> str:
        return f"strict={self.strict}"

    def n_params(self, p: int) -> int:
        """Width of the decoder's output for p features."""
        return p

    def log_prob(self, x: Float[Tensor, "*b p"], params: Float[Tensor, "*n q"]) -> Float[Tensor, "..."]:
        """log p(x | params), summed over features: ``(b,)``."""
        return densities.bernoulli(x, params).sum(-1)

    def score(self, x: Float[Tensor, "*b p"], params: Float[Tensor, "*n q"]) -> Tensor:
        """∂ log p/∂logits = x - σ(l)."""
        return x - torch.sigmoid(params)

    def mean(self, params: Float[Tensor, "*n p"], library: Library = None) -> Float[Tensor, "*n p"]:
        """σ(l), the probability of 1."""
        refuse_library(library)
        return torch.sigmoid(params)

    def sample(
        self,
        params: Float[Tensor, "*n p"],
        generator: torch.Generator | None = None,
        library: Library = None,
    ) -> Float[Tensor, "*n p"]:
        """Zeros and ones drawn from ``generator``."""
        probability = self.mean(params, library)
        return drawn_on(probability, generator, lambda p: torch.bernoulli(p, generator=generator))

    def ambient(self) -> Ambient:
        """Fisher metric on the logits."""
        return ambient.Bernoulli()

    def link(self, library: Library = None) -> nn.Module:
        """Identity: the ambient metric lives on the logits."""
        refuse_library(library)
        return nn.Identity()

    def library_size(self, x: Tensor) -> None:
        """None: there are no counts to divide."""

    def check(self, x: Float[Tensor, "n p"]) -> None:
        """Raise ``ValueError`` unless every target is 0 or 1 (within [0, 1] where ``strict`` is False)."""
        check_finite("x", x)
        if self.strict:
            hint = "binarise, or Bernoulli(strict=False) for grey values (then not a density)"
            bad_entry(x, (x != 0) & (x != 1), "expected 0 or 1", hint)
        else:
            bad_entry(
                x, (x < 0) | (x > 1), "expected grey values in [0, 1]", "rescale, or a Gaussian likelihood"
            )


class Categorical(nn.Module):
    """log p = Σ_i log_softmax(l_i) at class x_i, with logits (p, n_classes) from the decoder, classes last.

    Args:
        n_classes: number of classes K, the same for every feature.
        one_hot: the data are p groups of K columns, zero or one, instead of p columns of class indices.
        n_features: number of categorical features p, where it is known.
    Example:
        >>> import torch
        >>> Categorical(4).log_prob(torch.tensor([[3.0]]), torch.zeros(1, 4))
        tensor([-1.3863])
    """

    def __init__(self, n_classes: int, *, one_hot: bool = False, n_features: int | None = None):
        super().__init__()
        check_whole("n_classes", n_classes, minimum=2)
        self.n_classes, self.one_hot, self.n_features = n_classes, one_hot, n_features

    def extra_repr(self) -> str:
        return f"n_classes={self.n_classes}, one_hot={self.one_hot}"

    def n_params(self, p: int) -> int:
        """Width of the decoder's output for p columns of data."""
        return p if self.one_hot else p * self.n_classes

    def _grouped(self, flat: Tensor) -> Tensor:
        return flat.unflatten(-1, (-1, self.n_classes))

    def log_prob(self, x: Num[Tensor, "*b p"], params: Float[Tensor, "*n q"]) -> Float[Tensor, "..."]:
        """log p(x | params), summed over features: ``(b,)``."""
        index = self._grouped(x).argmax(-1) if self.one_hot else x
        return densities.categorical(index, self._grouped(params)).sum(-1)

    def mean(self, params: Float[Tensor, "*n q"], library: Library = None) -> Float[Tensor, "*n q"]:
        """Class probabilities, the expected one-hot code: ``(b, p·K)``, classes last."""
        refuse_library(library)
        return torch.softmax(self._grouped(params), dim=-1).flatten(-2)

    def sample(
        self,
        params: Float[Tensor, "*n q"],
        generator: torch.Generator | None = None,
        library: Library = None,
    ) -> Float[Tensor, "*n p"]:
        """Classes drawn from ``generator``, coded as the data are (indices or one-hot)."""
        table = self._grouped(self.mean(params, library))
        rows = table.reshape(-1, self.n_classes)
        flat = drawn_on(rows, generator, lambda p: torch.multinomial(p, 1, generator=generator))
        index = flat.reshape(table.shape[:-1])
        if self.one_hot:
            return nn.functional.one_hot(index, self.n_classes).flatten(-2).to(params)
        return index.to(params)

    def ambient(self) -> Ambient:
        """Fisher metric on the logits: one multinomial a feature."""
        return ambient.Categorical() if self.n_features == 1 else CategoricalGroups(self.n_classes)

    def link(self, library: Library = None) -> nn.Module:
        """Identity: the ambient metric lives on the logits."""
        refuse_library(library)
        return nn.Identity()

    def library_size(self, x: Tensor) -> None:
        """None: there are no counts to divide."""

    def check(self, x: Num[Tensor, "n p"]) -> None:
        """Raise ``ValueError`` unless the entries are classes 0 .. n_classes - 1 (or one-hot groups)."""
        if self.one_hot:
            if x.shape[-1] % self.n_classes:
                raise ValueError(f"x: expected groups of {self.n_classes} columns, got {x.shape[-1]} columns")
            groups = self._grouped(x)
            bad = ((groups != 0) & (groups != 1)).any(-1) | (groups.sum(-1) != 1)
            bad_entry(x, bad.repeat_interleave(self.n_classes, -1), "expected one-hot groups", "")
            return
        bad = (x < 0) | (x >= self.n_classes) | (x != torch.floor(x))
        bad_entry(x, bad | (x != x), f"expected class indices 0 .. {self.n_classes - 1}", "set n_classes")


class CategoricalGroups:
    """Fisher metric of several categorical features with K classes each: blocks diag s - s sᵀ on logits."""

    def __init__(self, n_classes: int):
        self.n_classes = n_classes

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v = s (v - <s, v>) in each group."""
        s = torch.softmax(y.unflatten(1, (-1, self.n_classes)), dim=2)
        groups = v.unflatten(1, (-1, self.n_classes))
        s = s.unsqueeze(-1) if v.ndim == 3 else s
        return (s * (groups - (s * groups).sum(2, keepdim=True))).flatten(1, 2)

    def quadratic(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
        """vᵀ W(y) v."""
        return (v * self.apply(y, v)).sum(-1)

    def flattening(self) -> nn.Module:
        """phi(η) = 2 exp(½ log_softmax η) in each group."""
        return nn.Sequential(
            nn.Unflatten(1, (-1, self.n_classes)), ambient.CategoricalFlattening(1), nn.Flatten()
        )


def make_likelihood(likelihood: str | nn.Module, n_features: int) -> nn.Module:
    """The likelihood of that name for ``n_features`` columns, or the module itself.

    Args:
        likelihood: "gaussian" (σ = 1), "bernoulli", "poisson" or "negative_binomial" (both scaled by the
            observed total of a row), or any module with the methods of those in this file.
        n_features: number of columns of the data.
    Raises:
        ValueError: an unknown name; "categorical", which needs its number of classes; a zero-inflated family,
            which is not offered.
    Example:
        >>> make_likelihood("bernoulli", 64)
        Bernoulli(strict=True)
    """
    if not isinstance(likelihood, str):
        return likelihood
    if likelihood.lower().startswith(("zero_inflated", "zero-inflated", "zi")):
        raise ValueError(
            f"likelihood: zero-inflated counts are not offered, got {likelihood!r}: their Fisher metric has "
            "no closed form, and 'negative_binomial' accounts for the zeros of UMI counts"
        )
    check_choice(
        "likelihood", likelihood, ("gaussian", "bernoulli", "poisson", "negative_binomial", "categorical")
    )
    if likelihood == "gaussian":
        return Gaussian()
    if likelihood == "bernoulli":
        return Bernoulli()
    if likelihood == "poisson":
        return Poisson(library="observed")
    if likelihood == "negative_binomial":
        return NegativeBinomial(library="observed", n_features=n_features)
    raise ValueError("likelihood: 'categorical' needs the number of classes; pass Categorical(n_classes)")
