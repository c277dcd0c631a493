"""Where in latent space a gauge is asked to hold: at codes, between them, or both."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.validation import check_choice, check_points, check_positive

LatentPolicy = Literal["codes", "mixtures", "both"]


def sample_latents(
    codes: Float[Tensor, "n d"],
    policy: LatentPolicy = "both",
    *,
    rows: int | float | None = None,
    mix: tuple[float, float] = (-0.2, 1.2),
    generator: torch.Generator | None = None,
) -> Float[Tensor, "m d"]:
    """Latent points to score a decoder at, with the codes' gradient.

    "codes" draws rows without replacement. "mixtures" draws pairs of codes and joins them to
    (1 - λ) z_i + λ z_j, λ uniform in ``mix``: beyond the ends, too, so that the map is shaped a little
    outside of the data. "both" is half of each, codes first.

    Chen et al. 2020, "Learning flat latent manifolds with VAEs", for mixtures.

    Args:
        codes: (n, d).
        policy: which points.
        rows: their number, or a share of n (a float of at most 1); None is n.
        mix: range of λ.
        generator: for draws; the same on each rank gives the same points there.
    Returns: (rows, d); the codes themselves, in order, for "codes" and all rows.
    Raises:
        ValueError: see the messages.
    Example:
        >>> import torch
        >>> draw = torch.Generator().manual_seed(0)
        >>> sample_latents(torch.zeros(8, 2), "mixtures", rows=0.25, generator=draw).shape
        torch.Size([2, 2])
    """
    check_choice("policy", policy, ("codes", "mixtures", "both"))
    check_points("codes", codes, finite=False)
    n = codes.shape[0]
    count = _count(rows, n)
    if policy == "both":
        first = (count + 1) // 2
        return torch.cat([_drawn(codes, first, generator), _mixed(codes, count - first, mix, generator)])
    if policy == "mixtures":
        return _mixed(codes, count, mix, generator)
    return codes if count == n else _drawn(codes, count, generator)


def _count(rows: int | float | None, n: int) -> int:
    if rows is None:
        return n
    check_positive("rows", rows)
    if isinstance(rows, float):
        if rows > 1:
            raise ValueError(f"rows: expected a whole number or a share of at most 1.0, got {rows}")
        return max(1, round(rows * n)) if n else 0
    return min(rows, n)


def _drawn(codes: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    where = generator.device if generator is not None else codes.device
    order = torch.randperm(codes.shape[0], generator=generator, device=where)[:count]
    return codes[order.to(codes.device)]


def _mixed(codes: Tensor, count: int, mix: tuple[float, float], generator: torch.Generator | None) -> Tensor:
    low, high = mix
    if not low <= high:
        raise ValueError(f"mix: expected (low, high) with low <= high, got {mix}")
    n = codes.shape[0]
    if n == 0:
        return codes[:0]
    where = generator.device if generator is not None else codes.device
    pairs = torch.randint(n, (2, count), generator=generator, device=where).to(codes.device)
    weight = torch.rand(count, 1, generator=generator, device=where, dtype=codes.dtype).to(codes.device)
    weight = low + (high - low) * weight
    return torch.lerp(codes[pairs[0]], codes[pairs[1]], weight)
