"""The interactive latent map: samples over the magnification field, coloured by what the reader chooses."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.models import (
    CDSView,
    ColorBar,
    ColumnDataSource,
    CustomJS,
    DataRange1d,
    IndexFilter,
    Legend,
    LinearColorMapper,
    Select,
)

from pullback.plots.canvas import (
    FONT,
    add_field,
    color_bar,
    color_mapper,
    magnification_bar,
    magnification_mapper,
    new_figure,
    new_hover,
    new_legend,
    new_select,
)
from pullback.plots.field import Field, fit_box, latent_box, magnification_field, typical
from pullback.plots.labels import Labels
from pullback.plots.style import (
    HAIRLINE,
    INK,
    MUTED,
    PAPER,
    POINT,
    category_style,
    numeric_colormap,
)
from pullback.reporting.evidence import Evidence, Observed
from pullback.reporting.thumbnails import pictures, shorten, top_features

MAX_FEATURES = 12
ERROR = "reconstruction error"
STRETCH = "magnification"

_TOOLTIP = """
<style>img[src=""] {{ display: none }}</style>
<div style="font: 12px/1.45 {font}; color: {ink}; max-width: 240px">
  {picture}
  <div style="font-weight: 600">{label}</div>
  <div style="color: {muted}">@name</div>
  {features}
  {judged}
</div>
"""
_JUDGED = (
    f'<div style="color: {MUTED}">error @error{{0.00}} &middot; magnification &times;@factor{{0.00}}</div>'
)

_RECOLOR = """
const option = options[this.value];
renderers.forEach((renderer, i) => {
  const glyph = renderer.glyph;
  if (option.mapper === null) {
    glyph.fill_color = {value: colors[i]};
  } else {
    glyph.fill_color = {field: option.column, transform: option.mapper};
  }
});
bars.forEach((bar, i) => { bar.visible = i === option.bar; });
if (option.mapper !== null && option.bar === 0) {
  option.mapper.low = option.low;
  option.mapper.high = option.high;
}
if (legend !== null) { legend.visible = option.mapper === null; }
"""


@dataclass(frozen=True)
class LatentMap:
    """The figure and the choice of its colours."""

    figure: Any
    profile: Any  # of one latent dimension the figure of the magnification along it, else None
    choice: Select
    pictured: int  # samples that carry a picture


def field_behind(evidence: Evidence) -> Field | None:
    """The magnification on a grid, for one and two latent dimensions."""
    d = evidence.codes.shape[1]
    if d > 2:
        return None
    box = latent_box(evidence.codes)
    box = fit_box(box, _aspect(evidence.labels)) if d == 2 else box
    reference = typical(evidence.nats)
    return magnification_field(evidence.metric, evidence.codes, box=box, reference=reference)


def _aspect(labels: Labels | None) -> float:
    """Width over height of the map's frame on a wide page, beside a legend of the labels."""
    names = () if labels is None else labels.categories
    longest = max((len(shorten(name, 22)) for name in names), default=8)
    return (700 - 7 * longest) / 500


def on_page(evidence: Observed, z: np.ndarray) -> np.ndarray:
    """Page coordinates ``(k, 2)`` of latent points."""
    points = evidence.plane.project(z)
    return points if points.shape[1] == 2 else np.concatenate([points, np.zeros_like(points)], axis=1)


def spread_features(evidence: Observed) -> list[int]:
    """The features that the latent space carries best."""
    if evidence.image_shape is not None:
        return []
    carried = evidence.carried
    order = np.argsort(-carried, kind="stable")[:MAX_FEATURES]
    return [int(j) for j in order if carried[j] > 0]


