"""Rows that are measured each by a factor of its own: |U_iᵀ (z_i - ẑ_i)|².

The mean metric W̄ = Σ U_i U_iᵀ / n = Ū Ūᵀ gives coordinates Ūᵀ z in which factors are V_i with Ū V_i = U_i and
the mean of V_i V_iᵀ is the identity: there a fit that measures all rows alike is a start, and a
preconditioner. The best decoders for given codes solve

    Σ_i x_i x_iᵀ B V_i V_iᵀ + blockdiag(λ_k S_k) B + ρ B = Σ_i x_i z_iᵀ V_i V_iᵀ

by conjugate gradients, since the matrix, (M_tot p)², is never formed.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.decoder_step import DecoderFit, Moments, design, rough_sums, solve
from pullback.models.dictionary.gram import whitened
from pullback.models.dictionary.layout import Layout

CUT = 1e-10
"""Eigenvalue of the mean metric, over its largest, below which no row measures a direction."""
TOLERANCE = 1e-10
STEPS = 500
NOTHING = 1e-13
"""Ridge, in units of a factor's mean squared column, that directions without a measurement are divided by."""


@dataclass(frozen=True, eq=False)
class RowMetrics:
    """Factors of rows about their mean metric.

    Attributes:
        root: Ū, (p, q).
        factors: V_i, (n, q, r).
        numbers: how many numbers of each row are measured, the rank of its factor, (n,).
    """

    root: Float[Tensor, "p q"]
    factors: Float[Tensor, "n q r"]
    numbers: Float[Tensor, " n"]

    @property
    def share(self) -> float:
        """Mean number that is measured of a row, over q."""
        return float(self.numbers.mean()) / self.root.shape[1]

    def mean(
        self, Z: Float[Tensor, "n q"], weights: Float[Tensor, " n"] | None = None
    ) -> Float[Tensor, " q"]:
        """What the rows have in common, by what was seen of each: the mean of V_i V_iᵀ z_i."""
        seen = (self.factors @ whitened(Z, self.factors).unsqueeze(2)).squeeze(2)
        return seen.mean(0) if weights is None else weights @ seen / weights.sum()

    def visible(self, Z: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
        """Rows without what their factors do not see, their parts in the spans of V_i."""
        G = self.factors.mT @ self.factors
        size = G.diagonal(dim1=1, dim2=2).mean(1)
        ridge = torch.where(size > 0, NOTHING * size, 1.0)
        eye = torch.eye(G.shape[1], dtype=G.dtype, device=G.device)
        inside = torch.linalg.solve(G + ridge[:, None, None] * eye, whitened(Z, self.factors))
        return (self.factors @ inside.unsqueeze(2)).squeeze(2)


def about_mean(factors: Float[Tensor, "n p r"]) -> RowMetrics:
    """Factors in coordinates of their mean metric.

    Args:
        factors: U_i, (n, p, r).
    """
    U = factors.double()
    n, p, r = U.shape
    wide = U.transpose(0, 1).reshape(p, n * r)
    values, vectors = torch.linalg.eigh(wide @ wide.mT / n)
    kept = values > CUT * values[-1]
    size, axes = values[kept].sqrt(), vectors[:, kept]
    root = axes * size
    return RowMetrics(root, inner_factors(root, U), torch.linalg.matrix_rank(U).double())


def inner_factors(root: Float[Tensor, "p q"], factors: Float[Tensor, "n p r"]) -> Float[Tensor, "n q r"]:
    """V_i with Ū V_i = U_i, where Ū has orthogonal columns; what it does not measure is left out."""
    return (root / root.square().sum(0)).mT @ factors


@dataclass(frozen=True, eq=False)
class MeasuredDecoders:
    """The best decoders of codes for rows that are measured each by a factor of its own.

    Attributes:
        layout: of the atoms.
        Z: rows in the coordinates of the mean metric, (n, q).
        metrics: of the rows.
        row_weights: w, (n,).
    """

    layout: Layout
    Z: Float[Tensor, "n q"]
    metrics: RowMetrics
    row_weights: Float[Tensor, " n"] | None = None

    def __call__(self, codes: Codes, moments: Moments, lam: Float[Tensor, " k"], rho: float) -> DecoderFit:
        """Decoders; smoothness and effective numbers are those of the mean metric.

        Args:
            codes: of the rows.
            moments: of codes and rows in the mean metric.
            lam, rho: λ, (K,), and ρ.
        """
        mean = solve(self.layout, moments, lam, rho)
        X, shape = design(self.layout, codes), mean.B.shape
        smooth = self.layout.roughness(lam)

        def matrix(B: Tensor) -> Tensor:
            return X.mT @ self._weighed(X @ B) + smooth @ B + mean.rho * B

        def product(flat: np.ndarray) -> np.ndarray:
            return matrix(torch.as_tensor(flat, device=X.device).view(shape)).flatten().cpu().numpy()

        def mean_solution(flat: np.ndarray) -> np.ndarray:
            right = torch.as_tensor(flat, device=X.device).view(shape)
            return torch.cholesky_solve(right, mean.factor).flatten().cpu().numpy()

        size = mean.B.numel()
        right = (X.mT @ self._weighed(self.Z)).flatten().cpu().numpy()
        found, missed = cg(
            LinearOperator((size, size), matvec=product, dtype=np.float64),  # type: ignore[call-arg]
            right,
            x0=mean.B.flatten().cpu().numpy(),
            rtol=TOLERANCE,
            maxiter=STEPS,
            M=LinearOperator((size, size), matvec=mean_solution, dtype=np.float64),  # type: ignore[call-arg]
        )
        B = torch.as_tensor(found, device=X.device).view(shape)
        rss = self.misfit(X @ B)
        w = self.row_weights
        measured = float(self.metrics.numbers.sum() if w is None else self.metrics.numbers @ w)
        left = measured - shape[1] * mean.edf - moments.latents
        s2, rough = rss / max(left, 1.0), rough_sums(self.layout, B)
        # steps that ran out are told like a ridge that had to be raised
        return replace(mean, B=B, rss=rss, s2=s2, rough=rough, retries=mean.retries + int(missed != 0))

    def misfit(self, fitted: Float[Tensor, "n q"]) -> float:
        """Σ w |V_iᵀ (z_i - ẑ_i)|²."""
        missed = whitened(self.Z - fitted, self.metrics.factors).square().sum(1)
        return float(missed.sum() if self.row_weights is None else missed @ self.row_weights)

    def _weighed(self, v: Tensor) -> Tensor:
        """w V_i V_iᵀ v_i."""
        V = self.metrics.factors
        seen = whitened(v, V)
        if self.row_weights is not None:
            seen = self.row_weights.unsqueeze(1) * seen
        return (V @ seen.unsqueeze(2)).squeeze(2)
