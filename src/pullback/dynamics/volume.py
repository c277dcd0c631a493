"""Samples from the volume measure of a metric, or from its inverse: points where the data are."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.dynamics.chains import (
    Chains,
    GeneratorNoise,
    Progress,
    check_number,
    check_run,
    random_numbers,
    run_chains,
)
from pullback.dynamics.hmc import FlatKernel
from pullback.dynamics.potential import differentiated
from pullback.dynamics.priors import spherical_logprior
from pullback.dynamics.supports import SUPPORTS, Support, within_balls, within_box
from pullback.metrics import BaseMetric, CentroidMetric, as_metric
from pullback.metrics.centroid_volume import CentroidVolume
from pullback.validation import check_choice, check_points, check_positive, check_whole

Density = Literal["inverse_volume", "volume"]


class VolumePotential:
    """U = ±½ log det G(z), and -log N(z; 0, I) besides if the prior is the support.

    Args:
        metric: a `CentroidMetric` is prepared once; log det of any other is differentiated by autograd, or by
            tr(G⁻¹ ∂G) where it has no graph.
        density: "inverse_volume" for π ∝ (det G)^-½, "volume" for π ∝ (det G)^½.
        prior: whether N(0, I) is a factor of π.
    """

    def __init__(self, metric: BaseMetric, density: Density, *, prior: bool):
        self._sign = 0.5 if density == "inverse_volume" else -0.5
        self._metric, self._prior = metric, prior
        self._volume = CentroidVolume(metric) if isinstance(metric, CentroidMetric) else None

    def __call__(self, z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U."""
        return self.value_and_gradient(z)[0]

    def value_and_gradient(self, z: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
        """U and its gradient; NaN where a point has no volume."""
        logdet, slope = self._volume(z) if self._volume is not None else self._spared(z)
        value, gradient = self._sign * logdet, self._sign * slope
        return (value - spherical_logprior(z), gradient + z) if self._prior else (value, gradient)

    def gradient(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The gradient alone."""
        slope = self._volume.gradient(z) if self._volume is not None else self._spared(z)[1]
        return torch.add(z, slope, alpha=self._sign) if self._prior else slope.mul_(self._sign)

    @property
    def nearest(self) -> Callable[[Tensor], Tensor] | None:
        """The distance to the nearest centroid, where there are any."""
        return None if self._volume is None else self._volume.nearest

    def check(self, z: Float[Tensor, "n d"]) -> None:
        """Raise what the metric raises: later a point without volume is a rejection."""
        if self._volume is None:
            self._differentiated(z)

    def _spared(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log det G and its gradient, NaN at points where the metric has none: they must spoil no other."""
        try:
            return self._differentiated(z)
        except ValueError:
            if len(z) == 1:
                return z.new_full((1,), torch.nan), torch.full_like(z, torch.nan)
        parts = [self._spared(part) for part in z.split((len(z) + 1) // 2)]
        return torch.cat([value for value, _ in parts]), torch.cat([slope for _, slope in parts])

    def _differentiated(self, z: Tensor) -> tuple[Tensor, Tensor]:
        traced = False

        def logdet(point: Tensor) -> Tensor:
            nonlocal traced
            value = self._metric.logdet(point)
            traced = value.requires_grad
            return value

        value, slope = differentiated(logdet, z)
        if not traced:
            slope = torch.einsum("nab,nabc->nc", self._metric.inverse(z), self._metric.derivative(z))
        return value, slope


def volume_sampler(
    metric: Any,
    n: int,
    *,
    density: Density = "inverse_volume",
    support: Support = "balls",
    radius: float | int = 2.0,
    start: Float[Tensor, "N d"] | None = None,
    scale: float | int | None = None,
    n_steps: int = 100,
    n_leapfrog: int = 15,
    step_size: float | int | None = None,
    warmup: int = 0,
    target_acceptance: float | int = 0.8,
    jitter: float | int = 0.3,
    generator: torch.Generator | None = None,
    keep_draws: bool = False,
    progress: Progress | None = None,
) -> Chains:
    """n independent points from π ∝ (det G)^-½, which for a learned metric is high where the data are.

    Each point is the end of a Hamiltonian Monte Carlo chain with flat momentum, force ∓½ ∇ log det G and
    acceptance in log space. Far from all centroids π is a constant above zero, so that it has an integral on
    a support only: proposals outside are rejected.

    With centroids far apart a chain stays in the ball where it started, and the balls are weighted by their
    number and not by π; R̂ is large then. The volume (det G)^½ of a learned metric lies at the rim of the
    support, which long paths leave: take few leapfrog steps and more transitions.

    Chadebec, Allassonnière 2022, "A geometric perspective on variational autoencoders".

    Args:
        metric: a `CentroidMetric`, or any metric together with ``start``.
        n: chains, and points returned.
        density: "inverse_volume", or "volume" for π ∝ (det G)^½, as for a metric pulled back by a decoder.
        support: "balls" of ``radius`` scales around the centres; "box", their range widened by as much; or
            "prior", which multiplies π by N(0, I) instead.
        radius: in units of ``scale``.
        start: points, (N, d), at random ones of which chains start; the centroids if not given. For a metric
            without centroids they are also the centres of the support.
        scale: a length; the temperature of a `CentroidMetric` if not given, 1 for the prior.
        n_steps: transitions; the diagnostics see the second half of them.
        n_leapfrog: leapfrog steps a transition.
        step_size: ½ scale/√d if not given.
        warmup: transitions before, that find a step size for every chain.
        target_acceptance, jitter, generator, keep_draws, progress: as for `sample_hmc`.
    Returns:
        `Chains`; ``log_density`` is ∓½ log det G (and the log density of the prior), without the constant
        that makes π integrate to 1.
    Raises:
        ValueError: unknown options, options out of range, or centres or a scale that no one knows.
    Example:
        >>> import torch, pullback as pb
        >>> c = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
        >>> metric = pb.CentroidMetric(c, torch.eye(2).repeat(2, 1, 1), temperature=0.5, regularization=1e-3)
        >>> chains = volume_sampler(metric, 200)
        >>> bool((torch.cdist(chains.z, c).amin(1) <= 1.0).all())
        True
        >>> bool(chains.acceptance.mean() > 0.7)
        True
    """
    metric = as_metric(metric)
    check_whole("n", n)
    check_choice("density", density, ("inverse_volume", "volume"))
    check_choice("support", support, SUPPORTS)
    check_positive("radius", check_number("radius", radius))
    length = _scale(metric, scale, support)
    points = _points(metric, start, support)
    draw = random_numbers(points, generator)
    if points is None:
        begin = torch.empty(int(n), metric.dim or 0).normal_(generator=draw)
    else:
        begin = points[_rows(len(points), int(n), draw)]
    epsilon = 0.5 * length / begin.shape[1] ** 0.5 if step_size is None else step_size
    z = check_run(
        begin,
        n_steps=n_steps,
        n_leapfrog=n_leapfrog,
        step_size=epsilon,
        warmup=warmup,
        target_acceptance=target_acceptance,
        jitter=jitter,
        generator=generator,
        progress=progress,
    )
    potential = VolumePotential(metric, density, prior=support == "prior")
    potential.check(z)
    inside = None
    if support != "prior":
        assert points is not None
        inside = _support(metric, points, support, float(radius) * length, potential)
        outside = ~inside(z)
        if bool(outside.any()):
            point = z[int(outside.nonzero()[0])].tolist()
            raise ValueError(f"start: expected points within the support {support!r}, got {point} outside")
    return run_chains(
        FlatKernel(potential, n_leapfrog=int(n_leapfrog), inside=inside),
        z,
        n_steps=int(n_steps),
        step_size=float(epsilon),
        noise=GeneratorNoise(z, draw),
        warmup=int(warmup),
        discard=int(n_steps) // 2,
        target_acceptance=float(target_acceptance),
        jitter=float(jitter),
        keep_draws=keep_draws,
        progress=progress,
    )


def _scale(metric: BaseMetric, scale: float | int | None, support: Support) -> float:
    """The length that was given, the temperature, or the prior's."""
    if scale is None and isinstance(metric, CentroidMetric):
        return float(metric.temperature)
    if scale is None and support == "prior":
        return 1.0
    if scale is None:
        raise ValueError(
            f"scale: expected a length, the unit of radius, for support {support!r} and a metric without "
            "temperature, got None"
        )
    length = check_number("scale", scale)
    check_positive("scale", length)
    return length


def _points(metric: BaseMetric, start: Any, support: Support) -> Tensor | None:
    """Where chains may start; None where the prior says."""
    if start is not None:
        points = check_points("start", start, metric.dim)
        if len(points) == 0 or points.shape[1] == 0:
            raise ValueError(f"start: expected at least one point, got {tuple(points.shape)}")
        if isinstance(metric, CentroidMetric) and points.dtype != metric.centroids.dtype:
            raise ValueError(f"start: expected {metric.centroids.dtype} like centroids, got {points.dtype}")
        return points.detach()
    if isinstance(metric, CentroidMetric):
        return metric.centroids.detach()
    if support != "prior":
        raise ValueError(
            f"start: expected points (N, d), the centres of support {support!r}, for a metric without "
            "centroids, got None"
        )
    if metric.dim is None:
        raise ValueError("start: expected points (N, d) for a metric of no fixed dimension, got None")
    return None


def _rows(count: int, n: int, draw: torch.Generator) -> Tensor:
    """n random rows, none taken again before all are."""
    rounds = [torch.randperm(count, generator=draw, device=draw.device) for _ in range(-(-n // count))]
    return torch.cat(rounds)[:n]


def _support(
    metric: BaseMetric, points: Tensor, support: Support, reach: float, potential: VolumePotential
) -> Callable[[Tensor], Tensor]:
    """Whether points lie in the support around the centroids, or around the points for another metric."""
    centres = metric.centroids.detach() if isinstance(metric, CentroidMetric) else points
    if support == "box":
        return within_box(centres, reach)
    return within_balls(centres, reach, potential.nearest)
