"""How the sweeps of a fit proceed."""

from dataclasses import dataclass
from typing import Literal

from pullback.penalties.schedule import Number

Gate = Literal["softmax", "amplitude"]


@dataclass(frozen=True)
class SweepOptions:
    """How a fit proceeds.

    Attributes:
        gate: "softmax" or "amplitude".
        n_active: most atoms a row (amplitude gate).
        entropy: λ_H in units of the spread of rows, a number or a function of the sweep (softmax gate).
        tau: temperature, likewise.
        smoothness: λ of all atoms; None for the Fellner-Schall step.
        isometry: μ of the isometry gauge of charts that are not closed curves, likewise.
        max_sweeps, max_seconds: budget.
        tol: relative change of the objective at which to stop; drift along atoms keeps it above 1e-6.
        steps: of all rows in a sweep.
        reencode_every: sweeps between offers of a code from nothing.
        regauge_every: sweep after which circles are laid out by arc length, once; again at the end.
        open_cost: what an open atom must save of ½|z - ẑ|²; None for p σ²/8.
        gauge: whether coordinates are brought to unit speed; False where they are known.
    """

    gate: Gate = "amplitude"
    n_active: int = 3
    entropy: Number = 0.05
    tau: Number = 1.0
    smoothness: float | None = None
    isometry: Number = 0.1
    max_sweeps: int = 40
    max_seconds: float | None = None
    tol: float = 1e-5
    steps: int = 2
    reencode_every: int = 6
    regauge_every: int = 10
    open_cost: float | None = None
    gauge: bool = True


def at_sweep(number: Number, sweep: int) -> float:
    """A number, or what a schedule gives for a sweep."""
    return float(number(sweep) if callable(number) else number)
