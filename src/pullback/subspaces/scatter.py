"""Sums over rows in float64, a chunk at a time: means, and the scatter of codes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 512
"""Rows that are widened to float64 at a time: few enough to stay in the cache of a processor."""
BLOCK = 128
"""Columns of a scatter matrix that are formed together, from the diagonal on."""


@dataclass(frozen=True, eq=False)
class Codes:
    """Mean and scatter of codes; where rows are known the scatter is formed when it is first asked for.

    Attributes:
        mean: z̄, (*q, D).
        rows: (B, D) in any precision, or None.
        known: the scatter, where it is.
    """

    mean: Float[Tensor, "*q d"]
    rows: Tensor | None = None
    known: Float[Tensor, "*q d d"] | None = None

    @staticmethod
    def of(rows: Float[Tensor, "b d"]) -> "Codes":
        """Codes whose rows are at hand."""
        return Codes(column_means([rows]), rows)

    @cached_property
    def scatter(self) -> Float[Tensor, "*q d d"]:
        """S_zz = Σ w (z - z̄)(z - z̄)ᵀ."""
        if self.known is not None:
            return self.known
        d = self.mean.shape[-1]
        total = self.mean.new_zeros(d, d)
        for z in self.centred():
            add_upper(total, z, z)
        return mirrored(total)

    def centred(self) -> Iterator[Float[Tensor, "c d"]]:
        """Chunks of rows less the mean, each in the memory of the last."""
        assert self.rows is not None
        for z in wide_chunks([self.rows]):
            z -= self.mean
            yield z

    def projected(self, W: Float[Tensor, "*q k d"]) -> "Codes":
        """Codes z Wᵀ of every basis, from rows where S_zz is not known and would take more operations."""
        mean, flat = W @ self.mean, W.flatten(0, -2)
        formed = self.known is not None or "scatter" in self.__dict__
        # chunks of rows lie in one memory, so that no graph can keep them
        if formed or W.requires_grad or 2 * len(flat) > flat.shape[1]:
            across = (flat @ self.scatter).view_as(W)
            return Codes(mean, None, across @ W.mT)
        total = torch.zeros(*W.shape[:-1], W.shape[-2], dtype=mean.dtype, device=mean.device)
        for z in self.centred():
            coordinates = (z @ flat.mT).unflatten(1, W.shape[:-1]).movedim(0, -1)
            total += coordinates @ coordinates.mT
        return Codes(mean, None, total)

    def merge(self, other: "Codes", share: Tensor, both: Tensor) -> "Codes":
        """Codes of both sets of rows; ``share`` is that of the others, ``both`` is n₁n₂/n."""
        d = other.mean - self.mean
        return Codes(self.mean + d * share, None, self.scatter + other.scatter + both * torch.outer(d, d))


def column_means(blocks: Sequence[Tensor]) -> Float[Tensor, " m"]:
    """Means of the columns of several tensors, in float64."""
    total = sum(x.sum(0) for x in wide_chunks(blocks))
    assert isinstance(total, Tensor)
    return total / len(blocks[0])


def add_upper(scatter: Float[Tensor, "p p"], x: Float[Tensor, "b p"], y: Float[Tensor, "b p"]) -> None:
    """Add xᵀy, where it is symmetric, to blocks on and above the diagonal: little more than half of the work.

    What stands below the diagonal is left without meaning until `mirrored`.
    """
    for start in range(0, len(scatter), BLOCK):
        columns = slice(start, start + BLOCK)
        scatter[columns, start:].addmm_(x[:, columns].mT, y[:, start:])


def mirrored(scatter: Float[Tensor, "p p"]) -> Float[Tensor, "p p"]:
    """``scatter`` itself, with what stands above the blocks of its diagonal copied below them."""
    for start in range(BLOCK, len(scatter), BLOCK):
        columns = slice(start - BLOCK, start)
        scatter[start:, columns] = scatter[columns, start:].mT
    return scatter


def wide_chunks(blocks: Sequence[Tensor]) -> Iterator[Float[Tensor, "c p"]]:
    """Rows of several tensors side by side in float64, `CHUNK` at a time, each in the memory of the last."""
    entries = min(CHUNK, len(blocks[0])) * sum(block.shape[1] for block in blocks)
    memory = torch.empty(entries, dtype=torch.float64, device=sums_on(blocks[0]))
    for rows in chunks(len(blocks[0])):
        yield widen(blocks, rows, memory)


def widen(blocks: Sequence[Tensor], rows: slice, memory: Float[Tensor, " e"]) -> Float[Tensor, "c p"]:
    """Some rows of several tensors side by side in float64, in given memory."""
    widths = [block.shape[1] for block in blocks]
    count = min(rows.stop, len(blocks[0])) - rows.start
    x = memory[: count * sum(widths)].view(count, -1)
    for block, own in zip(blocks, x.split(widths, dim=1), strict=True):
        own.copy_(block[rows].detach().to(memory.device))
    return x


def sums_on(x: Tensor) -> torch.device:
    """Where sums of a tensor are formed: devices without float64 leave them to the CPU."""
    return torch.device("cpu") if x.device.type == "mps" else x.device


def chunks(rows: int) -> Iterator[slice]:
    """Slices of `CHUNK` rows."""
    return (slice(start, start + CHUNK) for start in range(0, rows, CHUNK))
