"""What an attribution is: numbers that add up to a latent coordinate, with the check that they do."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullback.jets import JacobianVerification
from pullback.validation import check_whole

AffineMap = Literal["derivative", "local_linear"]
Method = Literal["auto", "local", "path"]
Reduction = Literal["l2", "mean_l2", "distance"]
Index = int | slice | list[int] | np.ndarray | Tensor


@dataclass(frozen=True, eq=False)
class Separation:
    """Which features hold two groups apart.

    Attributes:
        groups: the two labels; b is None where a stands against all other rows.
        values: contributions to the distance between the centroids, (p,); with ``offset`` they sum to it.
        offset: what no feature accounts for; 0 by the path method.
        distance: between the centroids f̄_a and f̄_b.
        vector: contributions to f̄_a - f̄_b, (d, p), with ``vector_offset`` (d,).
        feature_names: (p,) names, or None.
    """

    groups: tuple[Any, Any]
    values: Float[Tensor, " p"]
    offset: Float[Tensor, ""]
    distance: Float[Tensor, ""]
    vector: Float[Tensor, "d p"]
    vector_offset: Float[Tensor, " d"]
    feature_names: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class TopFeatures:
    """The features that contribute most.

    Attributes:
        index: (k,), largest first.
        size: mean over points of the norm of a feature's contributions, (k,).
        names: (k,) names, or None.
    """

    index: Int[Tensor, " k"]
    size: Float[Tensor, " k"]
    names: tuple[str, ...] | None


@runtime_checkable
class Source(Protocol):
    """The network and the rows behind an attribution, for questions about pairs and groups of them."""

    def between(self, i: Any, j: Any, method: Method, reduction: Reduction | None) -> "Attribution":
        """Attribution of f(row i) - f(row j)."""
        ...

    def separation(self, labels: Any, a: Hashable | None, b: Hashable | None) -> Separation:
        """Contributions to the distance between two groups of rows."""
        ...


@dataclass(frozen=True, eq=False)
class Attribution:
    """Contributions C_ij of feature j to output i: Σ_j C_ij + offset_i = value_i.

    Attributes:
        values: (n, d, p) without reduction, (n, p) for "l2" and "distance", (p,) for "mean_l2".
        offset: what no feature accounts for, (n, d): f at the baseline for a path, the affine rest for
            "local", 0 between two points along a path.
        value: f(x) from the network's own forward pass, or f(a) - f(b), (n, d).
        baseline: x0, the point whose features contribute 0, (p,); None between two points.
        map: "derivative" or "local_linear".
        method: "local" or "path".
        reduction: None, "l2", "mean_l2" or "distance".
        pieces: linear pieces that a path crosses, or intervals that it was cut into, (n,); None elsewhere.
        nodes: points at which the derivative was taken, (n,), where a path integral is a quadrature.
        kink_margin: (n,), as in `local_affine`; None along paths.
        homogeneity: k of f(c x) = c^k f(x), 0 or 1, or None.
        verification: check of the sums against the network's own forward pass.
        residual: largest |value_i - Σ_j C_ij - offset_i| / (Σ_j |C_ij| + |offset_i|) of each point, (n,).
        piecewise_linear: whether the network is linear piece by piece (layer norms aside).
        feature_names: (p,) names, or None.
        output_names: (d,) names, or None.
        retained: share of |x - mean|² that a projection in front of the network keeps, (n,), or None.
        degenerate: pairs whose images coincide, so that their distance has no direction, (n,), or None.
    """

    values: Float[Tensor, "*shape p"]
    offset: Float[Tensor, "n d"]
    value: Float[Tensor, "n d"]
    baseline: Float[Tensor, " p0"] | None
    map: AffineMap
    method: Literal["local", "path"]
    reduction: Reduction | None
    pieces: Int[Tensor, " n"] | None
    nodes: Int[Tensor, " n"] | None
    kink_margin: Float[Tensor, " n"] | None
    homogeneity: int | None
    verification: JacobianVerification
    residual: Float[Tensor, " n"]
    piecewise_linear: bool
    feature_names: tuple[str, ...] | None = None
    output_names: tuple[str, ...] | None = None
    retained: Float[Tensor, " n"] | None = None
    degenerate: Bool[Tensor, " n"] | None = None
    _source: Source | None = field(default=None, repr=False)

    @property
    def contributions(self) -> Float[Tensor, "*shape p"]:
        """``values``."""
        return self.values

    @property
    def exact(self) -> bool:
        """Whether the sums hold to rounding: piecewise linear, no quadrature, and the check passed."""
        return self.piecewise_linear and self.nodes is None and self.verification.passed

    def between(
        self, i: Index, j: Index, *, method: Method = "auto", reduction: Reduction | None = None
    ) -> "Attribution":
        """Why two explained rows lie apart: contributions to f(x_i) - f(x_j).

        Args:
            i, j: an index or arrays of them, row by row.
            method: "path", exact where the network is linear piece by piece, or "local".
            reduction: None, "l2", "mean_l2", or "distance": contributions to |f(x_i) - f(x_j)|.
        """
        return self._known("between").between(i, j, method, reduction)

    def separation(self, labels: Any, a: Hashable | None = None, b: Hashable | None = None) -> Separation:
        """Why two groups of the explained rows lie apart: contributions to the distance of their centroids.

        Args:
            labels: (n,) group of each row.
            a, b: two of the labels; None for both where there are just two, for b alone: all other rows.
        """
        return self._known("separation").separation(labels, a, b)

    def top(self, k: int = 10) -> TopFeatures:
        """The ``k`` features with the largest mean norm of their contributions."""
        check_whole("k", k)
        size = self.values.abs()
        if self.values.ndim == 3:
            size = torch.sqrt(sum(part * part for part in self.values.unbind(1)))  # type: ignore[arg-type]
        if size.ndim == 2:
            size = size.mean(0) if len(size) else size.sum(0)
        order = torch.argsort(size, descending=True, stable=True)[:k]
        names = self.feature_names
        return TopFeatures(
            order, size[order], None if names is None else tuple(names[m] for m in order.tolist())
        )

    def _known(self, question: str) -> Source:
        if self._source is None:
            raise ValueError(
                f"{question}: expected an attribution that keeps its rows, got one without; call pb.explain, "
                "or contributions_between on the rows themselves"
            )
        return self._source
