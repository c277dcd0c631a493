"""What solvers may be given, brought to one form: rows, statistics, or statistics of folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.subspaces.arguments import check_codes, check_names, check_quantities
from pullback.subspaces.folds import fold_rows
from pullback.subspaces.moments import Moments, Rows, row_moments, stacked
from pullback.subspaces.ridge import CRITERIA, Criterion, Spectrum
from pullback.subspaces.statistics import SufficientStatistics
from pullback.validation import check_choice

SINGLE = "y"
TOGETHER = 2**17
"""Numbers of S_zy that a batch may hold: few calls where quantities are small, few cache misses otherwise."""
Data = Tensor | SufficientStatistics | Sequence[SufficientStatistics]
Standardize = Literal["quantity", "column"]


@dataclass(frozen=True, eq=False)
class Group:
    """Quantities that one batch of operations can serve: alike in width, precision, number of directions and
    codes.

    Attributes:
        names: of the quantities.
        k: how many directions each may have; None where that is not given.
        moments: side by side.
        scale: factor of every column, (q, m): one for a quantity, or one for each column; 0 where constant.
    """

    names: tuple[str, ...]
    k: int | None
    moments: Moments
    scale: Float[Tensor, "q m"]

    @property
    def cross(self) -> Float[Tensor, "q d m"]:
        """S_zy of scaled columns."""
        return self.moments.zy * self.scale.unsqueeze(-2)


@dataclass(frozen=True, eq=False)
class Source:
    """Moments of every quantity with the codes, and what else is known.

    Attributes:
        moments: of all rows.
        folds: of the parts, where they were asked for or given.
        rows: None where statistics were given.
        dtype: of results.
        single: whether one tensor was given instead of a dict.
    """

    moments: dict[str, Moments]
    folds: list[dict[str, Moments]] | None
    rows: dict[str, Rows] | None
    dtype: torch.dtype
    single: bool
    _spectra: dict[int, Spectrum] = field(default_factory=dict, repr=False)

    def spectrum(self, name: str) -> Spectrum:
        """Of S_zz; decomposed once for all quantities that share it."""
        moments = self.moments[name]
        place = id(moments.codes)
        if place not in self._spectra:
            rows = moments.codes.rows
            if rows is not None and rows.shape[0] < rows.shape[1]:
                self._spectra[place] = Spectrum.of_rows(
                    rows.to(moments.z_mean.device).double() - moments.z_mean
                )
            else:
                self._spectra[place] = Spectrum.of(moments.zz)
        return self._spectra[place]

    def fold_moments(self, name: str) -> list[Moments]:
        """Of one quantity in every fold."""
        if self.folds is None:
            raise ValueError(
                "k: expected a number of directions where statistics of all rows are given, got None; give "
                "k, rows, or the list that fold_statistics returns"
            )
        return [fold[name] for fold in self.folds]

    def groups(self, sizes: Mapping[str, int | None], standardize: Standardize = "quantity") -> list[Group]:
        """Quantities with their numbers of directions, those that are alike together.

        Raises:
            ValueError: all columns of a quantity are constant.
        """
        alike: dict[tuple, list[str]] = {}
        for q, k in sizes.items():
            known = self.moments[q]
            alike.setdefault((k, len(known.y_mean), id(known.codes), known.eps), []).append(q)
        found = []
        for (k, width, *_), names in alike.items():
            first = self.moments[names[0]]
            most = max(1, TOGETHER // (width * first.z_mean.numel()))
            for start in range(0, len(names), most):
                some = names[start : start + most]
                moments = stacked([self.moments[q] for q in some])
                found.append(Group(tuple(some), k, moments, column_scale(moments, some, standardize)))
        return found

    def criterion(self, given: Criterion | None) -> Criterion:
        """The one given, or the better one of those that the data allow."""
        if given is None:
            return "gcv" if self.rows is None else "loo"
        check_choice("criterion", given, CRITERIA)
        if given == "loo" and self.rows is None:
            raise ValueError(
                "criterion: expected 'gcv' where statistics are given, got 'loo', which needs rows"
            )
        return given


def column_scale(moments: Moments, names: Sequence[str], standardize: Standardize) -> Tensor:
    """`Group.scale` of moments of several quantities side by side.

    Raises:
        ValueError: all columns of a quantity are constant.
    """
    varies = ~moments.constant
    for q, any_varies in zip(names, varies.any(-1).tolist(), strict=True):
        if not any_varies:
            raise ValueError(f"Y: expected quantities that vary, but quantity {q!r} is constant: k = 0")
    variance = torch.where(varies, moments.yy / moments.n, 0)
    if standardize == "column":
        return torch.where(varies, torch.where(varies, variance, 1).rsqrt(), 0)
    mean = variance.sum(-1, keepdim=True) / varies.sum(-1, keepdim=True)
    return varies * mean.rsqrt()


def as_source(
    data: Data,
    Y: Tensor | Mapping[str, Tensor] | None,
    *,
    folds: int | None = None,
    generator: torch.Generator | None = None,
) -> Source:
    """Rows (Z, Y), statistics, or a list of them, as a `Source`; ``folds`` splits rows at random."""
    if isinstance(data, Tensor):
        return _from_rows(data, Y, folds, generator)
    parts = check_statistics(data, Y, least=2)
    if isinstance(data, SufficientStatistics):
        return _from_statistics(data, None)
    return _from_statistics(SufficientStatistics.merge_all(parts), parts)


def check_statistics(data: Any, Y: Any, *, least: int) -> list[SufficientStatistics]:
    """Statistics, one or a list of ``least`` or more, as a list; raise otherwise, or with quantities."""
    one = isinstance(data, SufficientStatistics)
    parts = list(data) if isinstance(data, Sequence) else [data]
    if not (one or len(parts) >= least) or not all(isinstance(part, SufficientStatistics) for part in parts):
        more = " of two or more of them" if least > 1 else ""
        hint = "; use torch.as_tensor" if hasattr(data, "__array__") else ""
        raise TypeError(
            f"stats_or_Z: expected a torch.Tensor, SufficientStatistics or a list{more}, got "
            f"{type(data).__name__}{hint}"
        )
    if Y is not None:
        raise ValueError("Y: expected None where statistics are given, got quantities")
    return parts


def _from_rows(
    Z: Tensor, Y: Tensor | Mapping[str, Tensor] | None, folds: int | None, generator: torch.Generator | None
) -> Source:
    if Y is None:
        raise ValueError("Y: expected quantities where codes are given, got None")
    single = isinstance(Y, Tensor)
    codes = check_codes(Z).detach()
    targets = check_quantities({SINGLE: Y} if single else Y, len(codes))
    targets = {q: y.detach() for q, y in targets.items()}
    parts = None
    if folds is not None:
        parts = [
            row_moments(codes[rows], {q: y[rows] for q, y in targets.items()})
            for rows in fold_rows(codes, folds, generator)
        ]
    whole = row_moments(codes, targets)
    rows = {q: Rows(codes, y) for q, y in targets.items()}
    return Source(whole, parts, rows, codes.dtype, single)


def _from_statistics(statistics: SufficientStatistics, parts: list[SufficientStatistics] | None) -> Source:
    statistics.check_rows()
    if parts is not None:
        for part in parts:
            part.check_rows()
            check_names("statistics", part.names, statistics.names, "the first of the list")
    moments = {q: statistics.moments(q) for q in statistics.names}
    for q, known in moments.items():
        known.check_seen(q)
    folds = None if parts is None else [{q: part.moments(q) for q in statistics.names} for part in parts]
    return Source(moments, folds, None, statistics.dtype, False)
