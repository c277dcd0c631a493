"""Ambient metrics: the metric W of data space, known by what it does and never formed.

An ambient multiplies vectors of data space by W(y). Where W is the pullback of a flat metric, it also offers
the flattening map phi with W(y) = (d phi)ᵀ(d phi); then phi after a decoder is an isometric embedding of the
latent space, and every formula for surfaces in Euclidean space applies to it.
"""

from pullback.ambient.base import Constant
from pullback.ambient.fisher import Bernoulli, Categorical, Gaussian, NegativeBinomial, Poisson
from pullback.ambient.flattenings import (
    BernoulliFlattening,
    CategoricalFlattening,
    NegativeBinomialFlattening,
    PoissonFlattening,
    ScaleFlattening,
)
from pullback.ambient.learned import LearnedGaussian, LearnedNegativeBinomial, Paired
from pullback.ambient.linear import Diagonal, Euclidean, LowRank

__all__ = [
    "Bernoulli",
    "BernoulliFlattening",
    "Categorical",
    "CategoricalFlattening",
    "Constant",
    "Diagonal",
    "Euclidean",
    "Gaussian",
    "LearnedGaussian",
    "LearnedNegativeBinomial",
    "LowRank",
    "NegativeBinomial",
    "NegativeBinomialFlattening",
    "Paired",
    "Poisson",
    "PoissonFlattening",
    "ScaleFlattening",
]
