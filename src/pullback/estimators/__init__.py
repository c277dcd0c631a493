"""Estimators with scikit-learn's interface: fit, transform, inverse_transform, sample, score, save."""

from pullback.estimators.autoencoder import Autoencoder
from pullback.estimators.base import LatentModel
from pullback.estimators.persistence import load
from pullback.estimators.registry import register_module
from pullback.estimators.samples import Samples
from pullback.estimators.vae import VAE

__all__ = ["VAE", "Autoencoder", "LatentModel", "Samples", "load", "register_module"]
