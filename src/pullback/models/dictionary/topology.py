"""Which chart rows lie on: evidence of every candidate, the null of separate points, and the largest gap."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.charts import as_chart, points
from pullback.linalg import leading_singular, widened
from pullback.models.dictionary.alone import ChartFit
from pullback.models.dictionary.chart_starts import chart_starts, fit_best
from pullback.models.dictionary.evidence import Evidence, chart_evidence, fit_points
from pullback.models.dictionary.journal import UNKEPT, Journal
from pullback.typing import Chart
from pullback.validation import check_points

CANDIDATES = ("circle", "interval", "sphere", "torus", "plane")
COUNTS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 48, 64)
FEW_ROWS = 200
"""Rows below which a chart must win by more, and points are tried for every number to 16."""
MARGINS = {FEW_ROWS: 10.0, 100: 30.0, 0: 100.0}
"""Nats by which a chart must win with so many rows; with 120 noisy ones wrong charts won by up to 11."""
GAP_ROWS = 100
GAP_FACTOR = 3.0


@dataclass(frozen=True)
class TopologyCandidate:
    """One explanation: its name, its evidence, and the fit of its chart; None for points, and of files."""

    name: str
    evidence: Evidence
    fit: ChartFit | None = field(repr=False)

    @property
    def separate(self) -> bool:
        """Whether it is the null of separate points, not a chart."""
        return _kind(self.name) == "points"


@dataclass(frozen=True)
class Topology:
    """What rows lie on.

    Attributes:
        verdict: the winner, "points" for any number of them, or "undecided".
        winner: name of the best candidate, after the test of the largest gap.
        margin: nats from the winner to the next that is not of its kind.
        table: all candidates, best evidence first.
        gap, gap_limit: largest gap between angles on the circle, and the gap that opens it; NaN without a
            circle.
        rows: number of rows.
    """

    verdict: str
    winner: str
    margin: float
    table: tuple[TopologyCandidate, ...]
    gap: float
    gap_limit: float
    rows: int

    @property
    def chart(self) -> TopologyCandidate:
        """The winner if it is a chart, else the best of the charts."""
        charts = [entry for entry in self.table if not entry.separate]
        return next((entry for entry in charts if entry.name == self.winner), charts[0])


def choose_topology(
    Z: Float[Tensor, "n p"],
    candidates: Sequence[str | Chart] = CANDIDATES,
    *,
    amplitudes: bool = False,
    sweeps: int = 30,
    generator: torch.Generator | None = None,
    journal: Journal = UNKEPT,
) -> Topology:
    """The chart that explains rows best, by evidence, against the null of separate points.

    Every chart is fitted from several starts, see `chart_starts`; `chart_evidence` and `points_evidence` rank
    them. Evidence prefers the circle for arcs of 200 degrees, so a circle that wins, against points too, is
    opened to an interval where the largest gap between sorted angles exceeds 3 · 2π ln(n)/n.

    The verdict is "undecided" with a margin below 10 nats; for charts below 30 with fewer than 200 rows, and
    below 100 with fewer than 100, where the gap is reported but opens nothing.

    Args:
        Z: rows of one atom, (n, p).
        candidates: names or charts.
        amplitudes: whether rows have amplitudes of their own, cones with apex 0.
        sweeps: of each fit.
        generator: of starts.
        journal: keeps every candidate.
    Returns: `Topology`.
    Raises:
        TypeError, ValueError: no table of finite numbers, fewer than four rows, no candidate.
    Example:
        >>> import math, torch
        >>> t = torch.arange(240, dtype=torch.float64) * math.pi / 120
        >>> noise = torch.randn(240, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> ring = torch.stack([t.cos(), t.sin(), 0 * t, 0 * t], 1) + 0.05 * noise
        >>> choose_topology(ring, ["circle", "interval"]).verdict
        'circle'
    """
    check_points("Z", Z)
    charts = [as_chart(chart, name="candidates") for chart in candidates]
    if not charts:
        raise ValueError("candidates: expected at least one chart, got none")
    if len(Z) < 4:
        raise ValueError(f"Z: expected at least 4 rows, got {len(Z)}")
    wide = widened(Z)
    # rows beyond the span of the cloud change neither fit nor order, and charts are fitted in few columns
    turn = leading_singular(wide, min(wide.shape))[2] if wide.shape[1] > len(wide) else None
    turned = wide if turn is None else wide @ turn
    sizes = wide.norm(dim=1).clamp_min(1e-12) if amplitudes else None

    def of_chart(chart: Chart) -> TopologyCandidate:
        starts = chart_starts(chart, turned, directions=amplitudes, generator=generator)
        fit = fit_best(chart, turned, starts, amplitudes=sizes, sweeps=sweeps)
        evidence = chart_evidence(chart, wide, fit.t, fit.lam, amplitudes=fit.a if amplitudes else None)
        whole = fit if turn is None else replace(fit, B=fit.B @ turn.mT)
        return TopologyCandidate(chart.name, evidence, whole)

    def of_points(count: int) -> TopologyCandidate:
        found = fit_points(wide, count, rays=amplitudes, generator=generator)
        return TopologyCandidate(f"points({count})", found.evidence, None)

    table = [
        journal.at(f"candidate {i}").once(partial(of_chart, chart)) for i, chart in enumerate(charts)
    ] + [journal.at(f"points {count}").once(partial(of_points, count)) for count in _counts(len(wide))]
    return judged(table, len(wide))


def judged(table: Sequence[TopologyCandidate], rows: int) -> Topology:
    """The verdict on candidates.

    Args:
        table: candidates in any order.
        rows: number of rows that they explain.
    """
    ranked = sorted(table, key=lambda entry: entry.evidence.nats)
    gap, limit = _gap(ranked, rows)
    winner = ranked[0]
    if winner.name == "circle" and rows >= GAP_ROWS and gap > limit:
        winner = next((entry for entry in ranked if entry.name == "interval"), winner)
    opened = winner is not ranked[0]
    kind = _kind(winner.name)
    others = [entry for entry in ranked if _kind(entry.name) != kind and not (opened and entry is ranked[0])]
    margin = others[0].evidence.nats - winner.evidence.nats if others else math.inf
    counted = FEW_ROWS if kind == "points" else rows
    decided = margin >= next(nats for least, nats in MARGINS.items() if counted >= least)
    return Topology(
        verdict=kind if decided else "undecided",
        winner=winner.name,
        margin=margin,
        table=tuple(ranked),
        gap=gap,
        gap_limit=limit,
        rows=rows,
    )


def chart_named(name: str) -> Chart:
    """The chart of a candidate's name, points(n) among them."""
    return as_chart(points(int(name[7:-1])) if name.startswith("points(") else name)  # type: ignore[arg-type]


def largest_gap(angles: Float[Tensor, " n"]) -> float:
    """The largest gap between neighbouring angles on the circle.

    Example:
        >>> import torch
        >>> round(largest_gap(torch.tensor([0.0, 1.0, 3.0, 6.0])), 4)
        3.0
    """
    ordered = angles.remainder(2 * math.pi).sort().values
    between = torch.cat([ordered.diff(), ordered[:1] + 2 * math.pi - ordered[-1:]])
    return float(between.max())


def _gap(ranked: Sequence[TopologyCandidate], rows: int) -> tuple[float, float]:
    circle = next((entry for entry in ranked if entry.name == "circle"), None)
    if circle is None or circle.fit is None:
        return math.nan, math.nan
    return largest_gap(circle.fit.t[:, 0]), GAP_FACTOR * 2 * math.pi * math.log(rows) / rows


def _counts(rows: int) -> list[int]:
    counts = range(2, 17) if rows < FEW_ROWS else ()
    return sorted({count for count in (*COUNTS, *counts) if count <= rows // 2})


def _kind(name: str) -> str:
    return "points" if name.startswith("points(") else name
