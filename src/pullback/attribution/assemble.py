"""From parts to an `Attribution`: everything is collected, checked against the network, and reported."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from pullback.attribution.collecting import Collector, Part
from pullback.attribution.question import Question
from pullback.attribution.result import AffineMap, Attribution, Source
from pullback.jets.affine import report_check
from pullback.jets.verification import HOMOGENEITY_POINTS, TOLERANCE, JacobianVerification, homogeneity


def assemble(
    question: Question,
    x: Tensor,
    parts: Iterable[Part],
    *,
    map: AffineMap,
    method: Literal["local", "path"],
    baseline: Tensor | None,
    power: int | None,
    derivative_error: float | None = None,
    source: Source | None = None,
) -> Attribution:
    """The attribution of rows ``x`` from its parts; warns, or raises if strict, where the check fails."""
    collector = question.collector(x)
    for part in parts:
        collector.add(part)
    n, d = len(x), question.outputs
    empty = x.new_zeros(n, d)
    column = collector.column
    verification, nodes = checked(question, collector, x.dtype, power, derivative_error)
    values = collector.values
    if question.reduction == "mean_l2" and n:
        values /= n
    value, offset, residual = column("value"), column("offset"), column("residual")
    return Attribution(
        values=values,
        offset=empty if offset is None else offset,
        value=empty if value is None else value,
        baseline=baseline,
        map=map,
        method=method,
        reduction=question.reduction,
        pieces=column("pieces"),
        nodes=nodes,
        kink_margin=column("margin"),
        homogeneity=power,
        verification=verification,
        residual=x.new_zeros(n) if residual is None else residual,
        piecewise_linear=question.network.flat,
        feature_names=question.feature_names,
        output_names=question.output_names,
        retained=column("retained"),
        degenerate=column("degenerate"),
        _source=source,
    )


def checked(
    question: Question,
    collector: Collector,
    dtype: torch.dtype,
    power: int | None,
    derivative_error: float | None = None,
) -> tuple[JacobianVerification, Tensor | None]:
    """The check of all parts, reported, and the nodes of each row where there was a quadrature."""
    nodes = collector.column("nodes")
    nodes = nodes if nodes is not None and bool((nodes > 0).any()) else None
    tolerance = TOLERANCE.get(dtype, 1e-2)
    tolerance = tolerance if nodes is None else max(question.tol, tolerance)
    verification = collector.residuals.result(dtype, derivative_error, tolerance)
    reported = None if question.ignores_magnitude else power
    report_check(
        verification, question.network.steps, reported, dtype, question.strict,
        what="the sum of the contributions", stacklevel=question.stacklevel,
    )  # fmt: skip
    return verification, nodes


def power_of(question: Question, x: Tensor) -> int | None:
    """k of f(c e) = c^k f(e) for what the net sees of the rows, or None."""
    few = min(max(len(x) // 16, 16), HOMOGENEITY_POINTS)
    return homogeneity(question.network.net, question.network.enter(x[:few]))
