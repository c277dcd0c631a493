"""A normal likelihood whose errors are weighed by the metric of data space."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback import ambient
from pullback.models.densities import HALF_LOG_TWO_PI
from pullback.models.support import drawn_on, refuse_library
from pullback.typing import Ambient
from pullback.validation import check_finite


class WeightedGaussian(nn.Module):
    """log p = -½ |Uᵀ(x - μ)|² + log|det Uᵀ| - ½ r log 2π, with W = U Uᵀ one object for density and geometry.

    What trains the model then also measures it: `ambient` returns the weight, and so does every gauge of a
    model with this likelihood. A `pullback.ambient.LowRank` of r columns gives the density of the r numbers
    Uᵀx, without the determinant: what U does not see is free. One whose ``provenance`` is that of an output
    (`LowRank.weighs_likelihood`) measures only, and the density is that of a normal with σ = 1.

    Args:
        weight: `pullback.ambient.Diagonal`, `Gaussian`, `Euclidean` or a `LowRank` with one factor (p, r).
    Raises:
        TypeError: an ambient that changes from place to place; ValueError: one factor a row.
    Example:
        >>> import torch
        >>> from pullback.ambient import Diagonal
        >>> errors = WeightedGaussian(Diagonal(torch.tensor([1.0, 4.0])))
        >>> errors.log_prob(torch.ones(1, 2), torch.zeros(1, 2))  # -½ (1 + 4) + ln 2 - ln 2π
        tensor([-3.6447])
    """

    def __init__(self, weight: Any):
        super().__init__()
        if not isinstance(weight, ambient.Constant) or not weight.constant:
            raise TypeError(
                f"weight: expected Euclidean, Diagonal, Gaussian or LowRank with a factor tensor, got "
                f"{type(weight).__name__}"
            )
        if isinstance(weight, ambient.LowRank) and weight.factor.ndim == 3:  # type: ignore[union-attr]
            raise ValueError(
                f"weight: expected one factor (p, r) for all rows, got {tuple(weight.factor.shape)}"  # type: ignore[union-attr]
            )
        self.weight = weight

    @property
    def _whitens(self) -> bool:
        return not isinstance(self.weight, ambient.LowRank) or self.weight.weighs_likelihood

    def _root(self, like: Tensor) -> Float[Tensor, " p"]:
        """The diagonal of U, where it has no other entries."""
        return self.weight.whiten(like.new_ones(1, like.shape[-1]))[0]

    def extra_repr(self) -> str:
        return f"weight={type(self.weight).__name__}"

    def n_params(self, p: int) -> int:
        """Width of the decoder's output for p features."""
        return p

    def log_prob(self, x: Float[Tensor, "*b p"], params: Float[Tensor, "*n p"]) -> Float[Tensor, "..."]:
        """log p(x | params), summed over features: ``(b,)``."""
        error = x - params
        if not self._whitens:
            return -0.5 * error.square().sum(-1) - error.shape[-1] * HALF_LOG_TWO_PI
        short = self.weight.whiten(error.reshape(-1, error.shape[-1]))
        density = -0.5 * short.square().sum(-1) - short.shape[-1] * HALF_LOG_TWO_PI
        if not isinstance(self.weight, ambient.LowRank):
            density = density + self._root(error).log().sum()
        return density.reshape(error.shape[:-1])

    def mean(self, params: Float[Tensor, "*n p"], library: Any = None) -> Float[Tensor, "*n p"]:
        """μ."""
        refuse_library(library)
        return params

    def sample(
        self, params: Float[Tensor, "*n p"], generator: torch.Generator | None = None, library: Any = None
    ) -> Float[Tensor, "*n p"]:
        """μ + U⁻ᵀ ε with ε drawn from ``generator``.

        Raises:
            ValueError: a factor that weighs the likelihood, which says nothing of the directions it does not
                see.
        """
        refuse_library(library)
        noise = drawn_on(params, generator, lambda like: torch.empty_like(like).normal_(generator=generator))
        if not self._whitens:
            return params + noise
        if isinstance(self.weight, ambient.LowRank):
            raise ValueError(
                "weight: expected Euclidean, Diagonal or Gaussian to draw data, got LowRank, which leaves "
                "directions free; use mean"
            )
        return params + noise / self._root(params)

    def ambient(self) -> Ambient:
        """The weight itself."""
        return self.weight

    def link(self, library: Any = None) -> nn.Module:
        """The decoder's output is what `ambient` expects."""
        refuse_library(library)
        return nn.Identity()

    def library_size(self, x: Tensor) -> None:
        """None: there are no counts to divide."""

    def check(self, x: Float[Tensor, "n p"]) -> None:
        """Raise ``ValueError`` at NaN or infinity, or for another number of features than the weight's."""
        features = self.weight.features
        if features is not None and x.shape[1] != features:
            raise ValueError(f"x: expected {features} features like the weight, got {x.shape[1]}")
        check_finite("x", x)
