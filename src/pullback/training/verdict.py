"""Has training converged? A rule on the losses of the epochs that does not depend on their offset or unit.

The fall of the loss so far, from the first epoch to the best one, is the unit. Training that stopped for
want of improvement (patience) has converged. Training that reached ``max_epochs`` has converged if its best
loss fell by less than `SETTLED_RATE` of the whole fall per epoch over the last epochs, a tenth of the run
and at least five.
"""

import math
from collections.abc import Sequence

from pullback.training.options import TrainingOptions

SETTLED_RATE = 1e-3
FEWEST_EPOCHS = 10
DIVERGENCE = 1000.0
"""A loss above that of the untrained model by this many times its size has diverged."""


def falling_rate(losses: Sequence[float]) -> float | None:
    """Share of the whole fall that the best loss still gains per epoch; None for too few epochs to judge.

    Example:
        >>> falling_rate([10.0] + [2.0] * 19)
        0.0
    """
    if len(losses) < FEWEST_EPOCHS:
        return None
    window = max(5, len(losses) // 10)
    best, before = min(losses), min(losses[:-window])
    fall = losses[0] - best
    return (before - best) / (fall * window) if fall > 0 else 0.0


def has_diverged(loss: float, initial: float) -> bool:
    """Whether a loss is not finite, or far above that of the untrained model."""
    return not math.isfinite(loss) or loss > initial + DIVERGENCE * max(1.0, abs(initial))


def judge_finished(
    losses: Sequence[float], max_epochs: int, max_steps: int | None = None
) -> tuple[bool, str]:
    """``(converged, message)`` of a run that reached ``max_epochs``, or ``max_steps`` where given."""
    name, limit = ("max_epochs", max_epochs) if max_steps is None else ("max_steps", max_steps)
    rate = falling_rate(losses)
    if rate is None:
        return False, f"reached {name}={limit}; too few epochs to judge: raise {name}"
    if rate < SETTLED_RATE:
        return True, f"reached {name}={limit}; the loss had settled"
    return False, (
        f"reached {name}={limit}; loss still falling by {100 * rate:.2g} % of its whole fall "
        f"per epoch: raise {name}"
    )


def judge_early_stop(epoch: int, best_epoch: int) -> tuple[bool, str]:
    """``(converged, message)`` of a run that patience ended."""
    return True, (
        f"stopped early at epoch {epoch}; no better loss since epoch {best_epoch}, whose weights are kept"
    )


def judge_useless(best_loss: float, initial: float, options: TrainingOptions) -> tuple[bool, str]:
    """``(converged, message)`` of a run that never fell below the loss of its first batch."""
    return False, (
        f"the best loss {best_loss:.4g} is not below {initial:.4g} of the untrained model; "
        f"try a lower lr (now {options.lr:g}), scaled data, or more rows"
    )


def kept(best_epoch: int) -> str:
    """Which weights the model holds."""
    return (
        f"the weights are those of epoch {best_epoch}" if best_epoch else "the weights are the initial ones"
    )


def failure_message(loss: float | None, epoch: int, best_epoch: int, options: TrainingOptions) -> str:
    """Message of a run whose loss became huge or not finite (None: within an epoch), and what to try."""
    finite = loss is not None and math.isfinite(loss)
    what = f"loss rose to {loss:.3g}" if finite else "loss became infinite or NaN"
    clip = "gradient_clip=1.0" if options.gradient_clip is None else "a smaller gradient_clip"
    return (
        f"{what} in epoch {epoch}; {kept(best_epoch)}. "
        f"Try a lower lr (now {options.lr:g}), {clip}, or data scaled to unit variance"
    )


def interrupt_message(reason: str, epoch: int, best_epoch: int) -> str:
    """Message of a run that a signal ended."""
    weights = kept(best_epoch) if best_epoch else "the weights are those of this unfinished epoch"
    return f"interrupted by {reason} in epoch {epoch}; {weights}"
