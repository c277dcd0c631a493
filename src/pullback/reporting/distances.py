"""Geodesic distances against the ruler's, and against those of other trainings."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from pullback.estimators.latent_metrics import metric_of
from pullback.geometry import distance_stability, flatness, geodesic_stress
from pullback.metrics import as_metric
from pullback.plots.conditions import condition_numbers
from pullback.plots.field import latent_tensor, light_metric
from pullback.reporting.evidence import Evidence

STRESS_PAIRS = 100
STABILITY_PAIRS = 50
# Without an embedding a geodesic takes second derivatives of the tensor, and in many dimensions large blocks:
# fewer pairs, and coarser meshes (the certificate says where that is not enough).
FEWER, FEW_DIMENSIONS, COARSE_NODES = 6, 8, 33
WORST_CONDITION = 1e12


def random_pairs(n: int, count: int, random: np.random.Generator) -> Int[np.ndarray, "k 2"]:
    """At most ``count`` different pairs i < j of n rows."""
    total = n * (n - 1) // 2
    if total <= count:
        return np.stack(np.triu_indices(n, 1), axis=1)
    number = random.choice(total, count, replace=False, shuffle=False)
    # The pairs that begin before row i are i (2n - i - 1) / 2.
    row = np.floor((2 * n - 1 - np.sqrt((2 * n - 1.0) ** 2 - 8.0 * number)) / 2).astype(np.int64)
    row -= row * (2 * n - row - 1) // 2 > number
    row += (row + 1) * (2 * n - row - 2) // 2 <= number
    return np.stack([row, number - row * (2 * n - row - 1) // 2 + row + 1], axis=1)


def flatness_measures(metric: Any, codes: Float[np.ndarray, "n d"]) -> dict[str, float | None]:
    """How far the metric is from the same everywhere, and from a multiple of the identity."""
    names = ("metric_variance", "metric_distortion", "logdet_variance")
    if len(codes) == 0:
        return dict.fromkeys(names)
    seen = flatness(metric, latent_tensor(metric, codes))
    return dict(zip(names, (seen.variance, seen.distortion, seen.logdet_variance), strict=True))


def ruler_measures(
    metric: Any, codes: Float[np.ndarray, "n d"], random: np.random.Generator
) -> dict[str, float | int | None]:
    """Stress and correlations over random pairs; None where there are no two different codes."""
    unknown: dict[str, float | int | None] = dict.fromkeys(("stress", "pearson", "spearman"))
    unknown |= {"stress_pairs": 0, "stress_certified": 0}
    count, options = _fitting(STRESS_PAIRS, codes.shape[1], [metric])
    pairs = random_pairs(len(codes), count, random)
    if len(pairs) < 2 or not (codes[pairs[:, 0]] != codes[pairs[:, 1]]).any():
        return unknown
    z = latent_tensor(metric, codes)
    seen = geodesic_stress(metric, z, torch.from_numpy(pairs), data=z if z.shape[1] == 2 else None, **options)
    return {
        "stress": _finite(seen.stress),
        "pearson": _finite(seen.pearson),
        "spearman": _finite(seen.spearman),
        "stress_pairs": len(pairs),
        "stress_certified": int(seen.converged.sum()),
    }


def stability_measures(
    evidence: Evidence, others: Sequence[Any], X: Any, random: np.random.Generator
) -> dict[str, float | int | None]:
    """Coefficient of variation of distances over a model and others trained on the same data."""
    metrics, codes = [evidence.metric], [evidence.shown_codes]
    for other in others:
        found = np.asarray(other.transform(X), dtype=np.float64)
        metrics.append(light_metric(metric_of(other, dtype=torch.float64)))
        codes.append(found[evidence.rows])
    count, options = _fitting(STABILITY_PAIRS, max(z.shape[1] for z in codes), metrics)
    pairs = random_pairs(len(evidence.rows), count, random)
    for metric, z in zip(metrics, codes, strict=True):
        regular = [condition_numbers(metric, z[column]) < WORST_CONDITION for column in pairs.T]
        pairs = pairs[regular[0] & regular[1]]
    common = {"trainings": len(metrics), "stability_pairs": len(pairs), "stability_certified": 0}
    if len(pairs) == 0:
        return {"stability": None, **common}
    z = [latent_tensor(metric, part) for metric, part in zip(metrics, codes, strict=True)]
    ends = [[part[pairs[:, side]] for part in z] for side in (0, 1)]
    data = z if all(part.shape[1] == 2 for part in z) else None
    seen = distance_stability(metrics, *ends, data=data, **options)
    certified = int(seen.converged.all(0).sum())
    return common | {"stability": _finite(seen.variation), "stability_certified": certified}


def _fitting(count: int, d: int, metrics: Sequence[Any]) -> tuple[int, dict[str, int]]:
    """How many pairs, and with which options, so that a diagnosis stays quick."""
    if not all(as_metric(metric).embedding is not None for metric in metrics):
        return count // FEWER, {"nodes": COARSE_NODES}
    if d > FEW_DIMENSIONS:
        return count * FEW_DIMENSIONS // d, {"nodes": COARSE_NODES, "max_nodes": COARSE_NODES}
    return count, {}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
