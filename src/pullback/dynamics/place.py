"""The Hamiltonian H = U(z) + κ(z, ρ) at one set of positions, everything there computed once.

κ(z, ρ) = -log p(ρ | z). A `Motion` says which metric, potential and method of differentiation; a `Place` is
what an integrator carries from one step to the next.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from pullback.dynamics.potential import Potential, PotentialAt, as_potential, differentiated, potential_at
from pullback.dynamics.priors import riemannian_logprior
from pullback.metrics import BaseMetric, as_metric
from pullback.metrics.local import LocalMetric
from pullback.validation import check_choice, check_positive

Method = Literal["closed", "autograd", "finite"]
Scheme = Literal["central", "forward"]
MomentumLogPrior = Callable[[Tensor, Tensor, Tensor], Tensor]
METHODS = ("closed", "autograd", "finite")


@dataclass(frozen=True)
class Motion:
    """A Hamiltonian and how it is differentiated; made by `make_motion`."""

    metric: BaseMetric
    potential: Potential
    method: Method
    momentum_logprior: MomentumLogPrior
    difference_step: float | None
    scheme: Scheme

    @property
    def is_closed(self) -> bool:
        """Whether the kinetic energy is differentiated in closed form."""
        return self.method == "closed" and self.momentum_logprior is riemannian_logprior

    @property
    def name(self) -> str:
        """The method that is used, for results."""
        if self.method == "finite":
            return f"finite ({self.scheme})"
        custom = self.momentum_logprior is not riemannian_logprior
        return "closed; kinetic energy by autograd" if custom and self.method == "closed" else self.method

    def at(self, z: Tensor, beside: "Place | None" = None) -> "Place":
        """The place of positions z; what is known ``beside`` it is used again."""
        return Place(self, z, self.metric.local(z) if beside is None else beside.local.at(z))


def make_motion(
    metric: object,
    potential: object,
    *,
    gradient: Method = "closed",
    momentum_logprior: MomentumLogPrior | None = None,
    difference_step: float | None = None,
    scheme: Scheme = "central",
) -> Motion:
    """Check the parts of a Hamiltonian and put them together."""
    check_choice("gradient", gradient, METHODS)
    check_choice("scheme", scheme, ("central", "forward"))
    if difference_step is not None:
        check_positive("step", difference_step)
    kinetic = momentum_logprior or riemannian_logprior
    return Motion(as_metric(metric), as_potential(potential), gradient, kinetic, difference_step, scheme)


class Place:
    """H, ∂H/∂z and ∂H/∂ρ at positions, for any momenta."""

    def __init__(self, motion: Motion, z: Tensor, local: LocalMetric):
        self.motion, self.z, self.local = motion, z, local

    @cached_property
    def potential(self) -> PotentialAt:
        """The potential here."""
        return potential_at(self.motion.potential, self.z)

    @cached_property
    def rest_force(self) -> Tensor:
        """∂H/∂z of a momentum of zero, in closed form."""
        return self.potential.gradient + self.local.rest_gradient

    def kinetic(self, rho: Tensor) -> Tensor:
        """κ = -log p(ρ | z)."""
        return -self.motion.momentum_logprior(rho, self.local.inverse, self.local.logdet)

    def force(self, rho: Tensor) -> Tensor:
        """∂H/∂z."""
        motion = self.motion
        if motion.method == "closed":
            if motion.is_closed:
                return self.rest_force - self.local.force(rho)
            return self.potential.gradient + differentiated(lambda z: self._kinetic_at(z, rho), self.z)[1]
        return self._by_method(lambda z: self._energy_at(z, rho), self.z)

    def velocity(self, rho: Tensor) -> Tensor:
        """∂H/∂ρ."""
        motion = self.motion
        if motion.is_closed:
            return self.local.velocity(rho)
        if motion.method == "closed":
            return differentiated(lambda momentum: self._kinetic_at(self.z, momentum), rho)[1]
        return self._by_method(lambda momentum: self._energy_at(self.z, momentum), rho)

    def _kinetic_at(self, z: Tensor, rho: Tensor) -> Tensor:
        # not by a local view, which may be differentiable no more than once
        metric = self.motion.metric
        return -self.motion.momentum_logprior(rho, metric.inverse(z), metric.logdet(z))

    def energy(self, rho: Tensor) -> Tensor:
        """H, to be differentiated as often as metric and potential can be."""
        return self._energy_at(self.z, rho)

    def _energy_at(self, z: Tensor, rho: Tensor) -> Tensor:
        return self.motion.potential(z) + self._kinetic_at(z, rho)

    def _by_method(self, function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
        if self.motion.method == "autograd":
            return differentiated(function, at)[1]
        return finite_differences(function, at, step=self.motion.difference_step, scheme=self.motion.scheme)


def finite_differences(
    function: Callable[[Tensor], Tensor], at: Tensor, *, step: float | None, scheme: Scheme
) -> Tensor:
    """Gradients of a function of rows by differences of h max(1, |z_k|); h = ∛ε central, √ε forward."""
    power = 1 / 3 if scheme == "central" else 1 / 2
    h = (torch.finfo(at.dtype).eps ** power if step is None else step) * at.abs().clamp_min(1)
    columns = []
    middle = None if scheme == "central" else function(at)
    for k in range(at.shape[1]):
        move = torch.zeros_like(at)
        move[:, k] = h[:, k]
        # the step that rounding leaves of h
        if middle is None:
            after, before = at + move, at - move
            columns.append((function(after) - function(before)) / (after - before)[:, k])
        else:
            after = at + move
            columns.append((function(after) - middle) / (after - at)[:, k])
    return torch.stack(columns, dim=1)
