"""Exact derivatives of maps to third order: everything that has geometry calls this room."""

from pullback.jets.contractions import (
    contract_hessian,
    contract_third,
    directional_jet,
    metric_jet,
    tangential_acceleration,
)
from pullback.jets.jet import DirectionalJet, Jet, MetricJet, PackedJet, PiecewiseLinearWarning, jet
from pullback.jets.modules import Product, Residual, Sine
from pullback.jets.reference import reference_jet
from pullback.jets.state import JetState
from pullback.jets.taylor import register_jet_rule

__all__ = [
    "DirectionalJet",
    "Jet",
    "JetState",
    "MetricJet",
    "PackedJet",
    "PiecewiseLinearWarning",
    "Product",
    "Residual",
    "Sine",
    "contract_hessian",
    "contract_third",
    "directional_jet",
    "jet",
    "metric_jet",
    "reference_jet",
    "register_jet_rule",
    "tangential_acceleration",
]
