"""The metric that a Riemannian VAE learns: an inverse metric interpolated between centroids."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.graph import transforms_active
from pullback.metrics.base import BaseMetric, Points, Tensors, unpack
from pullback.metrics.centroid_local import CentroidAt, CentroidTables
from pullback.metrics.chunks import by_chunks
from pullback.metrics.definite import inverse_of_root, not_positive
from pullback.metrics.local import LocalMetric, TensorAt
from pullback.validation import check_choice, check_finite, check_points, check_positive

Vectors = Float[Tensor, "n d"]
# Numbers of one block of points and centroids: it should stay in the cache, and bounds the memory.
BLOCK_NUMBERS = 2**20
CENTROIDS_AT_ONCE = 1024
# Weights of points times centroids up to which all are held at once.
LOCAL_WEIGHTS = 2**22


@dataclass(frozen=True, eq=False, repr=False)
class CentroidMetric(BaseMetric):
    """g⁻¹(z) = s Σ_i w_i(z) M_i + λ I with w_i = exp(-|z - c_i|²/T²) and M_i = L_i L_iᵀ.

    s is 1/N for reduction "mean" and 1 for "sum". Far from all centroids g = I/λ. Everything is in closed
    form and differentiable with respect to z, centroids and factors; memory does not grow with the number of
    centroids.

    Chadebec, Mantoux, Allassonnière 2020, "Geometry-aware Hamiltonian variational auto-encoder".

    Args:
        centroids: c_i, (N, d).
        factors: L_i, (N, d, d); M_i need not be of full rank.
        temperature: T > 0, the reach of a centroid.
        regularization: λ > 0.
        reduction: "mean", or "sum" as in the papers.
    Raises:
        ValueError: other shapes, non-finite numbers, T or λ not positive or with a square that underflows,
            unknown reduction.
    Example:
        >>> import torch
        >>> c, L = torch.zeros(1, 2), torch.eye(2)[None]
        >>> metric = CentroidMetric(c, L, temperature=1.0, regularization=1.0)
        >>> metric.inverse(torch.zeros(1, 2))
        tensor([[[2., 0.],
                 [0., 2.]]])
    """

    centroids: Float[Tensor, "N d"]
    factors: Float[Tensor, "N d d"]
    temperature: float | int = field(kw_only=True)
    regularization: float | int = field(kw_only=True)
    reduction: Literal["mean", "sum"] = field(default="mean", kw_only=True)

    def __post_init__(self) -> None:
        c: Any = check_points("centroids", self.centroids)
        (n, d), L = c.shape, self.factors
        if n == 0:
            raise ValueError("centroids: expected at least one, got (0, d)")
        if not isinstance(L, Tensor) or tuple(L.shape) != (n, d, d) or L.dtype != c.dtype:
            got = f"{tuple(L.shape)} {L.dtype}" if isinstance(L, Tensor) else type(L).__name__
            raise ValueError(
                f"factors: expected ({n}, {d}, {d}) {c.dtype} like centroids {(n, d)}, got {got}"
            )
        check_finite("factors", L)
        check_positive("temperature", self.temperature)
        check_positive("regularization", self.regularization)
        check_choice("reduction", self.reduction, ("mean", "sum"))
        # 1/T² and the determinant of λ I have to be numbers of this precision
        least = torch.finfo(c.dtype).tiny ** 0.5
        for name in ("temperature", "regularization"):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name}: expected at least {least:.2g} in {c.dtype}, got {getattr(self, name)}"
                )
        object.__setattr__(self, "dim", d)

    @classmethod
    def _trusted(cls, centroids: Tensor, factors: Tensor, **options: Any) -> "CentroidMetric":
        """A metric of parts that were checked, or may be not finite: then all it says is NaN."""
        metric = object.__new__(cls)
        parts = {"centroids": centroids, "factors": factors, "dim": centroids.shape[1], **options}
        for name, value in parts.items():
            object.__setattr__(metric, name, value)
        return metric

    def __repr__(self) -> str:
        n, d = self.centroids.shape
        return (
            f"CentroidMetric({n} centroids in {d} dimensions, temperature={self.temperature:g}, "
            f"regularization={self.regularization:g}, reduction={self.reduction!r})"
        )

    @property
    def M(self) -> Float[Tensor, "N d d"]:
        """M_i = L_i L_iᵀ."""
        return self.factors @ self.factors.mT

    @property
    def _scale(self) -> float:
        return 1 / len(self.centroids) if self.reduction == "mean" else 1.0

    def _packed(self) -> Float[Tensor, "N m"]:
        """The lower triangles of M_i."""
        rows, columns = torch.tril_indices(*self.factors.shape[1:], device=self.factors.device)
        return self.M[:, rows, columns]

    def _over_centroids(
        self, term: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], z: Tensor, *beside: Tensor, per: int
    ) -> Tensor:
        """s Σ over centroids of term(z - c, w, packed M, row of ``beside``), in blocks of both.

        A pair of a point and a centroid takes ``per`` numbers.
        """
        self._check_points(z)
        d, packed = z.shape[1], self._packed()
        block = min(len(packed), CENTROIDS_AT_ONCE)

        def at(part: Tensor) -> Tensor:
            total = None
            for c, M in zip(self.centroids.split(block), packed.split(block), strict=True):
                u = part[:, :d].unsqueeze(1) - c
                w = torch.exp(u.square().sum(-1) / -(self.temperature**2))
                found = term(u, w, M, part[:, d:])
                total = found if total is None else total + found
            assert total is not None
            return self._scale * total

        joined = torch.cat([z, *beside], dim=1)
        size = max(1, BLOCK_NUMBERS // (block * per))
        return by_chunks(at, joined, size, self.centroids, packed)

    def _check_points(self, z: Tensor) -> None:
        """Refuse points that would meet the centroids by broadcasting or in another precision."""
        d, dtype = self.centroids.shape[1], self.centroids.dtype
        if z.ndim != 2 or z.shape[1] != d or z.dtype != dtype:
            raise ValueError(f"z: expected (n, {d}) {dtype} like centroids, got {tuple(z.shape)} {z.dtype}")

    def inverse(self, z: Points) -> Tensors:
        """s Σ w_i M_i + λ I."""
        d = z.shape[1]
        mean = self._over_centroids(lambda u, w, M, _: w @ M, z, per=2 * d)
        return unpack(mean, d) + self.regularization * torch.eye(d, dtype=z.dtype, device=z.device)

    def _root(self, inverse: Tensor) -> Tensor:
        """Cholesky factor C of g⁻¹; NaN where g⁻¹ is not finite, so that one bad point spoils no other."""
        C, info = torch.linalg.cholesky_ex(inverse)
        bad = info != 0
        if not transforms_active(inverse) and bool(bad.any()):
            finite = torch.isfinite(inverse).all(-1).all(-1)
            if bool((bad & finite).any()):
                row = int((bad & finite).nonzero()[0])
                raise ValueError(not_positive("inverse(z)", row, inverse[row]))
        return torch.where(bad[:, None, None], torch.nan, C)

    def tensor(self, z: Points) -> Tensors:
        """The inverse of `inverse`, by Cholesky."""
        return inverse_of_root(self._root(self.inverse(z)))

    def logdet(self, z: Points) -> Float[Tensor, " n"]:
        """log det g = -2 Σ ln diag C with C Cᵀ = g⁻¹."""
        return -2 * self._root(self.inverse(z)).diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def _first_moment(self, z: Tensor) -> Float[Tensor, "n d d d"]:
        """s Σ w_i M_i u_c as [n, a, b, c], u = z - c_i."""

        def term(u: Tensor, w: Tensor, M: Tensor, _: Tensor) -> Tensor:
            return torch.einsum("nkc,km->nmc", w.unsqueeze(-1) * u, M)

        return unpack(self._over_centroids(term, z, per=4 * z.shape[1]), z.shape[1])

    def _second_moment(self, z: Tensor) -> Float[Tensor, "n d d d d"]:
        """s Σ w_i M_i u_c u_e as [n, a, b, c, e]."""

        def term(u: Tensor, w: Tensor, M: Tensor, _: Tensor) -> Tensor:
            pairs = (w.unsqueeze(-1) * u).unsqueeze(-1) * u.unsqueeze(-2)
            return torch.einsum("nkce,km->nmce", pairs, M)

        d = z.shape[1]
        return unpack(self._over_centroids(term, z, per=3 * d + 2 * d * d), d)

    def derivative(self, z: Points) -> Float[Tensor, "n d d d"]:
        """∂_c g = -g (∂_c g⁻¹) g with ∂_c g⁻¹ = -(2s/T²) Σ w_i u_c M_i, as [n, a, b, c]."""
        g = self.tensor(z)
        return 2 / self.temperature**2 * torch.einsum("nai,nijc,njb->nabc", g, self._first_moment(z), g)

    def second_derivative(self, z: Points) -> Float[Tensor, "n d d d d"]:
        """-g (∂_c∂_e g⁻¹) g + g (∂_c g⁻¹) g (∂_e g⁻¹) g + g (∂_e g⁻¹) g (∂_c g⁻¹) g as [n, a, b, c, e].

        ∂_c∂_e g⁻¹ = s Σ w_i M_i (4 u_c u_e/T⁴ - 2 δ_ce/T²).
        """
        d, square = z.shape[1], self.temperature**2
        inverse = self.inverse(z)
        g = inverse_of_root(self._root(inverse))
        eye = torch.eye(d, dtype=z.dtype, device=z.device)
        near = (inverse - self.regularization * eye)[..., None, None] * eye
        bend = 4 / square**2 * self._second_moment(z) - 2 / square * near
        curved = torch.einsum("nai,nijce,njb->nabce", g, bend, g)
        slope = -2 / square * torch.einsum("nai,nijc->najc", g, self._first_moment(z))
        pairs = torch.einsum("naic,nije,njb->nabce", slope, slope, g)
        return pairs + pairs.transpose(3, 4) - curved

    def logdet_gradient(self, z: Points) -> Vectors:
        """∇ log det g = (2s/T²) Σ w_i <M_i, g> u_i."""
        return 2 / self.temperature**2 * torch.einsum("nabc,nab->nc", self._first_moment(z), self.tensor(z))

    def hamiltonian_force(self, z: Points, p: Points) -> Points:
        """-½ pᵀ ∂_c g⁻¹ p = (s/T²) Σ w_i (pᵀ M_i p) u_i: nothing is inverted."""
        rows, columns = torch.tril_indices(z.shape[1], z.shape[1], device=z.device)
        # Off the diagonal an entry of the triangle stands for two of the matrix.
        twice = torch.where(rows == columns, 1.0, 2.0).to(z)

        def term(u: Tensor, w: Tensor, M: Tensor, q: Tensor) -> Tensor:
            square = (q[:, rows] * q[:, columns] * twice) @ M.mT
            return torch.einsum("nk,nkc->nc", w * square, u)

        return self._over_centroids(term, z, p, per=3 * z.shape[1]) / self.temperature**2

    def velocity(self, z: Points, p: Points) -> Points:
        """g⁻¹ p."""
        return (self.inverse(z) @ p.unsqueeze(-1)).squeeze(-1)

    def kinetic_gradient(self, z: Points, p: Points) -> Points:
        """∂κ/∂z of κ = ½ (log det g + pᵀ g⁻¹ p), -log N(p; 0, g) without its constant."""
        return self.logdet_gradient(z) / 2 - self.hamiltonian_force(z, p)

    def sample_momentum(self, z: Points, generator: torch.Generator | None = None) -> Points:
        """p ~ N(0, g): C⁻ᵀ γ with γ ~ N(0, I)."""
        noise = torch.empty_like(z).normal_(generator=generator)
        root = self._root(self.inverse(z))
        return torch.linalg.solve_triangular(root.mT, noise.unsqueeze(-1), upper=True).squeeze(-1)

    def local(self, z: Points) -> LocalMetric:
        """The metric at these points; in few matrix products unless points times centroids are too many."""
        self._check_points(z)
        if len(z) * len(self.centroids) > LOCAL_WEIGHTS:
            return TensorAt(self, z)
        tables = CentroidTables(
            self.centroids,
            self.M,
            temperature=self.temperature,
            regularization=self.regularization,
            scale=self._scale,
        )
        return CentroidAt(tables, z)

    def coverage(self, z: Points) -> Float[Tensor, " n"]:
        """max_i w_i: near 0 the metric is I/λ and knows nothing of the data; raise the temperature."""
        self._check_points(z)
        return torch.cat(
            [
                torch.exp(
                    (part.unsqueeze(1) - self.centroids).square().sum(-1).amin(1) / -(self.temperature**2)
                )
                for part in z.split(max(1, BLOCK_NUMBERS // self.centroids.numel()))
            ]
        )
