"""Rows of the table of bad input: charts."""

from collections.abc import Callable
from typing import Any

import torch

from pullback import charts

Case = tuple[str, Callable[..., Any], type[Exception], str]
Y = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))

CHART_CASES: list[Case] = [
    ("charts.circle: H", lambda: charts.circle(0), ValueError, "H: expected a whole number >= 1, got 0"),
    ("charts.circle: kind", lambda: charts.circle(1.5), TypeError, "H: expected a whole number"),  # type: ignore[arg-type]
    ("charts.torus: H", lambda: charts.torus(0), ValueError, "H: expected"),
    ("charts.interval: degree", lambda: charts.interval(0), ValueError, "deg: expected"),
    ("charts.interval: ends", lambda: charts.interval(boundary="open"), ValueError, "'smooth', got 'open'"),  # type: ignore[arg-type]
    ("charts.plane: degree", lambda: charts.plane(-1), ValueError, "deg: expected"),
    ("charts.sphere: L", lambda: charts.sphere(3), ValueError, "L: expected one of 1, 2, got 3"),
    ("charts.points: n", lambda: charts.points(0), ValueError, "n: expected"),
    ("charts.as_chart: name", lambda: charts.as_chart("ring"), ValueError, "'circle', 'interval'"),
    ("charts.as_chart: points", lambda: charts.as_chart("points"), ValueError, "charts.points(n)"),
    ("charts.as_chart: lacking", lambda: charts.as_chart(3), TypeError, "got int without name, d"),  # type: ignore[arg-type]
    ("charts.as_chart: class", lambda: charts.as_chart(charts.Circle), TypeError, "chart"),  # type: ignore[arg-type]
    ("chart.jet: width", lambda: charts.sphere().jet(Y), ValueError, "t: expected (n, 3), got (6, 2)"),
    ("chart.jet: order", lambda: charts.plane().jet(Y, 3), ValueError, "order: expected one of 0, 1, 2"),
    ("chart.jet: whole numbers", lambda: charts.plane().jet(Y.long()), ValueError, "floating point"),
    ("chart.grid: n", lambda: charts.circle().grid(0), ValueError, "n: expected"),
    ("chart.from_embedding: width", lambda: charts.torus().from_embedding(Y), ValueError, "q >= 4"),
    ("chart.from_embedding: rows", lambda: charts.points(9).from_embedding(Y), ValueError, "n >= 9"),
]
