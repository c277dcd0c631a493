"""Random parts of the rows, for cross-validation."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.draws import source_of
from pullback.subspaces.arguments import check_codes, check_quantities
from pullback.subspaces.statistics import SufficientStatistics
from pullback.validation import check_whole


def fold_statistics(
    Z: Float[Tensor, "b d"],
    Y: Mapping[str, Tensor],
    *,
    folds: int = 5,
    generator: torch.Generator | None = None,
    missing: Literal["raise", "drop"] = "raise",
) -> list[SufficientStatistics]:
    """Statistics of random parts of the rows: what cross-validation needs, without a second pass.

    Args:
        Z, Y, missing: see `SufficientStatistics.from_tensors`.
        folds: how many parts.
        generator: of the order of rows; None draws the same one every time.
    Example:
        >>> import torch
        >>> parts = fold_statistics(torch.randn(10, 2), {"mass": torch.randn(10)}, folds=5)
        >>> [int(part.n) for part in parts]
        [2, 2, 2, 2, 2]
    """
    codes = check_codes(Z)
    targets = check_quantities(Y, len(codes), finite=missing == "raise")
    return [
        SufficientStatistics.from_tensors(
            codes[rows], {q: y[rows] for q, y in targets.items()}, missing=missing
        )
        for rows in fold_rows(codes, folds, generator)
    ]


def fold_rows(Z: Tensor, folds: int, generator: torch.Generator | None) -> tuple[Tensor, ...]:
    """Row numbers of each fold."""
    check_whole("folds", folds, minimum=2)
    if folds > len(Z):
        raise ValueError(f"folds: expected at most B = {len(Z)}, got {folds}")
    source = source_of(generator, Z.device)
    order = torch.randperm(len(Z), generator=source, device=source.device).to(Z.device)
    return order.tensor_split(folds)
