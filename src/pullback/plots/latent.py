"""The latent map and the magnification field as matplotlib figures."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from pullback.plots.arguments import check_array, check_labels
from pullback.plots.field import Field, decades, latent_box, magnification_at, magnification_field, typical
from pullback.plots.labels import Labels, read_labels
from pullback.plots.plane import Plane, plane_of
from pullback.plots.style import (
    INK,
    MATPLOTLIB_MARKERS,
    PAPER,
    POINT,
    axes_or_new,
    category_style,
    finish,
    magnification_colormap,
    numeric_colormap,
)


def relative_limits(relative: np.ndarray, off_data: np.ndarray) -> tuple[float, float]:
    """Ends of the colour scale: the range over the data, infinite values left out, at least half a decade."""
    kept = relative[~off_data & np.isfinite(relative)]
    kept = kept if kept.size else relative[np.isfinite(relative)]
    if kept.size == 0:
        return -0.25, 0.25
    low, high = (float(q) for q in np.quantile(kept, [0.01, 0.99]))
    grow = max(0.5 - (high - low), 0.0) / 2
    return low - grow, high + grow


def factor_text(decades: float) -> str:
    """A power of ten as a factor in plain digits: ``-1`` is ``×0.1``."""
    factor = 10.0**decades
    return f"×{factor:.2g}" if 1e-3 <= factor < 1e4 else f"×1e{decades:.0f}"


def factor_ticks(low: float, high: float) -> list[float]:
    """Decades of round factors between two ends, at least three where the range allows it."""
    steps = ([1.0], [1.0, 2.0, 5.0], [1.0, 1.5, 2.0, 3.0, 5.0, 7.0], [1 + i / 5 for i in range(45)])
    found: list[float] = []
    for mantissas in steps:
        found = [
            decade + float(np.log10(mantissa))
            for decade in range(int(np.floor(low)), int(np.ceil(high)) + 1)
            for mantissa in mantissas
        ]
        found = [tick for tick in found if low <= tick <= high]
        if len(found) >= 3:
            break
    stride = 1 + len(found) // 8
    return found[found.index(0.0) % stride if 0.0 in found else 0 :: stride]


def _magnification_bar(ax: Axes, drawn: Any, low: float, high: float) -> None:
    if ax.figure is not None:
        ticks = factor_ticks(low, high)
        bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.85, ticks=ticks)
        bar.set_ticklabels([factor_text(tick) for tick in ticks])
        bar.set_label("magnification, relative to the typical sample")
        bar.outline.set_visible(False)  # type: ignore[operator]


def _draw_field(ax: Axes, field: Field, *, colorbar: bool) -> None:
    low, high = relative_limits(field.relative, field.off_data)
    colormap = magnification_colormap()
    relative = np.nan_to_num(field.relative, nan=low, neginf=low, posinf=high)
    extent = (*field.box[0], *field.box[1])
    image = ax.imshow(
        relative, origin="lower", extent=extent, cmap=colormap, vmin=low, vmax=high, aspect="auto", zorder=0
    )
    veil = np.zeros((*field.nats.shape, 4))
    veil[...] = to_rgba(PAPER)
    veil[..., 3] = field.veil
    ax.imshow(veil, origin="lower", extent=extent, aspect="auto", zorder=0.5)
    if colorbar:
        _magnification_bar(ax, image, low, high)


def _draw_profile(ax: Axes, field: Field) -> None:
    low, high = field.box[0]
    x = low + (high - low) * (np.arange(field.nats.shape[1]) + 0.5) / field.nats.shape[1]
    on = np.where(field.off_data[0], np.nan, field.relative[0])
    ax.plot(x, 10 ** field.relative[0], color=POINT, lw=1, ls=":")
    ax.plot(x, 10**on, color=INK, lw=1.8)
    ax.set_yscale("log")
    ax.set_xlim(low, high)


def draw_points(
    ax: Axes,
    points: np.ndarray,
    labels: Labels | None,
    *,
    size: float = 12.0,
    legend: bool = True,
    rasterized: bool = False,
) -> None:
    """Scatter points ``(n, 2)`` with their labels: a legend for categories, a colour bar for numbers."""
    common: dict[str, Any] = {"s": size, "linewidths": 0.3 if size > 4 else 0, "edgecolors": PAPER}
    common |= {"zorder": 2, "rasterized": rasterized}
    if labels is None:
        ax.scatter(*points.T, color=POINT, **common)
    elif labels.numeric:
        drawn = ax.scatter(*points.T, c=labels.values, cmap=numeric_colormap(), plotnonfinite=True, **common)
        if ax.figure is not None:
            ax.figure.colorbar(drawn, ax=ax, shrink=0.85).set_label(labels.name)
    else:
        for i, name in enumerate(labels.categories):
            color, marker = category_style(i)
            rows = labels.values == i
            ax.scatter(*points[rows].T, color=color, marker=MATPLOTLIB_MARKERS[marker], label=name, **common)
        if not legend:
            return
        ax.legend(
            title=labels.name,
            frameon=False,
            fontsize=8,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            markerscale=1.6,
        )


def magnification_map(
    metric: Any,
    codes: Any,
    *,
    resolution: int = 100,
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw how much the metric stretches a small piece of latent space, relative to the typical sample.

    Two dimensions: a field over the codes' box, faded where there are no data; one dimension: a line; more:
    the codes themselves in the plane of their first two principal axes, coloured by their magnification.

    Args:
        metric: a `Metric`.
        codes: latent codes ``(n, d)``.
        resolution: grid points a side.
        colorbar: draw the scale.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes.

    Example:
        >>> import numpy as np, pullback as pb
        >>> codes = np.random.default_rng(0).normal(size=(50, 2))
        >>> ax = pb.plots.magnification_map(pb.EuclideanMetric(2), codes)
        >>> ax.get_xlabel()
        'latent 1'
    """
    codes = check_array("codes", codes, 2, "(n, d)")
    ax = axes_or_new(ax)
    d = codes.shape[1]
    plane = plane_of(codes)
    if d > 2:
        nats = magnification_at(metric, codes)
        relative = decades(nats, typical(nats))
        low, high = relative_limits(relative, np.zeros(len(codes), dtype=bool))
        drawn = ax.scatter(
            *plane.project(codes).T, c=relative, s=12, cmap=magnification_colormap(), vmin=low, vmax=high,
            edgecolors=POINT, linewidths=0.2,
        )  # fmt: skip
        if colorbar:
            _magnification_bar(ax, drawn, low, high)
        return finish(ax, "Magnification", plane.axis_names)  # type: ignore[arg-type]
    field = magnification_field(metric, codes, box=latent_box(codes), resolution=resolution)
    if d == 1:
        _draw_profile(ax, field)
        return finish(ax, "Magnification", ("latent 1", "relative to the typical sample"))
    _draw_field(ax, field, colorbar=colorbar)
    return finish(ax, "Magnification", plane.axis_names)  # type: ignore[arg-type]


