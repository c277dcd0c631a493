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
        values: e, (*q, r), r <= D.
        vectors: V, (*q, D, r).
    """

    values: Float[Tensor, "*q r"]
    vectors: Float[Tensor, "*q d r"]

    @staticmethod
    def of(zz: Float[Tensor, "*q d d"]) -> "Spectrum":
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
    """A ridge regression of a quantity on the codes, or of each of several side by side.

    Attributes:
        strength: λ, in the units of S_zz, (*q); no gradient flows through it.
        spectrum: of S_zz.
        loadings: P = Vᵀ S_zy, (*q, r, m), of scaled columns.
    """

    strength: Float[Tensor, "*q"]
    spectrum: Spectrum
    loadings: Float[Tensor, "*q r m"]

    @property
    def damped(self) -> Float[Tensor, "*q r"]:
        """e + λ."""
        return self.spectrum.values + self.strength.unsqueeze(-1)

    @property
    def coefficients(self) -> Float[Tensor, "*q d m"]:
        """(S_zz + λ I)⁻¹ S_zy."""
        return self.spectrum.vectors @ (self.loadings / self.damped.unsqueeze(-1))


def fit_ridge(
    moments: Moments,
    scale: Float[Tensor, "*q m"],
    criterion: Criterion | float | int,
    *,
    rows: Rows | None = None,
    spectrum: Spectrum | None = None,
) -> Ridge:
    """The regression with the strength that the criterion likes best.

    Args:
        moments: of the codes and the quantity, or of several side by side.
        scale: factor of every column, 0 for columns that do not count.
        criterion: "loo" needs ``rows`` and takes one quantity; a number is λ relative to the mean of the
            eigenvalues of S_zz.
        rows: the rows behind the moments.
        spectrum: of S_zz, where it is known.
    """
    spectrum = Spectrum.of(moments.zz) if spectrum is None else spectrum
    e, V = spectrum.values, spectrum.vectors
    P = (V.mT @ moments.zy) * scale.unsqueeze(-2)
    if isinstance(criterion, float | int):
        return Ridge(float(criterion) * e.detach().sum(-1) / V.shape[-2], spectrum, P)
    grid = strengths(e)
    if criterion == "gcv":
        errors = gcv_errors(e, P, (moments.yy * scale.square()).sum(-1), moments.n_effective, grid)
    else:
        assert rows is not None
        errors = loo_errors(moments, spectrum, P, scale, rows, grid)
    best = errors.argmin(-1, keepdim=True)
    return Ridge(grid.detach().expand_as(errors).gather(-1, best).squeeze(-1), spectrum, P)


def strengths(e: Float[Tensor, "*q r"]) -> Float[Tensor, "*q l"]:
    """The grid of strengths, relative to the largest eigenvalue, so that the scale of the codes drops out."""
    grid = torch.logspace(LOWEST, HIGHEST, STEPS, dtype=e.dtype, device=e.device)
    return e.amax(-1, keepdim=True) * grid


def gcv_errors(
    e: Float[Tensor, "*p r"],
    P: Float[Tensor, "*q r m"],
    total: Float[Tensor, "*q"],
    n: float,
    grid: Float[Tensor, "*p l"],
) -> Float[Tensor, "*q l"]:
    """Generalised cross-validation n RSS/(n - df)², df = 1 + Σ e/(e + λ), for every strength.

    Golub, Heath, Wahba 1979, "Generalized cross-validation as a method for choosing a good ridge parameter".
    Infinite where n - df < 1.
    """
    size, e = P.square().sum(-1, keepdim=True), e.unsqueeze(-1)
    shrunk = 1 / (e.mT + grid.unsqueeze(-1))
    df = 1 + (shrunk @ e).squeeze(-1)
    fitted = 2 * shrunk @ size - shrunk.square() @ (e * size)
    rss = total.unsqueeze(-1) - fitted.squeeze(-1)
    left = n - df
    if not bool((left >= 1).any(-1).all()):
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


def _varying(values: Float[Tensor, "*q r"]) -> Float[Tensor, "*q r"]:
    """Eigenvalues clamped at 0; raise where none is above."""
    if not bool((values.amax(-1) > 0).all()):
        raise ValueError("Z: expected codes that vary, got a single value in every column")
    return values.clamp_min(0)


def _quadratic(x: Float[Tensor, "b r"], matrix: Float[Tensor, "r r"]) -> Float[Tensor, " b"]:
    return ((x @ matrix) * x).sum(1)
