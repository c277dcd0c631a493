"""From a fitted model and its data to a diagnosis."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pullback.plots.conditions import condition_numbers
from pullback.plots.training import curves_of
from pullback.reporting.checks import Diagnosis, Measures
from pullback.reporting.distances import (
    WORST_CONDITION,
    flatness_measures,
    ruler_measures,
    stability_measures,
)
from pullback.reporting.embedding_diagnosis import diagnose_embedding
from pullback.reporting.evidence import Evidence, check_model, gather, observe, only_encodes
from pullback.reporting.learned import SAMPLES, flow_measures, quiet_samples
from pullback.reporting.measures import (
    NEIGHBOURHOOD_ROWS,
    active_dims,
    coverage,
    neighbourhoods,
    pca_unexplained_share,
    unexplained_share,
)
from pullback.reporting.pairs import Paths, choose_pairs, compare_paths
from pullback.reporting.verdicts import judge
from pullback.validation import check_whole

METRIC_ROWS = 1000


def diagnose(
    model: Any,
    X: Any,
    *,
    labels: Any = None,
    n_geodesics: int = 8,
    max_points: int = 2000,
    others: Sequence[Any] = (),
    random_state: int = 0,
) -> Diagnosis:
    """Check a fitted model against its data, from its reconstruction to its geodesics.

    Neighbourhoods are compared by trustworthiness and, with the two spaces exchanged, continuity (Venna and
    Kaski 2006); the metric by its condition number, its distance from its mean and its distortion (as in
    `flatness`); distances on the map with geodesic ones by stress and correlation (as in `geodesic_stress`).

    Args:
        model: a fitted estimator (`VAE`, `Autoencoder`).
        X: data ``(n, p)`` as for ``fit``.
        labels: one label a row; geodesics then join typical samples of different classes.
        n_geodesics: how many pairs to join.
        max_points: rows that are sampled for what is measured row by row.
        others: the same model trained again (another ``random_state``), on the same data; distances are then
            checked for how much they vary from one training to the next (as in `distance_stability`).
        random_state: seed of the sample.

    Returns:
        `Diagnosis`: ``.checks``, ``.summary()`` (five lines), ``.as_dict()``.

    Raises:
        TypeError, ValueError, sklearn.exceptions.NotFittedError: see `report`.

    Example:
        >>> import numpy as np, pullback as pb
        >>> X = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
        >>> model = pb.VAE(hidden=(8,), max_epochs=2, progress=False, random_state=0).fit(X)
        >>> diagnosis = pb.diagnose(model, X, n_geodesics=2)
        >>> len(diagnosis.summary())
        5
    """
    check_whole("n_geodesics", n_geodesics)
    if not isinstance(others, Sequence):
        raise TypeError(f"others: expected a list of fitted models, got {type(others).__name__}")
    for k, other in enumerate(others):
        check_model(other, f"others[{k}]")
    options = {"labels": labels, "max_points": max_points, "random_state": random_state}
    if only_encodes(model):
        return diagnose_embedding(observe(model, X, **options))
    evidence = gather(model, X, **options)
    return measure(evidence, join(evidence, n_geodesics), others, X)


def join(evidence: Evidence, n_geodesics: int) -> Paths | None:
    """Geodesics between far-apart sampled rows; None where there are none to join.

    A path cannot start where the decoder does not depend on the code, so such rows are passed over.
    """
    codes = evidence.shown_codes
    rows = np.flatnonzero(condition_numbers(evidence.metric, codes) < WORST_CONDITION)
    labels = None if evidence.labels is None else evidence.labels.take(rows)
    pairs = choose_pairs(codes[rows], n_geodesics, labels, [evidence.sample_names[row] for row in rows])
    return compare_paths(evidence.metric, codes[rows], pairs) if pairs else None


def measure(evidence: Evidence, paths: Paths | None, others: Sequence[Any] = (), X: Any = None) -> Diagnosis:
    """Compute all numbers and judge them; with ``others``, models trained on X, their stability as well."""
    x, z = evidence.x, evidence.shown_codes
    a, b = x / evidence.unit_scale, evidence.y / evidence.unit_scale
    random = np.random.default_rng(evidence.random_state)
    near = random.permutation(len(x))[:NEIGHBOURHOOD_ROWS]
    trust, continuity, neighbours = neighbourhoods(a[near], z[near])
    some = z[near[:METRIC_ROWS]]
    conditions = condition_numbers(evidence.metric, some)
    regular = some[conditions < WORST_CONDITION]
    stability: dict[str, Any] = {"stability": None, "trainings": 0, "stability_pairs": 0}
    stability |= {"stability_certified": 0}
    if others:
        stability = stability_measures(evidence, others, X, random)
    history = getattr(evidence.model, "history_", {})
    curves = curves_of(history)
    d = z.shape[1]
    samples = flow = None
    if evidence.learned:
        samples = quiet_samples(evidence.model, SAMPLES, "volume", evidence.random_state)
        flow = flow_measures(evidence.model, evidence.metric, some, samples)
    return judge(
        Measures(
            n_rows=evidence.n,
            n_features=x.shape[1],
            latent_dim=d,
            reconstruction_error=unexplained_share(a, b),
            pca_error=pca_unexplained_share(a, d, random_state=evidence.random_state),
            reconstruction_rows=len(x),
            reconstruction_units=evidence.units,
            trustworthiness=trust,
            continuity=continuity,
            neighbourhood_rows=len(near),
            neighbours=neighbours,
            condition_number=float(conditions.mean()),
            condition_median=float(np.median(conditions)),
            metric_rows=len(some),
            **flatness_measures(evidence.metric, regular),
            **ruler_measures(evidence.metric, regular, random),
            **stability,
            off_data_share=coverage(evidence.codes),
            off_data_in_plane=d > 2,
            **_path_measures(paths),
            active_dims=active_dims(evidence.codes, has_prior="kl" in history),
            converged=bool(getattr(evidence.model, "converged_", True)),
            message=str(getattr(evidence.model, "message_", "") or ""),
            history_finite=all(bool(np.isfinite(curve.training).all()) for curve in curves),
            flow=flow,
        ),
        paths,
        samples,
    )


def _path_measures(paths: Paths | None) -> dict[str, Any]:
    if paths is None:
        unknown = ("worst_residual", "worst_gap", "saved_median", "saved_largest")
        return {"geodesics": 0, "geodesics_converged": 0, **dict.fromkeys(unknown, math.nan)}
    return {
        "geodesics": len(paths.pairs),
        "geodesics_converged": int(paths.converged.sum()),
        "worst_residual": float(paths.residual.max()),
        "worst_gap": float(np.abs(paths.gap).max()),
        "saved_median": float(np.median(paths.saved)),
        "saved_largest": float(paths.saved.max()),
    }
