"""The points of an interactive page, and what the pointer shows of them."""

from html import escape
from typing import Any

import numpy as np
from bokeh.models import (
    BoxSelectTool,
    BoxZoomTool,
    ColumnDataSource,
    LassoSelectTool,
    LinearColorMapper,
    PanTool,
    ResetTool,
    SaveTool,
    TapTool,
    WheelZoomTool,
)

from pullback.plots.canvas import FONT, new_figure, new_hover
from pullback.plots.labels import Labels
from pullback.plots.style import GEODESIC, HAIRLINE, INK, MUTED, PAPER, POINT, category_style, shortened

EDGE = 0.4
"""Width of the line around a dot that is not selected."""
FIRST, SECOND = INK, GEODESIC
"""Colours of the two selections."""


def dot_size(n: int) -> float:
    """Diameter in pixels of one of n dots."""
    return float(np.clip(7 * (2000 / n) ** 0.3, 2.2, 7.5))


def points_figure(
    Z: np.ndarray, read: Labels | None, outputs: list[str], *, columns: dict[str, np.ndarray], uris: list[str]
) -> Any:
    """The points; colours, edges and what the pointer shows are filled in by the page's script."""
    n = len(Z)
    data: dict[str, Any] = {"x": Z[:, 0].astype(np.float32), "y": Z[:, 1].astype(np.float32)}
    # A byte each until the script fills them in.
    filled = ["shade", "alpha", "edge", "stroke", "top", *(["group"] if read is not None else [])]
    data |= {name: np.zeros(n, np.uint8) for name in filled}
    for i, column in enumerate(columns.values()):
        is_number = column.dtype.kind == "f"
        data[f"column{i}"] = (
            column.astype(np.float32) if is_number else [shortened(str(v), 60) for v in column]
        )
    if uris:
        data["picture"] = uris
    marker: Any = "circle"
    if read is not None and len(read.categories) > 10:
        data["marker"] = [category_style(int(i))[1] for i in read.values]
        marker = "marker"
    source = ColumnDataSource(data, name="points")
    lasso = LassoSelectTool(continuous=False)
    tools = [lasso, BoxSelectTool(continuous=False), TapTool(), PanTool(), BoxZoomTool(), WheelZoomTool()]
    fig = new_figure(
        height=640, match_aspect=True, min_border_left=70, output_backend="webgl",
        tools=[*tools, ResetTool(), SaveTool()],
        x_axis_label=outputs[0], y_axis_label=outputs[1],
    )  # fmt: skip
    fig.toolbar.active_drag = lasso
    fig.xaxis.name, fig.yaxis.name = "x-axis", "y-axis"
    mapper = LinearColorMapper(palette=[POINT, POINT], low=-0.5, high=1.5, nan_color=HAIRLINE, name="shades")
    edges = LinearColorMapper(palette=[PAPER, FIRST, SECOND], low=-0.5, high=2.5)
    drawn = fig.scatter(
        "x", "y", source=source, marker=marker, size=dot_size(n),
        fill_color={"field": "shade", "transform": mapper}, fill_alpha="alpha",
        line_color={"field": "edge", "transform": edges}, line_alpha="alpha", line_width="stroke",
    )  # fmt: skip
    # The script keeps two selections; Bokeh knows one.
    drawn.selection_glyph = drawn.nonselection_glyph = None
    tips = _tooltip(read, list(columns), columns, has_pictures=bool(uris))
    fig.add_tools(new_hover([drawn], tips, point_policy="follow_mouse", attachment="horizontal"))
    return fig


def _tooltip(
    read: Labels | None, names: list[str], columns: dict[str, np.ndarray], *, has_pictures: bool
) -> str:
    lines = []
    if has_pictures:
        lines.append(
            '<style>img[src=""] { display: none }</style><img src="@picture" alt="" style="width: 84px; '
            f'image-rendering: pixelated; border: 1px solid {HAIRLINE}; margin-bottom: 4px">'
        )
    if read is not None:
        lines.append(f'<div style="font-weight: 600">{_plain(read.name)}: @group</div>')
    for i, name in enumerate(names):
        form = "{0.[000]}" if columns[name].dtype.kind == "f" else ""
        lines.append(f"<div>{_plain(name)}: @column{i}{form}</div>")
    lines.append(f'<div style="color: {MUTED}">most by @top</div>')
    return f'<div style="font: 12px/1.45 {FONT}; color: {INK}; max-width: 240px">{"".join(lines)}</div>'


def _plain(text: str) -> str:
    """A name that neither HTML nor the tooltip's own marks can misread."""
    return escape(shortened(text)).replace("@", "&#64;").replace("$", "&#36;")
