"""The controls of an interactive page, as HTML."""

from html import escape
from typing import Any

from pullback.plots.explorer_figure import FIRST, SECOND
from pullback.plots.labels import Labels
from pullback.plots.style import shortened


def controls(
    content: dict[str, Any], outputs: list[str], read: Labels | None, *, has_values: bool
) -> tuple[str, str]:
    """The controls above the points, and those above the bars."""
    choices = [("group", read.name)] if read is not None else [("none", "one colour")]
    choices += [("top", "strongest feature"), ("contribution", "contribution of a feature")]
    choices += [("value", "value of a feature")] if has_values else []
    features = "".join(f'<option value="{escape(name)}">' for name in content["features"])
    count = len(content["topNames"])
    axes = ""
    if len(outputs) > 2:
        coordinates = [(str(i), name) for i, name in enumerate(outputs)]
        axes = "".join(
            f'<label>{word}<select id="axis-{axis}">{_options(coordinates, start)}</select></label>'
            for axis, word, start in (("x", "Across", "0"), ("y", "Up", "1"))
        )
    picks = "".join(
        f'<button type="button" data-pick="{name}" aria-pressed="{str(name == "A").lower()}">'
        f'<i style="border-color: {color}"></i><span>{name}: 0 points</span></button>'
        for name, color in (("A", FIRST), ("B", SECOND))
    )
    left = (
        '<div class="controls"><label>Colour by'
        f'<select id="colour">{_options(choices, choices[0][0])}</select></label>'
        f'<label id="feature-label" hidden>Feature<input type="search" id="feature" list="features" '
        f'value="{escape(content["features"][0])}"></label><datalist id="features">{features}</datalist>'
        f'<label id="top-label" hidden><span>Names: <span id="top-count">{min(10, count)}</span></span>'
        f'<input type="range" id="top" min="1" max="{count}" value="{min(10, count)}"></label>{axes}'
        f'<div class="label">Select as<span class="picks">{picks}'
        '<button type="button" id="clear">Clear</button></span></div></div>'
    )
    views = [("size", "size over all coordinates"), ("share", "share of each point’s total")]
    views += [(f"output:{i}", f"{name}, signed") for i, name in enumerate(outputs)]
    views += [("rest", "distance from A to the rest"), ("pair", "distance from A to B")]
    right = (
        '<div class="controls"><label>Bars show'
        f'<select id="view">{_options(views, "size")}</select></label></div>'
    )
    return left, right


def _options(choices: list[tuple[str, str]], start: str) -> str:
    return "".join(
        f'<option value="{value}"{" selected" * (value == start)}>{escape(shortened(text, 40))}</option>'
        for value, text in choices
    )
