"""The isometry penalty from sums that merge exactly: chunks of data, minibatches, ranks.

With a count ν, the mean ḡ and the spread S = Σ ‖g - ḡ I‖² about it, P = ½ μ S/ḡ². The textbook form
½ μ (Σ ‖g‖²/ḡ² - ν) cancels: near isometry with relative deviation 1e-2 in float32 it loses the sign.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import widened
from pullback.penalties.gauge import check_mean, gauge, minus_identity, traces


@dataclass(frozen=True, eq=False)
class IsometryStatistics:
    """What the penalty needs of the metrics of any number of points; float64 scalars.

    With E = Gref - I the last three are 0 for the Euclidean reference.

    Attributes:
        rows: n, the number of points.
        count: ν = n d.
        mean: ḡ = Σ tr g / ν.
        spread: Σ ‖g - ḡ I‖².
        reference_product: Σ g:E.
        reference_trace: Σ tr E.
        reference_square: Σ ‖E‖².
    Example:
        >>> import torch
        >>> g = torch.diag_embed(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
        >>> parts = [IsometryStatistics.of(g[:1]), IsometryStatistics.of(g[1:])]
        >>> parts[0].merge(parts[1]).half_square().item(), IsometryStatistics.of(g).half_square().item()
        (0.25, 0.25)
    """

    rows: Float[Tensor, ""]
    count: Float[Tensor, ""]
    mean: Float[Tensor, ""]
    spread: Float[Tensor, ""]
    reference_product: Float[Tensor, ""]
    reference_trace: Float[Tensor, ""]
    reference_square: Float[Tensor, ""]

    @staticmethod
    def of(
        metric: Float[Tensor, "n d d"], reference: Float[Tensor, "*n d d"] | None = None
    ) -> "IsometryStatistics":
        """Statistics of metrics (n, d, d), against I or a reference (d, d) or (n, d, d)."""
        g = widened(metric)
        n, d = g.shape[:2]
        rows, count = g.new_tensor(float(n)), g.new_tensor(float(n * d))
        mean = traces(g).sum() / (n * d) if n else g.new_zeros(())
        spread = minus_identity(g, mean).square().sum()
        if reference is None:
            zero = g.new_zeros(())
            return IsometryStatistics(rows, count, mean, spread, zero, zero, zero)
        E = minus_identity(reference.to(g), 1.0).expand_as(g)
        products = (g * E).sum(), traces(E).sum(), E.square().sum()
        return IsometryStatistics(rows, count, mean, spread, *products)

    def merge(self, other: "IsometryStatistics") -> "IsometryStatistics":
        """Statistics of both sets of points."""
        count = self.count + other.count
        total = count.clamp_min(1)
        gap = other.mean - self.mean
        return IsometryStatistics(
            self.rows + other.rows,
            count,
            self.mean + gap * (other.count / total),
            self.spread + other.spread + gap * gap * (self.count * other.count / total),
            self.reference_product + other.reference_product,
            self.reference_trace + other.reference_trace,
            self.reference_square + other.reference_square,
        )

    def pack(self) -> Tensor:
        """All numbers, (7,): what ranks send each other."""
        return torch.stack([getattr(self, entry.name) for entry in fields(self)])

    @staticmethod
    def unpack(rows: Tensor) -> "IsometryStatistics":
        """The merged statistics of packed rows, (7,) or (ranks, 7)."""
        parts = [IsometryStatistics(*row.unbind()) for row in rows.reshape(-1, 7)]
        merged = parts[0]
        for part in parts[1:]:
            merged = merged.merge(part)
        return merged

    def half_square(self) -> Tensor:
        """P/μ = ½ Σ ‖R‖².

        Raises:
            DegenerateMetricError: ḡ = 0.
        """
        check_mean(self.mean)
        shifted = self.reference_product - self.mean * self.reference_trace
        euclidean = self.spread / self.mean.square()
        return (euclidean - 2 * shifted / self.mean + self.reference_square) / 2

    def sensitivity(
        self, metric: Float[Tensor, "n d d"], reference: Float[Tensor, "*n d d"] | None = None
    ) -> Float[Tensor, "n d d"]:
        """A = ∂(P/μ)/∂g of some of the points, (n, d, d), with ḡ and κ of all."""
        check_mean(self.mean)
        residual = gauge(metric, reference, self.mean).residual
        # κ = Σ R:(g/ḡ) with R = (g - ḡ I)/ḡ - E and Σ tr (g - ḡ I) = 0
        projection = self.spread / self.mean.square() - self.reference_product / self.mean
        return minus_identity(residual, projection / self.count) / self.mean
