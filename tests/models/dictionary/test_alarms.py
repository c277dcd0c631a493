"""Alarms: each raised by the fit that it is for, none by one that is right."""

import logging
import math

import pytest
import torch

from planted import planted
from pullback.charts import as_chart, interval
from pullback.models.dictionary.alarms import (
    Alarm,
    ending_alarms,
    fit_alarms,
    gauge_alarms,
    log_alarms,
    residual_alarms,
    restart_alarms,
    rows_alarms,
    topology_alarms,
    usage_alarms,
)
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.evidence import Evidence
from pullback.models.dictionary.iterate import Alternated
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.noise import noise_level
from pullback.models.dictionary.sweep import alternate
from pullback.models.dictionary.sweep_options import SweepOptions
from pullback.models.dictionary.topology import TopologyCandidate, judged

DRAW = planted(300, kinds=("circle", "circle"), p=24, seed=5)
LAYOUT = Layout((as_chart("circle"),) * 2)
OPTIONS = SweepOptions(gate="softmax", max_sweeps=15, tol=1e-4)


def fitted(t: torch.Tensor, logits: torch.Tensor) -> Alternated:
    return alternate(LAYOUT, DRAW.Z, Codes.softmax(logits, t), OPTIONS)


def from_truth() -> Alternated:
    t = torch.stack([DRAW.t[0], DRAW.t[1]], 1)
    return fitted(t, -4 * (1 - DRAW.A))


def from_noise() -> Alternated:
    g = torch.Generator().manual_seed(0)
    t = 2 * math.pi * torch.rand(300, 2, 1, generator=g, dtype=torch.float64)
    return fitted(t, torch.randn(300, 2, generator=g, dtype=torch.float64))


def codes_of(alarms: tuple[Alarm, ...]) -> set[str]:
    return {alarm.code for alarm in alarms}


def test_a_good_fit_is_quiet_and_a_random_one_is_not() -> None:
    sigma = noise_level(DRAW.Z).sigma
    assert codes_of(fit_alarms(from_truth(), sigma_noise=sigma, pure=(150, 150))) <= {"not_converged"}
    bad = codes_of(fit_alarms(from_noise(), sigma_noise=sigma, random=True))
    assert bad & {"residual_above_noise", "soft_assignment"}
    assert "restart_spread" in bad


def test_units_do_not_matter() -> None:
    codes = from_noise().codes
    found = [
        fit_alarms(alternate(LAYOUT, Z, codes, OPTIONS), sigma_noise=noise_level(Z).sigma)
        for Z in (DRAW.Z, 100 * DRAW.Z)
    ]
    assert codes_of(found[0]) == codes_of(found[1])
    assert [a.value for a in found[0]] == pytest.approx([a.value for a in found[1]], rel=1e-3)


@pytest.mark.parametrize(
    ("alarms", "codes"),
    [
        (residual_alarms(1.04, 1.0, 2000, 64), ["residual_above_noise"]),
        (residual_alarms(1.03, 1.0, 500, 64), []),
        (residual_alarms(9.0, None, 500, 64), []),
        (restart_alarms((1.0, 1.2), random=False), ["restart_spread"]),
        (restart_alarms((1.0, 1.01), random=True), []),
        (restart_alarms((1.0,), random=False), []),
        (rows_alarms((50, 10), 2), ["few_pure_rows"]),
        (rows_alarms((50, 50), 1), ["few_pure_rows"]),
        (ending_alarms(True, "", 0, True), []),
        (ending_alarms(False, "budget", 1, True), ["not_converged", "numerical"]),
        (ending_alarms(True, "", 0, False), ["numerical"]),
    ],
)
def test_rules(alarms: list, codes: list[str]) -> None:
    assert [alarm.code for alarm in alarms] == codes
    assert all(alarm.hint and alarm.code in str(alarm) for alarm in alarms)


def test_verdicts_of_topology() -> None:
    def table(*entries: tuple[str, float]) -> tuple[TopologyCandidate, ...]:
        return tuple(TopologyCandidate(n, Evidence(e, 0.0, 1.0, 1.0, 1.0), None) for n, e in entries)

    close = judged(table(("circle", 0.0), ("sphere", 5.0)), 300)
    discrete = judged(table(("circle", 50.0), ("points(7)", 0.0)), 300)
    clear = judged(table(("circle", 0.0), ("sphere", 500.0)), 300)
    found = topology_alarms((close, None, discrete, clear))
    assert [(alarm.code, alarm.atom) for alarm in found] == [("topology_undecided", 0), ("discrete", 2)]


def test_folded_and_uneven_curves() -> None:
    chart = interval(4)
    there_and_back = torch.zeros(5, 3, dtype=torch.float64)
    there_and_back[2, 0] = 1.0
    found = gauge_alarms(Layout((chart,)), there_and_back, torch.full((1,), 0.05, dtype=torch.float64))
    assert {alarm.code for alarm in found} == {"folded", "gauge"}
    straight = torch.zeros(5, 3, dtype=torch.float64)
    straight[1, 0] = 1.0
    assert gauge_alarms(Layout((chart,)), straight, torch.full((1,), 0.05, dtype=torch.float64)) == []


def test_dead_and_duplicate_atoms() -> None:
    layout = Layout((as_chart("line"),) * 3)
    B = torch.tensor([[1.0, 0.0], [0.999, 0.01], [0.0, 1.0]], dtype=torch.float64)
    atoms = torch.tensor([[0, 1]]).repeat(500, 1)
    weights = torch.rand(500, 1, generator=torch.Generator().manual_seed(0)).double().repeat(1, 2)
    codes = Codes(atoms, weights, torch.zeros(500, 2, 0, dtype=torch.float64))
    found = usage_alarms(layout, B, codes)
    assert [(alarm.code, alarm.atom) for alarm in found] == [("dead_atom", 2), ("duplicate_atoms", 1)]


def test_each_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        log_alarms((*ending_alarms(False, "out of time", 0, True), *rows_alarms((1,), 1)))
    assert len(caplog.records) == 2
    assert "out of time" in caplog.text
