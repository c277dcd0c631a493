"""Where in latent space a gauge is asked to hold: at codes, between them, or both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
        object.__setattr__(self, "mix", tuple(self.mix))
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
        if self._alone(n) == n:
            return codes
        index, share = self._numbers(n, generator, codes)
        if not len(share):
            return codes.index_select(0, index)
        return _Points.apply(codes, index, share)  # type: ignore[return-value]

    def matrices(
        self, n: int, generators: Sequence[torch.Generator], like: Tensor
    ) -> Float[Tensor, "k m n"] | None:
        """What `draw` does to n codes, as a matrix for each of k generators: ``points = matrix @ codes``.

        A step that finds its matrix ready takes one operation. None where points are the codes.
        """
        alone = self._alone(n)
        if alone == n:
            return None
        drawn = [self._numbers(n, generator, like) for generator in generators]
        index = torch.stack([index for index, _ in drawn])
        share = torch.stack([share.squeeze(1) for _, share in drawn])
        k, mixed = share.shape
        first, second = index[:, : alone + mixed], index[:, alone + mixed :]
        weights = torch.cat([share.new_ones(k, alone), 1 - share], 1)
        result = share.new_zeros(k, alone + mixed, n)
        result.scatter_(2, first.unsqueeze(2), weights.unsqueeze(2))
        result[:, alone:].scatter_add_(2, second.unsqueeze(2), share.unsqueeze(2))
        return result

    def _numbers(self, n: int, generator: torch.Generator | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Rows alone and the two of each mixture, (alone + 2 mixed,), and λ, (mixed, 1)."""
        where = like.device if generator is None else generator.device
        alone = self._alone(n)
        mixed = self._count(n) - alone
        index = torch.randperm(n, generator=generator, device=where)[:alone]
        if mixed:
            pairs = torch.randint(n, (2 * mixed,), generator=generator, device=where)
            index = torch.cat([index, pairs])
        share = torch.rand(mixed, 1, generator=generator, device=where, dtype=like.dtype)
        low, high = self.mix
        return index.to(like.device), share.mul_(high - low).add_(low).to(like.device)

    def _alone(self, n: int) -> int:
        """How many of n codes stand for themselves."""
        count = self._count(n)
        return {"codes": count, "mixtures": 0, "both": (count + 1) // 2}[self.policy]

    def _count(self, n: int) -> int:
        if self.rows is None:
            return n
        if isinstance(self.rows, float):
            return max(1, round(self.rows * n)) if n else 0
        return min(self.rows, n)


class _Points(torch.autograd.Function):
    """Codes by number, the last of them joined in pairs: one node instead of one an operation."""

    @staticmethod
    def forward(ctx: Any, codes: Tensor, index: Tensor, share: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(index, share)
        ctx.codes, mixed = len(codes), len(share)
        ctx.sizes = [len(index) - 2 * mixed, mixed, mixed]
        _, first, second = (rows := codes.index_select(0, index)).split(ctx.sizes)
        first.lerp_(second, share)
        return rows.narrow(0, 0, len(index) - mixed)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        index, share = ctx.saved_tensors
        alone, mixed = g.split(ctx.sizes[:2])
        second = mixed * share
        rows = torch.cat([alone, mixed - second, second])
        return g.new_zeros(ctx.codes, g.shape[1]).index_add(0, index, rows), None, None
