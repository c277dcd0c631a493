"""Fisher metrics of likelihoods with two learned parameters a feature, side by side in the decoder's output.

W is diagonal, and the two weights of a feature depend on its own pair of outputs (u, v) alone. No flattening
map exists, so geometry goes by the tensor; `pair_weights` gives the weights' derivatives for that.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.ambient.base import Quadratic, per_feature
from pullback.ambient.dispersion import dispersion_information

Partials = tuple[Tensor, ...]
"""A function of (u, v) and its partial derivatives, as far as wanted: w, w_u, w_v, w_uu, w_uv, w_vv."""


class Paired(Quadratic):
    """W = diag(w(u, v), w'(u, v)) on outputs (u, v), each (n, p), side by side."""

    @abstractmethod
    def pair_weights(self, u: Tensor, v: Tensor, order: int) -> tuple[Partials, Partials]:
        """Weights on u and on v with their partial derivatives up to ``order``, at most 2."""

    def weights(self, y: Float[Tensor, "n p"], order: int) -> tuple[Partials, Partials]:
        """`pair_weights` of the two halves of the outputs."""
        if y.shape[1] % 2:
            raise ValueError(
                f"y: expected an even number of outputs, two parameters a feature, got {y.shape[1]}"
            )
        u, v = y.chunk(2, dim=1)
        return self.pair_weights(u, v, order)

    def apply(self, y: Float[Tensor, "n p"], v: Float[Tensor, "n p *k"]) -> Float[Tensor, "n p *k"]:
        """W v."""
        halves = self.weights(y, 0)
        return per_feature(torch.cat([half[0] for half in halves], dim=1), v) * v

    def flattening(self) -> None:
        """None: the metric is curved."""
        return None


@dataclass(frozen=True, eq=False)
class LearnedGaussian(Paired):
    """Fisher metric of a normal on (mean, log σ): 1/σ² and 2, a product of hyperbolic planes.

    Example:
        >>> import torch
        >>> LearnedGaussian().apply(torch.zeros(1, 2), torch.ones(1, 2))
        tensor([[1., 2.]])
    """

    def pair_weights(self, u: Tensor, v: Tensor, order: int) -> tuple[Partials, Partials]:
        """e^{-2 log σ} on the mean, 2 on log σ."""
        weight, zero = torch.exp(-2 * v), torch.zeros_like(v)
        on_mean = (weight, zero, -2 * weight, zero, zero, 4 * weight)
        on_scale = (torch.full_like(v, 2), *5 * (zero,))
        count = (order + 1) * (order + 2) // 2
        return on_mean[:count], on_scale[:count]


@dataclass(frozen=True, eq=False)
class LearnedNegativeBinomial(Paired):
    """Fisher metric of a negative binomial on (log mean, log θ), θ the inverse dispersion (variance μ+μ²/θ).

    W is μθ/(μ+θ) on log μ and θ² I_θθ on log θ, without a cross term. I_θθ = ψ'(θ) - E ψ'(y+θ) - μ/(θ(μ+θ))
    is evaluated without its cancellation; see `pullback.ambient.dispersion`.

    Gotchas: relative error of the weight on log θ in float64, for μ up to 1e4: 1e-7 for θ from 1e-4 to
        1e5, 6e-9 from θ = 0.01 on. Use one fixed library size in log μ for a whole computation.
    Example:
        >>> import torch
        >>> weights = LearnedNegativeBinomial().apply(torch.zeros(1, 2).double(), torch.ones(1, 2).double())
        >>> [round(w, 8) for w in weights[0].tolist()]
        [0.5, 0.08224053]
    """

    def pair_weights(self, u: Tensor, v: Tensor, order: int) -> tuple[Partials, Partials]:
        """θ σ(u - v) on u = log μ, and the information on v = log θ."""
        theta, q = torch.exp(v), torch.sigmoid(u - v)
        on_mean = [theta * q]
        if order > 0:
            q1 = q * torch.sigmoid(v - u)
            on_mean += [theta * q1, theta * (q - q1)]
        if order > 1:
            q2 = q1 * (1 - 2 * q)
            on_mean += [theta * q2, theta * (q1 - q2), theta * (q - 2 * q1 + q2)]
        return tuple(on_mean), dispersion_information(u, v, order)
