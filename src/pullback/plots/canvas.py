"""The common look of the interactive figures, and the magnification field behind them.

Bokeh's models accept more kinds of values than their annotations admit, so
figures and renderers are passed on as Any.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import (
    BoxZoomTool,
    CheckboxGroup,
    ColorBar,
    ColumnDataSource,
    DataRange1d,
    FixedTicker,
    HoverTool,
    InlineStyleSheet,
    Legend,
    LegendItem,
    LinearColorMapper,
    PanTool,
    ResetTool,
    SaveTool,
    Select,
    WheelZoomTool,
)
from bokeh.plotting import figure
from matplotlib.colors import Colormap, to_rgba
from matplotlib.ticker import MaxNLocator

from pullback.plots.conditions import ConditionField, condition_ticks, shades
from pullback.plots.curved import CurvatureField
from pullback.plots.field import Field
from pullback.plots.latent import factor_text, factor_ticks, relative_limits
from pullback.plots.style import (
    GROUND,
    HAIRLINE,
    INK,
    MUTED,
    PAPER,
    condition_colormap,
    diverging_colormap,
    hex_colors,
    magnification_colormap,
)

FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
FRAME_HEIGHT = 370


def new_figure(**options: Any) -> Any:
    """A quiet figure: white, thin grid, no logo, wheel zoom only when asked for."""
    settings = {
        "sizing_mode": "stretch_width",
        "tools": [PanTool(), BoxZoomTool(), WheelZoomTool(), ResetTool(), SaveTool()],
        "toolbar_location": "above",
        "background_fill_color": PAPER,
        "border_fill_color": PAPER,
        "outline_line_color": None,
        "min_border_left": 10,
        "min_border_right": 10,
    }
    fig = figure(**{**settings, **options})
    fig.toolbar.logo = None
    for axis in fig.axis:
        axis.axis_line_color = HAIRLINE
        axis.major_tick_line_color = HAIRLINE
        axis.minor_tick_line_color = None
        axis.major_label_text_color = MUTED
        axis.major_label_text_font = FONT
        axis.axis_label_text_color = MUTED
        axis.axis_label_text_font = FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = "13px"
        axis.major_label_text_font_size = "12px"
    fig.grid.grid_line_color = HAIRLINE
    fig.grid.grid_line_alpha = 0.6
    return fig


def new_map(axis_names: Sequence[str]) -> Any:
    """A figure of a latent map, the same scale along both axes."""
    labels = {"x_axis_label": axis_names[0], "y_axis_label": axis_names[1]}
    return new_figure(frame_height=FRAME_HEIGHT, height=None, min_border_left=60, match_aspect=True, **labels)


def show_box(fig: Any, box: np.ndarray) -> None:
    """Let a figure begin with a box of the page."""
    (left, right), (bottom, top) = box.tolist()
    edge = fig.quad(left=[left], right=[right], bottom=[bottom], top=[top], fill_color=None, line_color=None)
    fig.x_range = DataRange1d(renderers=[edge], range_padding=0)
    fig.y_range = DataRange1d(renderers=[edge], range_padding=0)


def new_select(**options: Any) -> Select:
    """A drop-down list in the page's type."""
    look = (
        f":host {{ font-family: {FONT}; font-size: 13px; color: {INK}; margin: 0 }} "
        ".bk-input { border-radius: 6px }"
    )
    return Select(width=260, margin=0, stylesheets=[InlineStyleSheet(css=look)], **options)


def new_checkbox(**options: Any) -> CheckboxGroup:
    """A box to tick in the page's type."""
    look = f":host {{ font-family: {FONT}; font-size: 13px; color: {INK}; margin: 0 }}"
    settings: dict[str, Any] = {
        "width": 260,
        "margin": 0,
        "stylesheets": [InlineStyleSheet(css=look)],
    }
    return CheckboxGroup(**{**settings, **options})


def new_hover(renderers: Sequence[Any], tooltips: str, **options: Any) -> HoverTool:
    """What appears when the pointer rests on a glyph; of glyphs that overlap, on one of each renderer."""
    settings: dict[str, Any] = {"renderers": list(renderers), "tooltips": tooltips, "limit": 1}
    return HoverTool(**{**settings, **options})


def new_legend(entries: Sequence[tuple[str, Any]], **options: Any) -> Legend:
    """A legend of names and renderers; a click hides what it names."""
    items = [LegendItem(label={"value": name}, renderers=[drawn]) for name, drawn in entries]  # type: ignore[arg-type]
    settings: dict[str, Any] = {
        "items": items,
        "click_policy": "hide",
        "border_line_color": None,
        "background_fill_color": None,
        "label_text_font": FONT,
        "label_text_color": INK,
        "label_text_font_size": "12px",
        "title_text_font": FONT,
        "title_text_font_style": "bold",
        "title_text_color": INK,
        "title_text_font_size": "12px",
    }
    return Legend(**{**settings, **options})


def color_mapper(colormap: Colormap, low: float, high: float) -> LinearColorMapper:
    """Numbers to the colours of a map; missing numbers are pale."""
    settings: dict[str, Any] = {"palette": hex_colors(colormap, 128), "low": low, "high": high}
    return LinearColorMapper(nan_color=HAIRLINE, **settings)


