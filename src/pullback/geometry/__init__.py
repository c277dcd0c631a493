"""Everything that follows from a metric tensor: curves, geodesics, distances, volume, statistics."""

from pullback.geometry.curve import curve_energy, curve_length
from pullback.geometry.distances import distance
from pullback.geometry.geodesics import Geodesic, geodesic
from pullback.geometry.statistics import Flatness, flatness
from pullback.geometry.volumes import Volume, magnification, volume

__all__ = [
    "Flatness",
    "Geodesic",
    "Volume",
    "curve_energy",
    "curve_length",
    "distance",
    "flatness",
    "geodesic",
    "magnification",
    "volume",
]
