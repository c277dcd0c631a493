"""The gauge of a fit at its end: arc length on circles, isometry elsewhere."""

from dataclasses import replace

from pullback.models.dictionary.codes import decode
from pullback.models.dictionary.decoder_step import USED, NotDefiniteError
from pullback.models.dictionary.gauge import isometric
from pullback.models.dictionary.iterate import Iterate
from pullback.models.dictionary.sweep_options import at_sweep
from pullback.models.dictionary.sweep_steps import SweepSteps

FREE = ("interval", "plane", "sphere", "torus")
"""Charts whose coordinates can be written in numbers that move freely."""


def laid_out(steps: SweepSteps, best: Iterate, last: int) -> Iterate:
    """The gauge: arc length on circles and decoders for it, then isometry elsewhere."""
    if not steps.options.gauge:
        return best
    try:
        if any(chart.name == "circle" for chart in steps.layout.charts):
            gauged = steps.decoders(steps.by_arc_length(best.fit, best.codes), best.fit.lam, last)
            codes = steps.stepped(gauged, None, last).codes
            best = steps.decoders(codes, best.fit.lam, last)
        return _isometric(steps, best, last)
    except (KeyboardInterrupt, NotDefiniteError):
        return best


def _isometric(steps: SweepSteps, best: Iterate, sweep: int) -> Iterate:
    """Decoders and coordinates of each atom on its rows, all other atoms held."""
    strength, fit, codes = at_sweep(steps.options.isometry, sweep), best.fit, best.codes
    charts = enumerate(steps.layout.charts)
    todo = [k for k, chart in charts if chart.name in FREE and chart.d > 0 and k not in steps.labelled]
    if strength == 0 or not todo:
        return best
    coords, B = codes.coords.clone(), fit.B.clone()
    missed = steps.Z - decode(steps.layout, B, codes)
    for k in todo:
        chart, at = steps.layout.charts[k], steps.layout.block(k)
        own = codes.atoms == k
        row, slot = (own & (codes.weights > USED) if steps.soft else own).nonzero(as_tuple=True)
        if len(row) <= chart.M:
            continue
        t, a = coords[row, slot, : chart.c], codes.weights[row, slot]
        target = missed[row] + a.unsqueeze(1) * (chart.jet(t, 0).value @ B[at])
        found = isometric(chart, B[at], t, target, a, strength=strength, lam=float(fit.lam[k]), rho=fit.rho)
        coords[row, slot, : chart.c], B[at] = found.t, found.B
    return steps.held(B, replace(codes, coords=coords), fit)
