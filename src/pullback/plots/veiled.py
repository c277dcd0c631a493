"""A field over the latent map that fades where there are no data, and its scale, on matplotlib's Axes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, to_rgba

from pullback.plots.field import veil_of
from pullback.plots.style import GROUND


@dataclass(frozen=True)
class VeiledField:
    """Numbers on a regular grid of a latent plane, and how far each place is from the data.

    Attributes:
        box: ends of both axes, (2, 2).
        values: at the grid points.
        remoteness: 0 at the data, above 1 off them.
    """

    box: Float[np.ndarray, "2 2"]
    values: Float[np.ndarray, "rows columns"]
    remoteness: Float[np.ndarray, "rows columns"]

    @property
    def veil(self) -> Float[np.ndarray, "rows columns"]:
        """How far each grid point fades to grey."""
        return veil_of(self.remoteness)


def draw_veiled(
    ax: Axes,
    box: Float[np.ndarray, "2 2"],
    values: Float[np.ndarray, "rows columns"],
    *,
    veil: Float[np.ndarray, "rows columns"],
    colormap: Colormap,
    low: float,
    high: float,
) -> Any:
    """Draw values on a grid over a box, greyed by ``veil`` and where there is no number; return the image."""
    extent = (*box[0], *box[1])
    image = ax.imshow(
        np.ma.masked_invalid(values), origin="lower", extent=extent, cmap=colormap,
        vmin=low, vmax=high, aspect="equal", zorder=0,
    )  # fmt: skip
    cover = np.zeros((*values.shape, 4))
    cover[...] = to_rgba(GROUND)
    cover[..., 3] = np.where(np.isfinite(values), veil, 1.0)
    ax.imshow(cover, origin="lower", extent=extent, aspect="equal", zorder=0.5)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_facecolor(GROUND)
    return image


def scale_beside(ax: Axes, drawn: Any, label: str, **options: Any) -> Any:
    """The colour scale beside the Axes, open at its ends; None where there is no figure."""
    if ax.figure is None:
        return None
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.85, **{"extend": "both", **options})
    bar.set_label(label)
    bar.outline.set_visible(False)  # type: ignore[operator]
    return bar
