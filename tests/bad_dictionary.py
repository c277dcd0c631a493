"""Rows of the table of bad input: the manifold dictionary."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import pullback as pb
from pullback import charts
from pullback.models.dictionary import AmortisedEncoder, ManifoldDictionaryModule, fit_chart

Case = tuple[str, Callable[..., Any], type[Exception], str]
Z = np.random.default_rng(0).normal(size=(40, 5))
NAN = Z.copy()
NAN[[17, 20, 30], 1] = np.nan
ROWS = torch.tensor(Z)


def fit(n_atoms: Any = 2, charts: Any = "circle", rows: Any = Z, given: Any = None, **options: Any) -> Any:
    return pb.ManifoldDictionary(n_atoms, charts, **options).fit(rows, **(given or {}))


def soft(**options: Any) -> Any:
    return fit(gate="softmax", **options)


def module(kinds: Any = ("circle",), p: Any = 5, **options: Any) -> Any:
    return ManifoldDictionaryModule(kinds, p, **options)


def alone(rows: Any = ROWS, t: Any = ROWS[:, :1], **options: Any) -> Any:
    return fit_chart(charts.circle(), rows, t, **options)


DICTIONARY_CASES: list[Case] = [
    (
        "ManifoldDictionary: rank",
        lambda: fit(rows=ROWS[0]),
        ValueError,
        "Z: expected (N, p) floating and finite, got shape (5,)",
    ),
    (
        "ManifoldDictionary: NaN",
        lambda: fit(rows=torch.tensor(NAN)),
        ValueError,
        "got 3 non-finite rows (first: 17)",
    ),
    ("ManifoldDictionary: complex", lambda: fit(rows=ROWS.to(torch.complex64)), ValueError, "complex64"),
    ("ManifoldDictionary: few rows", lambda: fit(30), ValueError, "minimum of 60"),
    ("ManifoldDictionary: images", lambda: fit(rows=np.zeros((40, 1, 2, 2))), ValueError, "flatten"),
    (
        "ManifoldDictionary: gate",
        lambda: fit(gate="topk"),
        ValueError,
        "gate: expected one of 'softmax', 'amplitude', got 'topk'",
    ),
    (
        "ManifoldDictionary: charts",
        lambda: fit(charts="ring"),
        ValueError,
        "charts: expected one of 'auto', 'circle'",
    ),
    (
        "ManifoldDictionary: list of charts",
        lambda: fit(charts=["circle"]),
        ValueError,
        "charts: expected 2 charts",
    ),
    ("ManifoldDictionary: no chart", lambda: fit(charts=3), TypeError, "charts: expected a name or a chart"),
    ("ManifoldDictionary: line", lambda: soft(charts="line"), ValueError, "use gate='amplitude'"),
    ("ManifoldDictionary: init", lambda: fit(init="kmeans"), ValueError, "init: expected one of 'auto'"),
    ("ManifoldDictionary: groups", lambda: fit(init=np.zeros(3, dtype=int)), ValueError, "(40,) groups"),
    (
        "ManifoldDictionary: empty group",
        lambda: fit(init=np.zeros(40, dtype=int)),
        ValueError,
        "at least 4 rows each",
    ),
    (
        "ManifoldDictionary: solver",
        lambda: fit(solver="sgd"),
        ValueError,
        "solver: expected one of 'alternating', 'adam', got 'sgd'",
    ),
    (
        "ManifoldDictionary: n_active",
        lambda: soft(n_active=2),
        ValueError,
        "n_active: only used by gate='amplitude'",
    ),
    ("ManifoldDictionary: many active", lambda: fit(n_active=3), ValueError, "n_active: expected 1 .. 2"),
    (
        "ManifoldDictionary: entropy",
        lambda: soft(entropy=-1.0),
        ValueError,
        "entropy: expected a finite number >= 0",
    ),
    ("ManifoldDictionary: isometry", lambda: fit(isometry=-0.1), ValueError, "isometry: expected"),
    ("ManifoldDictionary: tau", lambda: soft(tau=0.0), ValueError, "tau: expected a finite number > 0"),
    ("ManifoldDictionary: many soft atoms", lambda: soft(n_atoms=65), ValueError, "use gate='amplitude'"),
    ("ManifoldDictionary: n_atoms", lambda: fit(0), ValueError, "n_atoms: expected a whole number >= 1"),
    ("ManifoldDictionary: restarts", lambda: fit(n_restarts=0), ValueError, "n_restarts"),
    ("ManifoldDictionary: smoothness", lambda: fit(smoothness="aic"), ValueError, "'reml'"),
    (
        "ManifoldDictionary: dtype",
        lambda: fit(dtype="float16"),
        ValueError,
        "dtype: expected one of 'float32'",
    ),
    (
        "ManifoldDictionary: ambient",
        lambda: fit(ambient="euclidean"),
        TypeError,
        "ambient: expected Euclidean",
    ),
    (
        "ManifoldDictionary: factor",
        lambda: fit(ambient=pb.ambient.LowRank(torch.ones(4, 2))),
        ValueError,
        "pass U with W = U Uᵀ, not W",
    ),
    (
        "ManifoldDictionary: factors of rows",
        lambda: fit(ambient=pb.ambient.LowRank(torch.ones(39, 5, 2))),
        ValueError,
        "ambient: expected factors (40, 5, r), one a row, got (39, 5, 2)",
    ),
    (
        "ManifoldDictionary: number of atoms by factors",
        lambda: fit("auto", ambient=pb.ambient.LowRank(torch.ones(40, 5, 2))),
        ValueError,
        "n_atoms: expected a number where rows have factors of their own",
    ),
    (
        "ManifoldDictionary: factors and Adam",
        lambda: fit(solver="adam", ambient=pb.ambient.LowRank(torch.ones(40, 5, 2))),
        ValueError,
        "solver: expected 'alternating' where rows have factors of their own",
    ),
    (
        "ManifoldDictionary: factors and a mean",
        lambda: fit(offset="mean", ambient=pb.ambient.LowRank(torch.ones(40, 5, 2))),
        ValueError,
        "offset: expected no mean to subtract where rows have factors",
    ),
    (
        "ManifoldDictionary: factors and groups",
        lambda: fit(given={"center_by": [0] * 40}, ambient=pb.ambient.LowRank(torch.ones(40, 5, 2))),
        ValueError,
        "center_by: expected no mean to subtract where rows have factors",
    ),
    (
        "ManifoldDictionary: factors of nothing",
        lambda: fit(ambient=pb.ambient.LowRank(torch.zeros(40, 5, 2))),
        ValueError,
        "ambient: expected factors that measure something, got zeros only",
    ),
    (
        "ManifoldDictionary: factors in a stream",
        lambda: pb.ManifoldDictionary(2, ambient=pb.ambient.LowRank(torch.ones(40, 5, 2))).partial_fit(Z),
        ValueError,
        "ambient: expected a metric that all rows of a stream share",
    ),
    (
        "ManifoldDictionary: factors of new rows",
        lambda: fit(max_sweeps=1).transform(Z, ambient=pb.ambient.LowRank(torch.ones(40, 5, 2))),
        ValueError,
        "ambient: only used after a fit whose rows had factors of their own",
    ),
    (
        "ManifoldDictionary: offset",
        lambda: fit(offset=np.zeros(3)),
        ValueError,
        "offset: expected 'mean' or (5,)",
    ),
    (
        "ManifoldDictionary: weights",
        lambda: fit(given={"row_weights": np.ones(3)}),
        ValueError,
        "row_weights: expected (40,)",
    ),
    (
        "ManifoldDictionary: negative weights",
        lambda: fit(given={"row_weights": -np.ones(40)}),
        ValueError,
        "row_weights: expected a finite number >= 0",
    ),
    (
        "ManifoldDictionary: center_by",
        lambda: fit(given={"center_by": [1, 2]}),
        ValueError,
        "center_by: expected (40,)",
    ),
    (
        "ManifoldDictionary: labels",
        lambda: fit(given={"labels": np.ones(40)}),
        ValueError,
        "pass {atom: values}",
    ),
    (
        "ManifoldDictionary: length of labels",
        lambda: fit(given={"labels": {0: np.ones(4)}}),
        ValueError,
        "labels: expected (40,)",
    ),
    (
        "ManifoldDictionary: atom of labels",
        lambda: fit(given={"labels": {5: np.ones(40)}}),
        ValueError,
        "labels: expected atoms 0 .. 1",
    ),
    (
        "ManifoldDictionary: not fitted",
        lambda: pb.ManifoldDictionary().transform(Z),
        ValueError,
        "not fitted",
    ),
    (
        "ManifoldDictionary.from_sae: codes",
        lambda: pb.ManifoldDictionary.from_sae(np.eye(3), Z),
        ValueError,
        "codes: expected (N, 3)",
    ),
    (
        "ManifoldDictionary.from_sae: latents",
        lambda: pb.ManifoldDictionary.from_sae(np.eye(5), Z, 9),
        ValueError,
        "at most the 5 latents",
    ),
    ("ManifoldDictionaryModule: gate", lambda: module(gate="topk"), ValueError, "gate: expected"),
    (
        "ManifoldDictionaryModule: line",
        lambda: module(["line"], gate="softmax"),
        ValueError,
        "gate='amplitude'",
    ),
    (
        "ManifoldDictionaryModule: decoders",
        lambda: module(decoders=torch.zeros(2, 2)),
        ValueError,
        "decoders: expected shape (5, 5)",
    ),
    (
        "ManifoldDictionaryModule: width",
        lambda: module().encode(torch.zeros(3, 4)),
        ValueError,
        "Z: expected (n, 5)",
    ),
    (
        "ManifoldDictionaryModule: derivative",
        lambda: module().encode(torch.zeros(3, 5), differentiable="unrolled"),
        ValueError,
        "differentiable: expected",
    ),  # type: ignore[arg-type]
    (
        "AmortisedEncoder: gate",
        lambda: AmortisedEncoder(5, (4,), ["circle"], "topk"),
        ValueError,
        "gate: expected",
    ),  # type: ignore[arg-type]
    ("fit_chart: coordinates", lambda: alone(t=ROWS[:, :2]), ValueError, "t0: expected shape (40, 1)"),
    (
        "fit_chart: amplitudes",
        lambda: alone(amplitudes=torch.zeros(40)),
        ValueError,
        "amplitudes: expected a finite number > 0",
    ),
    ("fit_chart: NaN", lambda: alone(torch.tensor(NAN)), ValueError, "Z: expected finite numbers"),
]


def refused_by(fitted: pb.ManifoldDictionary) -> list[Case]:
    """What a fitted dictionary of a sphere and a line refuses."""
    rows = np.zeros((3, fitted.n_features_in_))
    return [
        (
            "steer: delta",
            lambda: fitted.steer(rows, 0, [0.1]),
            ValueError,
            "atom 0 is a sphere: 2 tangent components",
        ),
        ("steer: line", lambda: fitted.steer(rows, 1, []), ValueError, "atom 1 is a line"),
        ("steer: atom", lambda: fitted.steer(rows, 7, [0.1]), ValueError, "atom: expected 0 .. 1, got 7"),
        (
            "ablate: mode",
            lambda: fitted.ablate(rows, 0, mode="half"),
            ValueError,
            "mode: expected one of 'zero'",
        ),  # type: ignore[arg-type]
        ("transform: width", lambda: fitted.transform(np.zeros((3, 2))), ValueError, "features"),
        ("inverse_transform: kind", lambda: fitted.inverse_transform(rows), TypeError, "SparseCodes"),  # type: ignore[arg-type]
    ]
