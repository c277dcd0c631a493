"""The penalties of a target, each with a target that suits it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from penalties.checks import draw
from pullback.penalties import (
    ARDPenalty,
    BlockOrthogonalityPenalty,
    DecoderIncoherencePenalty,
    HarmonicRoughnessPenalty,
    IvaeRidgeMeanGaugePenalty,
    NestedPrefixPenalty,
    NuclearNormPenalty,
    OrderedBetaBernoulliPenalty,
    OrthogonalityPenalty,
    SoftmaxAssignmentSparsityPenalty,
    TargetPenalty,
    TotalVariationPenalty,
)


@dataclass(frozen=True)
class Case:
    """A penalty and whether its majorizer lies above the Hessian."""

    build: Callable[[], TargetPenalty]
    rows: int = 7
    columns: int = 4
    bounds: bool = True

    def target(self) -> Tensor:
        return draw(self.rows, self.columns, seed=3)


EDGES = torch.tensor([[0, 3], [3, 1], [2, 2], [6, 0], [3, 6]])
CO = torch.tensor([[0.0, 0.5, 2.0], [0.5, 0.0, 1.0], [2.0, 1.0, 0.0]], dtype=torch.float64)

CASES: dict[str, Case] = {
    "nested prefix": Case(lambda: NestedPrefixPenalty([1, 2, 4], [0.7, 0.2, 1.1], eps=0.1, dim=4)),
    "nested prefix, one weight": Case(lambda: NestedPrefixPenalty([1, 3], 0.7, eps=0.2, dim=4)),
    "decoder incoherence": Case(lambda: DecoderIncoherencePenalty([2, 1, 4], 0.8, dim=4), bounds=False),
    "decoder incoherence, weighted": Case(
        lambda: DecoderIncoherencePenalty([2, 1, 4], 0.8, cooccurrence=CO, dim=4), bounds=False
    ),
    "decoder incoherence, plain": Case(
        lambda: DecoderIncoherencePenalty([3, 4], 0.8, normalize="none", dim=4), bounds=False
    ),
    "decoder incoherence, grams": Case(
        lambda: DecoderIncoherencePenalty([2, 1, 4], 0.8, cooccurrence=CO, normalize="grams", dim=4),
        bounds=False,
    ),
    "ordered beta Bernoulli": Case(lambda: OrderedBetaBernoulliPenalty(1.5, 0.7, 0.9, dim=4)),
    "block orthogonality": Case(lambda: BlockOrthogonalityPenalty([[0, 3], [1]], 0.8, dim=4)),
    "ivae ridge": Case(lambda: IvaeRidgeMeanGaugePenalty(draw(7, 2, seed=5), 0.8, dim=4)),
    "harmonic roughness": Case(lambda: HarmonicRoughnessPenalty(torch.arange(7) / 3, 0.8, dim=4)),
    "harmonic roughness, weights": Case(
        lambda: HarmonicRoughnessPenalty(row_weights=torch.arange(7).double(), dim=4)
    ),
    "ard": Case(lambda: ARDPenalty(4, 0.6)),
    "ard, own weights": Case(lambda: ARDPenalty(4, [0.6, 1.0, 2.0, 0.1])),
    "orthogonality": Case(lambda: OrthogonalityPenalty(0.8, dim=4)),
    "orthogonality, n_eff": Case(lambda: OrthogonalityPenalty(0.8, n_eff=3, dim=4)),
    "nuclear norm": Case(lambda: NuclearNormPenalty(0.8, eps=0.3, dim=4)),
    "nuclear norm, few rows": Case(lambda: NuclearNormPenalty(0.8, eps=0.3, dim=4), rows=2),
    "nuclear norm, largest": Case(lambda: NuclearNormPenalty(0.8, eps=0.3, max_rank=2, dim=4)),
    "nuclear norm, more than there are": Case(lambda: NuclearNormPenalty(0.8, eps=0.3, max_rank=9, dim=4)),
    "total variation": Case(lambda: TotalVariationPenalty(0.8, eps=0.2, dim=4)),
    "total variation, edges": Case(lambda: TotalVariationPenalty(0.8, edges=EDGES, eps=0.2, dim=4)),
    "softmax": Case(lambda: SoftmaxAssignmentSparsityPenalty(0.8, 1.3, k_atoms=4)),
    "softmax, soft": Case(lambda: SoftmaxAssignmentSparsityPenalty(0.8, 1.3, k_atoms=4, majorizer="soft")),
    "softmax, split": Case(lambda: SoftmaxAssignmentSparsityPenalty(0.8, 1.3, k_atoms=4, majorizer="split")),
    "softmax, mean": Case(lambda: SoftmaxAssignmentSparsityPenalty(0.8, 1.3, k_atoms=4, reduction="mean")),
    "softmax, row weights": Case(
        lambda: SoftmaxAssignmentSparsityPenalty(0.8, k_atoms=4, row_weights=torch.arange(7) / 2)
    ),
    "softmax, many atoms": Case(lambda: SoftmaxAssignmentSparsityPenalty(0.8, k_atoms=40), 3, 40),
}
