"""Riemannian metrics on a latent space."""

from pullback.metrics.base import (
    BaseMetric,
    SumMetric,
    TensorMetric,
    as_metric,
    checked_tensor,
    from_tensor,
)
from pullback.metrics.centroid import CentroidMetric
from pullback.metrics.conformal import ConformalMetric
from pullback.metrics.euclidean import EuclideanMetric
from pullback.metrics.mixtures import EnsembleMetric, ExpectedPullbackMetric
from pullback.metrics.pullback import PullbackMetric

__all__ = [
    "BaseMetric",
    "CentroidMetric",
    "ConformalMetric",
    "EnsembleMetric",
    "EuclideanMetric",
    "ExpectedPullbackMetric",
    "PullbackMetric",
    "SumMetric",
    "TensorMetric",
    "as_metric",
    "checked_tensor",
    "from_tensor",
]
