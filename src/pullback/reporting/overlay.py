"""Indicatrices over the latent map, shown by a box to tick."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.models import CheckboxGroup, CustomJS

from pullback.plots.canvas import new_checkbox
from pullback.plots.ellipses import NUMBER, Ellipses, ellipses_at, places
from pullback.plots.style import FIT
from pullback.reporting.evidence import Evidence

OUTLINE = 28

# The samples step back while the ellipses are shown.
_TOGGLE = """
const shown = this.active.length > 0;
for (const drawn of renderers) { drawn.visible = shown; }
for (const dots of samples) {
  dots.glyph.fill_alpha = {value: shown ? 0.35 : 1.0};
  dots.glyph.line_alpha = {value: shown ? 0.2 : 0.9};
}
"""


@dataclass(frozen=True)
class Overlay:
    """The ellipses, and the box that shows and hides them."""

    ellipses: Ellipses
    choice: CheckboxGroup


def add_indicatrices(fig: Any, evidence: Evidence) -> Overlay | None:
    """Draw hidden indicatrices on the latent map; None in one dimension or where no place is regular."""
    if evidence.codes.shape[1] < 2:
        return None
    z, room = places(evidence.shown_codes, evidence.plane, NUMBER)
    found = ellipses_at(evidence.metric, z, evidence.plane, room)
    if len(found.centres) == 0:
        return None
    samples = [drawn for drawn in fig.renderers if "name" in drawn.data_source.data]
    outlines = found.outlines(OUTLINE)
    renderers = []
    for drawn, dash in ((~found.shrunk, "solid"), (found.shrunk, "dashed")):
        if drawn.any():
            renderers.append(_ellipses(fig, outlines[drawn], dash))
    choice = new_checkbox(labels=[f"Show steps of equal length ({found.radius:g})"], active=[], name="steps")
    choice.js_on_change("active", CustomJS(args={"renderers": renderers, "samples": samples}, code=_TOGGLE))
    return Overlay(found, choice)


def _ellipses(fig: Any, outlines: np.ndarray, dash: str) -> Any:
    rounded = np.round(outlines, 4)
    return fig.patches(
        xs=rounded[..., 0].tolist(),
        ys=rounded[..., 1].tolist(),
        fill_color=FIT,
        fill_alpha=0.22,
        line_color=FIT,
        line_width=1.2,
        line_dash=dash,
        visible=False,
    )
