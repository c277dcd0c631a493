"""What every estimator whose trained module encodes rows has in common for scikit-learn and for files."""

import os
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from pullback.estimators.state import describe_state
from pullback.io import save_model


class EncodingModel(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base class of estimators that are fitted once they have a ``module_``."""

    def save(self, directory: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Write the fitted model to a folder (``config.json``, ``model.safetensors``) for `pullback.load`.

        Args:
            directory: made if absent.
            overwrite: replace a model that it already holds.

        Returns:
            The folder.

        Raises:
            FileExistsError: the folder holds a model and ``overwrite`` is False.
            TypeError: an option cannot be rebuilt from the file; the message says how to register it.
        """
        check_is_fitted(self)
        return save_model(directory, *describe_state(self), overwrite=overwrite)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
