"""Charts by name."""

from pullback.charts.boxes import interval, plane
from pullback.charts.circles import circle, torus
from pullback.charts.discrete import line
from pullback.charts.spheres import sphere
from pullback.typing import Chart

CHARTS = {
    "circle": circle,
    "interval": interval,
    "plane": plane,
    "sphere": sphere,
    "torus": torus,
    "line": line,
}
"""Constructors of all charts that need no argument."""


def as_chart(chart: str | Chart, *, name: str = "chart") -> Chart:
    """The chart of a name with its default basis, or the chart itself.

    Args:
        chart: a name, or an object with the methods and attributes of `pullback.typing.Chart`.
        name: of the argument, for errors.
    Raises:
        ValueError: an unknown name. TypeError: something that lacks a part of the protocol, naming it.
    Example:
        >>> as_chart("circle")
        Circle(H=2)
    """
    if isinstance(chart, str):
        if chart not in CHARTS:
            hint = "; give pullback.charts.points(n)" if chart == "points" else ""
            raise ValueError(f"{name}: expected one of {', '.join(map(repr, CHARTS))}, got {chart!r}{hint}")
        return CHARTS[chart]()
    members = ("name", "d", "c", "M", "roughness", "volume", "step")
    methods = ("jet", "retract", "grid", "from_embedding", "align")
    lacking = [member for member in members + methods if not hasattr(chart, member)]
    if lacking or isinstance(chart, type):
        what = chart.__name__ if isinstance(chart, type) else type(chart).__name__
        raise TypeError(
            f"{name}: expected a name or a chart, got {what} without {', '.join(lacking) or '()'}"
        )
    return chart
