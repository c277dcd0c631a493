"""The Hamiltonian VAE: a flow with the explicit leapfrog of the flat metric."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.dynamics import ModelPotential, hamiltonian_gradient, spherical_logprior
from pullback.dynamics.place import Scheme
from pullback.dynamics.potential import LogPrior
from pullback.metrics import EuclideanMetric
from pullback.models.elbo import Elbo
from pullback.models.flow_model import FlowModel, flow_elbo
from pullback.models.vae import VAE
from pullback.validation import check_points


class HVAE(FlowModel):
    """VAE with a tempered Hamiltonian flow, ρ_0 = γ/√β_0 with γ ~ N(0, I).

    Caterini, Doucet and Sejdinovic 2018, "Hamiltonian variational auto-encoder".

    Args:
        vae: encoder, decoder, likelihood; its modules become this model's.
        learn_step_size, learn_beta0: train ε (by its logarithm) and β_0 (by its logit) with the model.
        options: n_steps, step_size, beta0, tempering; see `pullback.models.FlowModel`.
    Example:
        >>> import torch
        >>> from pullback.models import MLP, VAE, Bernoulli
        >>> model = HVAE(VAE(MLP(5, 4), MLP(2, 5), Bernoulli()))
        >>> model.elbo(torch.ones(3, 5), torch.zeros(3, 4)).shape
        torch.Size([3])
    """

    def __init__(self, vae: VAE, *, learn_step_size: bool = False, learn_beta0: bool = False, **options: Any):
        super().__init__(vae, **options)
        self.learn_step_size, self.learn_beta0 = learn_step_size, learn_beta0
        if learn_step_size:
            self.log_step_size = nn.Parameter(self.step_size.log().float())
        if learn_beta0:
            # a start at 1 would have no logit
            self.logit_beta0 = nn.Parameter(torch.logit(self.beta0, eps=1e-6).float())

    def _step_size(self) -> Any:
        return self.log_step_size.exp() if self.learn_step_size else super()._step_size()

    def _beta0(self) -> Any:
        return torch.sigmoid(self.logit_beta0) if self.learn_beta0 else super()._beta0()

    def flow_metric(self) -> EuclideanMetric:
        """The flat metric."""
        return EuclideanMetric(self.latent_dim)


def hamiltonian_elbo(
    model: FlowModel,
    x: Float[Tensor, "b p"],
    x_out: Float[Tensor, "b q"] | None = None,
    *,
    noise: Float[Tensor, "b e"] | None = None,
    generator: torch.Generator | None = None,
    logp_weights: Sequence[float | int] = (1, 1, 1),
    logq_weights: Sequence[float | int] = (1, 1, 1),
    return_outputs: bool = False,
    **options: Any,
) -> Elbo:
    """Evidence lower bound on log p(x_out) through the flow of the flat metric.

    Args, Returns, Raises: as `riemannian_hamiltonian_elbo`.

    Example:
        >>> import torch
        >>> from pullback.models import MLP, VAE, Bernoulli
        >>> model = HVAE(VAE(MLP(5, 4), MLP(2, 5), Bernoulli()))
        >>> hamiltonian_elbo(model, torch.ones(3, 5)).is_bound
        True
    """
    return flow_elbo(
        model,
        x,
        x_out,
        metric=EuclideanMetric(model.latent_dim),
        noise=noise,
        generator=generator,
        logp_weights=logp_weights,
        logq_weights=logq_weights,
        return_outputs=return_outputs,
        **options,
    )


def potential_energy(
    model: VAE,
    x: Float[Tensor, "n p"],
    z: Float[Tensor, "n d"],
    *,
    position_logprior: LogPrior = spherical_logprior,
) -> Float[Tensor, " n"]:
    """U(z) = -log p(x | z) - log p(z).

    Example:
        >>> import torch
        >>> from pullback.models import VAE, Gaussian
        >>> vae = VAE(torch.nn.Linear(2, 4), torch.nn.Linear(2, 2), Gaussian())
        >>> potential_energy(vae, torch.zeros(3, 2), torch.zeros(3, 2)).shape
        torch.Size([3])
    """
    check_points("z", z, model.latent_dim, finite=False)
    return ModelPotential(model.decode, model.likelihood, x, position_logprior)(z)


def potential_energy_gradient(
    model: VAE,
    x: Float[Tensor, "n p"],
    z: Float[Tensor, "n d"],
    *,
    method: Literal["autograd", "finite"] = "autograd",
    step: float | None = None,
    scheme: Scheme = "central",
    position_logprior: LogPrior = spherical_logprior,
) -> Float[Tensor, "n d"]:
    """∂U/∂z, the decoder evaluated at z.

    Args:
        method, step, scheme: see `pullback.dynamics.hamiltonian_gradient`.
    Example:
        >>> import torch
        >>> from pullback.models import VAE, Gaussian
        >>> vae = VAE(torch.nn.Linear(2, 4), torch.nn.Linear(2, 2), Gaussian()).requires_grad_(False)
        >>> potential_energy_gradient(vae, torch.zeros(3, 2), torch.zeros(3, 2)).shape
        torch.Size([3, 2])
    """
    check_points("z", z, model.latent_dim, finite=False)
    return hamiltonian_gradient(
        z,
        torch.zeros_like(z),
        EuclideanMetric(z.shape[1]),
        potential=ModelPotential(model.decode, model.likelihood, x, position_logprior),
        method=method,
        step=step,
        scheme=scheme,
    )
