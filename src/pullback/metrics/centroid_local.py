"""The centroid metric at one set of points, in few matrix products: what a Hamiltonian flow asks for.

No array has an entry a point, a centroid and a pair of dimensions. With very many centroids the metric's own
chunked sums take over (`CentroidMetric.local`).
"""

from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.metrics import centroid_flow as flow
from pullback.metrics.local import LocalMetric

MOMENT_COLUMNS = 64
"""Up to so many columns one product that also holds Σ w_i c_i M_i is cheaper than one a contraction."""


class CentroidTables:
    """Centroids and vec M_i as matrices, made once for all points of a flow.

    Args:
        centroids: c_i.
        matrices: M_i = L_i L_iᵀ.
        temperature: T.
        regularization: λ.
        scale: s.
    """

    def __init__(
        self,
        centroids: Float[Tensor, "N d"],
        matrices: Float[Tensor, "N d d"],
        *,
        temperature: float,
        regularization: float,
        scale: float,
    ):
        n, d = centroids.shape
        self.centroids, self.dim, self.square = centroids, d, float(temperature) ** 2
        self.flat = matrices.reshape(n, d * d) * scale
        self.ridge = regularization * torch.eye(d, dtype=centroids.dtype, device=centroids.device)
        self.moments: Tensor | None = None
        if (1 + d) * d * d <= MOMENT_COLUMNS:
            beside = (centroids.unsqueeze(2) * self.flat.unsqueeze(1)).reshape(n, d**3)
            self.moments = torch.cat([self.flat, beside], dim=1)


class CentroidAt(LocalMetric):
    """g⁻¹ = s Σ w_i M_i + λ I at points, and ∂κ/∂z = (s/T²) Σ w_i <M_i, g - p pᵀ> (z - c_i).

    Where g⁻¹ is not finite or not positive definite all is NaN. Everything can be differentiated once.
    """

    def __init__(self, tables: CentroidTables, z: Float[Tensor, "n d"]):
        self.tables, self.z = tables, z

    @cached_property
    def _place(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """g⁻¹, log det g, <T, g>/T², and T or the weights."""
        tables = self.tables
        kind, table = (
            (flow.WidePlace, tables.flat) if tables.moments is None else (flow.Place, tables.moments)
        )
        return kind.apply(self.z, tables.centroids, table, tables.ridge, tables.square)  # type: ignore[return-value]

    @property
    def inverse(self) -> Float[Tensor, "n d d"]:
        """s Σ w_i M_i + λ I."""
        return self._place[0]

    @property
    def logdet(self) -> Float[Tensor, " n"]:
        """log det g."""
        return self._place[1]

    @property
    def rest_gradient(self) -> Float[Tensor, "n d"]:
        """½ ∇ log det g = (s/T²) Σ w_i <M_i, g> (z - c_i)."""
        return self._place[2]

    def force(self, p: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """(s/T²) Σ w_i (pᵀ M_i p) (z - c_i)."""
        return self.momentum_iterates(p, torch.zeros_like(p), half_step=1.0, count=1)[0]

    def momentum(self, noise: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """C⁻ᵀ γ with C Cᵀ = g⁻¹."""
        if self.tables.dim == 2:
            a, b, _, _ = self.inverse.flatten(1).unbind(1)
            second = noise[:, 1] * (a * self.logdet.exp()).sqrt()
            return torch.stack([noise[:, 0] * a.rsqrt() - second * b / a, second], dim=1)
        C, info = torch.linalg.cholesky_ex(self.inverse)
        C = torch.where((info != 0)[:, None, None], torch.nan, C)
        return torch.linalg.solve_triangular(C.mT, noise.unsqueeze(-1), upper=True).squeeze(-1)

    def momentum_iterates(
        self,
        start: Float[Tensor, "n d"],
        base: Float[Tensor, "n d"],
        *,
        half_step: float | Tensor,
        count: int,
    ) -> tuple[Tensor, Tensor]:
        """r <- base + half_step force(r), from ``start``; the last two iterates."""
        if isinstance(half_step, Tensor):
            return super().momentum_iterates(start, base, half_step=half_step, count=count)
        tables, held = self.tables, self._place[3]
        e = half_step / tables.square
        if tables.moments is not None:
            return flow.Momentum.apply(start, base, held, e, count)  # type: ignore[return-value]
        more = (held, self.z, tables.centroids, tables.flat)
        return flow.WideMomentum.apply(start, base, *more, e, count)  # type: ignore[return-value]

    def position_iterates(
        self, p: Float[Tensor, "n d"], *, half_step: float | Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """y <- z + half_step (g⁻¹(z) p + g⁻¹(y) p), from z; the last two iterates."""
        if isinstance(half_step, Tensor):
            return super().position_iterates(p, half_step=half_step, count=count)
        t = self.tables
        return flow.Position.apply(  # type: ignore[return-value]
            self.z, p, self.inverse, t.centroids, t.flat, t.ridge, t.square, half_step, count
        )

    def at(self, z: Float[Tensor, "n d"]) -> "CentroidAt":
        """The same metric at other points."""
        return CentroidAt(self.tables, z)
