"""Ridge regression whose strength is chosen by leaving one row out, or from moments alone."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.subspaces.moments import Moments, Rows

Criterion = Literal["loo", "gcv"]
CRITERIA = ("loo", "gcv")
LOWEST, HIGHEST, STEPS = -8.0, 1.0, 19
"""The grid of strengths: e_max 10^-8 to 10, half a decade apart."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """S_zz = V diag(e) Vᵀ, with or without directions in which nothing varies.

    Attributes:
        values: e, (r,), r <= D.
        vectors: V, (D, r).
    """

    values: Float[Tensor, " r"]
    vectors: Float[Tensor, "d r"]

    @staticmethod
    def of(zz: Float[Tensor, "d d"]) -> "Spectrum":
        """Eigenvalues, clamped at 0, and eigenvectors."""
        values, vectors = torch.linalg.eigh(zz)
        return Spectrum(_varying(values), vectors)

    @staticmethod
    def of_rows(centred: Float[Tensor, "b d"]) -> "Spectrum":
        """The same from fewer rows than columns, of which at most B directions vary.

        By singular values: products of rows would give small e, and their directions, half of the digits.
        """
        _, sizes, vectors = torch.linalg.svd(centred, full_matrices=False)
        return Spectrum(_varying(sizes.square()), vectors.mT.contiguous())


@dataclass(frozen=True, eq=False)
class Ridge:
    """A ridge regression of one quantity on the codes.

    Attributes:
        strength: λ, in the units of S_zz.
        spectrum: of S_zz.
        loadings: P = Vᵀ S_zy, (r, m), of scaled columns.
    """

    strength: float
    spectrum: Spectrum
    loadings: Float[Tensor, "r m"]

    @property
    def coefficients(self) -> Float[Tensor, "d m"]:
        """(S_zz + λ I)⁻¹ S_zy."""
        e, V = self.spectrum.values, self.spectrum.vectors
        return V @ (self.loadings / (e + self.strength).unsqueeze(1))


def fit_ridge(
    moments: Moments,
    scale: Float[Tensor, " m"],
    criterion: Criterion | float | int,
    *,
    rows: Rows | None = None,
    spectrum: Spectrum | None = None,
) -> Ridge:
    """The regression with the strength that the criterion likes best.

    Args:
        moments: of the codes and the quantity.
        scale: factor of every column, 0 for columns that do not count.
        criterion: "loo" needs ``rows``; a number is λ relative to the mean of the eigenvalues of S_zz.
        rows: the rows behind the moments.
        spectrum: of S_zz, where it is known.
    """
    spectrum = Spectrum.of(moments.zz) if spectrum is None else spectrum
    e, V = spectrum.values, spectrum.vectors
    P = (V.mT @ moments.zy) * scale
    if isinstance(criterion, float | int):
        return Ridge(float(criterion) * float(e.sum() / len(V)), spectrum, P)
    grid = strengths(e)
    if criterion == "gcv":
        errors = gcv_errors(e, P, (moments.yy * scale.square()).sum(), moments.n_effective, grid)
    else:
        assert rows is not None
        errors = loo_errors(moments, spectrum, P, scale, rows, grid)
    return Ridge(float(grid[errors.argmin()]), spectrum, P)


def strengths(e: Float[Tensor, " r"]) -> Float[Tensor, " l"]:
    """The grid of strengths, relative to the largest eigenvalue, so that the scale of the codes drops out."""
    return e.amax() * torch.logspace(LOWEST, HIGHEST, STEPS, dtype=e.dtype, device=e.device)


def gcv_errors(
    e: Float[Tensor, " r"],
    P: Float[Tensor, "r m"],
    total: Float[Tensor, ""],
    n: float,
    grid: Float[Tensor, " l"],
) -> Float[Tensor, " l"]:
    """Generalised cross-validation n RSS/(n - df)², df = 1 + Σ e/(e + λ), for every strength.

    Golub, Heath, Wahba 1979, "Generalized cross-validation as a method for choosing a good ridge parameter".
    Infinite where n - df < 1.
    """
    size = P.square().sum(1)
    shrunk = 1 / (e + grid.unsqueeze(1))
    df = 1 + shrunk @ e
    rss = total - 2 * shrunk @ size + shrunk.square() @ (e * size)
    left = n - df
    if not bool((left >= 1).any()):
        raise ValueError(f"Z: expected more rows to choose a ridge with, got {n:.3g}; give a number for it")
    return torch.where(left >= 1, n * rss.clamp_min(0) / left.square(), torch.inf)


def loo_errors(
    moments: Moments,
    spectrum: Spectrum,
    P: Float[Tensor, "r m"],
    scale: Float[Tensor, " m"],
    rows: Rows,
    grid: Float[Tensor, " l"],
) -> Float[Tensor, " l"]:
    """Σ r_i²/(1 - h_i)² for every strength: exactly the squared errors of n fits that leave a row out each.

    The leverage h_i = 1/n + Σ_j t_ij²/(e_j + λ), t = V ᵀ(z - z̄), counts the mean by its 1/n. Where the
    quantity has more columns than the codes, the sum is expanded, so that a strength costs rows x D², not
    rows x D x m.
    """
    e, V = spectrum.values, spectrum.vectors
    errors = torch.zeros_like(grid)
    wide = P.shape[1] > P.shape[0]
    PP = P @ P.mT
    shrunk = 1 / (e + grid.unsqueeze(1))
    tiny = torch.finfo(grid.dtype).eps
    for z, y in rows.chunks(moments):
        T, y = z @ V, y * scale
        kept = (1 - 1 / moments.n - T.square() @ shrunk.mT).clamp_min(tiny)
        if wide:
            found = y.square().sum(1, keepdim=True) - 2 * ((y @ P.mT) * T) @ shrunk.mT
            found = torch.stack([found[:, i] + _quadratic(T * s, PP) for i, s in enumerate(shrunk)], dim=1)
            found = found.clamp_min(0)
        else:
            found = torch.stack([(y - (T * s) @ P).square().sum(1) for s in shrunk], dim=1)
        errors += (found / kept.square()).sum(0)
    return errors


def _varying(values: Float[Tensor, " r"]) -> Float[Tensor, " r"]:
    """Eigenvalues clamped at 0; raise where none is above."""
    if not values.amax() > 0:
        raise ValueError("Z: expected codes that vary, got a single value in every column")
    return values.clamp_min(0)


def _quadratic(x: Float[Tensor, "b r"], matrix: Float[Tensor, "r r"]) -> Float[Tensor, " b"]:
    return ((x @ matrix) * x).sum(1)
