"""The checks of a model that has learned its own metric."""

from pullback.reporting.checks import Check, Verdict
from pullback.reporting.learned import FlowMeasures

LARGEST_RESIDUAL = 1e-3
LEAST_REACH = 0.05
LEAST_CONTRAST = 2.0
LEAST_ACCEPTANCE = 0.5


def flow_checks(m: FlowMeasures) -> list[Check]:
    """Flow, reach of the metric, sampler."""
    return [_flow(m), _reach(m), _sampler(m)]


def _flow(m: FlowMeasures) -> Check:
    verdict: Verdict = "pass" if m.residual <= LARGEST_RESIDUAL else "fail"
    meaning = {
        "pass": "the bound of the likelihood can be trusted",
        "fail": "they were not solved: lower step_size or raise temperature",
    }.get(verdict, "")
    halved = "was never halved"
    if m.halvings:
        times = "once" if m.halvings == 1 else f"{m.halvings} times"
        halved = f"was halved {times} to {m.step_size:.3g}"
    return Check(
        key="flow",
        name="Flow",
        value=m.residual,
        text=f"step size {m.step_size:.3g}, residual {m.residual:.0e}",
        verdict=verdict,
        thresholds="pass up to a residual of 1e-3",
        sentence=(
            f"The implicit steps of the flow moved by at most {m.residual:.1e} in their last iteration: "
            f"{meaning}. The step size {halved} while training."
        ),
    )


def _reach(m: FlowMeasures) -> Check:
    verdict: Verdict = "pass"
    meaning = "the metric knows where the data are"
    if m.reach < LEAST_REACH:
        verdict, meaning = "fail", "no centroid reaches the data: raise temperature"
    elif m.contrast < LEAST_CONTRAST:
        verdict = "attention"
        meaning = (
            "at the data it hardly differs from what it is far away, and its volume says little about where "
            "they are: lower regularization"
        )
    return Check(
        key="reach",
        name="Reach of the metric",
        value=m.reach,
        text=f"coverage {m.reach:.2f}, contrast {m.contrast:.1f}",
        verdict=verdict,
        thresholds="pass from coverage 0.05 and contrast 2",
        sentence=(
            "Weight of the nearest centroid, and inverse metric over its value far from all centroids "
            f"(medians over samples): {meaning}."
        ),
    )


def _sampler(m: FlowMeasures) -> Check:
    verdict: Verdict = "pass"
    meaning = "the chains have mixed"
    if not m.sampler_converged:
        verdict, meaning = "fail", m.sampler_message
    elif m.sampler_acceptance < LEAST_ACCEPTANCE:
        verdict = "attention"
        meaning = "they have mixed, but many proposals leave the support: take fewer n_leapfrog"
    r_hat = "" if m.sampler_r_hat is None else f", R\u2011hat {m.sampler_r_hat:.2f}"
    return Check(
        key="sampler",
        name="Sampler",
        value=m.sampler_acceptance,
        text=f"acceptance {m.sampler_acceptance:.2f}{r_hat}",
        verdict=verdict,
        thresholds="pass if the chains have mixed and half of the proposals are accepted",
        sentence=f"Markov chains that draw from the volume of the learned metric: {meaning}.",
    )
