"""Penalties as terms of an objective: where each is scored, with which weight, on one process or many.

Three kinds are known by what they offer. A gauge (`pullback.penalties.IsometryPenalty`) scores the decoder at
latent points that its ``latents`` chooses, against the metric of data space that the likelihood has. A
penalty of a target scores the codes of the batch (tier "psi") or the matrix of the decoder's last linear
layer (tier "beta"). Anything else with ``penalize(decoder, z)`` scores the decoder at the decoded points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pullback.ambient import Euclidean
from pullback.models import Gaussian
from pullback.penalties import IsometryPenalty, LatentSampling, SumPenalty, TargetPenalty
from pullback.penalties.options import at_unit_weight, weight_at, written
from pullback.penalties.schedule import LONGEST
from pullback.training.distributed import Reduce
from pullback.typing import Ambient, Map

OWN = (IsometryPenalty, TargetPenalty, SumPenalty)
STEPS = (0, 1, 10, 100, 1000, 10**4, 10**5, LONGEST - 1)
"""Steps at which two schedules are compared."""
AHEAD = 32
"""Steps for which latent points are drawn at a time."""
MATRIX = 2**15
"""Entries (points times codes) up to which a matrix draws them."""


@runtime_checkable
class Penalty(Protocol):
    """Something that scores a decoder at latent points: one number for the batch of all processes."""

    def penalize(self, decoder: nn.Module, z: Tensor) -> Tensor:
        """Penalty of the decoder at z ``(b, d)``, with gradients to both."""
        ...


@dataclass(frozen=True)
class Scored:
    """What a penalty may look at in a step.

    Attributes:
        model: the model, with ``decoder``, ``likelihood`` and ``embedding_map``.
        z: this process's decoded points ``(b, d)``.
        codes: their codes ``(b, d)``.
        library: total that counts are decoded to, where each row has its own.
    """

    model: Any
    z: Tensor
    codes: Tensor
    library: float | None

    def space(self, penalty: IsometryPenalty) -> tuple[Map, Ambient]:
        """The map into data space and the metric there, shared with the likelihood.

        A normal with one σ is Euclidean up to a scale that the gauge does not see.
        """
        likelihood, chosen = self.model.likelihood, penalty.chosen_ambient
        if isinstance(likelihood, Gaussian) and likelihood.scale not in ("per_feature", "network"):
            return self.model.decoder, Euclidean() if chosen is None else chosen
        return self.model.embedding_map(self.library), likelihood.ambient() if chosen is None else chosen


@dataclass(frozen=True)
class PenaltyTerm:
    """A penalty under its name in the history; the value there is without the weight.

    Attributes:
        penalty: at weight 1 where it is proportional to its weight.
        original: as it was given.
    """

    penalty: Any
    name: str
    original: Any

    @property
    def _apart(self) -> bool:
        """Whether the weight stands in front of the value."""
        return self.penalty is not self.original

    def weight(self, step: int) -> float:
        """Weight of the term at a step."""
        return weight_at(self.original, min(step, LONGEST - 1)) if self._apart else 1.0

    def value(self, at: Scored, step: int, reduce: Reduce, seed: int) -> Tensor:
        """The term for the batch of all processes, a mean over rows; a scalar with gradient."""
        if isinstance(self.penalty, OWN):
            self.penalty.apply_schedule(min(step, LONGEST - 1))
        if isinstance(self.penalty, IsometryPenalty):
            return gauge_term(self.penalty, at, reduce, seed, step)
        if isinstance(self.penalty, TargetPenalty | SumPenalty):
            return target_term(self.penalty, at, reduce)
        return self.penalty.penalize(at.model.decoder, reduce.gather(at.z))

    def describe(self) -> list[Any]:
        """What makes this term another one, as plain values."""
        if not isinstance(self.penalty, OWN):
            return [self.name, repr(getattr(self.penalty, "weight", None))]
        form = repr(self.penalty) if isinstance(self.penalty, SumPenalty) else written(self.penalty)
        return [self.name, [self.weight(step) for step in STEPS], form]


def generator_of(seed: int, step: int) -> torch.Generator:
    """The same draws in a step, whatever ran before it and on whichever process."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def gauge_term(penalty: IsometryPenalty, at: Scored, reduce: Reduce, seed: int, step: int) -> Tensor:
    """½ Σ ‖R‖² a row, at the points that the penalty's ``latents`` draws; each process scores its share."""
    points, generator = _points(penalty, reduce.gather(at.z), seed, step)
    alone = reduce.size == 1
    embedding, ambient = at.space(penalty)
    return penalty.penalize(
        embedding,
        points if alone else points[reduce.rank :: reduce.size],
        ambient=ambient,
        reduction="mean",
        reduce=None if alone else reduce,
        generator=generator,
    )


