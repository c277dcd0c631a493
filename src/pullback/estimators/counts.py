"""Counts: what an encoder sees of them, and the total that stands for a typical row."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.estimators.scaling import chunk_slices
from pullback.inputs import Table


class LogNormalise(nn.Module):
    """log(1 + library · x / Σ x), row by row: ``(n, p) -> (n, p)``. A row without counts gives zeros.

    Proportions on a log scale: the depth of a row, no property of the sample, does not reach the code.

    Args:
        library: total that every row is brought to (the median total of the training rows).
    Example:
        >>> LogNormalise(4.0)(torch.tensor([[1.0, 3.0], [10.0, 30.0]]))
        tensor([[0.6931, 1.3863],
                [0.6931, 1.3863]])
    """

    library: Tensor

    def __init__(self, library: float):
        super().__init__()
        self.register_buffer("library", torch.tensor(library, dtype=torch.float64))

    def forward(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        total = x.sum(dim=1, keepdim=True)
        return torch.log1p(x * (self.library.to(x) / torch.where(total > 0, total, 1.0)))


def median_library(table: Table, index: np.ndarray) -> float:
    """Median total of the rows that have any counts.

    Raises:
        ValueError: all rows are empty.
    """
    parts = (index[part] for part in chunk_slices(len(index), table.n_features))
    totals = np.concatenate([table.rows(part).double().sum(dim=1).numpy() for part in parts])
    if not (totals > 0).any():
        raise ValueError("X: expected counts, got rows without any")
    return float(np.median(totals[totals > 0]))
