"""Riemannian metrics on a latent space."""

from pullback.metrics.base import BaseMetric, TensorMetric, as_metric, checked_tensor, from_tensor
from pullback.metrics.euclidean import EuclideanMetric
from pullback.metrics.pullback import PullbackMetric

__all__ = [
    "BaseMetric",
    "EuclideanMetric",
    "PullbackMetric",
    "TensorMetric",
    "as_metric",
    "checked_tensor",
    "from_tensor",
]
