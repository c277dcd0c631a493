"""Loss curves as a matplotlib figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pullback.plots.style import CATEGORICAL, axes_or_new, finish

TOTAL = "loss"
VALIDATION = "validation/"


@dataclass(frozen=True)
class Curve:
    """One term of the loss over the epochs; ``validation`` is None where it was not measured."""

    name: str
    training: np.ndarray
    validation: np.ndarray | None


def curves_of(history: Mapping[str, Any]) -> list[Curve]:
    """Pair every training term of a history with its validation term; terms without numbers are left out."""
    series = {
        name: np.atleast_1d(np.asarray(values, dtype=np.float64))
        for name, values in history.items()
        if _is_series(values)
    }
    names = [name for name in series if not name.startswith(VALIDATION)]
    names += [
        name.removeprefix(VALIDATION)
        for name in series
        if name.startswith(VALIDATION) and name.removeprefix(VALIDATION) not in series
    ]
    empty = np.zeros(0)
    return [Curve(name, series.get(name, empty), series.get(VALIDATION + name)) for name in names]


def _is_series(values: Any) -> bool:
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or len(values) == 0:
        return False
    return np.asarray(values).ndim == 1 and np.asarray(values).dtype.kind in "fiu"


def loss_curves(history: Any, *, terms: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Draw the terms of the loss over the epochs, training solid and validation dashed.

    Args:
        history: a fitted model, or its ``history_``: term to one number an epoch, beside ``validation/...``.
        terms: which terms; None draws the total where there is one, else all.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes.

    Raises:
        ValueError: the history holds no curve, or not the term asked for.

    Example:
        >>> import pullback as pb
        >>> ax = pb.plots.loss_curves({"loss": [3.0, 2.0, 1.5], "validation/loss": [3.2, 2.4, 2.1]})
        >>> len(ax.lines)
        2
    """
    history = getattr(history, "history_", history)
    if not isinstance(history, Mapping):
        raise TypeError(
            f"history: expected a fitted model or a mapping of terms, got {type(history).__name__}"
        )
    curves = curves_of(history)
    if not curves:
        raise ValueError("history: expected at least one term with a number for each epoch, got none")
    known = [curve.name for curve in curves]
    wanted = list(terms) if terms is not None else ([TOTAL] if TOTAL in known else known)
    for name in wanted:
        if name not in known:
            raise ValueError(f"terms: expected some of {', '.join(known)}, got {name!r}")
    ax = axes_or_new(ax, (6.0, 3.6))
    for i, curve in enumerate(curve for curve in curves if curve.name in wanted):
        color = CATEGORICAL[i % len(CATEGORICAL)]
        ax.plot(np.arange(1, len(curve.training) + 1), curve.training, color=color, label=curve.name)
        if curve.validation is not None:
            epochs = np.arange(1, len(curve.validation) + 1)
            ax.plot(epochs, curve.validation, color=color, ls="--", label=f"{curve.name}, validation")
    ax.legend(frameon=False, fontsize=9)
    return finish(ax, "Loss", ("epoch", "mean over rows"))
