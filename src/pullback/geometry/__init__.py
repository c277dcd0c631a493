"""Everything that follows from a metric tensor: curves, geodesics, distances, volume, statistics."""

from pullback.geometry.curve import curve_energy, curve_length
from pullback.geometry.distances import distance
from pullback.geometry.geodesics import Geodesic, geodesic
from pullback.geometry.matrices import ApproximationWarning, DistanceMatrix, distance_matrix
from pullback.geometry.neighbours import Neighbours, nearest_neighbours
from pullback.geometry.shares import EnergyShares, energy_shares, shares_of_difference
from pullback.geometry.statistics import (
    DistanceStability,
    Flatness,
    GeodesicStress,
    distance_stability,
    flatness,
    geodesic_stress,
)
from pullback.geometry.volumes import Volume, magnification, volume

__all__ = [
    "ApproximationWarning",
    "DistanceMatrix",
    "DistanceStability",
    "EnergyShares",
    "Flatness",
    "Geodesic",
    "GeodesicStress",
    "Neighbours",
    "Volume",
    "curve_energy",
    "curve_length",
    "distance",
    "distance_matrix",
    "distance_stability",
    "energy_shares",
    "flatness",
    "geodesic",
    "geodesic_stress",
    "magnification",
    "nearest_neighbours",
    "shares_of_difference",
    "volume",
]
