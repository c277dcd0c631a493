"""Which input features make a latent coordinate, a distance, a cluster: contributions that add up."""

from pullback.attribution.grouped import GroupContributions, group_contributions
from pullback.attribution.jacobians import (
    compute_jacobian,
    project_jacobian,
    reduce_contributions,
    verify_jacobian,
)
from pullback.attribution.pairs import contributions_between
from pullback.attribution.pointwise import contributions
from pullback.attribution.preprocessing import Preprocessing
from pullback.attribution.result import Attribution, Method, Reduction, Separation, TopFeatures
from pullback.jets.affine import LocalAffine, local_affine
from pullback.jets.sweep import AffineMap
from pullback.jets.verification import AttributionWarning, HomogeneityWarning, JacobianVerification

MAPS = AffineMap
"""Names of the two maps of a network with layer norms."""

__all__ = [
    "MAPS",
    "Attribution",
    "AttributionWarning",
    "GroupContributions",
    "HomogeneityWarning",
    "JacobianVerification",
    "LocalAffine",
    "Method",
    "Preprocessing",
    "Reduction",
    "Separation",
    "TopFeatures",
    "compute_jacobian",
    "contributions",
    "contributions_between",
    "group_contributions",
    "local_affine",
    "project_jacobian",
    "reduce_contributions",
    "verify_jacobian",
]
