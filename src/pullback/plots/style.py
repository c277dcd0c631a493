"""Colours and axes shared by every figure, still or interactive."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex

INK = "#1d2733"
MUTED = "#5d6b7a"
HAIRLINE = "#dfe5eb"
PAPER = "#ffffff"
GEODESIC = "#c2410c"
STRAIGHT = "#1d4ed8"
FIT = "#0f766e"
POINT = "#64748b"
RISES, FALLS = "#b2182b", "#2166ac"  # the ends of the diverging map
GROUND = "#eef1f5"

# Ten hues that stay apart under the common colour vision deficiencies (M. A. Petroff, arXiv:2107.02270),
# its two greys replaced by a green and a navy, since grey is the colour of the field behind the points.
CATEGORICAL = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#1b7f4d",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#27346b",
    "#92dadd",
)
MARKERS = ("circle", "triangle")
MATPLOTLIB_MARKERS = {"circle": "o", "triangle": "^"}
MAX_CATEGORIES = len(CATEGORICAL) * len(MARKERS)

_MAGNIFICATION = ("#f4f6f9", "#e2e8ef", "#ccd6e0", "#b2c0ce", "#95a8ba", "#778ea4", "#5a7389")
_CONDITION = ("#fffaf5", "#fde3c8", "#fbbf8a", "#f1914c", "#d9641e", "#a8430f", "#6f2a0a")
_NUMERIC = "viridis"
_DIVERGING = "RdBu_r"


def category_style(index: int) -> tuple[str, str]:
    """Colour and marker of a category; past ten categories the hues return with another marker."""
    return CATEGORICAL[index % len(CATEGORICAL)], MARKERS[index // len(CATEGORICAL) % len(MARKERS)]


def magnification_colormap() -> Colormap:
    """The one sequential map, pale to dark slate, that every magnification field uses."""
    return LinearSegmentedColormap.from_list("pullback_magnification", _MAGNIFICATION)


def condition_colormap() -> Colormap:
    """The sequential map of condition numbers, nearly white at 1."""
    return LinearSegmentedColormap.from_list("pullback_condition", _CONDITION)


def numeric_colormap() -> Colormap:
    """The map for numeric labels and features."""
    return plt.get_cmap(_NUMERIC)


def diverging_colormap() -> Colormap:
    """The map for signed deviations, white at zero."""
    return plt.get_cmap(_DIVERGING)


def hex_colors(colormap: Colormap, count: int = 256) -> list[str]:
    """``count`` hexadecimal colours along a map."""
    return [to_hex(colormap(i / max(count - 1, 1))) for i in range(count)]


def axes_or_new(ax: Axes | None, size: tuple[float, float] = (5.0, 4.2)) -> Axes:
    """Return ``ax``, or the Axes of a new figure where it is None."""
    if ax is None:
        _, ax = plt.subplots(figsize=size, layout="constrained")
    return ax


def shortened(name: str, length: int = 22) -> str:
    """A name, cut with an ellipsis where it is longer than ``length``."""
    return name if len(name) <= length else name[: length - 1] + "…"


def finish(ax: Axes, title: str | None = None, labels: Sequence[str] = ("", ""), *, color: str = INK) -> Axes:
    """Give the Axes the common look: title at the left, thin spines, quiet ticks."""
    if title:
        ax.set_title(title, loc="left", color=color, fontsize=11)
    ax.set_xlabel(labels[0], color=MUTED)
    ax.set_ylabel(labels[1], color=MUTED)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(HAIRLINE)
    ax.tick_params(colors=MUTED, labelsize=9)
    return ax
