"""Rows of the table of bad input: scores, noise, clouds, evidence and starts of the manifold dictionary."""

from collections.abc import Callable
from typing import Any

import torch

from pullback.charts import circle
from pullback.models.dictionary import (
    clustering,
    cones,
    evidence,
    harmonic,
    noise,
    pure_start,
    scores,
    topology,
)
from pullback.models.dictionary.chart_starts import chart_starts
from pullback.models.dictionary.cluster_start import cluster_start

ROWS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
FEW, NAN, WHOLE = ROWS[:2], ROWS / 0 * 0, ROWS.long()
LABELS = torch.zeros(12, dtype=torch.long)
Case = tuple[str, Callable[..., Any], type[Exception], str]

DICTIONARY_PART_CASES: list[Case] = [
    (
        "fraction_unexplained: shapes",
        lambda: scores.fraction_unexplained(ROWS, FEW),
        ValueError,
        "reconstruction: expected shape (12, 3)",
    ),
    (
        "fraction_unexplained: NaN",
        lambda: scores.fraction_unexplained(NAN, ROWS),
        ValueError,
        "Z: expected finite",
    ),
    ("match_atoms: rows", lambda: scores.match_atoms(ROWS, FEW), ValueError, "12 rows as truth, got 2"),
    ("match_atoms: whole numbers", lambda: scores.match_atoms(WHOLE, ROWS), ValueError, "floating point"),
    (
        "coordinate_score: kind",
        lambda: scores.coordinate_score("ring", ROWS, ROWS),
        ValueError,
        "kind: expected one of 'circle'",
    ),
    (
        "coordinate_score: rows",
        lambda: scores.coordinate_score("circle", ROWS, FEW),
        ValueError,
        "estimate: expected 12 rows",
    ),
    (
        "contribution_r2: shapes",
        lambda: scores.contribution_r2(ROWS, FEW),
        ValueError,
        "estimate: expected shape",
    ),
    (
        "effective_atoms: list",
        lambda: scores.effective_atoms([[1.0]]),
        TypeError,
        "amplitudes: expected a torch",
    ),  # type: ignore[arg-type]
    ("noise_level: rank", lambda: noise.noise_level(ROWS[0]), ValueError, "Z: expected (n, d)"),
    (
        "harmonic_embedding: rows",
        lambda: harmonic.harmonic_embedding(FEW),
        ValueError,
        "at least 3 rows, got 2",
    ),
    ("harmonic_embedding: dims", lambda: harmonic.harmonic_embedding(ROWS, 0), ValueError, "dims: expected"),
    (
        "spectral_clusters: groups",
        lambda: clustering.spectral_clusters(ROWS, 13),
        ValueError,
        "at most the 12 rows",
    ),
    (
        "subspace_clusters: labels",
        lambda: clustering.subspace_clusters(ROWS, LABELS[:2]),
        ValueError,
        "labels: expected (12,)",
    ),
    (
        "find_cones: sigma",
        lambda: cones.find_cones(ROWS, 0.0),
        ValueError,
        "sigma: expected a finite number > 0",
    ),
    ("find_cones: most", lambda: cones.find_cones(ROWS, 0.1, most=0), ValueError, "most: expected"),
    (
        "chart_evidence: rows",
        lambda: evidence.chart_evidence(circle(), ROWS, ROWS[:2, :1], 0.1),
        ValueError,
        "t: expected 12 rows",
    ),
    (
        "chart_evidence: smoothness",
        lambda: evidence.chart_evidence(circle(), ROWS, ROWS[:, :1], -0.1),
        ValueError,
        "smoothness: expected a finite number >= 0",
    ),
    (
        "points_evidence: columns",
        lambda: evidence.points_evidence(ROWS, ROWS[:, :2]),
        ValueError,
        "centres: expected (n, 3)",
    ),
    (
        "fit_points: count",
        lambda: evidence.fit_points(ROWS, 13),
        ValueError,
        "count: expected at most the 12 rows",
    ),
    (
        "choose_topology: rows",
        lambda: topology.choose_topology(ROWS[:3]),
        ValueError,
        "at least 4 rows, got 3",
    ),
    ("choose_topology: none", lambda: topology.choose_topology(ROWS, []), ValueError, "at least one chart"),
    (
        "choose_topology: name",
        lambda: topology.choose_topology(ROWS, ["ring"]),
        ValueError,
        "candidates: expected",
    ),
    ("chart_starts: NaN", lambda: chart_starts(circle(), NAN), ValueError, "Z: expected finite"),
    (
        "cluster_start: atoms",
        lambda: cluster_start(ROWS, 13),
        ValueError,
        "groups: expected at most the 12 rows",
    ),
    (
        "pure_start: n_active",
        lambda: pure_start.pure_start(ROWS, 2, n_active=0),
        ValueError,
        "n_active: expected",
    ),
]