def _points(
    penalty: IsometryPenalty, codes: Tensor, seed: int, step: int
) -> tuple[Tensor, torch.Generator | None]:
    """The points of a step, and the generator for what else it draws."""
    latents, (n, d) = penalty.latents, codes.shape
    few = n * n <= MATRIX and penalty.estimator_for(d) == "exact"
    if not few or torch.is_autocast_enabled(codes.device.type):
        generator = generator_of(seed, step)
        return latents.draw(codes, generator), generator
    matrices = _matrices(latents, n, seed, step // AHEAD, codes.dtype, codes.device)
    return (codes if matrices is None else torch.mm(matrices[step % AHEAD], codes)), None


@lru_cache(maxsize=4)
def _matrices(
    latents: LatentSampling, n: int, seed: int, block: int, dtype: torch.dtype, device: torch.device
) -> Tensor | None:
    """What `LatentSampling.draw` does in each step of a block, drawn in one go while the code is warm."""
    with torch.inference_mode(False):
        steps = range(block * AHEAD, (block + 1) * AHEAD)
        like = torch.empty(0, dtype=dtype, device=device)
        return latents.matrices(n, [generator_of(seed, step) for step in steps], like)


def target_term(penalty: TargetPenalty | SumPenalty, at: Scored, reduce: Reduce) -> Tensor:
    """The value a row of the codes; the value itself for coefficients of the decoder."""
    if penalty.tier == "beta":
        return penalty.value(last_matrix(at.model.decoder))
    codes = reduce.gather(at.codes)
    return penalty.value(codes) / codes.shape[0]


def last_matrix(decoder: nn.Module) -> Tensor:
    """Wᵀ (h, p) of the decoder's last linear layer: row k is what unit k writes into data space.

    Raises:
        TypeError: the decoder has no linear layer.
    """
    linear = [layer for layer in decoder.modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise TypeError(
            f"penalties: expected a decoder with a linear layer for a penalty of its coefficients, got "
            f"{type(decoder).__name__}"
        )
    return linear[-1].weight.mT


def name_of(thing: object) -> str:
    """What a history calls it."""
    return str(getattr(thing, "name", None) or type(thing).__name__)


def named_terms(penalties: Sequence[Any]) -> list[PenaltyTerm]:
    """Penalties with distinct names: a second one of the same name is called ``name_2``.

    Raises:
        TypeError: an object that is no penalty.
    """
    named: list[PenaltyTerm] = []
    for penalty in penalties:
        if not isinstance(penalty, (*OWN, Penalty)):
            raise TypeError(
                f"penalties: expected objects of pullback.penalties or with penalize(decoder, z), "
                f"got {penalty!r}"
            )
        base, taken = name_of(penalty), {other.name for other in named}
        name, count = base, 2
        while name in taken:
            name, count = f"{base}_{count}", count + 1
        apart = getattr(penalty, "proportional", False) and isinstance(penalty, OWN)
        named.append(PenaltyTerm(at_unit_weight(penalty) if apart else penalty, name, penalty))
    return named
