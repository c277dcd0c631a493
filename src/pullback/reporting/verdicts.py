"""From numbers to verdicts: thresholds, and one plain sentence for each check."""

import math
from collections.abc import Mapping
from typing import Any

from pullback.reporting.checks import Check, Diagnosis, Measures, Verdict, percent
from pullback.reporting.flow_verdicts import flow_checks

# The part of geodesics that must be certified before they say anything.
MOSTLY = 0.75


def judge(measures: Measures, paths: Any = None, samples: Any = None) -> Diagnosis:
    """Compare the measured numbers with the thresholds."""
    checks = [
        _reconstruction(measures),
        _trustworthiness(measures),
        _continuity(measures),
        _condition(measures),
        _ruler(measures),
        _coverage(measures),
        _geodesics(measures),
        _dimensions(measures),
        _training(measures),
    ]
    if measures.trainings:
        checks.append(_stability(measures))
    if measures.flow is not None:
        checks += flow_checks(measures.flow)
    return Diagnosis(tuple(checks), measures, paths, samples)


def embedding_checks(measures: Measures) -> tuple[Check, ...]:
    """The checks of a model that only encodes."""
    return (
        _trustworthiness(measures),
        _continuity(measures),
        _far(measures),
        _dimensions(measures),
        _training(measures),
    )


def _at_most(value: float, good: float, bearable: float) -> Verdict:
    """A NaN fails."""
    return "pass" if value <= good else "attention" if value <= bearable else "fail"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1e4 else f"{value:.1e}"


def _reconstruction(m: Measures) -> Check:
    ratio = m.reconstruction_error / m.pca_error if m.pca_error > 1e-12 else math.inf
    if m.pca_error <= 1e-12 and m.reconstruction_error <= 1e-12:
        ratio = 1.0
    verdict = _at_most(ratio, 1.0, 1.1)
    meaning = {
        "pass": "the curved latent space is worth its price",
        "attention": "the model does no better than a linear one; train longer or widen the network",
        "fail": "a linear model does better; train longer, widen the network or weaken the penalties",
    }[verdict]
    return Check(
        key="reconstruction",
        name="Reconstruction",
        value=ratio,
        text=f"{ratio:.2f} × error of PCA" if math.isfinite(ratio) else "PCA is exact here",
        verdict=verdict,
        thresholds="pass up to 1.00, attention up to 1.10",
        sentence=(
            f"The model loses {percent(m.reconstruction_error)} of the variance {m.reconstruction_units}, "
            f"a {m.latent_dim}-dimensional PCA {percent(m.pca_error)}: {meaning}."
        ),
    )


def _neighbours(m: Measures, key: str, value: float | None, meaning: Mapping[Verdict, str]) -> Check:
    name = key.capitalize()
    thresholds = "pass from 0.90, attention from 0.80"
    if value is None:
        sentence = f"Too few rows ({m.n_rows}) to compare neighbourhoods."
        return Check(key, name, None, "not measured", "attention", thresholds, sentence)
    verdict: Verdict = "pass" if value >= 0.9 else "attention" if value >= 0.8 else "fail"
    sentence = f"{meaning[verdict]} ({m.neighbours} nearest neighbours)."
    return Check(key, name, value, f"{value:.3f}", verdict, thresholds, sentence)


def _trustworthiness(m: Measures) -> Check:
    return _neighbours(
        m,
        "trustworthiness",
        m.trustworthiness,
        {
            "pass": "What is close on the map is close in the data",
            "attention": "Some neighbours on the map are not neighbours in the data",
            "fail": "Neighbours on the map are often strangers in the data; add latent dimensions",
        },
    )


def _continuity(m: Measures) -> Check:
    return _neighbours(
        m,
        "continuity",
        m.continuity,
        {
            "pass": "What is close in the data is close on the map",
            "attention": "Some neighbours in the data were torn apart on the map",
            "fail": "Neighbours in the data are often torn apart on the map; add latent dimensions",
        },
    )


