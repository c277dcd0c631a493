"""Loss curves and reconstructed tables as interactive figures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, FactorRange

from pullback.plots.canvas import FONT, new_figure, new_hover
from pullback.plots.style import FIT, GEODESIC, INK, STRAIGHT
from pullback.plots.training import Curve, curves_of
from pullback.reporting.evidence import Evidence
from pullback.reporting.thumbnails import shorten

MAX_CURVES = 8
MAX_VALUES = 3000
SHOWN_FEATURES = 10
TABLE_HEIGHT = 400


def loss_figures(history: Mapping[str, Any]) -> list[Any]:
    """One small figure a term of the loss, training solid and validation dashed."""
    return [_loss_figure(curve) for curve in curves_of(history)[:MAX_CURVES]]


def _loss_figure(curve: Curve) -> Any:
    values = np.concatenate([curve.training, np.zeros(0) if curve.validation is None else curve.validation])
    values = values[np.isfinite(values)]
    wide = values.size > 0 and values.min() > 0 and values[0] > 20 * values.min()
    fig = new_figure(
        height=240,
        title=curve.name,
        x_axis_label="epoch",
        y_axis_type="log" if wide else "linear",
        toolbar_location=None,
    )
    fig.title.text_font = FONT
    fig.title.text_color = INK
    fig.title.text_font_size = "13px"
    lines = (("training", curve.training, FIT, "solid"), ("validation", curve.validation, GEODESIC, "dashed"))
    drawn = []
    for name, series, color, dash in lines:
        if series is None or len(series) == 0:
            continue
        source = ColumnDataSource(
            {"epoch": np.arange(1, len(series) + 1), "value": series, "name": [name] * len(series)}
        )
        drawn.append(
            fig.line(
                "epoch",
                "value",
                source=source,
                line_color=color,
                line_dash=dash,
                line_width=2,
            )
        )
    fig.add_tools(new_hover(drawn, "@name, epoch @epoch: <b>@value{0.0000}</b>", mode="mouse"))
    return fig


def table_figures(evidence: Evidence) -> list[Any]:
    """Reconstructed against observed values, and the features that the latent space keeps best and worst."""
    return [_scatter_figure(evidence), _feature_figure(evidence)]


def _scatter_figure(evidence: Evidence) -> Any:
    safe = np.where(evidence.spread > 0, evidence.spread, 1.0)
    generator = np.random.default_rng(evidence.random_state)
    m, p = evidence.x.shape
    count = min(MAX_VALUES, m * p)
    cells = (
        generator.choice(m * p, count, replace=False)
        if m * p <= 10**7
        else generator.integers(0, m * p, count)
    )
    i, j = np.divmod(cells, p)
    observed = (evidence.x[i, j] - evidence.centre[j]) / safe[j]
    rebuilt = (evidence.y[i, j] - evidence.centre[j]) / safe[j]
    low, high = (float(q) for q in np.quantile(np.concatenate([observed, rebuilt]), [0.001, 0.999]))
    fig = new_figure(
        height=TABLE_HEIGHT,
        x_axis_label="observed (sd)",
        y_axis_label="reconstructed (sd)",
        x_range=(low, high),
        y_range=(low, high),
    )
    source = ColumnDataSource(
        {
            "x": observed.astype(np.float32),
            "y": rebuilt.astype(np.float32),
            "feature": [shorten(evidence.feature_names[k]) for k in j],
        }
    )
    fig.line([low, high], [low, high], line_color=INK, line_dash="dotted")
    dots = fig.scatter("x", "y", source=source, size=4, fill_color=FIT, fill_alpha=0.35, line_color=None)
    tips = "@feature<br>observed @x{0.00}, reconstructed @y{0.00}"
    fig.add_tools(new_hover([dots], tips))
    return fig


def explained_by_feature(evidence: Evidence) -> np.ndarray:
    """Share of each feature's variance that the reconstruction keeps, ``(p,)``; NaN for constant features."""
    lost = ((evidence.x - evidence.y) ** 2).mean(0)
    variance = evidence.spread**2
    return np.where(variance > 0, 1 - lost / np.where(variance > 0, variance, 1.0), np.nan)


def _feature_figure(evidence: Evidence) -> Any:
    kept = explained_by_feature(evidence)
    order = np.argsort(-np.nan_to_num(kept, nan=-np.inf), kind="stable")[: int(np.isfinite(kept).sum())]
    if len(order) > 2 * SHOWN_FEATURES:
        order = np.concatenate([order[:SHOWN_FEATURES], order[-SHOWN_FEATURES:]])
    names: list[str] = []
    for j in order:  # names may repeat once they are cut
        name = shorten(evidence.feature_names[j], 18)
        names.append(name if name not in names else f"{name} ({j + 1})")
    values = np.clip(kept[order], -1, 1)
    fig = new_figure(
        height=TABLE_HEIGHT,
        y_range=FactorRange(factors=names[::-1]),
        x_axis_label="share of variance kept",
    )
    source = ColumnDataSource(
        {"name": names, "kept": values, "color": [FIT if v >= 0 else STRAIGHT for v in values]}
    )
    bars = fig.hbar(y="name", right="kept", height=0.7, source=source, fill_color="color", line_color=None)
    fig.add_tools(new_hover([bars], "@name: <b>@kept{0.00}</b>"))
    fig.ygrid.visible = False
    return fig
