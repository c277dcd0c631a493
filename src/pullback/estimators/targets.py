"""What a likelihood asks of the data: its parameters, the scaling that leaves a density, and the support."""

import copy
from typing import Any

import numpy as np
from torch import nn

from pullback.estimators.scaling import SCALES, Scaling, chunk_slices
from pullback.inputs import Table
from pullback.models.likelihoods import (
    Bernoulli,
    Categorical,
    Gaussian,
    NegativeBinomial,
    Poisson,
    make_likelihood,
)
from pullback.validation import check_choice

COUNTS = (Poisson, NegativeBinomial)
UNIT_INTERVAL = ("none", "minmax", "maxabs")


def resolve_likelihood(likelihood: Any, n_features: int) -> nn.Module:
    """The likelihood of a name, or a copy of the module that was given.

    "gaussian" has one scale σ for all features, learned with the networks: with a fixed one the balance
    between reconstruction and prior would depend on the units of the data.
    """
    if likelihood == "gaussian":
        return Gaussian("shared")
    if not isinstance(likelihood, str | nn.Module):
        raise TypeError(f"likelihood: expected a name or a module of pullback.models, got {likelihood!r}")
    return copy.deepcopy(make_likelihood(likelihood, n_features))


def resolve_scale(scale: Any, likelihood: nn.Module) -> Any:
    """The scaling to use: "auto" becomes "global" for real numbers and "none" for all else.

    Raises:
        ValueError: a scaling that takes the data out of the support of the likelihood.
    """
    family = type(likelihood).__name__
    if isinstance(scale, str) and scale == "auto":
        return "none" if isinstance(likelihood, (*COUNTS, Bernoulli, Categorical)) else "global"
    if isinstance(likelihood, COUNTS) and scale != "none":
        raise ValueError(
            f"scale: expected 'auto' or 'none' for counts ({family}), got {scale!r}; "
            "the encoder is given log-normalised counts as it is"
        )
    if isinstance(likelihood, Categorical) and scale != "none":
        raise ValueError(f"scale: expected 'auto' or 'none' for classes ({family}), got {scale!r}")
    if isinstance(likelihood, Bernoulli) and scale not in UNIT_INTERVAL:
        raise ValueError(
            f"scale: expected 'auto', 'none', 'minmax' or 'maxabs' for {family} data in [0, 1], got {scale!r}"
        )
    if isinstance(scale, str):
        check_choice("scale", scale, ("auto", *SCALES))
    return scale


def check_targets(table: Table, scaling: Scaling, likelihood: Any) -> None:
    """Raise ``ValueError`` naming the first entry outside the support of the likelihood."""
    for part in chunk_slices(len(table), table.n_features):
        try:
            likelihood.check(scaling.apply(table.rows(part)))
        except ValueError as error:
            where = "X" if part.start == 0 else f"X[{part.start}:]"
            raise ValueError(f"{where} for the {type(likelihood).__name__} likelihood: {error}") from error


def observed_library(likelihood: nn.Module) -> bool:
    """Whether each row is scaled by its own total, so that decoding needs one to be chosen."""
    return getattr(likelihood, "library", None) == "observed"


def most_likely_classes(probabilities: np.ndarray, likelihood: nn.Module) -> np.ndarray:
    """Class indices ``(n, p)`` from class probabilities ``(n, p·K)``, as the data hold them."""
    if not isinstance(likelihood, Categorical) or likelihood.one_hot:
        return probabilities
    grouped = probabilities.reshape(len(probabilities), -1, likelihood.n_classes)
    return grouped.argmax(axis=-1).astype(probabilities.dtype)
