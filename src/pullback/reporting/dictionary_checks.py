"""What the page of a manifold dictionary checks first."""

import math

from pullback.estimators.manifold_dictionary import ManifoldDictionary
from pullback.models.dictionary.diagnostics import FitDiagnostics
from pullback.models.dictionary.noise import largest_ratio
from pullback.plots.dictionaries import restart_ranks
from pullback.plots.document import Check, Verdict
from pullback.reporting.wording import plural

MUCH_NOISE = 1.2
SPREAD = 0.05
SPEED = 0.3
SETTLED, HARDLY_SETTLED = 0.99, 0.9


def dictionary_checks(model: ManifoldDictionary, settled: float) -> tuple[Check, ...]:
    """Verdicts on noise, shapes, atoms, coordinates, starts, codes and the fit.

    Args:
        model: a fitted dictionary.
        settled: share of the rows of the page whose codes are stationary.
    """
    known = model.diagnostics_
    codes = {alarm.code for alarm in known.alarms}
    return (
        _noise(known, largest_ratio(len(model.codes_), model.n_features_in_)),
        _shapes(known),
        _atoms(known, codes),
        _gauge(known, model),
        _starts(model),
        _settled(settled),
        _training(known, codes),
    )


def _noise(known: FitDiagnostics, limit: float) -> Check:
    name, bounds = "Noise", f"pass up to {limit:.3f}, attention up to {MUCH_NOISE}"
    if known.sigma_noise is None:
        sentence = "The spectrum of the rows has no flat part that would tell how much of them is noise."
        return Check("noise", name, None, f"σ = {known.sigma:.3g}", "attention", bounds, sentence)
    ratio = known.sigma**2 / known.sigma_noise**2
    verdict = _grade(ratio, limit, max(limit, MUCH_NOISE))
    sentence = (
        "What the atoms leave is as much as the spectrum of the rows says is noise."
        if verdict == "pass"
        else "The atoms leave more than noise: one of them is missing, or of the wrong kind."
    )
    return Check("noise", name, ratio, f"{ratio:.3f} of what is expected", verdict, bounds, sentence)


def _shapes(known: FitDiagnostics) -> Check:
    chosen = [found for found in known.topology if found is not None]
    bounds = "pass if evidence decides for each, by 10 nats"
    if not chosen:
        sentence = "The kinds of atoms were given; nothing else was compared with them."
        return Check("shapes", "Shapes", None, "given", "pass", bounds, sentence)
    open_ = [
        k for k, found in enumerate(known.topology) if found is not None and found.verdict == "undecided"
    ]
    text = f"{len(chosen) - len(open_)} of {len(chosen)} decided"
    sentence = (
        "Evidence, with separate points as the null, decides what each atom is."
        if not open_
        else (f"Evidence does not decide what {_named(open_)} {'is' if len(open_) == 1 else 'are'}.")
    )
    value = 1 - len(open_) / len(chosen)
    return Check("shapes", "Shapes", value, text, "attention" if open_ else "pass", bounds, sentence)


def _atoms(known: FitDiagnostics, codes: set[str]) -> Check:
    wrong = {
        "dead_atom": "unused",
        "duplicate_atoms": "double",
        "few_pure_rows": "with few rows of their own",
    }
    found = [word for code, word in wrong.items() if code in codes]
    K = len(known.usage)
    text = f"{K - len(known.dead)} of {K} in use"
    sentence = f"Some atoms are {', or '.join(found)}." if found else "Every atom is used, and none twice."
    bounds = "pass without an alarm"
    return Check(
        "atoms", "Atoms", float(len(found)), text, "attention" if found else "pass", bounds, sentence
    )


def _gauge(known: FitDiagnostics, model: ManifoldDictionary) -> Check:
    speeds = [
        check.speed_variation for check, atom in zip(known.gauge, model.atoms_, strict=True) if atom.chart.d
    ]
    bounds = f"pass if speed varies by at most {SPEED:.0%}"
    if not speeds:
        sentence = "No atom has a coordinate that moves."
        return Check("gauge", "Coordinates", None, "none", "pass", bounds, sentence)
    worst = max(speeds)
    verdict: Verdict = "pass" if worst <= SPEED else "attention"
    sentence = (
        "Equal steps of a coordinate are nearly equal ways in the data."
        if verdict == "pass"
        else "Somewhere equal steps of a coordinate are unequal ways in the data: look at its speed."
    )
    return Check("gauge", "Coordinates", worst, f"speed varies by {worst:.1%}", verdict, bounds, sentence)


def _starts(model: ManifoldDictionary) -> Check:
    values = sorted(restart_ranks(model))
    bounds = f"pass if the second best is within {SPREAD:.0%}, or one start reached the noise"
    if len(values) < 2:
        sentence = "One start was enough: it reached the noise, or no more were asked for."
        return Check("starts", "Starts", None, "one", "pass", bounds, sentence)
    spread = (values[1] - values[0]) / abs(values[0])
    verdict: Verdict = "pass" if spread <= SPREAD else "attention"
    sentence = (
        "Other starts find as good a fit."
        if verdict == "pass"
        else "Other starts end worse: try more of them."
    )
    return Check("starts", "Starts", spread, f"second {spread:.1%} worse", verdict, bounds, sentence)


def _settled(share: float) -> Check:
    verdict = _grade(1 - share, 1 - SETTLED, 1 - HARDLY_SETTLED)
    bounds = f"pass from {SETTLED:.0%}, attention from {HARDLY_SETTLED:.0%}"
    sentence = "Share of the rows whose weights and coordinates are at a minimum of their own objective."
    return Check("codes", "Codes", share, f"{share:.1%} at rest", verdict, bounds, sentence)


def _training(known: FitDiagnostics, codes: set[str]) -> Check:
    if "numerical" in codes or not math.isfinite(known.fvu):
        verdict: Verdict = "fail"
    else:
        verdict = "pass" if known.converged else "attention"
    text = f"{plural(known.n_sweeps, 'sweep')}, FVU {known.fvu:.4f}"
    return Check("fit", "Fit", known.fvu, text, verdict, "pass if it came to rest", known.message)


def _grade(value: float, good: float, fair: float) -> Verdict:
    if not value <= fair:
        return "fail"
    return "pass" if value <= good else "attention"


def _named(numbers: list[int]) -> str:
    words = [str(k) for k in numbers]
    joined = words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
    return f"atom{'s' if len(words) > 1 else ''} {joined}"
