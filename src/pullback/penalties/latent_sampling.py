"""Where in latent space a gauge is asked to hold: at codes, between them, or both."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.validation import check_choice, check_points, check_positive, check_whole

LatentPolicy = Literal["codes", "mixtures", "both"]


@dataclass(frozen=True)
class LatentSampling:
    """Latent points of a training step to score a decoder at, with the codes' gradient.

    "codes" draws rows without replacement. "mixtures" draws pairs of codes and joins them to
    (1 - λ) z_i + λ z_j, λ uniform in ``mix``: beyond the ends, too, so that the map is shaped a little
    outside of the data. "both" is half of each, codes first.

    Chen et al. 2020, "Learning flat latent manifolds with VAEs", for mixtures.

    Args:
        policy: which points.
        rows: their number, or a share of the codes (a float of at most 1); None is one a code.
        mix: range of λ.
    Raises:
        ValueError: see the messages.
    Example:
        >>> import torch
        >>> draw = torch.Generator().manual_seed(0)
        >>> LatentSampling("mixtures", rows=0.25).draw(torch.zeros(8, 2), draw).shape
        torch.Size([2, 2])
    """

    policy: LatentPolicy = "codes"
    rows: int | float | None = None
    mix: tuple[float | int, float | int] = (-0.2, 1.2)

    def __post_init__(self) -> None:
        check_choice("policy", self.policy, ("codes", "mixtures", "both"))
        if isinstance(self.rows, float):
            check_positive("rows", self.rows)
            if self.rows > 1:
                raise ValueError(f"rows: expected a whole number or a share of at most 1.0, got {self.rows}")
        elif self.rows is not None:
            check_whole("rows", self.rows)
        if len(self.mix) != 2 or not -math.inf < self.mix[0] <= self.mix[1] < math.inf:
            raise ValueError(f"mix: expected finite (low, high) with low <= high, got {self.mix}")

    def draw(
        self, codes: Float[Tensor, "n d"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "m d"]:
        """Points from codes (n, d); the codes themselves, in order, for "codes" and all rows.

        Args:
            codes: (n, d).
            generator: for draws; the same on each rank gives the same points there.
        """
        check_points("codes", codes, finite=False)
        n = codes.shape[0]
        count = self._count(n)
        alone = {"codes": count, "mixtures": 0, "both": (count + 1) // 2}[self.policy]
        if alone == n or n == 0:
            return codes
        where = codes.device if generator is None else generator.device
        mixed = count - alone
        index = torch.cat(
            [
                torch.randperm(n, generator=generator, device=where)[:alone],
                torch.randint(n, (2 * mixed,), generator=generator, device=where),
            ]
        )
        rows = codes.index_select(0, index.to(codes.device))
        if not mixed:
            return rows
        share = torch.rand(mixed, 1, generator=generator, device=where, dtype=codes.dtype).to(codes.device)
        single, first, second = rows.split([alone, mixed, mixed])
        low, high = self.mix
        joined = torch.lerp(first, second, low + (high - low) * share)
        return torch.cat([single, joined]) if alone else joined

    def _count(self, n: int) -> int:
        if self.rows is None:
            return n
        if isinstance(self.rows, float):
            return max(1, round(self.rows * n)) if n else 0
        return min(self.rows, n)
