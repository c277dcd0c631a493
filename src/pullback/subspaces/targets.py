"""What a partition knows of its quantities from all rows: units, and what each implies of the others."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullback.subspaces.arguments import check_names, check_quantities
from pullback.subspaces.leaks import implied_map
from pullback.subspaces.moments import Moments, row_moments, stacked
from pullback.subspaces.sources import column_scale
from pullback.subspaces.statistics import CODES, SufficientStatistics


@dataclass(frozen=True, eq=False)
class TargetFacts:
    """Units of all columns side by side, and the regressions among quantities.

    Attributes:
        mean, rate: y ↦ (y - mean) rate standardises every column; the rate of constant ones is 0, (M,).
        implied: block (r, q) is C_{q|r} with E[y_q | y_r] = y_r C_{q|r}, standardised, (M, M); 0 where q = r.
        told: [q, r]: whether y_q holds anything that y_r does not imply, (Q, Q).
        widths: columns of each quantity, (Q,).
    """

    mean: Float[Tensor, " m"]
    rate: Float[Tensor, " m"]
    implied: Float[Tensor, "m m"]
    told: Bool[Tensor, "q q"]
    widths: Int[Tensor, " q"]


def target_facts(
    source: Mapping[str, Tensor] | SufficientStatistics, names: tuple[str, ...]
) -> tuple[TargetFacts, torch.dtype]:
    """Facts from rows, in which NaN marks what is missing, or from statistics; and the dtype of the rows.

    Raises:
        TypeError, ValueError: other names; a quantity without rows, or constant.
    """
    if isinstance(source, SufficientStatistics):
        source.check_rows()
        check_names("statistics", source.names, names, "sizes")
        moments = {q: source.moments(q) for q in names}
        known, dtype = _Known(moments, None, source), source.dtype
    else:
        rows = check_quantities(source, None, finite=False)
        check_names("Y", rows, names, "sizes")
        rows = {q: rows[q].detach() for q in names}
        check_one_length(rows)
        known, dtype = _from_rows(rows), rows[names[0]].dtype
    return _facts(known, names), dtype


def check_one_length(rows: Mapping[str, Tensor]) -> int:
    """How many rows all quantities have."""
    first = next(iter(rows))
    for q, y in rows.items():
        if len(y) != len(rows[first]):
            raise ValueError(f"Y[{q!r}]: {len(y)} rows, Y[{first!r}] has {len(rows[first])}")
    return len(rows[first])


@dataclass(frozen=True, eq=False)
class _Known:
    """Moments of each quantity, and where products of two come from."""

    moments: dict[str, Moments]
    rows: dict[str, Tensor] | None
    statistics: SufficientStatistics | None

    def products(self, q: str, r: str) -> tuple[Tensor, Tensor, Tensor]:
        """Scatter of (r, r), (r, q) and (q, q), over the rows that have both."""
        if self.statistics is not None:
            return tuple(self.statistics.block(*pair) for pair in ((r, r), (r, q), (q, q)))  # type: ignore[return-value]
        assert self.rows is not None
        both = torch.isfinite(self.rows[q]).all(1) & torch.isfinite(self.rows[r]).all(1)
        if not bool(both.any()):
            raise ValueError(
                f"Y: expected rows with both {q!r} and {r!r}, whose relation nothing else tells, got none"
            )
        pair = SufficientStatistics.from_tensors(self.rows[r][both], {q: self.rows[q][both]})
        return pair.block(CODES, CODES), pair.block(CODES, q), pair.block(q, q)


def _from_rows(rows: dict[str, Tensor]) -> _Known:
    moments, whole = {}, True
    for q, y in rows.items():
        kept = torch.isfinite(y).all(1)
        if not bool(kept.any()):
            raise ValueError(f"Y[{q!r}]: expected at least one row with finite values, got none")
        whole = whole and bool(kept.all())
        nothing = y.new_zeros(int(kept.sum()), 1)
        moments |= row_moments(nothing, {q: y[kept]})
    if not whole:
        return _Known(moments, rows, None)
    nothing = next(iter(rows.values())).new_zeros(len(next(iter(rows.values()))), 1)
    return _Known(moments, None, SufficientStatistics.from_tensors(nothing, rows))


def _facts(known: _Known, names: tuple[str, ...]) -> TargetFacts:
    rates, means = {}, []
    for q in names:
        moments = known.moments[q]
        rates[q] = column_scale(stacked([moments]), [q], "column")[0]
        means.append(moments.y_mean)
    widths = torch.tensor([len(rates[q]) for q in names])
    ends = widths.cumsum(0).tolist()
    spans = {q: slice(end - len(rates[q]), end) for q, end in zip(names, ends, strict=True)}
    mean = torch.cat(means)
    implied = mean.new_zeros(len(mean), len(mean))
    told = torch.zeros(len(names), len(names), dtype=torch.bool)
    for i, q in enumerate(names):
        for j, r in enumerate(names):
            if i == j:
                continue
            S_rr, S_rq, S_qq = known.products(q, r)
            a, b = rates[r].unsqueeze(1), rates[q].unsqueeze(1)
            C = implied_map(a * S_rr * a.mT, a * S_rq * b.mT, b * S_qq * b.mT)
            if C is not None:
                implied[spans[r], spans[q]] = C
                told[i, j] = True
    return TargetFacts(mean, torch.cat([rates[q] for q in names]), implied, told, widths)
