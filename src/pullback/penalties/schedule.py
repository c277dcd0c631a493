"""Numbers that change with the step: ramps of strengths and temperatures."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from pullback.validation import check_choice, check_positive, check_whole

Number = float | int | Callable[[int], float]
"""A number, or a function of the step that gives one."""

Numbers = float | int | Sequence[float | int] | Callable[[int], float]
"""A number or schedule for all parts of a penalty, or one number a part."""

LONGEST = 10**6
"""Steps that a schedule is defined for."""


class ScalarWeightSchedule:
    """A weight that moves from ``w_start`` to ``w_end``.

    With Δ = w_end - w_start, at iteration ``it``

        geometric        w_end - Δ rate^it
        linear           w_start + Δ it / steps, then w_end
        reciprocal_iter  w_end - Δ / (1 + it)

    Calling it is pure; `step` also counts.

    Args:
        w_start: weight at iteration 0, finite and >= 0.
        w_end: limit, finite and >= 0.
        kind: "geometric", "linear" or "reciprocal_iter".
        rate: for "geometric", between 0 and 1.
        steps: for "linear", > 0.
        iter_count: iteration that the next `step` returns.
    Raises:
        ValueError: see the message.
    Example:
        >>> ramp = ScalarWeightSchedule(0.0, 1.0, "linear", steps=4)
        >>> ramp(0), ramp(1), ramp(9)
        (0.0, 0.25, 1.0)
        >>> ramp.step(), ramp.step(), ramp.iter_count
        (0.0, 0.25, 2)
    """

    def __init__(
        self,
        w_start: float | int,
        w_end: float | int,
        kind: Literal["geometric", "linear", "reciprocal_iter"],
        *,
        rate: float | int | None = None,
        steps: float | int | None = None,
        iter_count: int = 0,
    ):
        check_positive("w_start", w_start, zero=True)
        check_positive("w_end", w_end, zero=True)
        check_choice("kind", kind, ("geometric", "linear", "reciprocal_iter"))
        if kind == "geometric" and not (rate is not None and 0 < rate < 1):
            raise ValueError(f"rate: expected a number between 0 and 1 for kind='geometric', got {rate}")
        if kind == "linear" and not (steps is not None and math.isfinite(steps) and steps > 0):
            raise ValueError(f"steps: expected a finite number > 0 for kind='linear', got {steps}")
        self.w_start, self.w_end, self.kind = float(w_start), float(w_end), kind
        self.rate, self.steps = rate, steps
        self.iter_count = _checked(iter_count)

    def __call__(self, it: int) -> float:
        """Weight at iteration ``it``."""
        it, gap = _checked(it), self.w_end - self.w_start
        if self.kind == "geometric":
            assert self.rate is not None
            weight = self.w_end - gap * self.rate**it
        elif self.kind == "linear":
            assert self.steps is not None
            weight = self.w_start + gap * it / self.steps if it < self.steps else self.w_end
        else:
            weight = self.w_end - gap / (1 + it)
        low, high = sorted((self.w_start, self.w_end))
        return min(max(weight, low), high)

    def step(self) -> float:
        """Weight at ``iter_count``, which then advances."""
        weight = self(self.iter_count)
        self.iter_count += 1
        return weight

    def __repr__(self) -> str:
        return (
            f"ScalarWeightSchedule({self.w_start}, {self.w_end}, {self.kind!r}, rate={self.rate}, "
            f"steps={self.steps}, iter_count={self.iter_count})"
        )


def _checked(it: int) -> int:
    check_whole("it", it, minimum=0)
    if it >= LONGEST:
        raise ValueError(f"it: expected an iteration in 0 .. {LONGEST - 1}, got {it}")
    return int(it)


class Scheduled:
    """A number of a penalty: fixed, or taken from a schedule each time it is asked to advance.

    Attributes:
        now: the present number.
        given: what it was made from: a number, or the schedule that it follows.
    """

    def __init__(self, name: str, number: Number, schedule: Callable[[int], float] | None = None):
        if schedule is None and callable(number):
            schedule = number
        if schedule is not None and not callable(schedule):
            raise TypeError(f"{name}: expected a function of the step, got {schedule!r}")
        self.name, self.schedule = name, schedule
        self.given: Number = number if schedule is None else schedule
        self.now = self.at(getattr(schedule, "iter_count", 0))

    def at(self, step: int) -> float:
        """The number at a step, which changes nothing.

        Raises:
            TypeError: not a number. ValueError: not finite.
        """
        found: Any = self.given if self.schedule is None else self.schedule(step)
        if not hasattr(found, "__float__"):
            raise TypeError(f"{self.name}: expected a number or a function of the step, got {found!r}")
        number = float(found)
        if not math.isfinite(number):
            where = "" if self.schedule is None else f" at step {step}"
            raise ValueError(f"{self.name}: expected a finite number, got {number}{where}")
        return number

    def advance(self, step: int) -> None:
        """Take the schedule's number at ``step``; a schedule that counts goes on from there."""
        if self.schedule is None:
            return
        self.now = self.at(step)
        if isinstance(self.schedule, ScalarWeightSchedule):
            self.schedule.iter_count = step + 1


def common_weight(weight: Numbers) -> Number:
    """What all parts of a penalty share: the weight, or 1 where each part has its own."""
    return 1.0 if isinstance(weight, Sequence) else weight


def shares(name: str, weight: Numbers, parts: int) -> Tensor:
    """Factor of each part, (parts,) float64: its own weight, or 1 where they share one.

    Raises:
        ValueError: another number of weights.
    """
    if not isinstance(weight, Sequence):
        return torch.ones(parts, dtype=torch.float64)
    if len(weight) != parts:
        raise ValueError(f"{name}: expected {parts} numbers, got {len(weight)}")
    return torch.tensor(list(weight), dtype=torch.float64)
