"""Kinks of a decoder, where its curvature sits and derivatives do not see it."""

import warnings
from collections.abc import Iterator

from torch import nn

from pullback.jets import PiecewiseLinearWarning
from pullback.jets.rules import MAX_POOLS, Piecewise
from pullback.jets.taylor import is_piecewise_linear, layers_of, survey
from pullback.metrics import BaseMetric

REMEDY = "use a smooth activation (Softplus, SiLU, GELU, Tanh)"


def kinks_of(metric: BaseMetric) -> tuple[str | None, bool]:
    """The first layer with kinks that a metric rests on, in words, or None; whether all of it is linear
    between its kinks."""
    for network in _networks(metric):
        steps = list(survey(layers_of(network)))
        kinked = [s for s in steps if isinstance(s.rule, Piecewise) or type(s.module) in MAX_POOLS]
        if kinked:
            problem = (
                f"{type(kinked[0].module).__name__} at layer {kinked[0].path or '(itself)'} has kinks, where "
                f"the curvature sits that derivatives do not see; {REMEDY}"
            )
            return problem, network is metric.embedding and is_piecewise_linear(steps)
    return None, False


def _networks(metric: BaseMetric) -> Iterator[nn.Module]:
    """The modules that a metric is made of: its embedding, or those of its parts."""
    if isinstance(metric.embedding, nn.Module):
        yield metric.embedding
        return
    for name in ("decoder", "log_factor"):
        part = getattr(metric, name, None)
        if isinstance(part, nn.Module):
            yield part
    for part in (*getattr(metric, "members", ()), getattr(metric, "base", None)):
        if isinstance(part, BaseMetric):
            yield from _networks(part)


def report_kinks(metric: BaseMetric, *, strict: bool) -> bool:
    """Warn of, or refuse, kinks; whether the metric is that of a decoder which is linear between them."""
    problem, flat = kinks_of(metric)
    if problem is not None and strict:
        raise ValueError(f"metric: {problem}")
    if problem is not None:
        warnings.warn(problem, PiecewiseLinearWarning, stacklevel=3)
    return flat


def warn_of_straight_rays(metric: BaseMetric) -> None:
    """A warning where nothing bends a geodesic."""
    if kinks_of(metric)[1]:
        warnings.warn(
            "the decoder is linear piece by piece: geodesics are straight between its kinks and do not bend "
            f"at them; {REMEDY}",
            PiecewiseLinearWarning,
            stacklevel=3,
        )
