"""Loading a saved model: the right estimator, from settings and tensors, without running code from files."""

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from pullback.estimators.autoencoder import Autoencoder
from pullback.estimators.base import LatentModel
from pullback.estimators.hvae import HVAE
from pullback.estimators.manifold_dictionary import ManifoldDictionary
from pullback.estimators.parametric_umap import ParametricUMAP
from pullback.estimators.registry import register_module
from pullback.estimators.rhvae import RHVAE
from pullback.estimators.state import restored
from pullback.estimators.vae import VAE
from pullback.io import load_model

__all__ = ["load", "register_module"]

CLASSES: tuple[type[Any], ...] = (Autoencoder, VAE, HVAE, RHVAE, ParametricUMAP)
ESTIMATORS: dict[str, type[Any]] = {cls.__name__: cls for cls in CLASSES}


def load(
    directory: str | os.PathLike, *, modules: Mapping[str, nn.Module] | None = None
) -> LatentModel | ParametricUMAP | ManifoldDictionary:
    """The estimator that `save` wrote, fitted: its `transform` gives the same bits.

    Args:
        directory: the model's folder.
        modules: your own networks, {"encoder": ..., "decoder": ..., "likelihood": ...}, where the model was
            trained with modules of classes that are not registered. They are copied; the stored parameters
            replace theirs.

    Returns:
        An estimator of the class that was saved, on the CPU.

    Raises:
        FileNotFoundError: no model there.
        FormatError: truncated, altered, of another version, or with parts that this program does not know.
        ValueError: ``modules`` lacks a network, or names one that the model does not use.

    Example:
        >>> import tempfile, numpy as np
        >>> X = np.random.default_rng(0).normal(size=(40, 3))
        >>> model = Autoencoder(1, hidden=(4,), max_epochs=1, progress=False, random_state=0).fit(X)
        >>> again = load(model.save(tempfile.mkdtemp()))
        >>> bool((again.transform(X) == model.transform(X)).all())
        True
    """
    if load_model(directory)[0].get("class") == ManifoldDictionary.__name__ and not modules:
        return ManifoldDictionary.load(directory)
    return restored(directory, ESTIMATORS, modules or {})
