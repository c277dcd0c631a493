"""The map of geodesics against straight lines."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    DataRange1d,
    Select,
)

from pullback.plots.canvas import (
    add_field,
    add_magnification_scale,
    magnification_mapper,
    new_figure,
    new_hover,
    new_legend,
    new_select,
)
from pullback.plots.field import Field
from pullback.plots.latent import relative_limits
from pullback.plots.style import (
    GEODESIC,
    INK,
    PAPER,
    POINT,
    STRAIGHT,
)
from pullback.reporting.evidence import Evidence
from pullback.reporting.latent_figure import on_page
from pullback.reporting.pairs import Paths, stations_of
from pullback.reporting.thumbnails import shorten

# The page holds one table row and one strip a pair, marked with its number.
_CHOOSE = """
const chosen = Number(this.value);
for (const source of sources) {
  const width = source.data.width.map((_, i) => i === chosen ? 4 : 1.6);
  const alpha = source.data.alpha.map((_, i) => i === chosen ? 1.0 : 0.45);
  source.data = {...source.data, width, alpha};
}
for (const part of document.querySelectorAll('[data-path]')) {
  const mine = Number(part.dataset.path) === chosen;
  if (part.tagName === 'TR') { part.classList.toggle('chosen', mine); } else { part.hidden = !mine; }
}
"""


@dataclass(frozen=True)
class PathMap:
    """The map of paths and the choice of the pair that stands out."""

    figure: Any
    choice: Select


def path_map(evidence: Evidence, paths: Paths, field: Field | None) -> PathMap:
    """Draw all paths; the chosen one stands out, here and in the table and strips of the page."""
    fig, sources = _draw(evidence, paths, field)
    options = [(str(i), shorten(pair.name, 34)) for i, pair in enumerate(paths.pairs)]
    choice = new_select(title="Path shown in bold and decoded below", value="0", options=options, name="path")
    choice.js_on_change("value", CustomJS(args={"sources": sources}, code=_CHOOSE))
    return PathMap(fig, choice)


def _draw(evidence: Evidence, paths: Paths, field: Field | None) -> tuple[Any, list[ColumnDataSource]]:
    names = evidence.plane.axis_names
    one = len(names) == 1
    fig = new_figure(
        height=100 + 46 * len(paths.pairs) if one else 560,
        x_axis_label=names[0],
        y_axis_label="" if one else names[1],
        match_aspect=not one,
    )
    if one:
        fig.yaxis.visible = False
        fig.ygrid.visible = False
    else:
        _background(fig, evidence, field)
    sources, entries = [], []
    for title, lines, lengths, color, dash in (
        ("straight line", paths.straight, paths.straight_length, STRAIGHT, "dashed"),
        ("geodesic", paths.points, paths.length, GEODESIC, "solid"),
    )[one:]:
        source = _line_source(evidence, paths, lines, lengths)
        drawn = fig.multi_line(
            "xs",
            "ys",
            source=source,
            line_color=color,
            line_dash=dash,
            line_width="width",
            line_alpha="alpha",
        )
        sources.append(source)
        entries.append((title, drawn))
        tips = f"<b>@name</b><br>{title}, length @length{{0.000}}"
        fig.add_tools(new_hover([drawn], tips, line_policy="interp"))
    if one:
        stations = np.concatenate(_lanes(evidence, paths.points[:, stations_of(paths)]))
        fig.scatter(stations[:, 0], stations[:, 1], size=6, fill_color=GEODESIC, line_color=PAPER)
    ends = np.concatenate(_lanes(evidence, paths.straight[:, [0, -1]]))
    fig.scatter(ends[:, 0], ends[:, 1], size=9, fill_color=INK, line_color=PAPER, line_width=1.5)
    fig.add_layout(new_legend(entries[::-1], orientation="horizontal", padding=2), "above")
    return fig, sources


def _lanes(evidence: Evidence, lines: np.ndarray) -> list[np.ndarray]:
    """Page coordinates of each line; of one latent dimension each line has a height of its own."""
    drawn = [on_page(evidence, line) for line in lines]
    if evidence.codes.shape[1] == 1:
        for height, line in enumerate(drawn):
            line[:, 1] = -height
    return drawn


def _background(fig: Any, evidence: Evidence, field: Field | None) -> None:
    codes = on_page(evidence, evidence.shown_codes).astype(np.float32)
    if field is None:
        _points_by_magnification(fig, evidence, codes)
        return
    image = add_field(fig, field)
    fig.x_range = DataRange1d(renderers=[image], range_padding=0)
    fig.y_range = DataRange1d(renderers=[image], range_padding=0)
    fig.grid.visible = False
    fig.scatter(codes[:, 0], codes[:, 1], size=3, fill_color=POINT, fill_alpha=0.45, line_color=None)


def _points_by_magnification(fig: Any, evidence: Evidence, codes: np.ndarray) -> None:
    decades = evidence.decades
    low, high = relative_limits(decades, np.zeros(len(decades), dtype=bool))
    mapper = magnification_mapper(low, high)
    source = ColumnDataSource(
        {
            "x": codes[:, 0].astype(np.float32),
            "y": codes[:, 1].astype(np.float32),
            "decades": np.nan_to_num(decades, neginf=low, posinf=high).astype(np.float32),
        }
    )
    fill = {"field": "decades", "transform": mapper}
    fig.scatter("x", "y", source=source, size=5, fill_color=fill, line_color=POINT, line_width=0.3)
    add_magnification_scale(fig, mapper, low, high)


def _line_source(
    evidence: Evidence, paths: Paths, lines: np.ndarray, lengths: np.ndarray
) -> ColumnDataSource:
    drawn = _lanes(evidence, lines)
    count = len(paths.pairs)
    return ColumnDataSource(
        {
            "xs": [line[:, 0].tolist() for line in drawn],
            "ys": [line[:, 1].tolist() for line in drawn],
            "name": [shorten(pair.name, 40) for pair in paths.pairs],
            "length": [float(value) for value in lengths],
            "width": [4.0] + [1.6] * (count - 1),
            "alpha": [1.0] + [0.45] * (count - 1),
        }
    )
