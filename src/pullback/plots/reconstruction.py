"""Originals beside their reconstructions as a matplotlib figure."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pullback.plots.arguments import check_array, check_image_shape
from pullback.plots.images import pixels, strip, value_limits
from pullback.plots.style import FIT, INK, axes_or_new, finish


def reconstructions(
    original: Any,
    reconstructed: Any,
    *,
    image_shape: Any = None,
    n_examples: int = 10,
    max_points: int = 5000,
    random_state: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw pictures above their reconstructions, or reconstructed against observed values of a table.

    Args:
        original: rows ``(n, p)``.
        reconstructed: the model's rows ``(n, p)``.
        image_shape: ``(channels, height, width)`` where rows are pictures.
        n_examples: pictures shown, spread evenly over the rows.
        max_points: values drawn of a table; of more, a random sample, and the title says so.
        random_state: seed of that sample.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes.

    Example:
        >>> import numpy as np, pullback as pb
        >>> x = np.random.default_rng(0).normal(size=(20, 3))
        >>> pb.plots.reconstructions(x, 0.9 * x).get_ylabel()
        'reconstructed'
    """
    x = check_array("original", original, 2, "(n, p)")
    y = check_array("reconstructed", reconstructed, 2, "(n, p)")
    if x.shape != y.shape:
        raise ValueError(f"reconstructed: expected shape {x.shape} like original, got {y.shape}")
    if image_shape is not None:
        shape = check_image_shape(image_shape, x.shape[1])
        rows = np.unique(np.linspace(0, len(x) - 1, n_examples).round().astype(int))
        limits = value_limits(x[rows])
        sheets = [strip(pixels(part[rows], shape, limits)) for part in (x, y)]
        between = np.full((2, sheets[0].shape[1], 3), 255, dtype=np.uint8)
        ax = axes_or_new(ax, (8.0, 2.2))
        ax.imshow(np.concatenate([sheets[0], between, sheets[1]]), interpolation="nearest")
        finish(ax, "Originals above, reconstructions below")
        ax.set_axis_off()
        return ax
    title = "Reconstructed against observed"
    a, b = x.ravel(), y.ravel()
    if a.size > max_points:
        chosen = np.random.default_rng(random_state).choice(a.size, max_points, replace=False)
        title = f"{title}\n({max_points} of {a.size} values, sampled)"
        a, b = a[chosen], b[chosen]
    ax = axes_or_new(ax, (4.6, 4.4))
    low, high = float(min(a.min(), b.min())), float(max(a.max(), b.max()))
    ax.plot([low, high], [low, high], color=INK, lw=0.8, ls=":")
    ax.scatter(a, b, s=5, color=FIT, alpha=0.4, linewidths=0)
    return finish(ax, title, ("observed", "reconstructed"))
