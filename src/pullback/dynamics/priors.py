"""Log densities of positions and momenta, every constant included."""

import math

from jaxtyping import Float
from torch import Tensor

from pullback.linalg import quadratic_form
from pullback.validation import check_tensor

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def spherical_logprior(z: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
    """log N(z; 0, I) = -½|z|² - (d/2) log 2π of each row.

    Example:
        >>> import torch
        >>> spherical_logprior(torch.zeros(1, 2))
        tensor([-1.8379])
    """
    check_tensor("z", z)
    return -0.5 * z.square().sum(-1) - z.shape[-1] * HALF_LOG_TWO_PI


def riemannian_logprior(
    rho: Float[Tensor, "n d"], inverse: Float[Tensor, "n d d"], logdet: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """log N(ρ; 0, G) = -½ (d log 2π + log det G + ρᵀ G⁻¹ ρ), the density of a momentum.

    Girolami and Calderhead 2011, "Riemann manifold Langevin and Hamiltonian Monte Carlo methods".

    Args:
        rho: momenta ρ.
        inverse: G⁻¹ at the positions.
        logdet: log det G there.
    Raises:
        ValueError: shapes that do not fit.
    Example:
        >>> import torch
        >>> riemannian_logprior(torch.zeros(1, 2), torch.eye(2)[None], torch.zeros(1))
        tensor([-1.8379])
    """
    n, d = rho.shape
    if inverse.shape != (n, d, d) or logdet.shape != (n,):
        raise ValueError(
            f"inverse, logdet: expected ({n}, {d}, {d}) and ({n},) for rho {(n, d)}, "
            f"got {tuple(inverse.shape)} and {tuple(logdet.shape)}"
        )
    return -0.5 * (logdet + quadratic_form(rho, inverse, rho)) - d * HALF_LOG_TWO_PI
