"""Training: an objective, a loop on Lightning Fabric, checkpoints. It knows no particular model."""

from pullback.training.annealing import cyclic_annealing
from pullback.training.batches import Paired
from pullback.training.locality import LocalityBatchSampler
from pullback.training.loop import EpochSummary, fit
from pullback.training.objective import LinearWarmup, Loss, Objective, Penalty, Regularizer
from pullback.training.options import FitResult, TrainingOptions

__all__ = [
    "EpochSummary",
    "FitResult",
    "LinearWarmup",
    "LocalityBatchSampler",
    "Loss",
    "Objective",
    "Paired",
    "Penalty",
    "Regularizer",
    "TrainingOptions",
    "cyclic_annealing",
    "fit",
]
