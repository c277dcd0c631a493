"""Geodesics against straight lines, and what is decoded along them, as matplotlib figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pullback.plots.arguments import check_array, check_image_shape
from pullback.plots.images import most_changing, pixels, strip, value_limits
from pullback.plots.latent import magnification_map
from pullback.plots.plane import plane_of
from pullback.plots.style import (
    GEODESIC,
    INK,
    PAPER,
    POINT,
    STRAIGHT,
    axes_or_new,
    diverging_colormap,
    finish,
    shortened,
)


def geodesic_paths(
    paths: Any,
    codes: Any = None,
    *,
    metric: Any = None,
    straight: bool = True,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw geodesics as solid lines and the straight lines between the same ends as dashed ones.

    Args:
        paths: a `Geodesic`, or nodes ``(pairs, nodes, d)``.
        codes: latent codes ``(n, d)``, drawn faintly; they set the view where d > 2.
        metric: a `Metric` whose magnification is drawn behind (d = 2, needs ``codes``).
        straight: draw the straight lines too.
        names: what to write at the middle of each geodesic.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes.

    Example:
        >>> import numpy as np, pullback as pb
        >>> turn = np.linspace(0, 3, 20)
        >>> arc = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        >>> ax = pb.plots.geodesic_paths(arc[None])
        >>> len(ax.lines)
        2
    """
    nodes = check_array("paths", getattr(paths, "points", paths), 3, "(pairs, nodes, d)")
    ax = axes_or_new(ax, (6.0, 4.4))
    flat = nodes.reshape(-1, nodes.shape[2])
    reference = flat if codes is None else check_array("codes", codes, 2, "(n, d)")
    if reference.shape[1] != nodes.shape[2]:
        raise ValueError(f"codes: expected (n, {nodes.shape[2]}) like paths, got {reference.shape}")
    plane = plane_of(reference)
    if metric is not None and codes is not None and reference.shape[1] == 2:
        magnification_map(metric, reference, ax=ax)
    if codes is not None:
        ax.scatter(
            *_on_page(plane.project(reference)).T, s=4, color=POINT, alpha=0.35, linewidths=0, zorder=1
        )
    if names is not None and len(names) != len(nodes):
        raise ValueError(f"names: expected one for each of the {len(nodes)} paths, got {len(names)}")
    for i, path in enumerate(nodes):
        drawn = _on_page(plane.project(path))
        entries = ("geodesic", "straight line") if i == 0 else (None, None)
        if straight:
            ax.plot(*drawn[[0, -1]].T, color=STRAIGHT, lw=1.2, ls="--", label=entries[1], zorder=3)
        ax.plot(*drawn.T, color=GEODESIC, lw=1.8, label=entries[0], zorder=4)
        ax.scatter(*drawn[[0, -1]].T, s=22, color=INK, edgecolors=PAPER, linewidths=0.8, zorder=5)
        if names is not None:
            _name(ax, names[i], drawn[len(drawn) // 2])
    ax.legend(frameon=False, fontsize=9)
    axes = plane.axis_names if len(plane.axis_names) == 2 else (*plane.axis_names, "")
    return finish(ax, "Geodesics and straight lines", axes)


def _name(ax: Axes, name: str, place: np.ndarray) -> None:
    ax.annotate(
        name, (float(place[0]), float(place[1])), color=GEODESIC, fontsize=9, fontweight="bold", ha="center",
        va="center", zorder=6, bbox={"facecolor": PAPER, "edgecolor": GEODESIC, "boxstyle": "circle,pad=0.2"},
    )  # fmt: skip


def _on_page(points: np.ndarray) -> np.ndarray:
    """A line of one dimension lies along the first axis."""
    return points if points.shape[1] == 2 else np.concatenate([points, np.zeros_like(points)], axis=1)


def decoded_strip(
    samples: Any,
    *,
    image_shape: Any = None,
    feature_names: Any = None,
    scale: Any = None,
    centre: Any = None,
    n_features: int = 10,
    features: Sequence[int] | np.ndarray | None = None,
    title: str = "Decoded along the path",
    ax: Axes | None = None,
) -> Axes:
    """Draw what is decoded along a path: pictures, or a heat map of the features that change most.

    Args:
        samples: decoded rows ``(k, p)`` in the order of the path.
        image_shape: ``(channels, height, width)`` where rows are pictures.
        feature_names: names of the p features, for the heat map.
        scale: spread of each feature ``(p,)`` in the data; None takes the spread along the path;
            those that change most are then those of the largest range in their own units.
        centre: mean of each feature ``(p,)`` in the data; None takes the mean along the path.
        n_features: rows of the heat map.
        features: numbers of the features to show, in this order, instead of those that change most.
        title: what stands above.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes.

    Example:
        >>> import numpy as np, pullback as pb
        >>> ax = pb.plots.decoded_strip(np.linspace(0, 1, 5)[:, None] * np.ones(4), image_shape=(1, 2, 2))
        >>> len(ax.images)
        1
    """
    rows = check_array("samples", samples, 2, "(k, p)")
    p = rows.shape[1]
    if image_shape is not None:
        shape = check_image_shape(image_shape, p)
        ax = axes_or_new(ax, (8.0, 1.4))
        ax.imshow(strip(pixels(rows, shape, value_limits(rows))), interpolation="nearest")
        finish(ax, title)
        ax.set_axis_off()
        return ax
    spread = rows.std(0) if scale is None else check_array("scale", scale, 1, "(p,)")
    middle = rows.mean(0) if centre is None else check_array("centre", centre, 1, "(p,)")
    unit = np.ones(p) if scale is None else spread
    chosen = most_changing(rows, unit, n_features) if features is None else np.asarray(features, dtype=int)
    if len(chosen) and (chosen.min() < 0 or chosen.max() >= p):
        raise ValueError(f"features: expected numbers from 0 to {p - 1}, got {chosen.tolist()}")
    names = (
        [f"feature {j}" for j in range(p)] if feature_names is None else [str(name) for name in feature_names]
    )
    safe = np.where(spread > 0, spread, 1.0)
    values = ((rows - middle) / safe)[:, chosen].T
    limit = max(float(np.abs(values).max()), 1e-9)
    ax = axes_or_new(ax, (8.0, 0.6 + 0.28 * len(chosen)))
    image = ax.imshow(values, cmap=diverging_colormap(), vmin=-limit, vmax=limit, aspect="auto")
    ax.set_yticks(range(len(chosen)), [shortened(names[j]) for j in chosen])
    ax.set_xticks([0, len(rows) - 1], ["start", "end"])
    if ax.figure is not None:
        ax.figure.colorbar(image, ax=ax, shrink=0.9).set_label(
            "standard deviations" + (" along the path" if scale is None else "")
        )
    return finish(ax, title)
