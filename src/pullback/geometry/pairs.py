"""Geodesic lengths of any number of pairs: one graph for all, a bounded number of pairs at a time."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullback.geometry.geodesics import START_NAMES, Geodesic, geodesic, pairs_at_once, start_kinds
from pullback.geometry.graphs import LatentGraph
from pullback.geometry.route import Points, in_precision, route_of
from pullback.metrics import BaseMetric, as_metric
from pullback.validation import check_points, check_whole

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], Any]


def latent_graph(
    metric: Any, points: Points, data: Tensor | None = None, *, through: bool = False
) -> LatentGraph:
    """The graph over ``points`` and ``data``, in single precision where the metric can do that.

    Args:
        through: every one of ``points`` becomes a node, so that distances can be read from the graph.
    """
    rough, dtype = in_precision(route_of(as_metric(metric)), torch.float32, points.dtype)
    made = LatentGraph.through if through else LatentGraph.over
    with torch.no_grad():
        points = points.to(dtype)
        return made(rough, points, None if data is None else data.to(points))


@dataclass(frozen=True)
class PairSearch:
    """How geodesics between many pairs are sought.

    Attributes:
        metric: of the latent space.
        options: of `geodesic`; a graph among the starts is one that was made before.
        size: pairs at a time.
    """

    metric: BaseMetric
    options: dict[str, Any]
    size: int

    @classmethod
    def over(cls, metric: Any, points: Points, options: dict[str, Any]) -> "PairSearch":
        """Prepare for pairs of ``points``, with the options of `geodesic`."""
        options = dict(options)
        starts, data = options.pop("starts", START_NAMES), options.pop("data", None)
        size, nodes = options.pop("chunk_size", None), options.get("nodes", 65)
        check_whole("nodes", nodes, minimum=5)
        if size is not None:
            check_whole("chunk_size", size)
        data = None if data is None else check_points("data", data, points.shape[1])
        kinds = [starts] if isinstance(starts, str | LatentGraph) else list(starts)
        if any(isinstance(kind, Tensor) for kind in kinds):
            raise ValueError("starts: expected 'line' or 'graph' for all pairs of points, got curves")
        kinds = start_kinds(starts, points, data)
        known = as_metric(metric)
        if len(points) and "graph" in [kind for kind in kinds if isinstance(kind, str)]:
            graph = latent_graph(known, points, data)
            kinds = [graph if isinstance(kind, str) and kind == "graph" else kind for kind in kinds]
        if size is None and len(points):
            size = pairs_at_once(route_of(known), points, int(nodes))
        return cls(known, options | {"starts": kinds}, size or 1)

    def between(self, start: Points, end: Points) -> Geodesic:
        """The geodesics of at most `size` pairs."""
        with torch.no_grad():
            return geodesic(self.metric, start, end, **self.options)

    def lengths(
        self, start: Points, end: Points
    ) -> tuple[Float[Tensor, " m"], Bool[Tensor, " m"], Float[Tensor, " m"]]:
        """Lengths, certificates and gaps of any number of pairs that fit into memory."""
        parts = [
            self.between(*ends) for ends in zip(start.split(self.size), end.split(self.size), strict=True)
        ]
        names = ("length", "converged", "gap")
        length, converged, gap = (torch.cat([getattr(part, name) for part in parts]) for name in names)
        return length, converged, gap


class Told:
    """Says how much of a long computation is done: to a callback at every step, to the log at every tenth.

    Args:
        what: what is counted.
        total: how many there are.
        progress: called with the number done and the total.
    """

    def __init__(self, what: str, total: int, progress: Progress | None):
        self._what, self._total, self._progress = what, total, progress
        self.done, self._tenth = 0, 0

    def step(self, count: int) -> None:
        """Note that ``count`` more are done."""
        self.done += count
        if self._progress is not None:
            self._progress(self.done, self._total)
        tenth = 10 * self.done // max(self._total, 1)
        if tenth > self._tenth:
            self._tenth = tenth
            logger.info("%s: %d of %d done", self._what, self.done, self._total)


def check_progress(progress: Any) -> None:
    """Raise ``TypeError`` unless ``progress`` can be called or is None."""
    if progress is not None and not callable(progress):
        raise TypeError(f"progress: expected a function (done, total), got {type(progress).__name__}")


def check_both(metric: BaseMetric, z: Any, other: Any) -> tuple[Points, Tensor]:
    """Two sets of points of one width, dtype and device; without ``other`` the first one twice."""
    check_points("z", z, metric.dim)
    if other is None:
        return z.detach(), z.detach()
    check_points("other", other, z.shape[1])
    if other.dtype != z.dtype:
        raise ValueError(f"other: expected {z.dtype} like z, got {other.dtype}")
    return z.detach(), other.detach()


def pair_chunks(n: int, k: int | None, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and columns of the pairs i < j of n points, or of all n times k, ``size`` at a time.

    They are counted, never listed as a whole.
    """
    total = n * (n - 1) // 2 if k is None else n * k
    i = torch.arange(n, device=device)
    before = i * (n - 1) - i * (i - 1) // 2
    for first in range(0, total, size):
        number = torch.arange(first, min(first + size, total), device=device)
        if k is not None:
            yield number // k, number % k
        else:
            row = torch.searchsorted(before, number, right=True) - 1
            # The last point begins no pair: its count equals the total, which is never reached.
            yield row, number - before[row] + row + 1
