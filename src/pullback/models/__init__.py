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
from pullback.models.likelihoods import (
    Bernoulli,
    Categorical,
    Gaussian,
    NegativeBinomial,
    Poisson,
    make_likelihood,
)
from pullback.models.marginal import LogLikelihood
from pullback.models.vae import VAE, GaussianPosterior
from pullback.models.weighted import WeightedGaussian

__all__ = [
    "MLP",
    "VAE",
    "Autoencoder",
    "Bernoulli",
    "Categorical",
    "ConvDecoder",
    "ConvEncoder",
    "Evaluation",
    "Gaussian",
    "GaussianPosterior",
    "LogLikelihood",
    "NegativeBinomial",
    "Poisson",
    "Product",
    "Residual",
    "Sine",
    "WeightedGaussian",
    "make_activation",
    "make_likelihood",
]
