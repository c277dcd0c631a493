"""Models: networks, likelihoods and what they make of a batch. No training here."""

from pullback.models.autoencoder import Autoencoder, Evaluation
from pullback.models.blocks import (
    MLP,
    ConvDecoder,
    ConvEncoder,
    Product,
    Residual,
    Sine,
    make_activation,
)
from pullback.models.centroids import select_centroids
from pullback.models.elbo import Elbo
from pullback.models.encoders import ScaleLayerNorm, create_encoder, register_encoder, view_registry
from pullback.models.flow_model import FlowModel, FlowOutput
from pullback.models.hvae import HVAE, hamiltonian_elbo, potential_energy, potential_energy_gradient
from pullback.models.likelihoods import (
    Bernoulli,
    Categorical,
    Gaussian,
    NegativeBinomial,
    Poisson,
    make_likelihood,
)
from pullback.models.marginal import LogLikelihood
from pullback.models.metric_network import MetricNetwork, MetricParts
from pullback.models.rhvae import (
    RHVAE,
    TrainingStep,
    riemannian_hamiltonian_elbo,
    training_step,
    update_metric,
)
from pullback.models.vae import VAE, GaussianPosterior
from pullback.models.weighted import WeightedGaussian

__all__ = [
    "HVAE",
    "MLP",
    "RHVAE",
    "VAE",
    "Autoencoder",
    "Bernoulli",
    "Categorical",
    "ConvDecoder",
    "ConvEncoder",
    "Elbo",
    "Evaluation",
    "FlowModel",
    "FlowOutput",
    "Gaussian",
    "GaussianPosterior",
    "LogLikelihood",
    "MetricNetwork",
    "MetricParts",
    "NegativeBinomial",
    "Poisson",
    "Product",
    "Residual",
    "ScaleLayerNorm",
    "Sine",
    "TrainingStep",
    "WeightedGaussian",
    "create_encoder",
    "hamiltonian_elbo",
    "make_activation",
    "make_likelihood",
    "potential_energy",
    "potential_energy_gradient",
    "register_encoder",
    "riemannian_hamiltonian_elbo",
    "select_centroids",
    "training_step",
    "update_metric",
    "view_registry",
]
