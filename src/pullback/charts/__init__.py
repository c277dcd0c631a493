"""Coordinates with a topology: circle, interval, plane, sphere, torus, line and points, and a user's own."""

from pullback.charts.boxes import Interval, Plane, interval, plane
from pullback.charts.circles import Circle, Torus, circle, torus
from pullback.charts.discrete import Line, Points, line, points
from pullback.charts.isometries import ChartIsometry, Relabelling
from pullback.charts.named import CHARTS, as_chart
from pullback.charts.spheres import Sphere, sphere

__all__ = [
    "CHARTS",
    "ChartIsometry",
    "Circle",
    "Interval",
    "Line",
    "Plane",
    "Points",
    "Relabelling",
    "Sphere",
    "Torus",
    "as_chart",
    "circle",
    "interval",
    "line",
    "plane",
    "points",
    "sphere",
    "torus",
]
