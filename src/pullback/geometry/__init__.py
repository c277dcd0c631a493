"""Everything that follows from a metric tensor: curves, geodesics, distances, volume, statistics."""

from pullback.geometry.certificates import Certificate, certify
from pullback.geometry.clusters import GeodesicKMeans, geodesic_kmeans
from pullback.geometry.curvatures import Curvature, christoffel, curvature
from pullback.geometry.curve import curve_energy, curve_length
from pullback.geometry.distances import distance
from pullback.geometry.exponential import Exponential, exponential_map
from pullback.geometry.geodesics import Geodesic, geodesic
from pullback.geometry.logarithm import Logarithm, logarithm_map
from pullback.geometry.matrices import ApproximationWarning, DistanceMatrix, distance_matrix
from pullback.geometry.means import FrechetMean, frechet_mean
from pullback.geometry.neighbours import Neighbours, nearest_neighbours
from pullback.geometry.principal import TangentPCA, tangent_pca
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
    "FrechetMean",
    "Geodesic",
    "GeodesicKMeans",
    "GeodesicStress",
    "Logarithm",
    "Neighbours",
    "TangentPCA",
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
    "frechet_mean",
    "geodesic",
    "geodesic_kmeans",
    "geodesic_stress",
    "logarithm_map",
    "magnification",
    "nearest_neighbours",
    "parallel_transport",
    "shares_of_difference",
    "tangent_pca",
    "volume",
]
