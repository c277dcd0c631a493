"""Rows on their way into a dictionary and back: kind of array, offset, nuisance means, metric."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from sklearn.utils.validation import validate_data
from torch import Tensor

from pullback.ambient.base import Constant
from pullback.ambient.linear import LowRank
from pullback.estimators.reading import read_table
from pullback.inputs import as_tensor
from pullback.models.dictionary.row_metrics import RowMetrics, about_mean, inner_factors
from pullback.validation import check_choice


@dataclass(frozen=True, eq=False)
class Given:
    """Rows as a tensor, and what they came as."""

    rows: Float[Tensor, "n p"]
    is_tensor: bool

    def returned(self, found: Tensor) -> Any:
        """A result in the kind and dtype of the rows."""
        found = found.detach().to(self.rows.dtype) if found.is_floating_point() else found.detach()
        return found if self.is_tensor else found.cpu().numpy()


def read_rows(estimator: Any, Z: Any, *, reset: bool, minimum_rows: int = 1) -> Given:
    """Rows of an array, a frame or a tensor, which stays on its device.

    Raises:
        ValueError: no table of finite numbers; another width than in fit.
    """
    if isinstance(Z, np.ndarray) and Z.ndim == 2 and Z.dtype.kind == "f":
        _check_finite(np.asarray(np.isfinite(Z).all(1)))
    if not isinstance(Z, Tensor) or Z.layout != torch.strided:
        table = read_table(estimator, Z, reset=reset, minimum_rows=minimum_rows)
        if table.image_shape is not None:
            raise ValueError(f"Z: expected (N, p), got images {table.image_shape}; flatten them first")
        values = table.values if isinstance(table.values, np.ndarray) else table.values.toarray()
        return Given(as_tensor(np.ascontiguousarray(values)), isinstance(Z, Tensor))
    kind = str(Z.dtype).removeprefix("torch.")
    if Z.ndim != 2 or Z.is_complex():
        raise ValueError(f"Z: expected (N, p) floating and finite, got shape {tuple(Z.shape)} {kind}")
    rows = Z.detach() if Z.dtype in (torch.float32, torch.float64) else Z.detach().float()
    _check_finite(torch.isfinite(rows).all(1).cpu().numpy())
    like: Any = np.empty((len(rows), rows.shape[1]))
    validate_data(estimator, like, reset=reset, skip_check_array=True)
    if len(rows) < minimum_rows:
        raise ValueError(f"Z: expected at least {minimum_rows} rows, got {len(rows)}")
    return Given(rows, True)


def _check_finite(finite: np.ndarray) -> None:
    bad = np.flatnonzero(~finite)
    if len(bad):
        raise ValueError(
            f"Z: expected (N, p) floating and finite, got {len(bad)} non-finite rows (first: {bad[0]}): "
            "NaN or inf"
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """What is taken off rows before they are explained.

    Attributes:
        offset: b0, (p,), or None.
        means: mean of each nuisance group, (g, p), or None.
        groups: names of the groups.
        ambient: metric of data space that a misfit is measured in; None for Euclidean. Of rows with factors
            of their own the mean.
        by_row: whether rows of the fit had factors of their own.
    """

    offset: Float[Tensor, " p"] | None
    means: Float[Tensor, "g p"] | None
    groups: tuple[Any, ...]
    ambient: Constant | None
    by_row: bool = False

    def taken(self, Z: Float[Tensor, "n p"], center_by: Any = None) -> Float[Tensor, "n p"]:
        """What of each row is taken off.

        Groups that the fit did not see get the mean of the rows that are given; rows without a group the mean
        of all groups.
        """
        off = torch.zeros_like(Z)
        if self.means is not None:
            off = off + self._means(Z, center_by)
        return off if self.offset is None else off + self.offset.to(Z)

    def _means(self, Z: Tensor, center_by: Any) -> Tensor:
        assert self.means is not None
        means = self.means.to(Z)
        if center_by is None:
            return means.mean(0).expand_as(Z)
        names = group_names(center_by, len(Z))
        off, known = means.mean(0).repeat(len(Z), 1), {name: i for i, name in enumerate(self.groups)}
        for name in dict.fromkeys(names):
            if name is None:
                continue
            at = torch.tensor([other == name for other in names], device=Z.device)
            off[at] = means[known[name]] if name in known else Z[at].mean(0)
        return off

    def inside(self, Z: Float[Tensor, "n p"]) -> Float[Tensor, "n r"]:
        """Rows in coordinates where the metric is Euclidean."""
        return Z if self.ambient is None else self.ambient.whiten(Z)

    def factors(self, ambient: Any, n: int, p: int) -> Float[Tensor, "n q r"] | None:
        """Factors of new rows in the coordinates of `inside`; None where there are none.

        Raises:
            TypeError, ValueError: no factor a row; a fit whose rows had none.
        """
        if ambient is None:
            return None
        if not isinstance(self.ambient, LowRank) or not self.by_row:
            raise ValueError("ambient: only used after a fit whose rows had factors of their own, got one")
        check_row_factors(ambient, n, p)
        root: Any = self.ambient.factor
        return inner_factors(root, ambient.factor.detach().to(root))

    def outside(self, B: Float[Tensor, "k q"], regression: Float[Tensor, "k p"]) -> Float[Tensor, "k p"]:
        """Decoders in data space: those of `inside`, and a regression's where no row measures."""
        assert isinstance(self.ambient, LowRank)
        root: Any = self.ambient.factor
        back = root / root.square().sum(0)
        return regression + (B - regression @ root) @ back.mT


