"""Parts of rows that only add up: non-negative matrix factorisation, of signed rows too."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from pullback.models.dictionary.clustering import seed_of
from pullback.validation import check_points, check_whole

ITERATIONS = 200


@dataclass(frozen=True, eq=False)
class Parts:
    """ẑ = w D with w >= 0, parts of rows that only add up.

    Attributes:
        codes: w of the rows, (n, L).
        decoder: D, (L, p).
        split: whether positive and negative parts of the rows were factored side by side.
    """

    codes: Float[Tensor, "n l"]
    decoder: Float[Tensor, "l p"]
    split: bool

    @property
    def scalars(self) -> float:
        """Weights of a row that are not zero, on average."""
        return int((self.codes > 0).sum()) / max(1, len(self.codes))

    def reconstruct(self) -> Float[Tensor, "n p"]:
        """ẑ of the rows."""
        return self.codes @ self.decoder


def fit_parts(Z: Float[Tensor, "n p"], n_parts: int, *, generator: torch.Generator | None = None) -> Parts:
    """Non-negative matrix factorisation, X ≈ w H with w, H >= 0.

    X = Z where no number is negative; else X = [Z⁺, Z⁻], the positive and the negative parts side by side,
    and D = H⁺ - H⁻. |X - w H|² is what is minimised; |Z - w D|² is at most twice as much.

    Lee and Seung 1999, "Learning the parts of objects by non-negative matrix factorization".

    Args:
        Z: rows, (n, p).
        n_parts: L.
        generator: of the start.
    Raises:
        ValueError: no table of finite numbers.
    Example:
        >>> import torch
        >>> found = fit_parts(torch.eye(4).repeat(5, 1) * torch.tensor([1.0, 2.0, -1.0, 3.0]), 4)
        >>> found.split, round(found.scalars, 2)
        (True, 1.0)
    """
    check_points("Z", Z)
    check_whole("n_parts", n_parts)
    rows = Z.double().cpu()
    split = bool((rows < 0).any())
    X = torch.cat([rows.clamp_min(0), (-rows).clamp_min(0)], 1) if split else rows
    fewer = n_parts <= min(X.shape)
    count: Any = n_parts  # its stubs know "auto" alone
    model = NMF(
        count,
        init="nndsvda" if fewer else "random",
        max_iter=ITERATIONS,
        random_state=seed_of(generator),
    )
    with warnings.catch_warnings():
        # a rival that has not come to rest is told by its error
        warnings.simplefilter("ignore", ConvergenceWarning)
        codes = torch.from_numpy(model.fit_transform(X.numpy()))
    H = torch.from_numpy(model.components_).to(codes)
    p = rows.shape[1]
    return Parts(codes, H[:, :p] - H[:, p:] if split else H, split)
