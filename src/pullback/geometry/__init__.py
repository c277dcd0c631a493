"""Everything that follows from a metric tensor: curves, geodesics, distances, volume, statistics."""

from pullback.geometry.certificates import Certificate, certify
from pullback.geometry.curvatures import Curvature, christoffel, curvature
from pullback.geometry.curve import curve_energy, curve_length
from pullback.geometry.distances import distance
from pullback.geometry.exponential import Exponential, exponential_map
from pullback.geometry.geodesics import Geodesic, geodesic
from pullback.geometry.logarithm import Logarithm, logarithm_map
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
from pullback.geometry.transport import Transport, parallel_transport
from pullback.geometry.volumes import Volume, magnification, volume

__all__ = [
    "ApproximationWarning",
    "Certificate",
    "Curvature",
    "DistanceMatrix",
    "DistanceStability",
    "EnergyShares",
    "Exponential",
    "Flatness",
    "Geodesic",
    "GeodesicStress",
    "Logarithm",
    "Neighbours",
    "Transport",
    "Volume",
    "certify",
    "christoffel",
    "curvature",
    "curve_energy",
    "curve_length",
    "distance",
    "distance_matrix",
    "distance_stability",
    "energy_shares",
    "exponential_map",
    "flatness",
    "geodesic",
    "geodesic_stress",
    "logarithm_map",
    "magnification",
    "nearest_neighbours",
    "parallel_transport",
    "shares_of_difference",
    "volume",
]
