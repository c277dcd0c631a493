"""The section about reserved quantities: what each block tells of each, and how well they are read."""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import torch
from bokeh.models import ColumnDataSource, UIElement

from pullback.estimators.held_out import evaluate_apart
from pullback.plots.canvas import FONT, new_figure, new_hover
from pullback.plots.document import Section
from pullback.plots.style import FIT, GEODESIC, INK
from pullback.reporting.evidence import Observed
from pullback.reporting.thumbnails import shorten
from pullback.subspaces import SubspaceTable

KEY, TITLE = "quantities", "Quantities in the latent space"
MOST_FIGURES, MOST_ROWS = 6, 1500
LEAK_SCALE = 0.3
"""Leak that has the full colour."""


def quantities_section(
    evidence: Observed, X: Any, quantities: Mapping[str, Any] | None, held_out: np.ndarray | None = None
) -> tuple[list[Section], dict[str, UIElement]]:
    """The section; none for a model that has reserved no room.

    Args:
        evidence: what the model makes of X.
        X: all rows.
        quantities: values of those that the model's partition does not compute.
        held_out: numbers of the rows to measure on; None are those that the model held out.
    """
    model = evidence.model
    partition = getattr(model, "partition_", None)
    if partition is None:
        return [], {}
    try:
        table = evaluate_apart(model, X, quantities, held_out)
    except ValueError as error:
        # rows without values, or a loaded model without its functions: say so instead of leaving it out
        sizes = ", ".join(f"{escape(q)} {k}" for q, k in partition.loss.sizes.items())
        note = f"Reserved coordinates: {sizes}. Not measured: {escape(str(error))}."
        return [Section(KEY, TITLE, "Quantities", note, "", "")], {}
    index = model.validation_index_ if held_out is None else held_out
    known = model.known_columns(X, quantities)
    figures: dict[str, UIElement] = {
        f"readout{i}": figure for i, figure in enumerate(_read_outs(evidence, table, known, index))
    }
    panels = "".join("{{" + name + "}}" for name in figures)
    body = f'<div class="scroll numbers">{_matrix(table)}</div><div class="grid">{panels}</div>'
    return [Section(KEY, TITLE, "Quantities", _note(table), body, _reading())], figures


def _matrix(table: SubspaceTable) -> str:
    """A row for each quantity, a column for each block and one for the free coordinates."""
    names = list(table.sizes)
    rows = []
    for q in names:
        cells = [_cell(f"{table.all[q].value:.2f}", "", 0.0, FIT, _interval(table.all[q]))]
        for r in names:
            if q == r:
                own = table.own[q]
                cells.append(_cell(f"<b>{own.value:.2f}</b>", "", 0.5 * own.value, FIT, _interval(own)))
                continue
            told, floor, excess = table.other[q, r], table.floor[q, r], table.excess[q, r]
            small = f"floor {_digits(floor.value)}"
            title = f"excess {_interval(excess)}"
            cells.append(_cell(_digits(told.value), small, excess.value / LEAK_SCALE, GEODESIC, title))
        free = table.free[q]
        cells.append(_cell(_digits(free.value), "", free.value / LEAK_SCALE, GEODESIC, _interval(free)))
        rows.append(f'<tr><th title="{escape(q)}">{escape(shorten(q, 18))}</th>{"".join(cells)}</tr>')
    columns = ["", "all codes", *(f"block of {shorten(r, 14)}" for r in names), "free"]
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(number: str, small: str, share: float, color: str, title: str) -> str:
    share = min(max(share, 0.0), 1.0) if np.isfinite(share) else 0.0
    ground = f"padding: 6px 16px; background: color-mix(in srgb, {color} {round(60 * share)}%, white)"
    below = f'<br><span style="color: var(--muted); font-size: 12px">{small}</span>' if small else ""
    return f'<td style="{ground}" title="{escape(title)}">{number}{below}</td>'


def _digits(value: float) -> str:
    return "–" if not np.isfinite(value) else f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def _interval(estimate: Any) -> str:
    return f"{_digits(estimate.value)}, 95 % of resamples {_digits(estimate.low)} to {_digits(estimate.high)}"


def _read_outs(
    evidence: Observed, table: SubspaceTable, true: Mapping[str, torch.Tensor], index: np.ndarray
) -> list[Any]:
    """What the block of each quantity says of its first column, over what it is, on held-out rows."""
    index = index[:MOST_ROWS]
    read = evidence.model.partition_.loss.predict(torch.from_numpy(evidence.codes[index]))
    figures = []
    for q in list(table.sizes)[:MOST_FIGURES]:
        x, y = true[q][index, 0].numpy(), read[q][:, 0].numpy()
        kept = np.isfinite(x)
        fig = new_figure(
            height=260,
            title=f"{shorten(q, 30)}{'' if read[q].shape[1] == 1 else ' (first column)'}",
            x_axis_label="true",
            y_axis_label="read from its block",
            toolbar_location=None,
        )
        fig.title.text_font, fig.title.text_color, fig.title.text_font_size = FONT, INK, "13px"
        ends = [float(x[kept].min()), float(x[kept].max())] if kept.any() else [0.0, 1.0]
        fig.line(ends, ends, line_color=INK, line_dash="dotted")
        source = ColumnDataSource({"x": x[kept].astype(np.float32), "y": y[kept].astype(np.float32)})
        dots = fig.scatter("x", "y", source=source, size=4, fill_color=FIT, fill_alpha=0.45, line_color=None)
        fig.add_tools(new_hover([dots], "true @x, read @y"))
        figures.append(fig)
    return figures


def _note(table: SubspaceTable) -> str:
    sizes = ", ".join(f"{escape(q)} {k}" for q, k in table.sizes.items())
    own = min(table.own.values(), key=lambda e: e.value).value
    free = max(table.free.values(), key=lambda e: e.value).value
    words = f"Reserved coordinates: {sizes}; {table.latent_dim - table.rank} of {table.latent_dim} are free. "
    words += f"On {table.n_test} held-out rows each block says R² {_digits(own)} or more of its own quantity"
    if table.other:
        words += f", at most {_digits(max(table.largest_excess, 0.0))} more of another than quantities share"
    return f"{words}; the free coordinates say at most {_digits(max(free, 0.0))}."


def _reading() -> str:
    return (
        "A row is a quantity, a column what it is read from, by ridge regression fitted to training rows. Its"
        " own block (green) should say as much as all codes. Another block may say what its own quantity "
        "implies, the floor; orange is what it says beyond that, and what the free coordinates say, which "
        "should be nothing. The pointer on a number shows its interval."
    )