def _far(m: Measures) -> Check:
    common = {"key": "far", "name": "Far distances", "thresholds": "pass from 0.70, attention below"}
    if m.far_correlation is None:
        return _unmeasured("not measured", "There are too few distinct rows to compare distances.", common)
    verdict: Verdict = "pass" if m.far_correlation >= 0.7 else "attention"
    meaning = {
        "pass": "groups far apart on the map are far apart in the data",
        "attention": "which groups lie next to each other on the map says little about the data",
    }[verdict]
    return Check(
        value=m.far_correlation,
        text=f"rank correlation {m.far_correlation:.2f}",
        verdict=verdict,
        sentence=(f"Distances on the map against those in the data, {m.far_pairs} random pairs: {meaning}."),
        **common,
    )


def _condition(m: Measures) -> Check:
    verdict = _at_most(m.condition_number, 10.0, 100.0)
    meaning = {
        "pass": "distances on the map are a fair guide",
        "attention": "some directions are stretched much more than others: use geodesics, not the ruler",
        "fail": "some directions hardly change the data at all: distances on the map mislead",
    }[verdict]
    if m.flow is not None and verdict == "fail":
        meaning = "the learned metric hardly sees some directions: distances on the map mislead"
    return Check(
        key="condition",
        name="Metric",
        value=m.condition_number,
        text=f"condition {_number(m.condition_number)}",
        verdict=verdict,
        thresholds="pass up to 10, attention up to 100",
        sentence=(
            f"Largest over smallest stretch of squared lengths, mean over samples (median "
            f"{_number(m.condition_median)}; 1 means equal in all directions): {meaning}."
        ),
    )


def _unmeasured(text: str, sentence: str, common: Mapping[str, str]) -> Check:
    return Check(value=None, text=text, verdict="attention", sentence=sentence, **common)


def _certified(verdict: Verdict, certified: int, pairs: int) -> tuple[Verdict, str]:
    """A verdict on distances passes only if most of them are certified, and what to say of that."""
    if certified == pairs:
        return verdict, ""
    doubtful = verdict == "pass" and certified < MOSTLY * pairs
    return "attention" if doubtful else verdict, f", {certified} of them certified"


def _ruler(m: Measures) -> Check:
    common = {"key": "ruler", "name": "Ruler", "thresholds": "pass up to 0.15, attention up to 0.40"}
    if m.stress is None:
        sentence = "There are too few distinct codes at which the decoder depends on the code."
        return _unmeasured("ruler not measured", sentence, common)
    verdict, certified = _certified(_at_most(m.stress, 0.15, 0.4), m.stress_certified, m.stress_pairs)
    meaning = {
        "pass": "long ways on the map can be measured with it",
        "attention": "use geodesic distances where they matter",
        "fail": "it misleads: use geodesic distances",
    }[verdict]
    agreement = "distances do not differ"
    if m.pearson is not None and m.spearman is not None:
        agreement = f"correlation {m.pearson:.2f}, of ranks {m.spearman:.2f}"
    return Check(
        value=m.stress,
        text=f"stress {m.stress:.2f}",
        verdict=verdict,
        sentence=(
            f"Straight distances on the map, at its mean scale, miss geodesic ones by {percent(m.stress)} "
            f"(root mean square, {m.stress_pairs} random pairs{certified}; {agreement}): {meaning}."
        ),
        **common,
    )


def _stability(m: Measures) -> Check:
    common = {
        "key": "stability",
        "name": "Stability",
        "thresholds": f"pass up to {percent(0.1)}, attention up to {percent(0.25)}",
    }
    if m.stability is None:
        sentence = "There are too few pairs at which the decoders of all trainings depend on the code."
        return _unmeasured("not measured", sentence, common)
    verdict, certified = _certified(
        _at_most(m.stability, 0.1, 0.25), m.stability_certified, m.stability_pairs
    )
    meaning = {
        "pass": "they belong to the data, not to the training",
        "attention": "read them with that error",
        "fail": "they say as much about the training as about the data; average over an ensemble of decoders",
    }[verdict]
    return Check(
        value=m.stability,
        text=f"{percent(m.stability)} over {m.trainings} trainings",
        verdict=verdict,
        sentence=(
            f"Geodesic distances between the same samples vary by {percent(m.stability)} over {m.trainings} "
            f"trainings (standard deviation over mean, {m.stability_pairs} pairs{certified}): {meaning}."
        ),
        **common,
    )


