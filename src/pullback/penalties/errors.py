"""What can go wrong with a penalty that is not a wrong shape."""


class MissingJetError(ValueError):
    """A derivative of the decoder is needed that nobody gave."""


class DegenerateMetricError(ValueError):
    """All Jacobians vanish, so the mean of the metric is zero and a scale-free residual has no meaning."""


class UnnormalisedPriorError(ValueError):
    """A log-strength cannot be learned from a penalty whose normaliser is not known."""


class ReferenceScaleWarning(UserWarning):
    """A reference metric whose mean trace is not 1 a dimension, which no scale-free metric can match."""
