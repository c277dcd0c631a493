"""Potential energies: what pulls a position, with its gradient."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.dynamics.priors import spherical_logprior
from pullback.jets.pull import chain_layers, value_and_pull
from pullback.typing import Likelihood

LogPrior = Callable[[Tensor], Tensor]


class PotentialAt:
    """A potential at positions.

    Args:
        gradient: ∂U/∂z.
        value: U, or a function that computes it when it is asked for.
        output: what a decoder returned there, for the potential of a model.
        log_likelihood: log p(x | z), or a function that computes it, for the potential of a model.
    """

    def __init__(
        self,
        gradient: Tensor,
        value: Tensor | Callable[[], Tensor],
        output: Tensor | None = None,
        log_likelihood: Tensor | Callable[[], Tensor] | None = None,
    ):
        self.gradient, self.output = gradient, output
        self._value, self._log_likelihood = value, log_likelihood

    @cached_property
    def value(self) -> Tensor:
        """U."""
        return self._value() if callable(self._value) else self._value

    @cached_property
    def log_likelihood(self) -> Tensor | None:
        """log p(x | z), for the potential of a model."""
        held = self._log_likelihood
        return held() if callable(held) else held


@runtime_checkable
class Potential(Protocol):
    """U(z) with its gradient."""

    def __call__(self, z: Tensor) -> Tensor:
        """U, ``(n, d) -> (n,)``."""
        ...

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """U and ∂U/∂z; with a graph where gradients are enabled."""
        ...


def as_potential(potential: object) -> Potential:
    """The object itself if it is a `Potential`; a function z -> U is differentiated by autograd.

    Raises:
        TypeError: neither.
    Example:
        >>> import torch
        >>> as_potential(lambda z: z.square().sum(1) / 2).value_and_gradient(torch.ones(1, 2))[1]
        tensor([[1., 1.]])
    """
    # looking for methods takes long
    if isinstance(potential, ModelPotential | FunctionPotential | Potential):
        return potential
    if not callable(potential):
        raise TypeError(f"potential: expected a function z -> (n,), got {type(potential).__name__}")
    return FunctionPotential(cast(Callable[[Tensor], Tensor], potential))


def potential_at(potential: Potential, z: Float[Tensor, "n d"]) -> PotentialAt:
    """The potential with all that it knows at positions."""
    if isinstance(potential, ModelPotential):
        return potential.at(z)
    value, gradient = potential.value_and_gradient(z)
    return PotentialAt(gradient, value)


@dataclass(frozen=True)
class FunctionPotential:
    """U from a function, ∂U/∂z by autograd."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U."""
        value = self.function(z)
        if value.shape != z.shape[:1]:
            raise ValueError(
                f"potential: expected ({len(z)},) for z {tuple(z.shape)}, got {tuple(value.shape)}"
            )
        return value

    def value_and_gradient(self, z: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
        """U and ∂U/∂z."""
        return differentiated(self, z)


@dataclass(frozen=True)
class ModelPotential:
    """U(z) = -log p(x | z) - log p(z) of a latent variable model, a row of z for each row of x.

    Args:
        decoder: latent points to the parameters of the likelihood.
        likelihood: p(x | z).
        x: data.
        position_logprior: log p(z); N(0, I) if not given.
    Example:
        >>> import torch
        >>> from pullback.models import Gaussian
        >>> U = ModelPotential(torch.nn.Identity(), Gaussian(), torch.zeros(1, 2))
        >>> U.value_and_gradient(torch.ones(1, 2))[1]
        tensor([[2., 2.]])
    """

    decoder: nn.Module | Callable[[Tensor], Tensor]
    likelihood: Likelihood
    x: Float[Tensor, "n p"]
    position_logprior: LogPrior = spherical_logprior

    def __post_init__(self) -> None:
        if not callable(self.decoder):
            raise TypeError(f"decoder: expected a module or a function, got {type(self.decoder).__name__}")

    def __call__(self, z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U."""
        self._check_rows(z)
        return -self.likelihood.log_prob(self.x, self.decoder(z)) - self.position_logprior(z)

    @cached_property
    def _layers(self) -> list[Any]:
        """The layers of a decoder whose derivatives are known, looked up once for all steps of a flow."""
        return chain_layers(self.decoder)

    def value_and_gradient(self, z: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
        """U and ∂U/∂z."""
        here = self.at(z)
        return here.value, here.gradient

    def at(self, z: Float[Tensor, "n d"]) -> PotentialAt:
        """U, its gradient, and what the decoder returned."""
        self._check_rows(z)
        score = getattr(self.likelihood, "score", None)
        if self.position_logprior is spherical_logprior and score is not None:
            output, pull = value_and_pull(self._layers, z) if self._layers else (None, None)
            slope = None if output is None else score(self.x, output)
            if output is not None and pull is not None and slope is not None:
                return self._described(z, z - pull(slope), output)
        recording = records(self, z)
        with torch.enable_grad():
            point = z if recording and z.requires_grad else z.detach().requires_grad_()
            output = self.decoder(point)
            fit = self.likelihood.log_prob(self.x, output)
            prior = self.position_logprior(point)
            (slope,) = torch.autograd.grad((fit + prior).sum(), point, create_graph=recording)
        if recording:
            return PotentialAt(-slope, -(fit + prior), output, fit)
        return PotentialAt(-slope, -(fit + prior).detach(), output.detach(), fit.detach())

    def _check_rows(self, z: Tensor) -> None:
        if len(z) != len(self.x):
            raise ValueError(f"z: expected {len(self.x)} rows, one for each row of x, got {len(z)}")

    def _described(self, z: Tensor, gradient: Tensor, output: Tensor) -> PotentialAt:
        """Value and log-likelihood are computed where they are asked for: a flow does so at its end alone."""

        def fit() -> Tensor:
            return self.likelihood.log_prob(self.x, output)

        return PotentialAt(gradient, lambda: -fit() - self.position_logprior(z), output, fit)


def records(function: Callable[[Tensor], Tensor], z: Tensor) -> bool:
    """Whether a gradient of the function's gradient can be asked for: of z, or of what the function holds."""
    return torch.is_grad_enabled() and (z.requires_grad or function(z).requires_grad)


def differentiated(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Values and gradients of a function ``(n, d) -> (n,)`` that treats its rows independently."""
    recording = records(function, z)
    with torch.enable_grad():
        # a name of its own: what else the function holds may have been computed from z
        point = z.view_as(z) if recording and z.requires_grad else z.detach().requires_grad_()
        value = function(point)
        if not value.requires_grad:
            return value, torch.zeros_like(z)
        (slope,) = torch.autograd.grad(value.sum(), point, create_graph=recording, allow_unused=True)
    slope = torch.zeros_like(z) if slope is None else slope
    return (value, slope) if recording else (value.detach(), slope.detach())
