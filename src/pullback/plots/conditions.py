"""The condition number of the metric over the latent map."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes

from pullback.metrics import as_metric
from pullback.plots.arguments import check_array, check_dims
from pullback.plots.field import grid_points, latent_box, latent_tensor, light_metric, remoteness
from pullback.plots.latent import factor_ticks
from pullback.plots.plane import plane_of
from pullback.plots.style import POINT, axes_or_new, condition_colormap, finish
from pullback.plots.veiled import VeiledField, draw_veiled, scale_beside
from pullback.validation import check_positive, check_whole

RESOLUTION = 70
QUANTILE = 0.98
LEAST_LIMIT = 2.0
"""A scale that ended below would paint differences that do not matter."""


@dataclass(frozen=True)
class ConditionField(VeiledField):
    """Condition numbers on a regular grid of a plane; infinity where the metric is singular."""

    @property
    def limit(self) -> float:
        """The end of the colour scale, from what lies on the data."""
        return condition_limit(self.values[self.remoteness <= 1])


def condition_numbers(
    metric: Any, z: Float[np.ndarray, "n d"], *, chunk_size: int = 500
) -> Float[np.ndarray, " n"]:
    """Largest over smallest eigenvalue of g at each point, ``(n,)``; infinity where g is singular."""
    values = []
    for chunk in latent_tensor(metric, z).split(chunk_size):
        # float64: the ratio of eigenvalues is lost in float32 beyond 1e7.
        g = metric.tensor(chunk).detach().double()
        eigenvalues = torch.linalg.eigvalsh(torch.where(torch.isfinite(g), g, 0.0))
        low, high = eigenvalues[:, 0], eigenvalues[:, -1]
        regular = torch.isfinite(g).flatten(1).all(1) & (low > 0)
        values.append(torch.where(regular, high / low, torch.inf))
    return torch.cat(values).cpu().numpy()


def condition_limit(values: np.ndarray) -> float:
    """The 98 % quantile of the finite values, at least 2."""
    finite = values[np.isfinite(values)]
    return max(float(np.quantile(finite, QUANTILE)), LEAST_LIMIT) if finite.size else LEAST_LIMIT


def shades(values: np.ndarray, limit: float) -> np.ndarray:
    """log10 of condition numbers, what is beyond the limit at the limit: what the colours show."""
    return np.log10(np.clip(values, 1.0, limit))


def condition_ticks(limit: float) -> dict[float, str]:
    """Where the scale of `shades` is marked, and what stands there: plain condition numbers."""
    return {tick: f"{10**tick:.3g}" for tick in factor_ticks(0.0, float(np.log10(limit)))}


def condition_field(
    metric: Any,
    codes: Float[np.ndarray, "n 2"],
    *,
    box: Float[np.ndarray, "2 2"] | None = None,
    resolution: int = RESOLUTION,
) -> ConditionField:
    """Evaluate the condition number on a grid over ``box`` (None: the codes' box, margin 10 %)."""
    box = latent_box(codes) if box is None else box
    points = grid_points(box, resolution)
    values = condition_numbers(light_metric(metric), points)
    far = remoteness(points, codes)
    return ConditionField(box, values.reshape(resolution, -1), far.reshape(resolution, -1))


def condition_map(
    metric: Any,
    codes: Any,
    *,
    resolution: int = RESOLUTION,
    limit: float | None = None,
    dims: tuple[int, int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how unequal the directions are: largest over smallest eigenvalue of the metric, 1 on a true map.

    Two dimensions: a field over the codes' box, grey where there are no data. More: the codes themselves,
    coloured by the condition number of the whole metric. The scale is logarithmic.

    Args:
        metric: a `Metric`.
        codes: latent codes ``(n, d)``, d >= 2.
        resolution: grid points a side.
        limit: the condition number at which the scale ends, to compare two maps; None is the 98 % quantile
            over the data, at least 2.
        dims: of more than two dimensions, the two to draw along; None: the first two principal axes.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes.

    Example:
        >>> import numpy as np, torch, pullback as pb
        >>> codes = np.random.default_rng(0).normal(size=(50, 2))
        >>> metric = pb.PullbackMetric(lambda z: z * torch.tensor([1.0, 3.0]))
        >>> ax = pb.plots.condition_map(metric, codes, resolution=20)
        >>> [round(10 ** float(end), 6) for end in ax.images[0].get_clim()]
        [1.0, 9.0]
    """
    metric = as_metric(metric)
    codes = check_array("codes", codes, 2, "(n, d)")
    dims = check_dims(dims, codes.shape[1])
    check_whole("resolution", resolution, minimum=2)
    if limit is not None:
        check_positive("limit", limit)
        if not 1 < limit < np.inf:
            raise ValueError(f"limit: expected a condition number above 1, got {limit}")
    plane = plane_of(codes, dims)
    ax = axes_or_new(ax, (6.0, 5.0))
    colormap = condition_colormap()
    if not plane.exact:
        values = condition_numbers(light_metric(metric), codes)
        limit = condition_limit(values) if limit is None else limit
        drawn = ax.scatter(
            *plane.project(codes).T, c=shades(values, limit), s=16, cmap=colormap, vmin=0.0,
            vmax=np.log10(limit), edgecolors=POINT, linewidths=0.3,
        )  # fmt: skip
        ax.set_aspect("equal", adjustable="datalim")
    else:
        field = condition_field(metric, codes, resolution=resolution)
        limit = field.limit if limit is None else limit
        drawn = draw_veiled(
            ax,
            field.box,
            shades(field.values, limit),
            veil=field.veil,
            colormap=colormap,
            low=0.0,
            high=float(np.log10(limit)),
        )
        ax.scatter(*codes.T, s=3, color=POINT, alpha=0.35, linewidths=0, zorder=1)
    ticks = condition_ticks(limit)
    bar = scale_beside(ax, drawn, "condition number (log scale)", extend="max", ticks=list(ticks))
    if bar is not None:
        bar.set_ticklabels(list(ticks.values()))
    return finish(ax, "Condition number", plane.axis_names)
