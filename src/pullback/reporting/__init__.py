"""One HTML file about a fitted model, and the checks that stand first in it."""

from pullback.reporting.checks import Check, Diagnosis, Measures
from pullback.reporting.diagnosis import diagnose
from pullback.reporting.write import report

__all__ = ["Check", "Diagnosis", "Measures", "diagnose", "report"]