def is_by_row(ambient: Any) -> bool:
    """Whether a metric has a factor for every row."""
    return isinstance(ambient, LowRank) and ambient.constant and ambient.factor.ndim == 3  # type: ignore[union-attr]


def check_row_factors(ambient: Any, n: int, p: int) -> None:
    """Raise unless an ambient metric has one factor for each of n rows with p features."""
    if not (isinstance(ambient, LowRank) and ambient.constant):
        raise TypeError(f"ambient: expected LowRank with a factor a row, got {type(ambient).__name__}")
    shape = tuple(ambient.factor.shape)  # type: ignore[union-attr]
    if not is_by_row(ambient) or shape[:2] != (n, p):
        raise ValueError(f"ambient: expected factors ({n}, {p}, r), one a row, got {shape}")


def read_ambient(
    ambient: Any, n: int, p: int, device: torch.device
) -> tuple[Constant | None, RowMetrics | None]:
    """The metric that all rows share, and factors about it where each row has one, on the device of the rows.

    Raises:
        ValueError, TypeError: a metric that does not fit.
    """
    if ambient is None:
        return None, None
    if not (isinstance(ambient, Constant) and ambient.constant):
        raise TypeError(
            "ambient: expected Euclidean, Diagonal or LowRank with one factor, or one a row, got "
            f"{type(ambient).__name__}"
        )
    if ambient.features not in (None, p):
        raise ValueError(
            f"ambient: expected a metric of {p} features, got {ambient.features}; pass U with W = U Uᵀ, not W"
        )
    if not is_by_row(ambient):
        return ambient, None
    check_row_factors(ambient, n, p)
    factor: Any = ambient.factor  # type: ignore[attr-defined]
    if not bool(factor.any()):
        raise ValueError("ambient: expected factors that measure something, got zeros only")
    metrics = about_mean(factor.detach().to(device))
    return LowRank(metrics.root), metrics


def new_frame(
    Z: Float[Tensor, "n p"], offset: Any, ambient: Constant | None, center_by: Any, *, by_row: bool = False
) -> Frame:
    """The frame that rows of a fit ask for.

    Args:
        Z: the rows, (n, p).
        offset: option of the estimator.
        ambient: metric that rows share, of `read_ambient`.
        center_by: of `fit`.
        by_row: whether rows have factors of their own.
    Raises:
        ValueError, TypeError: an offset that does not fit.
    """
    p = Z.shape[1]
    means, names = (None, ()) if center_by is None else group_means(Z, group_names(center_by, len(Z)))
    if isinstance(offset, str):
        check_choice("offset", offset, ("mean",))
        left = Z if means is None else Z - Frame(None, means, names, None).taken(Z, center_by)
        return Frame(left.mean(0), means, names, ambient, by_row)
    if offset is not None:
        offset = torch.as_tensor(np.asarray(offset)).to(Z)
        if offset.shape != (p,):
            raise ValueError(f"offset: expected 'mean' or ({p},), got shape {tuple(offset.shape)}")
    return Frame(offset, means, names, ambient, by_row)


def group_names(center_by: Any, n: int) -> list[Any]:
    """Names of the groups of n rows, as plain values; None for a row without one (None or NaN).

    Raises:
        ValueError: another number of them, or none at all.
    """
    if isinstance(center_by, Tensor):
        center_by = center_by.detach().cpu().numpy()
    names = np.asarray(center_by)
    if names.ndim != 1 or len(names) != n:
        raise ValueError(f"center_by: expected ({n},) labels, one a row, got shape {names.shape}")
    missing = np.asarray(pd.isna(names), dtype=bool)
    if n and missing.all():
        raise ValueError("center_by: expected labels, got none for any row")
    return [None if gap else name for name, gap in zip(names.tolist(), missing, strict=True)]


def group_means(Z: Float[Tensor, "n p"], names: list[Any]) -> tuple[Float[Tensor, "g p"], tuple[Any, ...]]:
    """Mean of each group, in the order of their first rows, and the names."""
    unique = [name for name in dict.fromkeys(names) if name is not None]
    number = {name: i for i, name in enumerate(unique)}
    seen = torch.tensor([name is not None for name in names], device=Z.device)
    place = torch.tensor([number[name] for name in names if name is not None], device=Z.device)
    sums = Z.new_zeros(len(unique), Z.shape[1]).index_add_(0, place, Z[seen])
    counts = torch.bincount(place, minlength=len(unique)).to(Z)
    return sums / counts.unsqueeze(1), tuple(unique)
