"""Estimators with scikit-learn's interface: fit, transform, inverse_transform, sample, score, save."""

from pullback.estimators.autoencoder import Autoencoder
from pullback.estimators.base import LatentModel
from pullback.estimators.editing import Edited
from pullback.estimators.explaining import explain
from pullback.estimators.hvae import HVAE
from pullback.estimators.manifold_dictionary import ManifoldDictionary
from pullback.estimators.parametric_umap import ParametricUMAP
from pullback.estimators.persistence import load
from pullback.estimators.registry import register_module
from pullback.estimators.rhvae import RHVAE
from pullback.estimators.samples import Samples
from pullback.estimators.subspace_partition import SubspacePartition
from pullback.estimators.vae import VAE
from pullback.estimators.variational import VariationalModel

__all__ = [
    "HVAE",
    "RHVAE",
    "VAE",
    "Autoencoder",
    "Edited",
    "LatentModel",
    "ManifoldDictionary",
    "ParametricUMAP",
    "Samples",
    "SubspacePartition",
    "VariationalModel",
    "explain",
    "load",
    "register_module",
]
