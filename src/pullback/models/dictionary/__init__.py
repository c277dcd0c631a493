"""The manifold dictionary as functions and a module: charts, rows, decoders, gauge, starts and evidence."""

from pullback.models.dictionary.alone import ChartFit, fit_chart
from pullback.models.dictionary.amortised import AmortisedEncoder
from pullback.models.dictionary.atoms import Atom
from pullback.models.dictionary.codes import Codes, SparseCodes
from pullback.models.dictionary.diagnostics import FitDiagnostics, GaugeCheck
from pullback.models.dictionary.iterate import SweepState
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.matching import Alignment
from pullback.models.dictionary.module import ManifoldDictionaryModule
from pullback.models.dictionary.restarts import fit_dictionary
from pullback.models.dictionary.sweep import alternate
from pullback.models.dictionary.sweep_options import SweepOptions

__all__ = [
    "Alignment",
    "AmortisedEncoder",
    "Atom",
    "ChartFit",
    "Codes",
    "FitDiagnostics",
    "GaugeCheck",
    "Layout",
    "ManifoldDictionaryModule",
    "SparseCodes",
    "SweepOptions",
    "SweepState",
    "alternate",
    "fit_chart",
    "fit_dictionary",
]
