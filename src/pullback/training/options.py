"""Options of a training run, and its result."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, get_args

from pullback.validation import check_choice, check_positive, check_whole

Precision = Literal["32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true"]
LearningRateSchedule = Literal["constant", "cosine"]
Ending = Literal["finished", "stopped", "failed", "interrupted"]


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; what to train is the `Objective`.

    Attributes:
        max_epochs: passes over the data.
        batch_size: rows of a step, over all processes. An epoch is cut into batches of equal size (± 1 row)
            of at most this many rows, so that no short batch is left over.
        lr: learning rate of Adam.
        lr_schedule: "constant", or "cosine" from ``lr`` down to 0 over ``max_epochs``.
        weight_decay: decoupled weight decay (AdamW).
        max_steps: steps of the optimiser after which training ends, within an epoch too.
        patience: epochs without a better loss (of held-out rows where there are any) after which training
            stops; None never stops early.
        restore_best: end with the weights of the epoch with the lowest loss; False keeps the last ones.
        gradient_clip: largest norm of the gradient; None leaves it as it is.
        device: "auto" (CUDA, else Apple's GPU, else CPU), "cpu", "cuda", "cuda:1", "mps".
        precision: a precision of Lightning Fabric; None follows the parameters of the model.
        checkpoint_dir: folder for ``checkpoint.safetensors``, made if absent; None writes no checkpoint. All
            processes of a distributed run must see it.
        checkpoint_every: steps between checkpoints; None writes them after epochs, spaced so that they take
            at most a twentieth of the time.
        resume: go on from the checkpoint in ``checkpoint_dir`` if there is one.
        progress: show a progress bar; None shows it on a terminal or in a notebook.
    """

    max_epochs: int = 100
    batch_size: int = 128
    lr: float = 1e-3
    lr_schedule: LearningRateSchedule = "constant"
    weight_decay: float = 0.0
    max_steps: int | None = None
    patience: int | None = 20
    restore_best: bool = True
    gradient_clip: float | None = None
    device: str = "auto"
    precision: Precision | None = None
    checkpoint_dir: str | Path | None = None
    checkpoint_every: int | None = None
    resume: bool = False
    progress: bool | None = None

    def __post_init__(self) -> None:
        check_whole("max_epochs", self.max_epochs)
        check_whole("batch_size", self.batch_size)
        check_positive("lr", self.lr)
        check_choice("lr_schedule", self.lr_schedule, get_args(LearningRateSchedule))
        check_positive("weight_decay", self.weight_decay, zero=True)
        if self.max_steps is not None:
            check_whole("max_steps", self.max_steps)
        if self.patience is not None:
            check_whole("patience", self.patience)
        if self.gradient_clip is not None:
            check_positive("gradient_clip", self.gradient_clip)
        if self.precision is not None:
            check_choice("precision", self.precision, get_args(Precision))
        if self.checkpoint_every is not None:
            check_whole("checkpoint_every", self.checkpoint_every)
        if not isinstance(self.checkpoint_dir, str | PathLike | None):
            raise TypeError(f"checkpoint_dir: expected a path, got {self.checkpoint_dir!r}")
        if self.resume and self.checkpoint_dir is None:
            raise ValueError("resume: expected a checkpoint_dir to resume from, got None")


@dataclass(frozen=True)
class FitResult:
    """How training went. The model itself holds the best weights and is in evaluation mode.

    Attributes:
        history: for "loss" and each term a list with one number an epoch; those of held-out rows are
            "validation/loss" and so on. Losses are taken with the weights that schedules end with.
        best_epoch: epoch whose weights the model holds, counted from 1; 0 are the initial weights.
        best_loss: its loss, of held-out rows where there are any.
        converged: the loss had stopped to fall (see `pullback.training.verdict`).
        ending: "finished" all epochs, "stopped" early by patience, "failed" by a loss that is not finite or
            huge, or "interrupted" by a signal.
        message: why training ended, and what to try where that is not satisfactory.
        steps: optimiser steps, over all resumed parts.
        seconds: time in training, over all resumed parts.
    """

    history: dict[str, list[float]]
    best_epoch: int
    best_loss: float
    converged: bool
    message: str
    steps: int
    seconds: float
    ending: Ending = "finished"
