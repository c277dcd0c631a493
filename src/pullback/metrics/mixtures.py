"""Expected metrics of random decoders: of a decoder with noise, and of several decoders."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pullback.metrics.base import SumMetric
from pullback.metrics.decoders import output_width, width_at
from pullback.metrics.pullback import PullbackMetric
from pullback.typing import Ambient, Map


class ExpectedPullbackMetric(SumMetric):
    """Expected pullback metric of the random decoder μ(z) + σ(z) ⊙ ε, ε ~ N(0, I): JμᵀJμ + JσᵀJσ.

    Its embedding is (μ, σ) side by side. It is not the Fisher metric of the normal N(μ, σ²), which divides by
    σ²: that is ``PullbackMetric(decoder, ambient=LearnedGaussian())``.

    Arvanitidis, Hansen, Hauberg 2018, "Latent space oddity: on the curvature of deep generative models".

    Args:
        mean, scale: maps (n, d) -> (n, p), μ and σ (not log σ).
    Raises:
        TypeError: one is not callable; ValueError: another number of outputs than the other's, at the first
            point where the layers do not tell it.
    Example:
        >>> import torch
        >>> noisy = ExpectedPullbackMetric(lambda z: z, lambda z: z**2 / 2)
        >>> noisy.tensor(torch.tensor([[1.0, 2.0]]))
        tensor([[[2., 0.],
                 [0., 5.]]])
    """

    def __init__(self, mean: Map, scale: Map):
        for name, given in (("mean", mean), ("scale", scale)):
            if not callable(given):
                raise TypeError(f"{name}: expected a map (n, d) -> (n, p), got {type(given).__name__}")
        super().__init__([PullbackMetric(mean), PullbackMetric(scale)])
        self.mean, self.scale = mean, scale
        self._alike = False
        self._check_widths(output_width(mean), output_width(scale))

    def _check(self, z: Tensor, *, rank: bool = True) -> None:
        super()._check(z, rank=rank)
        if not self._alike and len(z):
            self._check_widths(width_at(self.mean, z), width_at(self.scale, z))
            self._alike = True

    def _check_widths(self, mean: int | None, scale: int | None) -> None:
        """Raise ``ValueError`` for different numbers of outputs; None is not known."""
        if None not in (mean, scale) and mean != scale:
            raise ValueError(f"scale: expected p={mean} outputs like mean, got {scale}")

    def __repr__(self) -> str:
        return f"ExpectedPullbackMetric({type(self.mean).__name__}, {type(self.scale).__name__})"


class EnsembleMetric(SumMetric):
    """Mean of the pullback metrics of several decoders of one latent space.

    Its embedding is the stack of phi∘f_k/√count, so both ends of a segment are seen by the same members:
    members drawn anew at each node would add their variance to the energy, more of it on a finer mesh.

    Args:
        decoders: at least one map (n, d) -> (n, p).
        ambient: metric of data space, the same for all; None is Euclidean.
    Example:
        >>> import torch
        >>> metric = EnsembleMetric([lambda z: z, lambda z: 3 * z])
        >>> metric.tensor(torch.zeros(1, 2))
        tensor([[[5., 0.],
                 [0., 5.]]])
    """

    def __init__(self, decoders: Sequence[Map], ambient: Ambient | None = None):
        if not isinstance(decoders, Sequence) or len(decoders) == 0:
            raise ValueError(
                f"decoders: expected a list of at least one map (n, d) -> (n, p), got {_named(decoders)}"
            )
        for number, decoder in enumerate(decoders):
            if not callable(decoder):
                raise TypeError(
                    f"decoders: expected maps (n, d) -> (n, p), got {type(decoder).__name__} at {number}"
                )
        count = len(decoders)
        super().__init__([PullbackMetric(f, ambient) for f in decoders], [1 / count] * count)
        self.decoders, self.ambient = tuple(decoders), ambient

    def __repr__(self) -> str:
        names = ", ".join(type(f).__name__ for f in self.decoders)
        return f"EnsembleMetric([{names}], ambient={_named(self.ambient)})"


def _named(value: Any) -> str:
    return "None" if value is None else "an empty list" if value in ([], ()) else type(value).__name__
