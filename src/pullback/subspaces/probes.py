"""Linear probes on held-out rows: ridge regression, its strength by leaving one row out."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullback.linalg import widened

LOWEST = -1.0
"""R² of a column below which it is not followed: how wrong a useless probe is says nothing."""
ROUNDING = 8
CANCELLED = 1e-12
"""Share of a sum of squares that its rounding may leave where a column does not vary."""


@dataclass(frozen=True, eq=False)
class Probe:
    """Held-out values of the columns that vary, standardised by the training rows, and what a probe leaves.

    Attributes:
        residual, target: (n, m); m = 0 where nothing could be probed.
        kept: test rows that have the quantity, (N,).
        note: why there is nothing, or which columns were left out; or "".
    """

    residual: Float[Tensor, "n m"]
    target: Float[Tensor, "n m"]
    kept: Bool[Tensor, " N"]
    note: str = ""

    def r2(self, weights: Float[Tensor, "s N"] | None = None) -> Float[Tensor, " s"]:
        """Mean over columns of R², each at least -1, of weighted test rows.

        Columns that do not vary in these rows, as one of few ones in a resample may, say nothing; NaN where
        none does.
        """
        away = self.target - self.target.mean(0)
        w = away.new_ones(1, len(away)) if weights is None else weights[:, self.kept]
        left, size = w @ self.residual.square(), w @ away.square()
        total = size - (w @ away).square() / w.sum(1, keepdim=True)
        known = total > CANCELLED * size
        return torch.where(known, 1 - left / total, torch.nan).clamp_min(LOWEST).nanmean(1)


def probe(
    X: Float[Tensor, "n d"],
    Y: Float[Tensor, "n m"],
    X_test: Float[Tensor, "N d"],
    Y_test: Float[Tensor, "N m"],
    alphas: Float[Tensor, " a"],
) -> Probe:
    """Ridge regression of standardised columns on standardised inputs, with one strength for all columns.

    The same numbers as scikit-learn's StandardScaler and RidgeCV. Rows with missing values (NaN) are left
    out, as are columns that do not vary in training or test rows.

    Args:
        X, Y: training rows.
        X_test, Y_test: test rows.
        alphas: strengths to choose from.
    """
    seen = torch.isfinite(X).all(1) & torch.isfinite(Y).all(1)
    kept = torch.isfinite(X_test).all(1) & torch.isfinite(Y_test).all(1)
    eps = torch.finfo(Y.dtype).eps
    x, y, x_test, y_test = widened(X[seen]), widened(Y[seen]), widened(X_test[kept]), widened(Y_test[kept])
    varies = _varies(y, eps) & _varies(y_test, eps)
    note = _noted(x, varies)
    if x.shape[1] == 0 or not bool(varies.any()):
        nothing = y_test[:, :0]
        return Probe(nothing, nothing, kept, note)
    x, x_test = _standardised(x, x_test)
    y, y_test = _standardised(y[:, varies], y_test[:, varies])
    return Probe(y_test - x_test @ ridge_by_loo(x, y, alphas), y_test, kept, note)


def ridge_by_loo(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n m"], alphas: Float[Tensor, " a"]
) -> Float[Tensor, "d m"]:
    """Coefficients for centred columns, with the strength of least squared error on rows left out."""
    e, V = torch.linalg.eigh(x.mT @ x)
    T = x @ V
    P = T.mT @ y
    errors = []
    for alpha in alphas:
        shrunk = 1 / (e.clamp_min(0) + alpha)
        kept = 1 - 1 / len(x) - T.square() @ shrunk
        left = (y - (T * shrunk) @ P) / kept.clamp_min(torch.finfo(x.dtype).eps).unsqueeze(1)
        errors.append(left.square().sum())
    best = alphas[torch.stack(errors).argmin()]
    return V @ (P / (e.clamp_min(0) + best).unsqueeze(1))


def _varies(y: Tensor, eps: float) -> Tensor:
    if len(y) < 2:
        return torch.zeros(y.shape[1], dtype=torch.bool, device=y.device)
    return y.std(0, correction=0) > ROUNDING * eps * y.abs().amax(0)


def _standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    mean, sd = train.mean(0), train.std(0, correction=0)
    sd = torch.where(sd > 0, sd, 1)
    return (train - mean) / sd, (test - mean) / sd


def _noted(x: Tensor, varies: Tensor) -> str:
    if x.shape[1] == 0:
        return "no dimension to read from"
    if not bool(varies.any()):
        return "no column that varies in training and test rows"
    left_out = int((~varies).sum())
    return f"{left_out} constant columns left out" if left_out else ""
