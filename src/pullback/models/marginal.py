"""log p(x) of a latent variable model with prior N(0, I): importance sampling, or quadrature where d <= 2.

Both are pure functions of a decoder and a likelihood; nothing is differentiated.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.models import densities

ELEMENT_BUDGET = 2**23
"""Largest number of data entries that are decoded at a time."""

WIDE_SHARE = 0.2
WIDE_FACTOR = 2.0
"""Share of the draws that come from a posterior twice as wide. A fitted q is narrower than the true one;
weights under q alone have a heavy tail, and their standard error cannot be trusted."""

Decode = Callable[[Tensor], Tensor]


@runtime_checkable
class HasLogProb(Protocol):
    """The part of a likelihood that is needed here."""

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor: ...


@runtime_checkable
class Proposal(Protocol):
    """q(z | x) of a batch: `pullback.models.vae.GaussianPosterior` or another."""

    def sample(self, noise: Tensor) -> Tensor: ...

    def log_prob(self, z: Tensor) -> Tensor: ...

    def widened(self, factor: float) -> "Proposal": ...


@dataclass(frozen=True)
class LogLikelihood:
    """log p(x) in nats, higher is better.

    Attributes:
        value: estimate of each row ``(b,)``.
        standard_error: of ``value`` ``(b,)``: the delta method for importance sampling; for quadrature the
            difference from the same rule with half the nodes a side, which is a cautious bound.
        method: "importance" or "quadrature".
    """

    value: Float[Tensor, " b"]
    standard_error: Float[Tensor, " b"]
    method: Literal["importance", "quadrature"]


def log_mean_weight(log_weights: Float[Tensor, "s b"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """log of the mean weight of each column, and its standard error sd(w) / (√s mean w)."""
    count = log_weights.shape[0]
    top = log_weights.amax(0)
    weights = torch.exp(log_weights - top)
    mean = weights.mean(0)
    variance = (
        (weights - mean).square().sum(0) / (count - 1) if count > 1 else torch.full_like(mean, math.nan)
    )
    return top + torch.log(mean), torch.sqrt(variance / count) / mean


def _mixture_draws(q: Proposal, noise: Float[Tensor, "s b d"]) -> Iterator[tuple[Tensor, Tensor]]:
    """Draws z of the mixture of q and a wider q, each with its log density under the mixture."""
    count = round(WIDE_SHARE * noise.shape[0])
    wide = q.widened(WIDE_FACTOR)
    for position, unit in enumerate(noise):
        z = (wide if position < count else q).sample(unit)
        density = q.log_prob(z)
        if count:
            share = count / noise.shape[0]
            density = torch.logaddexp(density + math.log1p(-share), wide.log_prob(z) + math.log(share))
        yield z, density


def importance(
    x: Float[Tensor, "b p"],
    decode: Decode,
    likelihood: HasLogProb,
    *,
    posterior: Callable[[Tensor], Proposal],
    latent_dim: int,
    n_samples: int = 200,
    generator: torch.Generator | None = None,
    chunk_size: int | None = None,
) -> LogLikelihood:
    """log p(x) = log E_m[p(x | z) p(z) / m(z | x)], m a mixture of q(z | x) and a wider q.

    A fixed share of the draws comes from each part of the mixture (balance heuristic, Veach and Guibas 1995).

    Args:
        x: data.
        decode: latent points to the parameters of the likelihood.
        likelihood: p(x | z).
        posterior: x to q(z | x).
        latent_dim: d.
        n_samples: draws a row. The expected estimate is a lower bound that rises with their number.
        generator: source of the draws.
        chunk_size: rows at a time; None keeps the decoded entries of a chunk within a budget.
    """
    rows = chunk_size or max(1, ELEMENT_BUDGET // (n_samples * max(x.shape[1], 1)))
    device = x.device if generator is None else generator.device
    values, errors = [x.new_empty(0)], [x.new_empty(0)]
    for part in x.split(rows):
        shape = (n_samples, part.shape[0], latent_dim)
        noise = torch.randn(shape, dtype=x.dtype, device=device, generator=generator).to(x.device)
        log_weights = []
        for z, log_proposal in _mixture_draws(posterior(part), noise):
            log_joint = likelihood.log_prob(part, decode(z)) + densities.standard_normal(z)
            log_weights.append(log_joint - log_proposal)
        value, error = log_mean_weight(torch.stack(log_weights))
        values.append(value)
        errors.append(error)
    return LogLikelihood(torch.cat(values), torch.cat(errors), "importance")


def latent_grid(
    dim: int, *, nodes: int, radius: float, like: Tensor
) -> tuple[Float[Tensor, "g d"], Float[Tensor, " g"]]:
    """Grid on [-radius, radius]^dim and the nodes that the grid of double step keeps (1 or 0)."""
    axis = torch.linspace(-radius, radius, nodes, dtype=like.dtype, device=like.device)
    coarse = (torch.arange(nodes, device=like.device) % 2 == 0).to(like.dtype)
    points = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    kept = torch.cartesian_prod(*[coarse] * dim).reshape(-1, dim).prod(1)
    return points, kept


def quadrature(
    x: Float[Tensor, "b p"],
    decode: Decode,
    likelihood: HasLogProb,
    *,
    latent_dim: int,
    nodes: int = 201,
    radius: float = 6.0,
    chunk_size: int | None = None,
) -> LogLikelihood:
    """log p(x) = logsumexp_g[log p(x | z_g) - ½|z_g|² - (d/2) log 2π] + log ΔA over a grid of latent points.

    Args:
        x: data.
        decode: latent points to the parameters of the likelihood.
        likelihood: p(x | z).
        latent_dim: 1 or 2.
        nodes: grid nodes a side.
        radius: half the side of the grid.
        chunk_size: grid nodes at a time; None keeps the compared entries of a chunk within a budget.
    Raises:
        ValueError: latent_dim > 2; use importance sampling.
    """
    if latent_dim > 2:
        raise ValueError(
            f"method: expected 'importance' for latent_dim={latent_dim}, got 'quadrature' (latent_dim <= 2)"
        )
    grid, kept = latent_grid(latent_dim, nodes=nodes, radius=radius, like=x)
    step = chunk_size or max(1, ELEMENT_BUDGET // max(x.numel(), 1))
    fine = x.new_full((x.shape[0],), -math.inf)
    coarse = fine.clone()
    for z, mask in zip(grid.split(step), kept.split(step), strict=True):
        joint = likelihood.log_prob(x.unsqueeze(1), decode(z).unsqueeze(0)) + densities.standard_normal(z)
        fine = torch.logaddexp(fine, joint.logsumexp(1))
        coarse = torch.logaddexp(coarse, (joint + torch.log(mask)).logsumexp(1))
    cell = latent_dim * math.log(2 * radius / (nodes - 1))
    value = fine + cell
    return LogLikelihood(value, (value - coarse - cell - latent_dim * math.log(2)).abs(), "quadrature")