def latent_figure(evidence: Observed, field: Field | None) -> LatentMap:
    """Draw the samples with their hover boxes and wire the choice of colours."""
    points = on_page(evidence, evidence.shown_codes)
    one = evidence.codes.shape[1] == 1
    if one:
        points[:, 1] = np.random.default_rng(evidence.random_state).uniform(-1, 1, len(points))
    chosen = spread_features(evidence)
    source, pictured = _source(evidence, points, chosen)
    fig = new_figure(height=340 if one else 620, **_axes(evidence, one))
    profile = None
    if one and field is not None:
        profile = _profile(fig, field)
        fig.yaxis.visible = False
        fig.ygrid.visible = False
    elif field is not None:
        image = add_field(fig, field)
        fig.x_range = DataRange1d(renderers=[image], range_padding=0)
        fig.y_range = DataRange1d(renderers=[image], range_padding=0)
        fig.grid.visible = False
    renderers, colors, legend = _scatter(fig, source, evidence.labels, below=one)
    tips = _tooltip(evidence)
    fig.add_tools(new_hover(renderers, tips, point_policy="follow_mouse", attachment="horizontal"))
    choice = _color_choice(fig, evidence, source, renderers, colors, legend, chosen)
    return LatentMap(fig, profile, choice, pictured)


def _axes(evidence: Observed, one: bool) -> dict[str, Any]:
    names = evidence.plane.axis_names
    if one:
        return {"x_axis_label": names[0], "y_axis_label": "", "min_border_left": 70}
    return {"x_axis_label": names[0], "y_axis_label": names[1], "match_aspect": True}


def _source(evidence: Observed, points: np.ndarray, features: list[int]) -> tuple[ColumnDataSource, int]:
    data: dict[str, Any] = {
        "x": points[:, 0].astype(np.float32),
        "y": points[:, 1].astype(np.float32),
        "name": [shorten(name, 40) for name in evidence.sample_names],
    }
    if isinstance(evidence, Evidence):
        decades = evidence.decades
        data["error"] = evidence.errors.astype(np.float32)
        data["factor"] = (10**decades).astype(np.float32)
        data["decades"] = np.nan_to_num(decades, neginf=-30, posinf=30).astype(np.float32)
    labels = evidence.labels
    if labels is not None and labels.numeric:
        data["value"] = labels.values.astype(np.float32)
    elif labels is not None:
        data["label"] = [shorten(labels.categories[i], 40) for i in labels.values]
    pictured = 0
    if evidence.image_shape is not None:
        data["picture"] = pictures(evidence, evidence.image_shape)
        pictured = sum(map(bool, data["picture"]))
    else:
        data["top"] = top_features(evidence)
    for j in features:
        data[f"feature{j}"] = evidence.x[:, j].astype(np.float32)
    return ColumnDataSource(data), pictured


def _tooltip(evidence: Observed) -> str:
    picture = features = ""
    if evidence.image_shape is not None:
        _, height, width = evidence.image_shape
        size = f"width: {round(84 * min(1, width / height))}px"
        picture = (
            f'<img src="@picture" alt="" style="{size}; image-rendering: pixelated; '
            f'border: 1px solid {HAIRLINE}; margin-bottom: 4px">'
        )
    else:
        features = "<div>@top{safe}</div>"
    label = ""
    if evidence.labels is not None:
        name = evidence.labels.name.replace("@", "&#64;").replace("$", "&#36;").replace("<", "&lt;")
        label = f"{name}: " + ("@value{0.[000]}" if evidence.labels.numeric else "@label")
    judged = _JUDGED if isinstance(evidence, Evidence) else ""
    return _TOOLTIP.format(
        font=FONT, ink=INK, muted=MUTED, picture=picture, features=features, label=label, judged=judged
    )


def _scatter(
    fig: Any, source: ColumnDataSource, labels: Labels | None, *, below: bool
) -> tuple[list[Any], list[str], Legend | None]:
    common: dict[str, Any] = {
        "x": "x", "y": "y", "source": source, "line_color": PAPER, "line_width": 0.6, "line_alpha": 0.9,
        "hover_line_color": INK, "size": 7,
    }  # fmt: skip
    if labels is None or labels.numeric:
        return [fig.scatter(fill_color=POINT, **common)], [POINT], None
    renderers, colors, entries = [], [], []
    for i, name in enumerate(labels.categories):
        color, marker = category_style(i)
        view = CDSView(filter=IndexFilter(indices=np.flatnonzero(labels.values == i).tolist()))
        renderer = fig.scatter(fill_color=color, marker=marker, view=view, **common)
        renderers.append(renderer)
        colors.append(color)
        entries.append((shorten(name, 22), renderer))
    layout: dict[str, Any] = {"location": "top_left", "margin": 14}
    if below:
        layout = {"orientation": "horizontal", "ncols": 10}
    title = shorten(labels.name, 22)
    legend = new_legend(entries, title=title, spacing=1, glyph_width=14, label_standoff=4, **layout)
    fig.add_layout(legend, "below" if below else "right")
    return renderers, colors, legend


