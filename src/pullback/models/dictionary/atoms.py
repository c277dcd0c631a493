"""One atom of a fitted dictionary: a curve, a surface, a direction or a set of points in data space."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullback.models.dictionary.gauge import arc_length, has_arc_length, metric, speeds
from pullback.typing import Chart
from pullback.validation import check_points

Array = Float[Tensor, "..."] | Float[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class Atom:
    """g(t) = Φ(t) B.

    Attributes:
        index: number among the atoms.
        chart: its coordinates and basis.
        decoder: B, (M, p).
        roughness_weight: λ.
    """

    index: int
    chart: Chart
    decoder: Float[Tensor, "k p"]
    roughness_weight: float

    def decode(self, t: Array) -> Array:
        """g at coordinates: (n, c) -> (n, p), arrays from arrays and tensors from tensors.

        Raises:
            ValueError: coordinates of another width.
        """
        at = self._read(t)
        return _like(self.chart.jet(at, 0).value @ self.decoder.to(at), t)

    def jacobian(self, t: Array) -> Array:
        """Derivatives of g by the steps along the chart: (n, c) -> (n, p, d)."""
        at = self._read(t)
        return _like((self.chart.jet(at, 1).jacobian.mT @ self.decoder.to(at)).mT, t)

    def metric(self, t: Array) -> Array:
        """Metric of data space pulled back: (n, c) -> (n, d, d)."""
        at = self._read(t)
        return _like(metric(self.chart, self.decoder.to(at), at), t)

    def arclength(self, t: Array) -> Array:
        """Length of the curve from its first point, (n,); circles and intervals.

        Raises:
            ValueError: an atom without a coordinate to measure along.
        """
        if not has_arc_length(self.chart):
            raise ValueError(f"atom {self.index} is a {self.chart.name}: expected a circle or an interval")
        at = self._read(t)
        B = self.decoder.to(at)
        nodes, speed = speeds(self.chart, B.double())
        low, high = self.chart.span  # type: ignore[attr-defined]
        share = (arc_length(self.chart, B, at)[:, 0] - low) / (high - low)
        return _like(share * torch.trapezoid(speed, nodes).to(at), t)

    def _read(self, t: Array) -> Tensor:
        return check_points("t", torch.as_tensor(t), self.chart.c)


def _like(found: Tensor, given: object) -> Array:
    return found.detach().cpu().numpy() if isinstance(given, np.ndarray) else found
