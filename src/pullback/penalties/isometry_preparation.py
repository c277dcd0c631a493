"""From a target to what the isometry penalty computes with: evidence, gauge and strength, checked."""

import logging
import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from pullback.jets import Jet, jet
from pullback.penalties.errors import DegenerateMetricError
from pullback.penalties.evidence import DecoderAt, Evidence, GivenJet
from pullback.penalties.gauge import Gauge, gauge, reference_rows
from pullback.penalties.jet_supply import Supply, as_points, check_target, explain_not_finite
from pullback.validation import check_finite

logger = logging.getLogger(__name__)

RANGE = {torch.float64: 1e140, torch.float32: 1e30, torch.bfloat16: 1e30, torch.float16: 1e3}
"""Means of the metric above which, or below whose inverse, jets are rescaled before they are squared."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A target that is ready: ``None`` in its place stands for a zero that was asked for."""

    known: Evidence
    gauge: Gauge


@dataclass(frozen=True, eq=False)
class Preparation:
    """How targets are read. ``said`` holds what the log was told already."""

    reference: Tensor | None
    degenerate: Literal["raise", "zero"]
    latent_dim: int | None
    said: set[str] = field(default_factory=set)

    def known(
        self, supply: Supply, target: Tensor | Jet, given: Jet | None, order: int, what: str
    ) -> Evidence | None:
        """What is known of the target to ``order``; None for an empty target or a zero that was asked for."""
        check_target("target", target)
        if given is not None:
            check_target("jet", given, points=False)
        if isinstance(target, Tensor):
            attached = given if given is not None else supply.attached
            target = as_points(target, attached, self.latent_dim)
        if rows_of(target) == 0:
            return None
        known = supply.evidence(target, given, order, what)
        if known is None:
            self._say(f"{what}: a derivative is missing and counts as zero, as missing='zero' asks")
        return known

    def ready(
        self, supply: Supply, target: Tensor | Jet, given: Jet | None, order: int, what: str
    ) -> Prepared | None:
        """Evidence and gauge, at a scale that the dtype holds.

        Raises:
            ValueError: numbers that are not finite. DegenerateMetricError: ḡ = 0.
        """
        known = self.known(supply, target, given, order, what)
        if known is None:
            return None
        mean = float(known.metric.detach().diagonal(dim1=-2, dim2=-1).mean())
        limit = RANGE.get(known.metric.dtype, 1e30)
        if not 1 / limit < mean < limit:
            known = self._rescaled(known, order)
        n, d = known.metric.shape[:2]
        reference = reference_rows(self.reference, n, d)
        try:
            at = gauge(known.metric, reference)
        except DegenerateMetricError as error:
            self.accept(error, what)
            return None
        if not math.isfinite(float(at.square.detach())):
            explain_not_finite(target, known)
        return Prepared(known, at)

    def accept(self, error: DegenerateMetricError, what: str) -> None:
        """Let a metric that vanishes count as zero, where that was asked for; else raise the error."""
        if self.degenerate == "raise":
            raise error
        self._say(f"{what}: the metric vanishes and the penalty counts as zero, as degenerate='zero' asks")

    def _rescaled(self, known: Evidence, order: int) -> Evidence:
        if isinstance(known, DecoderAt):
            check_finite("target", known.points)
            found = jet(known.decoder, known.points, max(order, 1))
            assert isinstance(found, Jet)
            known = GivenJet.of(found, known.ambient)
        if not isinstance(known, GivenJet):
            return known
        check_finite("jacobian", known.jacobian.flatten(1))
        largest = float(known.jacobian.detach().abs().max())
        return known.rescaled() if largest > 0 else known

    def _say(self, message: str) -> None:
        if message.split(":")[1] not in self.said:
            self.said.add(message.split(":")[1])
            logger.warning(message)


def rows_of(target: Tensor | Jet) -> int:
    """n of points or a jet; 1 where a jet has nothing to tell it from."""
    if isinstance(target, Tensor):
        return target.shape[0]
    known = [
        part for part in (target.jacobian, target.hessian, target.third, target.value) if part is not None
    ]
    return known[0].shape[0] if known else 1


def jacobian_of(known: Jet | None) -> Tensor:
    """J, or zeros of its shape from a higher derivative."""
    if known is not None and known.jacobian is not None:
        return known.jacobian
    if known is not None and known.hessian is not None:
        return torch.zeros_like(known.hessian[..., 0])
    raise ValueError("jet: expected a Jacobian or a Hessian, from which a zero takes its shape, got neither")


def zeros_for(target: Tensor | Jet) -> Tensor:
    """Zeros in the shape of the points."""
    return torch.zeros_like(target if isinstance(target, Tensor) else jacobian_of(target)[:, 0])
