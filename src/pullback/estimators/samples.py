"""What a model draws: points of data space, where they came from in latent space, and how likely that was."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Samples:
    """Draws from a model; ``np.asarray(samples)`` is ``samples.x``.

    Attributes:
        x: decoded samples in data units, ``(n, p)`` or ``(n, channels, height, width)``.
        z: their latent points ``(n, d)``.
        log_density: log density of ``z`` under the distribution that it was drawn from ``(n,)``, in nats; up
            to a constant where Markov chains drew it, and of position and momentum together where a flow did.
        diagnostics: the method and what it reports about itself: "rows" of the data that draws started from;
            of Markov chains "acceptance", "divergences", "step_size" (of every chain whose end is returned),
            "r_hat", "effective_sample_size", "converged" and "message".

    Example:
        >>> samples = Samples(np.zeros((2, 3)), np.zeros((2, 1)), np.zeros(2))
        >>> len(samples), np.asarray(samples).shape
        (2, (2, 3))
    """

    x: np.ndarray
    z: np.ndarray
    log_density: np.ndarray
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.x, dtype=dtype, copy=copy)


def refuse_options(method: str, options: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for options of a sampler where a method has none."""
    if options:
        raise ValueError(f"options: expected none for method={method!r}, got {', '.join(options)}")
