"""Training: an objective, a loop on Lightning Fabric, checkpoints. It knows no particular model."""

from pullback.training.batches import Paired
from pullback.training.loop import EpochSummary, fit
from pullback.training.objective import LinearWarmup, Loss, Objective, Penalty, Regularizer
from pullback.training.options import FitResult, TrainingOptions

__all__ = [
    "EpochSummary",
    "FitResult",
    "LinearWarmup",
    "Loss",
    "Objective",
    "Paired",
    "Penalty",
    "Regularizer",
    "TrainingOptions",
    "fit",
]
