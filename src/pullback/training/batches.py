"""Where batches come from: rows in memory, rows on demand, or a stream; each process takes its slice.

A batch is defined for all processes together and sliced by row, so that any number of processes takes the
same steps. An epoch is cut into batches whose sizes differ by at most one row.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from pullback.training.distributed import ALONE, Reduce

SAMPLED_ROWS = 32
"""Rows that stand for the data in their checksum."""


@dataclass(frozen=True)
class Batch:
    """This process's part of a batch.

    Attributes:
        x: rows ``(b, p)``.
        noise: standard normal ``(b, k)``, or None where the model needs none.
        quantities: what the objective is told besides: known quantities of the rows ``(b, m)``, or the pairs
            of rows of an embedding (`pullback.training.graph_batches.Pairs`), or None.
        size: rows of all processes together.
    """

    x: Tensor
    noise: Tensor | None
    quantities: Any
    size: int


@dataclass(frozen=True)
class Placement:
    """Where batches go and what is drawn for them."""

    device: torch.device
    dtype: torch.dtype
    noise_features: int
    reduce: Reduce = ALONE

    def bounds(self, size: int) -> slice:
        """This process's rows of a batch of ``size``."""
        rank, world = self.reduce.rank, self.reduce.size
        return slice(rank * size // world, (rank + 1) * size // world)

    def batch(self, part: Any, size: int, generator: torch.Generator) -> Batch:
        """A batch from this process's rows; noise is drawn for all processes and sliced."""
        x, quantities = part if isinstance(part, tuple | list) else (part, None)
        noise = None
        if self.noise_features:
            whole = torch.randn(size, self.noise_features, generator=generator, dtype=self.dtype)
            noise = whole[self.bounds(size)].to(self.device)
        place = {"device": self.device, "dtype": self.dtype}
        return Batch(x.to(**place), noise, None if quantities is None else quantities.to(**place), size)


@dataclass(frozen=True)
class Streams:
    """Sources of randomness, the same on all processes: one for the order of an epoch, one for noise."""

    order: torch.Generator
    noise: torch.Generator


def seeded_streams(seed: int) -> Streams:
    """Two independent streams from one seed."""
    base = torch.Generator().manual_seed(seed)
    first, second = (int(s) for s in torch.randint(2**62, (2,), generator=base))
    return Streams(torch.Generator().manual_seed(first), torch.Generator().manual_seed(second))


def even_bounds(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Bounds of ceil(n / batch_size) batches whose sizes differ by at most one.

    Example:
        >>> even_bounds(10, 4)
        [(0, 3), (3, 6), (6, 10)]
    """
    count = -(-n // batch_size)
    return [(i * n // count, (i + 1) * n // count) for i in range(count)]


def checksum(*tensors: Tensor) -> str:
    """SHA-256 of the bytes of some tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@runtime_checkable
class Batches(Protocol):
    """Epochs of batches, the same on all processes for the same streams."""

    @property
    def count(self) -> int | None:
        """Batches of an epoch, or None where that is not known."""
        ...

    @property
    def size(self) -> int | None:
        """Rows of the data, or None where that is not known."""
        ...

    def digest(self) -> str | None:
        """Checksum of some of the data; None for what cannot be asked twice."""
        ...

    def epoch(self, streams: Streams, *, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch but the first ``skip``."""
        ...


class IndexedBatches:
    """Batches of a source with ``rows(index)`` and a length.

    Args:
        source: see `as_batches`.
        batch_size: rows of a batch over all processes, at most.
        placement: device, dtype and noise.
        shuffle: draw a new order for each epoch.
    """

    def __init__(self, source: Any, batch_size: int, placement: Placement, *, shuffle: bool):
        if len(source) == 0:
            raise ValueError("data: expected at least one row, got none")
        self.source, self.placement, self.shuffle = source, placement, shuffle
        self.bounds = even_bounds(len(source), batch_size)

    @property
    def count(self) -> int:
        """Batches of an epoch."""
        return len(self.bounds)

    @property
    def size(self) -> int:
        """Rows of the source."""
        return len(self.source)

    def digest(self) -> str:
        """Checksum of some rows."""
        index = torch.linspace(0, self.size - 1, min(self.size, SAMPLED_ROWS)).long()
        rows = self.source.rows(index.to(getattr(self.source, "device", "cpu")))
        return checksum(rows[0] if isinstance(rows, tuple | list) else rows)

    def epoch(self, streams: Streams, *, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch; the first ``skip`` are left out, and no noise is drawn for them."""
        n = len(self.source)
        order = torch.randperm(n, generator=streams.order) if self.shuffle else torch.arange(n)
        order = order.to(getattr(self.source, "device", "cpu"))
        for start, stop in self.bounds[skip:]:
            own = self.placement.bounds(stop - start)
            index = order[start + own.start : start + own.stop]
            yield self.placement.batch(self.source.rows(index), stop - start, streams.noise)


class StreamedBatches:
    """Batches as an iterable gives them, for instance a ``torch.utils.data.DataLoader``.

    Every process reads the whole stream and keeps its rows of each batch, so the stream must come in the same
    order everywhere; what a loader draws from PyTorch's default generator to shuffle is the same on all
    processes.
    """

    def __init__(self, stream: Any, placement: Placement):
        self.stream, self.placement = stream, placement

    @property
    def count(self) -> int | None:
        """Batches of an epoch, or None where the stream does not say."""
        try:
            return len(self.stream)
        except TypeError:  # also of a DataLoader, which has a length only where its dataset has one
            return None

    @property
    def size(self) -> None:
        """A stream does not say."""

    def digest(self) -> None:
        """A stream cannot be asked without using it up."""

    def _start(self, generator: torch.Generator) -> Iterator[Any]:
        """An iterator whose default generator was seeded from ours until its first batch was there."""
        seed = int(torch.randint(2**62, (), generator=generator))
        before = torch.get_rng_state()
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        parts = iter(self.stream)
        first = next(parts, None)
        torch.set_rng_state(before)
        if first is None:
            raise ValueError("data: the stream gave no batch; pass an iterable that starts anew each epoch")
        yield first
        yield from parts

    def epoch(self, streams: Streams, *, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch; the first ``skip`` are read and left out."""
        for position, part in enumerate(self._start(streams.order)):
            if position < skip:
                continue
            x = part[0] if isinstance(part, tuple | list) else part
            if not isinstance(x, Tensor):
                raise TypeError(f"data: expected batches that are tensors, got {type(x).__name__}")
            own = self.placement.bounds(len(x))
            rows = tuple(entry[own] for entry in part) if isinstance(part, tuple | list) else part[own]
            yield self.placement.batch(rows, len(x), streams.noise)


class InMemory:
    """Rows of a tensor, indexed on the device; integers stay as they are until a batch is cut."""

    def __init__(self, values: Tensor, device: torch.device):
        self.values, self.device = values.to(device), device

    def __len__(self) -> int:
        return self.values.shape[0]

    def rows(self, index: Tensor) -> Tensor:
        return self.values.index_select(0, index)


class Paired:
    """A source of rows together with known quantities of the same rows.

    Args:
        source: a tensor ``(n, p)``, or an object with ``__len__`` and ``rows(index)``.
        quantities: ``(n, m)``.
    """

    def __init__(self, source: Any, quantities: Tensor):
        if len(source) != len(quantities):
            raise ValueError(f"quantities: expected {len(source)} rows as the data, got {len(quantities)}")
        self.source, self.quantities = source, quantities

    def __len__(self) -> int:
        return len(self.source)

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.source[index] if isinstance(self.source, Tensor) else self.source.rows(index)
        return rows, self.quantities[index]


class Examples:
    """Rows of a map-style dataset, stacked one by one."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def rows(self, index: Tensor) -> Tensor | tuple[Tensor, ...]:
        items = [self.dataset[int(i)] for i in index]
        if not items:
            first = self.dataset[0]
            many = isinstance(first, tuple | list)
            empty = [torch.as_tensor(e).unsqueeze(0)[:0] for e in (first if many else [first])]
            return tuple(empty) if many else empty[0]
        if isinstance(items[0], tuple | list):
            return tuple(
                torch.stack([torch.as_tensor(e) for e in column]) for column in zip(*items, strict=True)
            )
        return torch.stack([torch.as_tensor(item) for item in items])


def as_batches(data: Any, batch_size: int, placement: Placement, *, shuffle: bool) -> Batches:
    """Batches of any data that training takes.

    Args:
        data: a tensor or array ``(n, p)``; an object with ``__len__`` and ``rows(index)``, which may return
            ``(rows, quantities)``; a map-style dataset; an iterable of batches; or an object that makes its
            own `Batches` by ``batches(batch_size, placement)``. Items that are pairs are rows and their
            quantities.
    Raises:
        TypeError: none of these.
    """
    if hasattr(data, "batches"):
        return data.batches(batch_size, placement)
    if isinstance(data, np.ndarray):
        data = torch.from_numpy(data)
    if isinstance(data, Tensor):
        return IndexedBatches(InMemory(data, placement.device), batch_size, placement, shuffle=shuffle)
    if hasattr(data, "rows") and hasattr(data, "__len__"):
        return IndexedBatches(data, batch_size, placement, shuffle=shuffle)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return IndexedBatches(Examples(data), batch_size, placement, shuffle=shuffle)
    if hasattr(data, "__iter__"):
        return StreamedBatches(data, placement)
    raise TypeError(
        "data: expected a tensor, an object with rows(index) and a length, a dataset or an iterable, "
        f"got {type(data).__name__}"
    )
