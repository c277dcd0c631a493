"""What every part of a partitioned latent space tells of every quantity, in one go."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from pullback.subspaces.loo import explained, loo_residuals

PADDED = 2048
"""Numbers of a row, with filling, up to which all parts are solved side by side, in few calls."""
NO_ROWS = 2
"""Rows that a solve needs beyond its coordinates."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Where parts and quantities stand among coordinates and columns.

    Attributes:
        parts: coordinates of each quantity, then the free ones where there are any.
        spans: columns of each quantity.
        index: coordinates of every part, filled up with D, which stands for a column of zeros, (P, k).
        counts: how many of them are no filling, (P,).
        member: whether a column belongs to a quantity, (M, Q).
    """

    parts: list[slice]
    spans: list[slice]
    index: Int[Tensor, "p k"]
    counts: Float[Tensor, " p"]
    member: Float[Tensor, "m q"]

    @staticmethod
    def of(parts: list[slice], widths: list[int], like: Tensor) -> "Layout":
        """For codes of this device and dtype."""
        sizes = [part.stop - part.start for part in parts]
        rows = [
            [*range(part.start, part.stop)] + [like.shape[1]] * (max(sizes) - k)
            for part, k in zip(parts, sizes, strict=True)
        ]
        member = torch.eye(len(widths), dtype=like.dtype).repeat_interleave(torch.tensor(widths), dim=0)
        return Layout(
            parts,
            consecutive(widths),
            torch.tensor(rows, device=like.device),
            torch.tensor(sizes, device=like.device, dtype=like.dtype),
            member.to(like.device),
        )


@dataclass(frozen=True, eq=False)
class PartitionScores:
    """What every part of the latent space tells, as losses; without weights.

    Attributes:
        fit: 1 - R² of each quantity from its own block, (Q,).
        leak: [q, r]: max(0, R²) of what y_r does not imply of y_q, from block r; 0 where nothing can leak,
            (Q, Q).
        free: max(0, R²) of each quantity from the free dimensions, (Q,).
        isotropy: of the free dimensions; None where it has no weight.
    """

    fit: Float[Tensor, " q"]
    leak: Float[Tensor, "q q"]
    free: Float[Tensor, " q"]
    isotropy: Float[Tensor, ""] | None


@dataclass(frozen=True, eq=False)
class PartitionTerms:
    """The loss of a batch and what it is made of.

    Attributes:
        total: with weights, with gradient.
        fit: quantity -> 1 - R² from its own block.
        leak: (q, r) -> max(0, R²) of what quantity r does not imply of q, from the block of r; None where r
            implies q.
        free: quantity -> max(0, R²) from the free dimensions.
        isotropy: of the free dimensions; None where it has no weight.
    """

    total: Float[Tensor, ""]
    fit: dict[str, Tensor]
    leak: dict[tuple[str, str], Tensor | None]
    free: dict[str, Tensor]
    isotropy: Tensor | None


def consecutive(widths: list[int]) -> list[slice]:
    """Slices of these widths, one behind the other."""
    ends = torch.tensor(widths).cumsum(0).tolist()
    return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]


def scores_of_parts(
    z: Float[Tensor, "b d"],
    y: Float[Tensor, "b m"],
    implied: Float[Tensor, "m m"],
    layout: Layout,
    *,
    ridge: float,
    t_floor: Tensor,
) -> Float[Tensor, "p q"]:
    """R² of every quantity from every part: of its own as it is, of others less what they imply of it.

    Args:
        z: centred codes in the axes of the parts.
        y: standardised columns, NaN where values are missing.
        implied: block (r, q) is C_{q|r}.
        layout: of parts and columns.
        ridge, t_floor: see `pullback.subspaces.loo_r2`.
    """
    # a sum sees every NaN in one pass
    if not bool(torch.isfinite(y.sum())):
        return _with_gaps(z, y, implied, layout, ridge, t_floor)
    given, member = _given(y, implied, layout), layout.member
    if layout.index.numel() <= PADDED:
        S = functional.pad(z, (0, 1))[:, layout.index].transpose(0, 1)
        Y, R = loo_residuals(S, torch.stack(given), ridge, t_floor=t_floor, sizes=layout.counts)
        return explained(Y.square().sum(1) @ member, R.square().sum(1) @ member)
    found = []
    for part, target in zip(layout.parts, given, strict=True):
        Y, R = loo_residuals(z[:, part], target, ridge, t_floor=t_floor)
        found.append(explained(Y.square().sum(0) @ member, R.square().sum(0) @ member))
    return torch.stack(found)


def _given(y: Tensor, implied: Tensor, layout: Layout) -> list[Tensor]:
    """What is read from each part; from the free one everything."""
    given = [y - y[:, span] @ implied[span] for span in layout.spans]
    return given if len(layout.parts) == len(given) else [*given, y]


def _with_gaps(
    z: Tensor, y: Tensor, implied: Tensor, layout: Layout, ridge: float, t_floor: Tensor
) -> Float[Tensor, "p q"]:
    """The same where values are missing: each R² from the rows that have what it needs, 0 if few do."""
    spans = layout.spans
    has = torch.stack([torch.isfinite(y[:, span]).all(1) for span in spans])
    y = torch.where(torch.isfinite(y), y, 0)
    found = []
    for j, (part, target) in enumerate(zip(layout.parts, _given(y, implied, layout), strict=True)):
        S, scores = z[:, part], []
        for i, span in enumerate(spans):
            kept = has[i] & has[j] if j < len(spans) else has[i]
            if int(kept.sum()) < S.shape[1] + NO_ROWS:
                scores.append(z.new_zeros(()))
                continue
            Y, R = loo_residuals(S[kept], target[kept][:, span], ridge, t_floor=t_floor)
            scores.append(explained(Y.square().sum(), R.square().sum()))
        found.append(torch.stack(scores))
    return torch.stack(found)
