"""Fixed-point iterations of the implicit steps, for many rows at once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LARGEST_INCREMENT = 1e-3
"""Last increment above which an iteration without a tolerance counts as not converged."""


@dataclass(frozen=True)
class FixedPoint:
    """What an iteration came to.

    Attributes:
        value: the last iterate.
        previous: the one before it.
        counts: iterations of each row, or of all.
        tolerance: of the increment, or None.
    """

    value: Float[Tensor, "n d"]
    previous: Float[Tensor, "n d"]
    counts: Int[Tensor, " n"] | int
    tolerance: float | None

    @property
    def iterations(self) -> Int[Tensor, " n"]:
        """How many iterations each row took."""
        if isinstance(self.counts, Tensor):
            return self.counts
        return torch.full((len(self.value),), self.counts, device=self.value.device)

    @cached_property
    def increment(self) -> Float[Tensor, " n"]:
        """Last increment of each row, max_a |new - old| / (1 + |new|)."""
        return increment(self.value.detach(), self.previous)

    @property
    def converged(self) -> Bool[Tensor, " n"]:
        """The increment is within the tolerance (`LARGEST_INCREMENT` where there is none)."""
        return self.increment <= (LARGEST_INCREMENT if self.tolerance is None else self.tolerance)


def increment(new: Tensor, old: Tensor) -> Tensor:
    """max_a |new - old| / (1 + |new|) of each row."""
    return ((new - old).abs() / (1 + new.abs())).amax(-1)


def taken(iterates: tuple[Tensor, Tensor], count: int) -> FixedPoint:
    """The result of so many iterations, from the last two iterates."""
    new, old = iterates
    return FixedPoint(new, old.detach(), count, None)


def iterate(
    update: Callable[[Tensor], Tensor], start: Tensor, *, max_iterations: int, tolerance: float | None
) -> FixedPoint:
    """x <- update(x): exactly so many times, or until each row moves by no more than the tolerance.

    With a tolerance a row that has converged stays as it is, so that no row depends on the others, and a row
    whose next iterate is not finite keeps the last finite one.
    """
    if tolerance is None:
        old = new = start
        for _ in range(max_iterations):
            old, new = new, update(new)
        return taken((new, old), max_iterations)
    new = old = start
    count = torch.zeros(len(start), dtype=torch.long, device=start.device)
    active = torch.ones(len(start), dtype=torch.bool, device=start.device)
    # a row that went astray is done, but its previous iterate says that it has not converged
    previous = torch.full_like(start, torch.inf)
    for _ in range(max_iterations):
        found = update(new)
        sound = torch.isfinite(found).all(1)
        move = active & sound
        old, new = new, torch.where(move.unsqueeze(1), found, new)
        count += active
        previous = torch.where(move.unsqueeze(1), old.detach(), previous)
        previous = torch.where((active & ~sound).unsqueeze(1), torch.inf, previous)
        active = move & (increment(new.detach(), old.detach()) > tolerance)
        if not bool(active.any()):
            break
    return FixedPoint(new, previous, count, tolerance)