def _color_options(
    evidence: Observed,
    source: ColumnDataSource,
    numbers: LinearColorMapper,
    stretch: LinearColorMapper,
    features: list[int],
) -> dict[str, dict[str, Any]]:
    """What the samples may be coloured by, first what they are coloured by at the start."""
    labels = evidence.labels
    first = ("one colour", "", -1) if labels is None else (labels.name, "", -1)
    if labels is not None and labels.numeric:
        first = (labels.name, "value", 0)
    decodes = isinstance(evidence, Evidence)
    choices = [first, (ERROR, "error", 0), (STRETCH, "decades", 1)] if decodes else [first]
    choices += [(evidence.feature_names[j], f"feature{j}", 0) for j in features]
    if decodes and evidence.codes.shape[1] > 2 and labels is None:
        choices.insert(0, choices.pop(2))
    options: dict[str, dict[str, Any]] = {}
    for name, column, bar in choices:
        key, number = name, 2
        while key in options:  # names may repeat
            key, number = f"{name} ({number})", number + 1
        option: dict[str, Any] = {"column": column, "bar": bar, "mapper": (numbers, stretch, None)[bar]}
        if bar == 0:
            option["low"], option["high"] = _ends(np.asarray(source.data[column]))
        options[key] = option
    return options


def _color_choice(
    fig: Any,
    evidence: Observed,
    source: ColumnDataSource,
    renderers: list[Any],
    colors: list[str],
    legend: Legend | None,
    features: list[int],
) -> Select:
    ends = _ends(evidence.decades) if isinstance(evidence, Evidence) else (0.0, 1.0)
    numbers = color_mapper(numeric_colormap(), 0.0, 1.0)
    stretch = magnification_mapper(*ends)
    size: dict[str, Any] = {"width": 12, "height": 300, "visible": False}
    bars = [color_bar(numbers, **size), magnification_bar(stretch, *ends, **size)]
    for bar in bars:
        fig.add_layout(bar, "right")
    options = _color_options(evidence, source, numbers, stretch, features)
    start = next(iter(options))
    _color_at_start(options[start], renderers, bars)
    arguments = {"options": options, "renderers": renderers, "colors": colors, "bars": bars, "legend": legend}
    choice = new_select(title="Colour the samples by", value=start, options=list(options), name="colour")
    choice.js_on_change("value", CustomJS(args=arguments, code=_RECOLOR))
    return choice


def _ends(values: np.ndarray) -> tuple[float, float]:
    """Ends of a colour scale: the central 98 % of the finite values."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = (float(q) for q in np.quantile(finite, [0.01, 0.99]))
    return low, high if high > low else low + 1.0


def _color_at_start(option: dict[str, Any], renderers: list[Any], bars: list[ColorBar]) -> None:
    if option["mapper"] is None:
        return
    for renderer in renderers:
        renderer.glyph.fill_color = {"field": option["column"], "transform": option["mapper"]}
    bars[option["bar"]].visible = True
    if option["bar"] == 0:
        option["mapper"].update(low=option["low"], high=option["high"])


def _profile(below: Any, field: Field) -> Any:
    """One latent dimension: the magnification along it, dotted where there are no data."""
    low, high = (float(end) for end in field.box[0])
    x = low + (high - low) * (np.arange(field.nats.shape[1]) + 0.5) / field.nats.shape[1]
    factor = 10 ** field.relative[0]
    fig = new_figure(
        height=280,
        min_border_left=70,
        x_range=below.x_range,
        y_axis_type="log",
        x_axis_label="latent 1",
        y_axis_label="magnification",
    )
    fig.line(x, factor, line_color=POINT, line_dash="dotted", line_width=1.5)
    fig.line(x, np.where(field.off_data[0], np.nan, factor), line_color=INK, line_width=2.5)
    return fig
