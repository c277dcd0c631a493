"""An embedding as points, the names of its groups written where the groups are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from pullback.plots.arguments import check_array, check_dims, check_labels
from pullback.plots.labels import Labels, read_labels
from pullback.plots.latent import draw_points
from pullback.plots.style import INK, PAPER, axes_or_new, finish, shortened

RASTER_POINTS = 20_000
LARGE, SMALL = 12.0, 1.0
"""Area of a dot in square points, of few samples and of many."""


def plot_embedding(
    Z: Any,
    groups: Any = None,
    *,
    components: tuple[int, int] = (0, 1),
    labels: Mapping[Any, str] | Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw two coordinates of an embedding, coloured by group, with each group's name at its median.

    Args:
        Z: embedding ``(n, d)``, d at least 2.
        groups: ``(n,)`` categories, or numbers, which get a colour bar instead of names.
        components: the two coordinates to draw, from 0.
        labels: other names for the groups: a mapping from the group, or one name for each group in the order
            of the sorted groups.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes. More than 20 000 points are drawn as pixels in vector formats.

    Raises:
        ValueError: Z has one column, NaN or no rows; the groups are of another length; ``components`` are not
            two different coordinates; ``labels`` are too few, or given for numbers.

    Example:
        >>> import numpy as np, pullback as pb
        >>> Z = np.random.default_rng(0).normal(size=(60, 3))
        >>> ax = pb.plots.plot_embedding(Z, Z[:, 0] > 0, components=(0, 2), labels=["left", "right"])
        >>> sorted(text.get_text() for text in ax.texts)
        ['left', 'right']
    """
    Z = check_array("Z", Z, 2, "(n, d)")
    first, second = check_dims(components, Z.shape[1], name="Z", argument="components") or (0, 1)
    read = None if groups is None else read_labels(check_labels(groups, len(Z), "groups"), "group")
    names = _names(read, labels)
    ax = axes_or_new(ax, (5.6, 4.6))
    points = Z[:, [first, second]]
    size = max(SMALL, min(LARGE, LARGE * (2000 / len(Z)) ** 0.5))
    draw_points(ax, points, read, size=size, legend=False, rasterized=len(Z) > RASTER_POINTS)
    for i, name in enumerate(names):
        rows = points[read.values == i] if read is not None else points[:0]
        if len(rows):
            across, up = np.median(rows, axis=0)
            ax.text(
                across, up, shortened(name), ha="center", va="center", fontsize=9, color=INK,
                weight="bold", zorder=4, path_effects=[withStroke(linewidth=2.5, foreground=PAPER)],
            )  # fmt: skip
    return finish(ax, "Embedding", (f"component {first + 1}", f"component {second + 1}"))


def _names(read: Labels | None, labels: Any) -> list[str]:
    """What is written at each group."""
    if read is None or read.numeric:
        if labels is not None:
            kind = "none" if read is None else "numbers on a scale"
            raise ValueError(f"labels: expected with groups that are categories, got groups: {kind}")
        return []
    if labels is None:
        return list(read.categories)
    if isinstance(labels, Mapping):
        renamed = {str(key): str(name) for key, name in labels.items()}
        return [renamed.get(name, name) for name in read.categories]
    given = [labels] if isinstance(labels, str) else [str(name) for name in labels]
    if len(given) != len(read.categories):
        raise ValueError(
            f"labels: expected a name for each of {len(read.categories)} groups, got {len(given)}"
        )
    return given
