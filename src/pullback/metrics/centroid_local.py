"""The centroid metric at one set of points, in few matrix products: what a Hamiltonian flow asks for.

Nothing here has an entry a point, a centroid and a pair of dimensions; with many centroids the metric's own
chunked sums take over (`CentroidMetric.local`).
"""

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

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
        self.centroids, self.dim, self.square = centroids, d, temperature**2
        flat = matrices.reshape(n, d * d) * scale
        self.joint = (1 + d) * d * d <= MOMENT_COLUMNS
        self.flat = flat
        self.ridge = regularization * torch.eye(d, dtype=flat.dtype, device=flat.device)
        if self.joint:
            beside = (centroids.unsqueeze(2) * flat.unsqueeze(1)).reshape(n, d * d * d)
            self.moments = torch.cat([flat, beside], dim=1)

    def weights(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b N"]:
        """w_i(z) = exp(-|z - c_i|²/T²)."""
        return _Weights.apply(z, self.centroids, self.square)  # type: ignore[return-value]

    def inverse(self, weights: Float[Tensor, "b N"]) -> Float[Tensor, "b d d"]:
        """s Σ w_i M_i + λ I."""
        return (weights @ self.flat).unflatten(1, (self.dim, self.dim)) + self.ridge


class CentroidAt(LocalMetric):
    """g⁻¹ = s Σ w_i M_i + λ I at points, and ∂κ/∂z = (s/T²) Σ w_i <M_i, g - p pᵀ> (z - c_i).

    Where g⁻¹ is not finite or not positive definite all is NaN.
    """

    def __init__(self, tables: CentroidTables, z: Float[Tensor, "b d"]):
        self.tables, self.z = tables, z

    @cached_property
    def _weights(self) -> Tensor:
        return self.tables.weights(self.z)

    @cached_property
    def _sums(self) -> tuple[Tensor, Tensor | None]:
        """s Σ w_i M_i and, where it is cheap, s Σ w_i (z - c_i)_k M_i as (b, k, d²)."""
        tables, d = self.tables, self.tables.dim
        if not tables.joint:
            return self._weights @ tables.flat, None
        mean, beside = (self._weights @ tables.moments).split([d * d, d**3], dim=1)
        return mean, torch.addcmul(-beside.unflatten(1, (d, d * d)), self.z.unsqueeze(2), mean.unsqueeze(1))

    @cached_property
    def inverse(self) -> Float[Tensor, "b d d"]:
        """s Σ w_i M_i + λ I."""
        return self._sums[0].unflatten(1, (self.tables.dim, self.tables.dim)) + self.tables.ridge

    @cached_property
    def root(self) -> Float[Tensor, "b d d"]:
        """C, lower, with C Cᵀ = g⁻¹."""
        C, info = torch.linalg.cholesky_ex(self.inverse)
        return torch.where((info != 0)[:, None, None], torch.nan, C)

    @cached_property
    def _plane(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Entries a, b, c of a 2 x 2 g⁻¹ and its determinant, NaN where it is not positive definite."""
        a, b, _, c = self.inverse.flatten(1).unbind(1)
        det = a * c - b * b
        return a, b, c, torch.where((det > 0) & (a > 0), det, torch.nan)

    @cached_property
    def tensor(self) -> Float[Tensor, "b d d"]:
        """g."""
        if self.tables.dim == 2:
            a, b, c, det = self._plane
            return (torch.stack([c, -b, -b, a], dim=1) / det.unsqueeze(1)).unflatten(1, (2, 2))
        eye = torch.eye(self.tables.dim, dtype=self.z.dtype, device=self.z.device)
        half = torch.linalg.solve_triangular(self.root, eye.expand_as(self.root), upper=False)
        return half.mT @ half

    @cached_property
    def logdet(self) -> Float[Tensor, " b"]:
        """log det g."""
        if self.tables.dim == 2:
            return -self._plane[3].log()
        return -2 * self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def _contract(self, A: Float[Tensor, "b d d"]) -> Float[Tensor, "b d"]:
        """(s/T²) Σ w_i <M_i, A> (z - c_i)."""
        tables, flat = self.tables, A.flatten(1)
        moments = self._sums[1]
        if moments is not None:
            return (moments @ flat.unsqueeze(2)).squeeze(2) / tables.square
        a = self._weights * (flat @ tables.flat.mT)
        return (a.sum(1, keepdim=True) * self.z - a @ tables.centroids) / tables.square

    def kinetic_gradient(self, p: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """∂κ/∂z at a fixed momentum."""
        return self._contract(self.tensor - p.unsqueeze(2) * p.unsqueeze(1))

    def logdet_gradient(self) -> Float[Tensor, "b d"]:
        """∇ log det g = (2s/T²) Σ w_i <M_i, g> (z - c_i)."""
        return 2 * self._contract(self.tensor)

    def momentum(self, noise: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """C⁻ᵀ γ."""
        if self.tables.dim == 2:
            a, b, _, det = self._plane
            second = noise[:, 1] * (a / det).sqrt()
            return torch.stack([noise[:, 0] * a.rsqrt() - second * b / a, second], dim=1)
        return torch.linalg.solve_triangular(self.root.mT, noise.unsqueeze(-1), upper=True).squeeze(-1)

    def at(self, z: Float[Tensor, "b d"]) -> "CentroidAt":
        """The same metric at other points."""
        return CentroidAt(self.tables, z)


class _Weights(torch.autograd.Function):
    """exp(-|z - c|²/T²) as one node of the graph; it keeps no differences z - c."""

    @staticmethod
    def forward(z: Tensor, c: Tensor, square: float) -> Tensor:  # type: ignore[override]
        # by differences: |z|² + |c|² - 2 z·c would cancel
        return (z.unsqueeze(1) - c).square_().sum(-1).mul_(-1 / square).exp_()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        z, c, ctx.square = inputs
        ctx.save_for_backward(z, c, output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        z, c, w = ctx.saved_tensors
        h = g * w * (-2 / ctx.square)
        to_z = h.sum(1, keepdim=True) * z - h @ c if ctx.needs_input_grad[0] else None
        to_c = h.sum(0).unsqueeze(1) * c - h.mT @ z if ctx.needs_input_grad[1] else None
        return to_z, to_c, None