def latent_map(
    codes: Any,
    labels: Any = None,
    *,
    label_name: str = "label",
    metric: Any = None,
    max_points: int = 5000,
    random_state: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw the codes, coloured by label, over the magnification field if a metric is given.

    Args:
        codes: latent codes ``(n, d)``; of more than two dimensions the plane of the first two principal axes.
        labels: categories or numbers ``(n,)``.
        label_name: what the labels are.
        metric: a `Metric` whose magnification is drawn behind the points (d = 2).
        max_points: of more codes than this a random sample is drawn, and the title says so.
        random_state: seed of that sample.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes.

    Example:
        >>> import numpy as np, pullback as pb
        >>> codes = np.random.default_rng(0).normal(size=(50, 2))
        >>> ax = pb.plots.latent_map(codes, codes[:, 0] > 0, label_name="right")
        >>> ax.get_legend().get_title().get_text()
        'right'
    """
    codes = check_array("codes", codes, 2, "(n, d)")
    read = None if labels is None else read_labels(check_labels(labels, len(codes)), label_name)
    ax = axes_or_new(ax, (6.0, 4.4))
    plane: Plane = plane_of(codes)
    title = "Latent map"
    if metric is not None and codes.shape[1] == 2:
        _draw_field(ax, magnification_field(metric, codes), colorbar=False)
    if len(codes) > max_points:
        rows = np.sort(np.random.default_rng(random_state).choice(len(codes), max_points, replace=False))
        title = f"Latent map ({max_points} of {len(codes)} points, sampled)"
        codes, read = codes[rows], None if read is None else read.take(rows)
    points = plane.project(codes)
    names = plane.axis_names
    if points.shape[1] == 1:
        jitter = np.random.default_rng(random_state).uniform(-1, 1, len(points))
        points, names = np.stack([points[:, 0], jitter], axis=1), ("latent 1", "")
        ax.set_ylim(-2, 2)
        ax.set_yticks([])
    draw_points(ax, points, read)
    return finish(ax, title, names)
