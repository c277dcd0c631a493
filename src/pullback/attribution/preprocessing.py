"""What stands in front of a network, folded in, so that contributions are those of the raw features.

An affine change of features e = M (s ⊙ (x - μ)) + c, s the reciprocal scales, M a projection or the identity.
With A the matrix of the network, the matrix in the raw features is A M diag(s).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from torch import Tensor

from pullback.jets.gemm import linear_rows, times_transposed

ACCEPTED = (
    "a fitted StandardScaler, PCA (or MinMaxScaler, MaxAbsScaler, RobustScaler), a Pipeline of them, or "
    "(mean, matrix)"
)


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """e = matrix (factor ⊙ (x - mean)) + shift.

    Attributes:
        mean: μ, (p,).
        factor: s, (p,), or None for ones.
        matrix: M, (k, p), or None for the identity.
        shift: c, (k,), or None for zeros.
        basis: orthonormal rows that span what M keeps, (k, p), or None where nothing is lost.
    """

    mean: Float[Tensor, " p"]
    factor: Float[Tensor, " p"] | None = None
    matrix: Float[Tensor, "k p"] | None = None
    shift: Float[Tensor, " k"] | None = None
    basis: Float[Tensor, "k p"] | None = None

    @property
    def width(self) -> int:
        """Number of raw features."""
        return self.mean.shape[0]

    def to(self, like: Tensor) -> "Preprocessing":
        """The same in the precision and on the device of ``like``."""
        parts = {name: part.to(like) for name, part in vars(self).items() if part is not None}
        return replace(self, **parts)

    def apply(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n k"]:
        """What the network sees of raw rows."""
        return self.seen(x - self.mean)

    def seen(self, centred: Float[Tensor, "n p"]) -> Float[Tensor, "n k"]:
        """What the network sees of x, from x - mean."""
        e = centred if self.factor is None else centred * self.factor
        e = e if self.matrix is None else times_transposed(e, self.matrix)
        return e if self.shift is None else e + self.shift

    def pull(self, rows: Float[Tensor, "d n k"]) -> Float[Tensor, "d n p"]:
        """Derivative rows by what the network sees to derivative rows by the raw features."""
        if self.matrix is not None:
            rows = linear_rows(rows, self.matrix.mT)
        return rows if self.factor is None else rows * self.factor

    def push(self, rows: Float[Tensor, "k n p"]) -> Float[Tensor, "k n q"]:
        """Directions of raw features to directions of what the network sees."""
        rows = rows if self.factor is None else rows * self.factor
        return rows if self.matrix is None else linear_rows(rows, self.matrix)

    def retained(self, centred: Float[Tensor, "n p"]) -> Float[Tensor, " n"] | None:
        """|B s ⊙ (x - μ)|² / |s ⊙ (x - μ)|², B the basis, from x - μ; 1 at the mean."""
        if self.basis is None:
            return None
        e = centred if self.factor is None else centred * self.factor
        whole = (e * e).sum(1)
        kept = times_transposed(e, self.basis).square().sum(1)
        return torch.where(whole > 0, kept / whole.clamp_min(torch.finfo(e.dtype).tiny), 1.0)

    def then(self, after: "Preprocessing") -> "Preprocessing":
        """This change of features followed by another."""
        if self.matrix is None:
            return _diagonal_first(self, after)
        center = after.mean if self.shift is None else after.mean - self.shift
        scaled = self.matrix if after.factor is None else after.factor.unsqueeze(1) * self.matrix
        rest = -center if after.factor is None else -after.factor * center
        if after.matrix is not None:
            scaled, rest = after.matrix @ scaled, after.matrix @ rest
        rest = rest if after.shift is None else rest + after.shift
        return Preprocessing(self.mean, self.factor, scaled, rest, basis=_row_basis(scaled))


def _diagonal_first(first: Preprocessing, after: Preprocessing) -> Preprocessing:
    """s₂ (s₁ (x - μ₁) + c₁ - μ₂) = s₂ s₁ (x - μ₁ - (μ₂ - c₁) / s₁)."""
    one = torch.ones_like(first.mean)
    factor = one if first.factor is None else first.factor
    center = after.mean if first.shift is None else after.mean - first.shift
    mean = first.mean + center / factor
    if after.matrix is None:
        both = factor if after.factor is None else factor * after.factor
        return Preprocessing(mean, both, None, after.shift)
    inner = after.matrix if after.factor is None else after.matrix * after.factor
    return Preprocessing(mean, factor, inner, after.shift, basis=_row_basis(inner))


def _row_basis(matrix: Tensor) -> Tensor | None:
    """Orthonormal rows spanning those of a (k, p) matrix; None where it keeps everything."""
    k, p = matrix.shape
    if k < p and torch.allclose(matrix @ matrix.T, torch.eye(k).to(matrix), rtol=0, atol=1e-6):
        return matrix
    _, values, rows = torch.linalg.svd(matrix, full_matrices=False)
    kept = values > values[0] * max(matrix.shape) * torch.finfo(matrix.dtype).eps
    rows = rows[kept]
    return None if len(rows) == matrix.shape[1] else rows


def read_preprocessing(given: Any, width: int) -> Preprocessing | None:
    """A fitted transformer, a pipeline or (mean, matrix) as one affine change of features, float64.

    Raises:
        TypeError: another object.
        ValueError: not fitted, not affine, or of another width than the ``width`` raw features.
    """
    if given is None:
        return None
    found = given if isinstance(given, Preprocessing) else _read(given)
    if found.width != width:
        raise ValueError(f"preprocessing: expected one of {width} features as x, got {found.width}")
    return found


def _read(given: Any) -> Preprocessing:
    if isinstance(given, Pipeline):
        parts = [_read(step) for _, step in given.steps if step is not None and step != "passthrough"]
        if not parts:
            raise ValueError(f"preprocessing: expected {ACCEPTED}, got an empty Pipeline")
        whole = parts[0]
        for part in parts[1:]:
            if (whole.width if whole.matrix is None else len(whole.matrix)) != part.width:
                raise ValueError("preprocessing: expected steps of matching widths in the Pipeline")
            whole = whole.then(part)
        return whole
    if isinstance(given, PCA):
        _check_fitted(given, "components_")
        return _pca(given)
    if isinstance(given, StandardScaler | MinMaxScaler | MaxAbsScaler | RobustScaler):
        return _scaler(given)
    if isinstance(given, tuple | list) and len(given) == 2:
        return _pair(*given)
    raise TypeError(f"preprocessing: expected {ACCEPTED}, got {type(given).__name__}")


def _tensor(array: Any) -> Tensor:
    if isinstance(array, Tensor):
        return array.detach().double()
    return torch.from_numpy(np.asarray(array, dtype=np.float64).copy())


def _check_fitted(transformer: Any, attribute: str) -> None:
    if not hasattr(transformer, attribute):
        raise ValueError(
            f"preprocessing: expected a fitted {type(transformer).__name__}, got one without {attribute}; "
            "call fit first"
        )


def _pca(pca: Any) -> Preprocessing:
    matrix = _tensor(pca.components_)
    basis = None if len(matrix) == matrix.shape[1] else matrix
    if pca.whiten:
        # components without variance stay 0, as scikit-learn has it
        deviation = _tensor(pca.explained_variance_).sqrt()
        floor = torch.finfo(torch.float64).eps
        matrix = matrix / torch.where(deviation > floor, deviation, floor).unsqueeze(1)
    return Preprocessing(_tensor(pca.mean_), None, matrix, None, basis=basis)


def _scaler(scaler: Any) -> Preprocessing:
    _check_fitted(scaler, "scale_")
    if getattr(scaler, "clip", False):
        raise ValueError("preprocessing: expected an affine scaler, got clip=True; use clip=False")
    if isinstance(scaler, MinMaxScaler):
        return Preprocessing(-_tensor(scaler.min_) / _tensor(scaler.scale_), _tensor(scaler.scale_))
    name = "center_" if isinstance(scaler, RobustScaler) else "mean_"
    mean = getattr(scaler, name, None)
    centred = getattr(scaler, "with_centering" if name == "center_" else "with_mean", False)
    scale = None if scaler.scale_ is None else 1 / _tensor(scaler.scale_)
    width = int(vars(scaler)["n_features_in_"])
    zero = torch.zeros(width, dtype=torch.float64)
    return Preprocessing(_tensor(mean) if centred and mean is not None else zero, scale)


def _pair(mean: Any, matrix: Any) -> Preprocessing:
    mean, matrix = _tensor(mean), _tensor(matrix)
    if mean.ndim != 1 or matrix.shape not in ((len(mean),), (matrix.shape[0], len(mean))):
        raise ValueError(
            f"preprocessing: expected mean (p,) and matrix (k, p), or (p,) for a diagonal, got "
            f"{tuple(mean.shape)} and {tuple(matrix.shape)}"
        )
    if matrix.ndim == 1:
        return Preprocessing(mean, None if bool((matrix == 1).all()) else matrix)
    return Preprocessing(mean, None, matrix, None, basis=_row_basis(matrix))
