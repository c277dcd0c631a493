"""What a penalty was made with, and its weight apart from the rest: for training, printing and saving."""

import inspect
from copy import copy
from typing import Any

from pullback.penalties.schedule import Scheduled

MISSING = object()


def options_of(penalty: Any) -> dict[str, Any]:
    """Arguments that make the penalty again; numbers that follow a schedule are given as the schedule.

    Example:
        >>> from pullback.penalties import OrthogonalityPenalty
        >>> options_of(OrthogonalityPenalty(0.3, dim=2))
        {'weight': 0.3, 'n_eff': None, 'dim': 2, 'schedule': None, 'name': 'orthogonality'}
    """
    if not hasattr(penalty, "__dict__") or isinstance(penalty, type):
        raise TypeError(f"penalty: expected an object such as IsometryPenalty(), got {penalty!r}")
    names = inspect.signature(type(penalty)).parameters
    return {name: _given(penalty, name) for name in names}


def _given(penalty: Any, name: str) -> Any:
    if name == "schedule":
        return None  # it stands in the place of the weight
    held = vars(penalty).get(f"_{name}", MISSING)
    if (
        name == "weight"
        and hasattr(penalty, "_part_weights")
        and not bool((penalty._part_weights == 1).all())
    ):
        return (held.now * penalty._part_weights).tolist()
    if isinstance(held, Scheduled):
        return held.given
    return getattr(penalty, name) if held is MISSING else held


def weight_at(penalty: Any, step: int) -> float:
    """The weight that the penalty has at a step."""
    return penalty._weight.at(step)


def at_unit_weight(penalty: Any) -> Any:
    """The same penalty with weight 1 and without schedule of the weight."""
    other = copy(penalty)
    other._weight = Scheduled("weight", 1.0)
    return other


def written(penalty: Any) -> str:
    """The penalty as a call, options that are None left out."""
    given = {name: value for name, value in options_of(penalty).items() if value is not None}
    return f"{type(penalty).__name__}({', '.join(f'{name}={_name_of(v)}' for name, v in given.items())})"


def _name_of(value: Any) -> str:
    """A function by its name: its place in memory would differ from run to run."""
    plain = "<function" in repr(value) or "<bound method" in repr(value)
    return getattr(value, "__qualname__", type(value).__name__) if plain else repr(value)
