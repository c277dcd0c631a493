"""The training loop: steps, validation, early stopping, checkpoints, and an honest end.

What a run does depends on objective, data, options and seed alone. A run that was killed and resumed takes
the same steps as one that was not; several processes take the same steps as one.
"""

from collections.abc import Sequence
from typing import Any

from pullback.training.interrupt import Interrupt
from pullback.training.objective import Trainable
from pullback.training.options import FitResult, TrainingOptions
from pullback.training.run import Callback, End, EpochSummary, Run

__all__ = ["EpochSummary", "FitResult", "TrainingOptions", "fit"]


def fit(
    objective: Trainable,
    data: Any,
    options: TrainingOptions,
    *,
    validation: Any = None,
    generator_seed: int,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Train a model in place; afterwards it holds the best weights and is in evaluation mode.

    Under ``torchrun`` the batches are shared among the processes and every process returns the same result.
    No global random state is changed.

    Args:
        objective: model, weights of its loss terms, regularisers.
        data: ``(n, p)`` tensor or array; or an object with ``__len__`` and ``rows(index)``; or a dataset;
            or an iterable of batches such as a ``DataLoader`` (see `pullback.training.batches`).
        options: how to train.
        validation: held-out data in any of these forms; its loss then decides about the best epoch.
        generator_seed: seed of all randomness.
        callbacks: called with an `EpochSummary` after each epoch.
    Returns:
        `FitResult`. A loss that is not finite, or Ctrl-C, is no exception: ``converged`` is False and
        ``message`` says what happened, which weights the model holds, and what to try.
    Raises:
        ValueError: the checkpoint in ``checkpoint_dir`` belongs to another run.
    Example:
        >>> import torch
        >>> from pullback.models import MLP, Autoencoder, Gaussian
        >>> from pullback.training import Objective
        >>> objective = Objective(Autoencoder(MLP(3, 1), MLP(1, 3), Gaussian()))
        >>> result = fit(objective, torch.zeros(64, 3), TrainingOptions(max_epochs=3), generator_seed=0)
        >>> len(result.history["loss"])
        3
    """
    run = Run(objective, data, options, validation=validation, seed=generator_seed)
    interrupt = Interrupt()
    end: End = None
    with run.layers:
        run.open_checkpoint()
        with interrupt:
            try:
                end = run.run(interrupt, callbacks)
            except KeyboardInterrupt:
                # from a callback, another thread, or a second Ctrl-C in the middle of a step
                end, interrupt.reason = "interrupted", interrupt.reason or "Ctrl-C"
    return run.result(end, interrupt.reason)