def color_bar(mapper: LinearColorMapper, **options: Any) -> ColorBar:
    """A slim colour bar with the page's type."""
    settings: dict[str, Any] = {
        "color_mapper": mapper,
        "title_text_color": MUTED,
        "title_text_font": FONT,
        "title_text_font_style": "normal",
        "title_text_font_size": "12px",
        "major_label_text_color": MUTED,
        "major_label_text_font": FONT,
        "major_label_text_font_size": "11px",
        "major_tick_line_color": None,
        "bar_line_color": None,
        "background_fill_color": None,
        "padding": 6,
    }
    return ColorBar(**{**settings, **options})


def magnification_mapper(low: float, high: float) -> LinearColorMapper:
    """Decades of relative magnification to their colours."""
    return color_mapper(magnification_colormap(), low, high)


def magnification_bar(mapper: LinearColorMapper, low: float, high: float, **options: Any) -> ColorBar:
    """The scale of the magnification: decades, written as round factors."""
    ticks = factor_ticks(low, high)
    labels = {tick: factor_text(tick) for tick in ticks}
    return color_bar(mapper, ticker=FixedTicker(ticks=ticks), major_label_overrides=labels, **options)


def add_magnification_scale(fig: Any, mapper: LinearColorMapper, low: float, high: float) -> None:
    """The same, lying below a figure."""
    title = "magnification relative to the typical sample (log scale)"
    bar = magnification_bar(
        mapper, low, high, title=title, orientation="horizontal", height=10, width=340, location="center"
    )
    fig.add_layout(bar, "below")


def curvature_mapper(limit: float) -> LinearColorMapper:
    """Curvature to the diverging colours, white at zero."""
    return color_mapper(diverging_colormap(), -limit, limit)


def add_curvature_scale(fig: Any, mapper: LinearColorMapper, limit: float) -> None:
    """The scale of the curvature, lying below a figure."""
    title = "curvature K, in 1/length² (the ends hold what is beyond them)"
    settings: dict[str, Any] = {"orientation": "horizontal", "height": 10, "width": 340, "location": "center"}
    ticks = [float(tick) for tick in MaxNLocator(6).tick_values(-limit, limit) if abs(tick) <= limit]
    settings |= {"ticker": FixedTicker(ticks=ticks)}
    settings |= {"major_label_overrides": {tick: f"{tick + 0.0:.4g}" for tick in ticks}}
    fig.add_layout(color_bar(mapper, title=title, **settings), "below")


def condition_mapper(limit: float) -> LinearColorMapper:
    """Shades of condition numbers to their colours."""
    return color_mapper(condition_colormap(), 0.0, float(np.log10(limit)))


def add_condition_scale(fig: Any, mapper: LinearColorMapper, limit: float) -> None:
    """The scale of the condition number, lying below a figure."""
    ticks = condition_ticks(limit)
    settings: dict[str, Any] = {"orientation": "horizontal", "height": 10, "width": 340, "location": "center"}
    settings |= {"ticker": FixedTicker(ticks=list(ticks)), "major_label_overrides": ticks}
    fig.add_layout(color_bar(mapper, title="condition number (log scale)", **settings), "below")


def add_condition(fig: Any, field: ConditionField, limit: float) -> Any:
    """Draw the condition number, grey where there are no data, and its scale; return the image."""
    mapper = condition_mapper(limit)
    drawn, exact = (part.astype(np.float32) for part in (shades(field.values, limit), field.values))
    source = ColumnDataSource({"image": [drawn], "condition": [exact]})
    image = fig.image(image="image", source=source, color_mapper=mapper, **_place(field.box))
    _add_veil(fig, field.box, field.veil, GROUND)
    add_condition_scale(fig, mapper, limit)
    return image


def add_field(fig: Any, field: Field) -> Any:
    """Draw the field, the white veil over what lies off the data, and the scale; return the image."""
    low, high = relative_limits(field.relative, field.off_data)
    mapper = magnification_mapper(low, high)
    relative = np.nan_to_num(field.relative, nan=low, neginf=low, posinf=high).astype(np.float32)
    image = fig.image(image=[relative], color_mapper=mapper, **_place(field.box))
    _add_veil(fig, field.box, field.veil, PAPER)
    add_magnification_scale(fig, mapper, low, high)
    return image


def add_curvature(fig: Any, field: CurvatureField) -> Any:
    """Draw the curvature, grey where nothing is known, and its scale; return the image."""
    mapper = curvature_mapper(field.limit)
    values = field.values.astype(np.float32)
    image = fig.image(image=[values], color_mapper=mapper, **_place(field.box))
    _add_veil(fig, field.box, np.where(np.isfinite(values), field.veil, 1.0), GROUND)
    add_curvature_scale(fig, mapper, field.limit)
    return image


def _place(box: np.ndarray) -> dict[str, Any]:
    return {
        "x": float(box[0, 0]),
        "y": float(box[1, 0]),
        "dw": float(box[0, 1] - box[0, 0]),
        "dh": float(box[1, 1] - box[1, 0]),
        "level": "image",
    }


def _add_veil(fig: Any, box: np.ndarray, veil: np.ndarray, color: str) -> None:
    drawn = np.empty((*veil.shape, 4), dtype=np.uint8)
    drawn[...] = np.round(255 * np.array(to_rgba(color)))
    drawn[..., 3] = np.round(255 * veil)
    fig.image_rgba(image=[drawn.view(np.uint32)[..., 0]], **_place(box))
