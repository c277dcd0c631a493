"""From a fitted model that only encodes, and its data, to a diagnosis."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from pullback.plots.training import curves_of
from pullback.reporting.checks import Diagnosis, Measures
from pullback.reporting.evidence import Observed
from pullback.reporting.measures import NEIGHBOURHOOD_ROWS, active_dims, neighbourhoods
from pullback.reporting.verdicts import embedding_checks

FAR_PAIRS = 2000


def diagnose_embedding(seen: Observed) -> Diagnosis:
    """Neighbourhoods, far distances, dimensions and training of a model that only encodes."""
    x, z = seen.x / seen.unit_scale, seen.shown_codes
    random = np.random.default_rng(seen.random_state)
    near = random.permutation(len(x))[:NEIGHBOURHOOD_ROWS]
    trust, continuity, neighbours = neighbourhoods(x[near], z[near])
    far, pairs = far_correlation(x, z, random)
    curves = curves_of(getattr(seen.model, "history_", {}))
    measures = Measures(
        n_rows=seen.n,
        n_features=x.shape[1],
        latent_dim=z.shape[1],
        reconstruction_units=seen.units,
        trustworthiness=trust,
        continuity=continuity,
        neighbourhood_rows=len(near),
        neighbours=neighbours,
        active_dims=active_dims(seen.codes, has_prior=False),
        converged=bool(getattr(seen.model, "converged_", True)),
        message=str(getattr(seen.model, "message_", "") or ""),
        history_finite=all(bool(np.isfinite(curve.training).all()) for curve in curves),
        far_correlation=far,
        far_pairs=pairs,
    )
    return Diagnosis(embedding_checks(measures), measures)


def far_correlation(
    x: Float[np.ndarray, "m p"], z: Float[np.ndarray, "m d"], random: np.random.Generator
) -> tuple[float | None, int]:
    """Correlation of ranks of distances on the map and in the data, over random pairs, and their number."""
    first, second = random.integers(0, len(x), (2, FAR_PAIRS))
    kept = first != second
    first, second = first[kept], second[kept]
    on_map = np.linalg.norm(z[first] - z[second], axis=1)
    in_data = np.linalg.norm(x[first] - x[second], axis=1)
    if len(first) < 3 or np.ptp(on_map) == 0 or np.ptp(in_data) == 0:
        return None, len(first)
    found: Any = spearmanr(on_map, in_data)
    return float(found.statistic), len(first)
