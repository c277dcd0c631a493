"""Where a volume density is sampled: far from the data it tends to a constant, and has no finite integral."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Support = Literal["balls", "box", "prior"]
SUPPORTS = ("balls", "box", "prior")
PAIRS = 2**18


def within_balls(
    centres: Float[Tensor, "N d"], reach: float, nearest: Callable[[Tensor], Tensor] | None = None
) -> Callable[[Tensor], Tensor]:
    """Whether min_i |z - c_i| <= reach.

    Args:
        nearest: the distance to the nearest centre, where someone knows it more quickly.
    """

    def distance(z: Tensor) -> Tensor:
        size = max(1, PAIRS // len(centres))
        parts = z.split(size)
        return torch.cat(
            [
                torch.cdist(part, centres, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
                for part in parts
            ]
        )

    measure = distance if nearest is None else nearest
    return lambda z: measure(z) <= reach


def within_box(centres: Float[Tensor, "N d"], reach: float) -> Callable[[Tensor], Tensor]:
    """Whether every coordinate lies within the range of the centres, widened by reach on both sides."""
    low, high = centres.amin(0) - reach, centres.amax(0) + reach
    return lambda z: ((z >= low) & (z <= high)).all(1)
