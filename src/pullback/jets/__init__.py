"""Exact derivatives of maps to third order: everything that has geometry calls this room."""

from pullback.jets.affine import LocalAffine, local_affine
from pullback.jets.contractions import contract_hessian, contract_third
from pullback.jets.directional import directional_jet, tangential_acceleration
from pullback.jets.jet import PiecewiseLinearWarning, jet
from pullback.jets.linearization import Linearization, linearize
from pullback.jets.metric import metric_jet
from pullback.jets.modules import Product, Residual, Sine, Stack
from pullback.jets.reference import reference_jet
from pullback.jets.results import DirectionalJet, Jet, MetricJet, PackedJet
from pullback.jets.state import JetState
from pullback.jets.taylor import register_jet_rule
from pullback.jets.verification import AttributionWarning, HomogeneityWarning, JacobianVerification

__all__ = [
    "AttributionWarning",
    "DirectionalJet",
    "HomogeneityWarning",
    "JacobianVerification",
    "Jet",
    "JetState",
    "Linearization",
    "LocalAffine",
    "MetricJet",
    "PackedJet",
    "PiecewiseLinearWarning",
    "Product",
    "Residual",
    "Sine",
    "Stack",
    "contract_hessian",
    "contract_third",
    "directional_jet",
    "jet",
    "linearize",
    "local_affine",
    "metric_jet",
    "reference_jet",
    "register_jet_rule",
    "tangential_acceleration",
]
