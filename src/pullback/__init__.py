"""See, shape and sample the geometry of a latent space.

Public names are resolved on first use (PEP 562), so that ``import pullback`` stays quick and loads no more
than it needs; ``__init__.pyi`` beside this file tells type checkers the same.
"""

from importlib import import_module
from typing import Any

from pullback._version import __version__

_ROOMS = (
    "ambient",
    "attribution",
    "charts",
    "data",
    "dynamics",
    "geometry",
    "jets",
    "metrics",
    "models",
    "penalties",
    "plots",
    "subspaces",
    "training",
)

_HOME = {
    "pullback.jets": (
        "AttributionWarning",
        "DirectionalJet",
        "HomogeneityWarning",
        "Jet",
        "LocalAffine",
        "MetricJet",
        "PackedJet",
        "PiecewiseLinearWarning",
        "contract_hessian",
        "contract_third",
        "directional_jet",
        "jet",
        "local_affine",
        "metric_jet",
        "reference_jet",
        "register_jet_rule",
        "tangential_acceleration",
    ),
    "pullback.attribution": (
        "Attribution",
        "contributions",
        "contributions_between",
        "group_contributions",
    ),
    "pullback.metrics": (
        "CentroidMetric",
        "ConformalMetric",
        "EnsembleMetric",
        "EuclideanMetric",
        "ExpectedPullbackMetric",
        "PullbackMetric",
        "SumMetric",
    ),
    "pullback.geometry": (
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
    ),
    "pullback.penalties": (
        "ARDPenalty",
        "BlockOrthogonalityPenalty",
        "BlockPlusLowRank",
        "DecoderIncoherencePenalty",
        "DegenerateMetricError",
        "DiagonalPlusLowRank",
        "DuchonRadialSource",
        "HarmonicRoughnessPenalty",
        "IsometryPenalty",
        "IsometryStatistics",
        "IvaeRidgeMeanGaugePenalty",
        "LatentSampling",
        "MissingJetError",
        "NestedPrefixPenalty",
        "NuclearNormPenalty",
        "OrderedBetaBernoulliPenalty",
        "OrthogonalityPenalty",
        "Penalty",
        "ReferenceScaleWarning",
        "ScalarWeightSchedule",
        "SoftmaxAssignmentSparsityPenalty",
        "SumPenalty",
        "TotalVariationPenalty",
        "UnnormalisedPriorError",
    ),
    "pullback.models": ("create_encoder", "register_encoder", "view_registry"),
    "pullback.estimators": (
        "HVAE",
        "RHVAE",
        "VAE",
        "Autoencoder",
        "Edited",
        "ManifoldDictionary",
        "ParametricUMAP",
        "Samples",
        "SubspacePartition",
        "explain",
        "load",
        "register_module",
    ),
    "pullback.reporting": ("Diagnosis", "diagnose", "report"),
    "pullback.io": ("FormatError",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["__version__", *_ROOMS, *sorted(_MODULE_OF)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"pullback.{name}")
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'pullback' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
