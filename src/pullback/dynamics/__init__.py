"""Hamiltonian dynamics on a latent space: energies, integrators, tempered flows, samplers.

Everything is a pure function of positions z, momenta ρ, a metric and a potential.
"""

from pullback.dynamics.hamiltonian import hamiltonian, hamiltonian_gradient
from pullback.dynamics.leapfrog import (
    LeapfrogStep,
    explicit_momentum_step,
    generalized_leapfrog,
    implicit_momentum_step,
    implicit_position_step,
    leapfrog,
)
from pullback.dynamics.potential import ModelPotential, Potential, as_potential
from pullback.dynamics.priors import riemannian_logprior, spherical_logprior
from pullback.dynamics.tempering import Flow, null_tempering, quadratic_tempering, tempered_flow

__all__ = [
    "Flow",
    "LeapfrogStep",
    "ModelPotential",
    "Potential",
    "as_potential",
    "explicit_momentum_step",
    "generalized_leapfrog",
    "hamiltonian",
    "hamiltonian_gradient",
    "implicit_momentum_step",
    "implicit_position_step",
    "leapfrog",
    "null_tempering",
    "quadratic_tempering",
    "riemannian_logprior",
    "spherical_logprior",
    "tempered_flow",
]
