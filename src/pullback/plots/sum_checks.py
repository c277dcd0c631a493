"""The checks of an attribution as cards: do the sums hold, how were they made, what do they leave out."""

from pullback.attribution import Attribution
from pullback.plots.document import Check, Verdict

RETAINED = 0.9


def attribution_checks(attribution: Attribution) -> list[Check]:
    """What to know before reading contributions, most important first."""
    checks = [_sums(attribution), _way(attribution)]
    if attribution.homogeneity == 0:
        checks.append(
            Check(
                "magnitude", "Magnitude", 0.0, "ignored by the encoder", "attention",
                "Passes if f(cx) ≠ f(x).",
                "Rows that differ by a factor alone get the same point: the encoder normalises its input.",
            )
        )  # fmt: skip
    if attribution.retained is not None and attribution.retained.numel():
        kept = float(attribution.retained.median())
        verdict: Verdict = "pass" if kept >= RETAINED else "attention"
        checks.append(
            Check(
                "retained", "Retained", kept, f"{100 * kept:.0f}\u202f% of the median row", verdict,
                f"Passes from {100 * RETAINED:.0f}\u202f%.",
                "A projection stands in front of the encoder; what it drops cannot contribute.",
            )
        )  # fmt: skip
    return checks


def _sums(attribution: Attribution) -> Check:
    check = attribution.verification
    residual = float(attribution.residual.max()) if attribution.residual.numel() else 0.0
    sentence = "The contributions and the offset of each point add up to what the encoder itself gives."
    if not check.passed:
        sentence = (
            "The contributions do not add up to what the encoder gives: do not rely on single bars. Try "
            'method="path" or a smaller tol.'
        )
    return Check(
        "sums", "Sums", residual, f"largest residual {residual:.0e}", "pass" if check.passed else "fail",
        f"Passes up to {check.tolerance:.0e}, relative to the sum of sizes.", sentence,
    )  # fmt: skip


def _way(attribution: Attribution) -> Check:
    kind = attribution.map.replace("_", " ")
    if attribution.method == "path":
        text, sentence = "path integral", "Each feature gets what it changes on the way from the baseline."
        if attribution.nodes is not None:
            sentence += " The way is cut into pieces; the residual says how well."
    else:
        text = f"local map ({kind})"
        sentence = "Each feature gets what the encoder, as it is around the point, makes of it."
    start = attribution.baseline
    if start is None:
        sentence += " Features are counted from the other point."
    elif bool(start.any()):
        sentence += " Features are counted from a baseline, where they contribute nothing."
    else:
        sentence += " Features are counted from zero."
    kind = "Exact by construction." if attribution.exact else "Exact up to the residual."
    verdict: Verdict = "pass" if attribution.verification.passed else "fail"
    return Check("method", "Method", None, text, verdict, f"Passes if the sums hold. {kind}", sentence)
