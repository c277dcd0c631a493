"""How benchmarks take time: process CPU time, one thread, both sides in turn, ratios of each round."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
import torch

ROUNDS = 9
SHORTEST = 0.05
"""Seconds that one measurement takes at least."""


def once(call: Callable[[], Any], repeats: int) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - began) / repeats


def in_turn(*calls: Callable[[], Any], rounds: int = ROUNDS, shortest: float = SHORTEST) -> list[list[float]]:
    """CPU seconds of each call, round by round."""
    single = [min(once(call, 1) for _ in range(3)) for call in calls]
    repeats = [max(1, round(shortest / max(seconds, 1e-6))) for seconds in single]
    return [[once(call, n) for call, n in zip(calls, repeats, strict=True)] for _ in range(rounds)]


def ratios(
    other: Callable[[], Any], ours: Callable[[], Any], rounds: int = ROUNDS, *, shortest: float = SHORTEST
) -> list[float]:
    """Time of the other over ours, sorted."""
    return sorted(a / b for a, b in in_turn(other, ours, rounds=rounds, shortest=shortest))


def worded(name: str, found: list[float], asked: float | None, *, sign: str = ">=") -> str:
    """A line of a table from sorted ratios: smallest, median, largest."""
    low, median, high = found[0], found[len(found) // 2], found[-1]
    wish = "" if asked is None else f"   asked {sign} {asked:g}"
    return f"{name:58s} {low:6.2f} / {median:6.2f} / {high:6.2f}{wish}"


def table(first: str = "\n") -> Iterator[list[str]]:
    """Lines to be printed at the end; one thread and no checks of shapes until then."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    jaxtyping.config.update("jaxtyping_disable", True)
    found = [first]
    yield found
    torch.set_num_threads(threads)
    jaxtyping.config.update("jaxtyping_disable", False)
    print("\n".join(found))
