"""Hamiltonian dynamics on a latent space: energies, integrators, tempered flows, samplers.

Everything is a pure function of positions z, momenta ρ, a metric and a potential.
"""

from pullback.dynamics.chains import Chains
from pullback.dynamics.diagnostics import effective_sample_size, split_r_hat
from pullback.dynamics.hamiltonian import hamiltonian, hamiltonian_gradient
from pullback.dynamics.hmc import sample_hmc
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
from pullback.dynamics.rhmc import sample_rhmc
from pullback.dynamics.tempering import Flow, null_tempering, quadratic_tempering, tempered_flow
from pullback.dynamics.volume import volume_sampler

__all__ = [
    "Chains",
    "Flow",
    "LeapfrogStep",
    "ModelPotential",
    "Potential",
    "as_potential",
    "effective_sample_size",
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
    "sample_hmc",
    "sample_rhmc",
    "spherical_logprior",
    "split_r_hat",
    "tempered_flow",
    "volume_sampler",
]
