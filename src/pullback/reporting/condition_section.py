"""The section about how unequal directions are, of the model and of the same one without its penalties."""

from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, UIElement

from pullback.plots.canvas import (
    add_condition,
    add_condition_scale,
    condition_mapper,
    new_hover,
    new_map,
    show_box,
)
from pullback.plots.conditions import condition_field, condition_limit, condition_numbers, shades
from pullback.plots.document import Section
from pullback.plots.plane import Plane, plane_of
from pullback.plots.style import GROUND, INK, POINT
from pullback.reporting.checks import percent
from pullback.reporting.evidence import Evidence
from pullback.reporting.measures import unexplained_share

KEY, TITLE = "condition", "Condition number"
HERE, BEFORE = "This model", "Without the penalties"


def condition_section(evidence: Evidence) -> tuple[list[Section], dict[str, UIElement]]:
    """The section; none in one dimension, where the condition number is 1."""
    if evidence.codes.shape[1] < 2:
        return [], {}
    places = [(HERE, evidence.metric, evidence.shown_codes, evidence.plane, evidence.y)]
    if evidence.before is not None:
        old = evidence.before
        places = [(BEFORE, old.metric, old.codes, plane_of(old.codes), old.y), *places]
    found = [condition_numbers(metric, codes) for _, metric, codes, _, _ in places]
    # One scale for both: its end is that of the wider.
    limit = max(condition_limit(values) for values in found)
    figures: dict[str, UIElement] = {}
    cells, rows = [], []
    for (name, metric, codes, plane, y), values in zip(places, found, strict=True):
        key = "condition" if name == HERE else "condition_before"
        figures[key] = _figure(metric, codes, plane, values=values, limit=limit)
        cells.append(f"<div><h3>{name}</h3>{{{{{key}}}}}</div>")
        rows.append(_row(name, values, _lost(evidence, y)))
    body = f'<div class="grid two">{"".join(cells)}{"" if len(cells) > 1 else _table(rows)}</div>'
    if len(cells) > 1:
        body += _table(rows)
    return [Section(KEY, TITLE, "Condition", _note(evidence), body, _reading(evidence))], figures


def _lost(evidence: Evidence, y: np.ndarray) -> float:
    scale = evidence.unit_scale
    return unexplained_share(evidence.x / scale, y / scale)


def _figure(metric: Any, codes: np.ndarray, plane: Plane, *, values: np.ndarray, limit: float) -> Any:
    fig = new_map(plane.axis_names)
    page = plane.project(codes).astype(np.float32)
    if plane.exact:
        field = condition_field(metric, codes)
        image = add_condition(fig, field, limit)
        fig.grid.visible = False
        fig.background_fill_color = GROUND
        fig.scatter(page[:, 0], page[:, 1], size=2.5, fill_color=INK, fill_alpha=0.3, line_color=None)
        fig.add_tools(new_hover([image], "condition number @condition{0.[00]}"))
        show_box(fig, field.box)
        return fig
    mapper = condition_mapper(limit)
    columns: dict[str, Any] = {"x": page[:, 0], "y": page[:, 1], "condition": values.astype(np.float32)}
    source = ColumnDataSource(columns | {"shade": shades(values, limit).astype(np.float32)})
    fill = {"field": "shade", "transform": mapper}
    drawn = fig.scatter("x", "y", source=source, size=7, fill_color=fill, line_color=POINT, line_width=0.4)
    fig.add_tools(new_hover([drawn], "condition number @condition{0.[00]}"))
    add_condition_scale(fig, mapper, limit)
    return fig


def _number(value: float) -> str:
    return "∞" if np.isinf(value) else f"{value:.2f}" if value < 100 else f"{value:.3g}"


def _row(name: str, values: np.ndarray, lost: float) -> str:
    # Of order statistics, which infinite values do not spoil: no interpolation between two.
    high = float(np.quantile(values, 0.9, method="lower"))
    middle = float(np.quantile(values, 0.5, method="lower"))
    numbers = [*(_number(value) for value in (float(values.mean()), middle, high)), percent(lost)]
    return f"<tr><th>{name}</th>{''.join(f'<td>{number}</td>' for number in numbers)}</tr>"


def _table(rows: list[str]) -> str:
    names = ("", "mean", "median", "90\u202f% of samples below", "variance lost")
    head = "".join(f"<th>{name}</th>" for name in names)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll numbers">{table}</div>'


def _note(evidence: Evidence) -> str:
    words = (
        f"Largest over smallest squared length {_where(evidence)} of a step of length one on the map, "
        "at each place."
    )
    if evidence.before is not None:
        words += (
            " The same model was trained a second time without the penalties; both maps have one scale, and "
            "each the coordinates of its own training."
        )
    return words


def _where(evidence: Evidence) -> str:
    return "by the learned metric" if evidence.learned else "in the data"


def _reading(evidence: Evidence) -> str:
    where = "Grey parts hold no data." if evidence.plane.exact else "The dots are samples."
    same = (
        "changes the data by the same amount whatever its direction, and circles on the map are circles in "
    )
    same += "the data"
    if evidence.learned:
        same = "has the same length by the learned metric whatever its direction"
    words = f"At 1 (pale) a step {same}; at 4 one direction is twice as long as another. {where}"
    if evidence.before is not None:
        words += (
            " What the penalties gain is the difference of the colours; what they cost is the difference of "
            "the variance lost."
        )
    return words
