"""The evidence lower bound of a tempered Hamiltonian flow.

A flow makes (z_K, ρ_K) of (z_0, ρ_0) ~ q(z_0 | x) N(0, G(z_0)/β_0). With its Jacobian determinant the ratio
p̄/q̄, whose mean is p(x), is made of

    log p̄ = log p(x_out | z_K) + log p(z_K) + log N(ρ_K; 0, G(z_K))
    log q̄ = log q(z_0 | x) + log N(ρ_0; 0, G(z_0)/β_0) - (d/2) (log β_0 - log β_K)

Caterini, Doucet and Sejdinovic 2018; Chadebec, Mantoux and Allassonnière 2020.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.dynamics import Flow, riemannian_logprior, spherical_logprior

LOG_TARGET = ("likelihood", "position", "momentum")
LOG_PROPOSAL = ("posterior", "initial_momentum", "tempering")


@dataclass(frozen=True)
class Elbo:
    """A bound on log p(x_out) from one draw a row.

    Attributes:
        value: mean over the rows.
        per_sample: log p̄ - log q̄ of each row ``(b,)``, in nats.
        terms: the parts of both, ``(b,)`` each, without their weights: "likelihood", "position", "momentum"
            of log p̄; "posterior", "initial_momentum", "tempering" of log q̄.
        outputs: what the model made of the batch, where it was asked for.
        is_bound: False where a weight is not 1. Whether the fixed points converged, without which a flow does
            not quite keep the volume, is in ``outputs.flow.info``.
    """

    value: Float[Tensor, ""]
    per_sample: Float[Tensor, " b"]
    terms: dict[str, Tensor]
    outputs: Any
    is_bound: bool


def _log(beta: Any) -> Any:
    return beta.log() if isinstance(beta, Tensor) else math.log(beta)


def log_target(
    flow: Flow,
    log_likelihood: Float[Tensor, " b"],
    *,
    position_logprior: Any = None,
    momentum_logprior: Any = None,
) -> dict[str, Tensor]:
    """The parts of log p̄ at the end of a flow."""
    kinetic = momentum_logprior or riemannian_logprior
    return {
        "likelihood": log_likelihood,
        "position": (position_logprior or spherical_logprior)(flow.z_final),
        "momentum": kinetic(flow.rho_final, flow.inverse_final, flow.logdet_final),
    }


def log_proposal(flow: Flow, log_posterior: Float[Tensor, " b"]) -> dict[str, Tensor]:
    """The parts of log q̄ at the start of a flow."""
    d = flow.z_init.shape[1]
    hot, cold = _log(flow.beta0), _log(flow.beta_final)
    start = torch.add(spherical_logprior(flow.noise) + d / 2 * hot, flow.logdet_init, alpha=-0.5)
    change = torch.as_tensor(-d / 2 * (hot - cold), dtype=start.dtype, device=start.device)
    return {
        "posterior": log_posterior,
        "initial_momentum": start,
        "tempering": change.expand(len(start)),
    }


def check_weights(name: str, weights: Sequence[float | int], order: Sequence[str]) -> None:
    """Raise ``ValueError`` unless there is a weight for each part."""
    if len(weights) != len(order):
        raise ValueError(f"{name}: expected {len(order)} numbers ({', '.join(order)}), got {len(weights)}")
