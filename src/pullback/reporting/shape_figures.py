"""Geodesics and equal distances from one sample, and the curvature of the map."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource

from pullback.plots.canvas import (
    FONT,
    add_curvature,
    add_curvature_scale,
    curvature_mapper,
    new_hover,
    new_legend,
    new_map,
    show_box,
)
from pullback.plots.curved import curvature_at, curvature_field, kinks, some_codes, symmetric_limit
from pullback.plots.ellipses import two_digits
from pullback.plots.fan import ring_labels, ring_parts
from pullback.plots.field import Field, latent_box, regular, tensor_at
from pullback.plots.rays import Rays, rays_from, round_radii, typical_length
from pullback.plots.style import FIT, GEODESIC, GROUND, INK, PAPER, POINT
from pullback.reporting.evidence import Evidence
from pullback.reporting.latent_figure import on_page

DIRECTIONS = 48
RAY_STRIDE = 2


@dataclass(frozen=True)
class Shape:
    """What the section shows.

    Attributes:
        fan, curved: the two figures; None where the decoder is linear piece by piece.
        kinks: what makes them meaningless, or None.
        centre: name of the sample from which the geodesics start.
        rays: these.
        rings: the distances that are drawn.
        measured: at how many codes the curvature was computed, None for a field.
    """

    fan: Any
    curved: Any
    kinks: str | None
    centre: str = ""
    rays: Rays | None = None
    rings: tuple[float, ...] = ()
    measured: int | None = None


def shape_of(evidence: Evidence, field: Field | None) -> Shape | None:
    """Both figures; None in one dimension, and where the metric is degenerate at every sample."""
    if evidence.codes.shape[1] < 2:
        return None
    problem = kinks(evidence.metric)
    if problem is not None:
        return Shape(None, None, problem)
    row = central_row(evidence)
    if row is None:
        return None
    point = evidence.shown_codes[row]
    radius = two_digits(typical_length(evidence.metric, point, evidence.shown_codes))
    rays = rays_from(evidence.metric, point, evidence.plane, radius, count=DIRECTIONS)
    rings = tuple(round_radii(radius))
    curved, measured = _curvature(evidence, field)
    fan = _fan(evidence, rays, rings)
    # The same part of the map at the same scale in both.
    box = latent_box(on_page(evidence, evidence.shown_codes)) if field is None else field.box
    for fig in (fan, curved):
        show_box(fig, box)
    return Shape(fan, curved, None, evidence.sample_names[row], rays, rings, measured)


def central_row(evidence: Evidence) -> int | None:
    """The sampled row whose code is nearest to the median code, among those where the metric is regular."""
    codes = evidence.shown_codes
    good = np.flatnonzero(regular(tensor_at(evidence.metric, codes)))
    if good.size == 0:
        return None
    return int(good[np.linalg.norm(codes[good] - np.median(codes, axis=0), axis=1).argmin()])


def _runs(lines: list[np.ndarray]) -> tuple[list[list[float]], list[list[float]], list[int]]:
    """Pieces of lines between their gaps: x, y, and the number of the line of each."""
    xs, ys, number = [], [], []
    for i, line in enumerate(lines):
        known = np.isfinite(line[:, 0])
        edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(int)))
        for start, stop in edges.reshape(-1, 2):
            if stop - start > 1:
                piece = np.round(line[start:stop], 4)
                xs.append(piece[:, 0].tolist())
                ys.append(piece[:, 1].tolist())
                number.append(i)
    return xs, ys, number


def _lines(fig: Any, lines: list[np.ndarray], lengths: list[float], **look: Any) -> Any:
    xs, ys, number = _runs(lines)
    source = ColumnDataSource({"xs": xs, "ys": ys, "length": [lengths[i] for i in number]})
    return fig.multi_line("xs", "ys", source=source, **look)


def _fan(evidence: Evidence, rays: Rays, rings: tuple[float, ...]) -> Any:
    fig = _map(evidence)
    plane = evidence.plane
    page = plane.project(rays.points[::RAY_STRIDE])
    good = np.isfinite(page[..., 0]) if rays.shortest is None else rays.shortest[::RAY_STRIDE]
    # The dotted part begins at the last node of the solid one.
    after = ~good | np.concatenate([~good[:, 1:], np.zeros_like(good[:, :1])], axis=1)
    ways = [np.where(part[..., None], page, np.nan) for part in (good, after)]
    parts = [ring_parts(rays, plane, length) for length in rings]
    every = [rays.radius] * len(page)
    spokes = _lines(fig, list(ways[0]), every, line_color=GEODESIC, line_width=1.4, line_alpha=0.85)
    beyond = {"line_dash": "dotted", "line_width": 1.4, "line_alpha": 0.8}
    late = _lines(fig, list(ways[1]), every, line_color=GEODESIC, **beyond)
    solid = _lines(fig, [part[0] for part in parts], list(rings), line_color=FIT, line_width=2)
    _lines(fig, [part[1] for part in parts], list(rings), line_color=FIT, **beyond)
    fig.add_tools(new_hover([solid], "distance @length{0.[000]}", line_policy="interp"))
    places = ring_labels(rays, plane, rings)
    fig.text(
        x=[float(place[0]) for _, place in places],
        y=[float(place[1]) for _, place in places],
        text=[f"{length:g}" for length, _ in places],
        text_color=FIT,
        text_font={"value": FONT},
        text_font_size="11px",
        text_font_style="bold",
        text_align="center",
        text_baseline="middle",
        background_fill_color=PAPER,
        background_fill_alpha=0.8,
        padding=1,
    )
    start = on_page(evidence, rays.points[:1, 0])
    fig.scatter(start[:, 0], start[:, 1], size=10, fill_color=INK, line_color=PAPER, line_width=1.5)
    entries = [("geodesics", spokes), ("equal distance", solid)]
    if late.data_source.data["xs"]:
        entries.append(("another way is shorter", late))
    fig.add_layout(new_legend(entries, orientation="horizontal", location="center", padding=2), "below")
    return fig


def _map(evidence: Evidence) -> Any:
    fig = new_map(evidence.plane.axis_names)
    codes = on_page(evidence, evidence.shown_codes).astype(np.float32)
    fig.scatter(codes[:, 0], codes[:, 1], size=3, fill_color=POINT, fill_alpha=0.35, line_color=None)
    return fig


def _curvature(evidence: Evidence, field: Field | None) -> tuple[Any, int | None]:
    """The figure, and at how many codes it was measured (None for a field)."""
    fig = new_map(evidence.plane.axis_names)
    codes = evidence.shown_codes
    if field is not None:
        image = add_curvature(fig, curvature_field(evidence.metric, codes, box=field.box))
        fig.grid.visible = False
        fig.background_fill_color = GROUND
        page = on_page(evidence, codes).astype(np.float32)
        fig.scatter(page[:, 0], page[:, 1], size=2.5, fill_color=INK, fill_alpha=0.3, line_color=None)
        fig.add_tools(new_hover([image], "K = @image{0.000e+0}"))
        return fig, None
    rows = some_codes(codes, evidence.random_state)
    values = curvature_at(evidence.metric, codes[rows], evidence.plane)
    limit = symmetric_limit(values)
    mapper = curvature_mapper(limit)
    page = on_page(evidence, codes[rows]).astype(np.float32)
    source = ColumnDataSource({"x": page[:, 0], "y": page[:, 1], "value": values.astype(np.float32)})
    fill = {"field": "value", "transform": mapper}
    drawn = fig.scatter("x", "y", source=source, size=7, fill_color=fill, line_color=POINT, line_width=0.4)
    fig.add_tools(new_hover([drawn], "K = @value{0.000e+0}"))
    add_curvature_scale(fig, mapper, limit)
    return fig, len(rows)
