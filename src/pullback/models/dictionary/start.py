"""What a fit starts from: charts, smoothness and first codes, and how charts are chosen for groups of
rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pullback.charts import as_chart
from pullback.models.dictionary.alone import ChartFit
from pullback.models.dictionary.chart_starts import chart_starts, fit_best
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.evidence import chart_evidence
from pullback.models.dictionary.journal import UNKEPT, Journal
from pullback.models.dictionary.topology import CANDIDATES, Topology, chart_named, choose_topology
from pullback.typing import Chart

Kinds = str | Chart | Sequence[str | Chart] | Callable[[np.ndarray, np.ndarray], Sequence[str | Chart]]
"""``"auto"``, one chart for all atoms, one an atom, or a function of row numbers and their groups."""


FAR = 1e30
"""Nats that stand for no end of them."""


@dataclass(frozen=True, eq=False)
class Start:
    """Where a joint fit begins.

    Attributes:
        charts: one an atom.
        codes: first codes of all rows.
        lam: λ of every atom, (K,), or None for the default.
        topologies: how each chart was chosen, None where it was given.
        groups: rows that each atom was fitted on.
        sigma: noise level of the rows; None where their spectrum does not tell.
        found: groups that the rows themselves suggested; the others fill up to the number wanted.
    """

    charts: tuple[Chart, ...]
    codes: Codes
    lam: Float[Tensor, " k"] | None
    topologies: tuple[Topology | None, ...]
    groups: tuple[Int[Tensor, " _"], ...]
    sigma: float | None
    found: int


@dataclass(frozen=True, eq=False)
class GroupFit:
    """The chart of one group of rows, and how it was chosen; None where it was given."""

    fit: ChartFit
    topology: Topology | None


def fit_groups(
    Z: Float[Tensor, "n p"],
    groups: Sequence[Int[Tensor, " _"]],
    kinds: Kinds,
    *,
    amplitudes: bool = False,
    sweeps: int = 30,
    generator: torch.Generator | None = None,
    journal: Journal = UNKEPT,
) -> list[GroupFit]:
    """A chart for each group of rows.

    Args:
        Z: rows, (n, p).
        groups: row numbers of each atom.
        kinds: ``"auto"`` chooses by `choose_topology`, the null of points included; one chart serves all; of
            a list each chart goes to one group so that the sum of evidence is best; a function gets the
            numbers of all rows in groups and the group of each, once.
        amplitudes: whether rows have amplitudes of their own.
        sweeps: of each fit.
        generator: of starts.
        journal: keeps every chart.
    """
    alone = _Alone([Z[group] for group in groups], amplitudes, sweeps, generator, journal)
    if isinstance(kinds, str) and kinds == "auto":
        return alone.chosen()
    if callable(kinds) and not hasattr(kinds, "jet"):
        places = torch.cat(list(groups)).cpu().numpy()
        labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        charts = journal.at("charts").once(
            lambda: tuple(as_chart(chart, name="charts") for chart in kinds(places, labels))
        )
        if len(charts) != len(groups):
            raise ValueError(f"charts: expected {len(groups)} charts of the function, got {len(charts)}")
        return alone.given(charts)
    if isinstance(kinds, Sequence) and not isinstance(kinds, str):
        return alone.assigned([as_chart(chart, name="charts") for chart in kinds])
    return alone.given([as_chart(kinds, name="charts")] * len(groups))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class _Alone:
    """Groups of rows that are fitted one by one."""

    rows: Sequence[Tensor]
    amplitudes: bool
    sweeps: int
    generator: torch.Generator | None
    journal: Journal

    def given(self, charts: Sequence[Chart]) -> list[GroupFit]:
        """One chart a group."""
        return [GroupFit(self.fitted(chart, i), None) for i, chart in enumerate(charts)]

    def chosen(self) -> list[GroupFit]:
        """Charts by evidence."""
        places = [self.journal.at(f"group {i}") for i in range(len(self.rows))]
        return [place.once(partial(self._by_evidence, i, place)) for i, place in enumerate(places)]

    def assigned(self, charts: Sequence[Chart]) -> list[GroupFit]:
        """Each chart to one group, by evidence; charts that are alike are fitted once."""
        if len(charts) != len(self.rows):
            raise ValueError(f"charts: expected {len(self.rows)} charts, one an atom, got {len(charts)}")
        alike = {repr(chart): chart for chart in charts}
        fits = {
            (name, i): self.fitted(chart, i, number)
            for number, (name, chart) in enumerate(alike.items())
            for i in range(len(self.rows))
        }
        cost = np.array(
            [
                [_nats(fits[repr(chart), i], z, self.amplitudes) for chart in charts]
                for i, z in enumerate(self.rows)
            ]
        )
        # rows without noise, and charts that cannot be fitted to them, have no finite evidence
        _, order = linear_sum_assignment(np.nan_to_num(cost, nan=FAR, posinf=FAR, neginf=-FAR))
        return [GroupFit(fits[repr(charts[int(k)]), i], None) for i, k in enumerate(order)]

    def fitted(self, chart: Chart, i: int, number: int = 0) -> ChartFit:
        """A chart, the ``number``th of them, on group i."""
        return self.journal.at(f"group {i}, chart {number}").once(partial(self._fit, chart, i))

    def _fit(self, chart: Chart, i: int) -> ChartFit:
        z = self.rows[i]
        sizes = z.norm(dim=1).clamp_min(1e-12) if self.amplitudes else None
        starts = chart_starts(chart, z, directions=self.amplitudes, generator=self.generator)
        return fit_best(chart, z, starts, amplitudes=sizes, sweeps=self.sweeps)

    def _by_evidence(self, i: int, place: Journal) -> GroupFit:
        topology = choose_topology(
            self.rows[i],
            CANDIDATES,
            amplitudes=self.amplitudes,
            sweeps=self.sweeps,
            generator=self.generator,
            journal=place,
        )
        if topology.verdict == "points":
            return GroupFit(self._fit(chart_named(topology.winner), i), topology)
        fit = topology.chart.fit
        assert fit is not None
        return GroupFit(fit, topology)


def _nats(fit: ChartFit, z: Tensor, amplitudes: bool) -> float:
    return chart_evidence(fit.chart, z, fit.t, fit.lam, amplitudes=fit.a if amplitudes else None).nats
