"""Which chart is chosen: the golden manifolds, arcs that evidence alone calls circles, discrete values."""

import math

import pytest
import torch

from planted import SIX, Golden, planted
from pullback.charts import as_chart
from pullback.models.dictionary import topology
from pullback.models.dictionary.chart_starts import chart_starts, fit_best
from pullback.models.dictionary.evidence import Evidence
from pullback.models.dictionary.scores import coordinate_score
from pullback.models.dictionary.topology import (
    CANDIDATES,
    TopologyCandidate,
    choose_topology,
    judged,
    largest_gap,
)

GOLDEN = Golden()


def text_rows(kind: int, n: int = 8) -> torch.Tensor:
    """Embeddings of values on training templates: template means off, unit mean norm, 8 components."""
    rows = GOLDEN["emb_kind"] == kind
    E, value = GOLDEN["emb_E"][rows], GOLDEN["emb_val"][rows]
    template = value[:, 1].long()
    means = torch.stack([E[template == j].mean(0) for j in range(12)])
    E = (E - means[template])[template < 8]
    E = E / E.norm(dim=1).mean()
    return E @ torch.linalg.svd(E, full_matrices=False).Vh[:n].mT


@pytest.fixture
def few_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer numbers of points, for speed."""
    monkeypatch.setattr(topology, "_counts", lambda rows: [4, 7, 16])


def entry(name: str, nats: float) -> TopologyCandidate:
    return TopologyCandidate(name, Evidence(float(nats), 0.0, 1.0, 1.0, 1.0), None)


@pytest.mark.parametrize(
    ("table", "rows", "verdict", "margin"),
    [
        ([entry("sphere", 0), entry("plane", 30)], 300, "sphere", 30),
        ([entry("sphere", 0), entry("plane", 9)], 300, "undecided", 9),
        ([entry("sphere", 0), entry("plane", 29)], 199, "undecided", 29),
        ([entry("sphere", 0), entry("plane", 31)], 199, "sphere", 31),
        ([entry("sphere", 30), entry("points(7)", 0), entry("points(8)", 2)], 56, "points", 30),
        ([entry("sphere", 5), entry("points(7)", 0)], 56, "undecided", 5),
    ],
)
def test_verdicts(table: list[TopologyCandidate], rows: int, verdict: str, margin: float) -> None:
    found = judged(table, rows)
    assert (found.verdict, found.margin) == (verdict, margin)


@pytest.mark.usefixtures("few_counts")
def test_an_arc_is_not_a_circle_though_evidence_says_so() -> None:
    Z = planted(130, kinds=("interval",), p=8, centre=1.0, seed=1).Z
    found = choose_topology(Z, ["circle", "interval"], sweeps=10)
    assert found.winner == "interval"
    assert found.gap > found.gap_limit
    closed = choose_topology(GOLDEN["one_circle_Z"][:130], ["circle", "interval"], sweeps=10)
    assert closed.gap < closed.gap_limit
    assert closed.chart.name == "circle"


@pytest.mark.usefixtures("few_counts")
def test_rays_of_amplitudes() -> None:
    draw = planted(130, "additive", kinds=("circle",), p=8, seed=2)
    found = choose_topology(draw.Z, ["circle", "interval"], amplitudes=True, sweeps=10)
    assert found.verdict == "circle"
    fit = found.chart.fit
    assert fit is not None
    assert coordinate_score("circle", draw.t[0], fit.t) > 0.99
    assert float(torch.corrcoef(torch.stack([fit.a, draw.A[:, 0]]))[0, 1]) > 0.9


@pytest.mark.usefixtures("few_counts")
def test_separate_values_are_points() -> None:
    g = torch.Generator().manual_seed(0)
    t = torch.arange(7, dtype=torch.float64).repeat(12).unsqueeze(1) * 2 * math.pi / 7
    Z = torch.cat([t.cos(), t.sin()], 1) + 0.05 * torch.randn(84, 2, generator=g, dtype=torch.float64)
    found = choose_topology(Z, ["circle", "interval"], sweeps=10)
    assert (found.verdict, found.winner) == ("points", "points(7)")
    assert found.chart.name in ("circle", "interval")


def test_gaps() -> None:
    assert largest_gap(torch.tensor([0.5, 2 * math.pi - 0.5])) == pytest.approx(2 * math.pi - 1)
    assert largest_gap(torch.arange(8) * math.pi / 4) == pytest.approx(math.pi / 4)


@pytest.mark.parametrize("kind", CANDIDATES)
def test_starts_fit_their_manifold(kind: str) -> None:
    dtype = torch.float32 if kind == "interval" else torch.float64
    Z = GOLDEN[f"one_{kind}_Z"][:100].to(dtype)
    chart = as_chart(kind)
    starts = chart_starts(chart, Z)
    assert len(starts) == (9 if kind == "torus" else 3)
    assert all(t.shape == (100, chart.c) for t in starts)
    fit = fit_best(chart, Z, starts[:3], sweeps=8)
    assert coordinate_score(kind, GOLDEN[f"one_{kind}_t"][:100], fit.t.double()) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("kind", CANDIDATES)
def test_golden_manifolds(kind: str) -> None:
    found = choose_topology(GOLDEN[f"one_{kind}_Z"])
    assert found.verdict == kind
    assert found.margin > 100
    points = min(e.evidence.nats for e in found.table if e.name.startswith("points"))
    assert points - found.chart.evidence.nats > 1400


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [(0, 7), (1, 12)])
def test_weekdays_and_months_are_points(kind: int, count: int) -> None:
    found = choose_topology(text_rows(kind))
    assert (found.verdict, found.winner) == ("points", f"points({count})")


@pytest.mark.slow
def test_golden_mixture_kinds() -> None:
    Z, A = GOLDEN["mix_train_Z"], GOLDEN["mix_train_A"]
    assert tuple(choose_topology(Z[A[:, k] > 0]).winner for k in range(6)) == SIX


@pytest.mark.slow
def test_noisy_manifolds() -> None:
    """σ = .15, 400 rows, two draws of five kinds: at least eight of ten."""
    draws = [(kind, seed) for kind in CANDIDATES for seed in (1, 2)]
    right = [
        choose_topology(planted(400, kinds=(kind,), p=32, sigma=0.15, centre=1.0, seed=seed).Z).winner == kind
        for kind, seed in draws
    ]
    assert sum(right) >= 8