def _coverage(m: Measures) -> Check:
    verdict = _at_most(m.off_data_share, 0.6, 0.85)
    where = "plane of the first two principal axes" if m.off_data_in_plane else "box around the codes"
    meaning = {
        "pass": "most of what the map shows is backed by samples",
        "attention": "much of the map is the decoder's guess; the faded area shows where",
        "fail": "nearly all of the map is the decoder's guess; trust only what lies close to samples",
    }[verdict]
    return Check(
        key="coverage",
        name="Area off the data",
        value=m.off_data_share,
        text=f"{percent(m.off_data_share)} off the data",
        verdict=verdict,
        thresholds="pass up to 60\u202f%, attention up to 85\u202f%",
        sentence=f"Share of the {where} that lies farther from every sample than neighbours do: {meaning}.",
    )


def _geodesics(m: Measures) -> Check:
    common = {
        "key": "geodesics",
        "name": "Geodesics",
        "thresholds": "pass if all are certified, attention from three quarters",
    }
    if m.geodesics == 0:
        sentence = "There are no two distinct codes to join at which the decoder depends on the code."
        return _unmeasured("none computed", sentence, common)
    share = m.geodesics_converged / m.geodesics
    verdict: Verdict = "pass" if share == 1 else "attention" if share >= MOSTLY else "fail"
    meaning = {
        "pass": "the shortest paths below can be trusted",
        "attention": "those without a certificate are marked below",
        "fail": "the decoder may be folded or rough; the paths below are the best found, not shortest",
    }[verdict]
    if m.flow is not None and verdict == "fail":
        meaning = "the learned metric changes too fast; the paths below are the best found, not shortest"
    return Check(
        value=share,
        text=f"{m.geodesics_converged} of {m.geodesics} certified",
        verdict=verdict,
        sentence=(
            f"Worst residual of the geodesic equation {m.worst_residual:.1e}, worst change on a mesh twice "
            f"as fine {m.worst_gap:.1e}: {meaning}."
        ),
        **common,
    )


def _dimensions(m: Measures) -> Check:
    unused = m.latent_dim - m.active_dims
    verdict: Verdict = "pass" if unused == 0 else "attention" if m.active_dims else "fail"
    meaning = {
        "pass": "every latent dimension varies over the data",
        "attention": f"latent dimensions that hardly vary over the data, and could be left out: {unused}",
        "fail": "the codes do not vary (posterior collapse): lower beta, warm it up or allow free bits",
    }[verdict]
    return Check(
        key="dimensions",
        name="Dimensions in use",
        value=m.active_dims / m.latent_dim,
        text=f"{m.active_dims} of {m.latent_dim} in use",
        verdict=verdict,
        thresholds="in use: variance above 1 % of the largest",
        sentence=f"{meaning[0].upper()}{meaning[1:]}.",
    )


def _training(m: Measures) -> Check:
    verdict: Verdict = "pass" if m.converged else "attention"
    sentence = m.message or ("Training ended by itself." if m.converged else "Training was stopped early.")
    text = "converged" if m.converged else "not converged"
    if not m.history_finite:
        verdict, text = "fail", "loss not finite"
        sentence = f"The loss became infinite or undefined. {sentence}"
    return Check(
        key="training",
        name="Training",
        value=float(m.converged),
        text=text,
        verdict=verdict,
        thresholds="pass if the loss stopped improving before the last epoch",
        sentence=f"{sentence[0].upper()}{sentence[1:].removesuffix('.')}.",
    )
