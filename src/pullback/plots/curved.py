"""The curvature of the metric over the latent map."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes

from pullback.geometry.curvatures import curvature
from pullback.geometry.kinks import kinks_of
from pullback.metrics import as_metric
from pullback.plots.arguments import check_array, check_dims
from pullback.plots.field import (
    FADE_END,
    grid_points,
    latent_box,
    latent_tensor,
    light_metric,
    regular,
    remoteness,
    tensor_at,
)
from pullback.plots.plane import Plane, plane_of
from pullback.plots.style import MUTED, POINT, axes_or_new, diverging_colormap, finish
from pullback.plots.veiled import VeiledField, draw_veiled, scale_beside
from pullback.validation import check_whole

RESOLUTION = 70
QUANTILE = 0.95
MOST_POINTS = 500
# Numbers of the Riemann tensors that are held at a time, and in all.
CHUNK_NUMBERS = 2**22
MOST_NUMBERS = 2**26

KINKS = (
    "The decoder is linear piece by piece:\nits curvature sits in the kinks between the pieces,\n"
    "where derivatives do not see it. A map of it would\nshow zero and mean nothing. Train with a smooth\n"
    "activation (SiLU, GELU, Tanh, Softplus)."
)


@dataclass(frozen=True)
class CurvatureField(VeiledField):
    """Gaussian curvature on a regular grid of a latent space of two dimensions; NaN far off the data."""

    @property
    def limit(self) -> float:
        """The end of the colour scale, from what lies on the data."""
        return symmetric_limit(self.values[self.remoteness <= 1])


def kinks(metric: Any) -> str | None:
    """What makes second derivatives of a metric's decoder meaningless, or None."""
    return kinks_of(as_metric(metric))[0]


def symmetric_limit(values: np.ndarray) -> float:
    """The 95 % quantile of the absolute finite values: the two ends of a diverging scale."""
    finite = np.abs(values[np.isfinite(values)])
    limit = float(np.quantile(finite, QUANTILE)) if finite.size else 0.0
    return limit if limit > 0 else 1.0


def curvature_at(metric: Any, z: Float[np.ndarray, "n d"], plane: Plane) -> Float[np.ndarray, " n"]:
    """Sectional curvature of the page's two directions at each point (Gaussian where d = 2).

    NaN where the metric is degenerate.
    """
    found = np.full(len(z), np.nan)
    good = np.flatnonzero(regular(tensor_at(metric, z)))
    light = light_metric(metric)
    d = z.shape[1]
    size = max(1, CHUNK_NUMBERS // d**4)
    u, v = latent_tensor(metric, plane.basis)
    for rows in np.split(good, range(size, len(good), size)):
        with torch.no_grad():
            known = curvature(light, latent_tensor(metric, z[rows]))
            values = known.sectional(u, v) if known.gaussian is None else known.gaussian
        found[rows] = values.double().cpu().numpy()
    return found


def curvature_field(
    metric: Any,
    codes: Float[np.ndarray, "n 2"],
    *,
    box: Float[np.ndarray, "2 2"] | None = None,
    resolution: int = RESOLUTION,
) -> CurvatureField:
    """Evaluate the Gaussian curvature on a grid over ``box`` (None: the codes' box, margin 10 %)."""
    box = latent_box(codes) if box is None else box
    points = grid_points(box, resolution)
    far = remoteness(points, codes)
    near = far < FADE_END
    values = np.full(len(points), np.nan)
    values[near] = curvature_at(metric, points[near], plane_of(codes))
    return CurvatureField(box, values.reshape(resolution, -1), far.reshape(resolution, -1))


def some_codes(codes: Float[np.ndarray, "n d"], random_state: int) -> np.ndarray:
    """As many rows as curvature tensors are affordable for, chosen at random."""
    most = int(np.clip(MOST_NUMBERS // codes.shape[1] ** 4, 16, MOST_POINTS))
    rows = np.random.default_rng(random_state).permutation(len(codes))[:most]
    return np.sort(rows)


def say(ax: Axes, text: str) -> Axes:
    """A sentence in the place of a figure."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED, fontsize=10)
    return ax


def curvature_map(
    metric: Any,
    codes: Any,
    *,
    resolution: int = RESOLUTION,
    dims: tuple[int, int] | None = None,
    random_state: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw where the data bend: red like a ball, blue like a saddle, white not at all.

    Two dimensions: the Gaussian curvature K as a field, grey where there are no data. A small circle of
    radius r is shorter than 2πr by the share K r²/6, and geodesics that start side by side come together
    (K > 0) or part (K < 0). More dimensions: at codes, the sectional curvature of the two directions of the
    page. The scale ends at the 95 % quantile of |K| over the data.

    do Carmo 1992, "Riemannian Geometry", chapter 4.

    Args:
        metric: a `Metric`.
        codes: latent codes ``(n, d)``, d >= 2.
        resolution: grid points a side.
        dims: of more than two dimensions, the two whose directions are measured; None: the first two
            principal axes of the codes.
        random_state: seed of the sample of codes that is measured where d > 2.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes; of a decoder that is linear piece by piece, with a sentence in place of zeros.

    Example:
        >>> import numpy as np, pullback as pb
        >>> from pullback.geometry.reference import Sphere
        >>> codes = np.random.default_rng(0).normal(size=(50, 2))
        >>> ax = pb.plots.curvature_map(pb.PullbackMetric(Sphere().embedding), codes, resolution=20)
        >>> round(float(np.nanmedian(ax.images[0].get_array().filled(np.nan))), 3)
        1.0
    """
    metric = as_metric(metric)
    codes = check_array("codes", codes, 2, "(n, d)")
    dims = check_dims(dims, codes.shape[1])
    check_whole("resolution", resolution, minimum=2)
    plane = plane_of(codes, dims)
    ax = axes_or_new(ax, (6.0, 5.0))
    name = "Gaussian curvature" if plane.exact else "Sectional curvature of the page's directions"
    if kinks(metric) is not None:
        return finish(say(ax, KINKS), name, plane.axis_names)
    ax.set_aspect("equal", adjustable="datalim")
    label = "K, in 1/length²"
    if not plane.exact:
        rows = some_codes(codes, random_state)
        values = curvature_at(metric, codes[rows], plane)
        limit = symmetric_limit(values)
        drawn = ax.scatter(
            *plane.project(codes[rows]).T, c=values, s=16, cmap=diverging_colormap(), vmin=-limit, vmax=limit,
            edgecolors=POINT, linewidths=0.3,
        )  # fmt: skip
        scale_beside(ax, drawn, label)
        title = name if len(rows) == len(codes) else f"{name}\n({len(rows)} of {len(codes)} codes, sampled)"
        return finish(ax, title, plane.axis_names)
    field = curvature_field(metric, codes, resolution=resolution)
    image = draw_veiled(
        ax,
        field.box,
        field.values,
        veil=field.veil,
        colormap=diverging_colormap(),
        low=-field.limit,
        high=field.limit,
    )
    ax.scatter(*codes.T, s=3, color=POINT, alpha=0.35, linewidths=0, zorder=1)
    scale_beside(ax, image, label)
    return finish(ax, name, plane.axis_names)
