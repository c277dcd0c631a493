"""Rows on their way into training: a seed, a split, and scaled rows that are dense only a batch at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.utils import check_random_state
from torch import Tensor

from pullback.estimators.scaling import Scaling
from pullback.inputs import Table
from pullback.validation import check_finite

SMALLEST_SPLIT = 20
"""With fewer rows, all of them train: a handful of held-out rows says nothing."""


def draw_seed(random_state: Any) -> int:
    """One seed from an int, a RandomState (which moves on), or None (fresh entropy).

    None does not touch numpy's global generator, as `sklearn.utils.check_random_state` would.
    """
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0]) >> 1
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def split_rows(n: int, fraction: float | int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and of the validation rows, both ascending.

    Example:
        >>> training, validation = split_rows(30, 0.1, seed=0)
        >>> len(training), len(validation)
        (27, 3)
    """
    held_out = round(fraction * n) if n >= SMALLEST_SPLIT else 0
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


@dataclass(frozen=True)
class ScaledRows:
    """Some rows of a table, dense and scaled only when they are asked for."""

    table: Table
    scaling: Scaling
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, index: Tensor) -> Float[Tensor, "m p"]:
        """The rows at these positions, on the CPU."""
        return self.scaling.apply(self.table.rows(self.index[index.cpu().numpy()]))


def training_rows(table: Table, scaling: Scaling, index: np.ndarray) -> Tensor | ScaledRows:
    """Scaled rows for the training loop: in memory where the table is dense, on demand where it is sparse."""
    if isinstance(table.values, np.ndarray):
        return scaling.apply(table.rows(index))
    return ScaledRows(table, scaling, index)


def read_quantities(quantities: Mapping[str, Any], n: int, dtype: torch.dtype) -> Float[Tensor, "n m"]:
    """Known quantities of all rows side by side, in the order of their names' appearance.

    Raises:
        ValueError: another number of rows, or numbers that are not finite.
    """
    columns = []
    for name, values in quantities.items():
        column = torch.as_tensor(np.asarray(values, dtype=np.float64))
        if column.ndim not in (1, 2) or len(column) != n:
            raise ValueError(
                f"quantities: expected ({n},) or ({n}, k) for {name!r}, got shape {tuple(column.shape)}"
            )
        check_finite(f"quantities[{name!r}]", column)
        columns.append(column.reshape(n, -1))
    if not columns:
        raise ValueError("quantities: expected at least one, got an empty mapping")
    return torch.cat(columns, dim=1).to(dtype)
