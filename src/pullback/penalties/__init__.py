"""Penalties with exact gradients, Hessian products, curvature that can be solved with, and strengths."""

from pullback.penalties.ard import ARDPenalty
from pullback.penalties.block_low_rank import BlockPlusLowRank, DiagonalPlusLowRank, SignedLogDet
from pullback.penalties.block_orthogonality import BlockOrthogonalityPenalty
from pullback.penalties.decoder_incoherence import DecoderIncoherencePenalty
from pullback.penalties.duchon import DuchonRadialSource
from pullback.penalties.errors import (
    DegenerateMetricError,
    MissingJetError,
    ReferenceScaleWarning,
    UnnormalisedPriorError,
)
from pullback.penalties.harmonic_roughness import HarmonicRoughnessPenalty
from pullback.penalties.isometry import IsometryEvaluation, IsometryPenalty
from pullback.penalties.ivae_ridge import IvaeRidgeMeanGaugePenalty
from pullback.penalties.jet_supply import factor_from_flat, jet_from_flat
from pullback.penalties.latent_sampling import LatentPolicy, LatentSampling
from pullback.penalties.nested_prefix import NestedPrefixPenalty
from pullback.penalties.normalizer import log_partition
from pullback.penalties.nuclear_norm import NuclearNormPenalty
from pullback.penalties.options import options_of
from pullback.penalties.ordered_beta_bernoulli import OrderedBetaBernoulliPenalty
from pullback.penalties.orthogonality import OrthogonalityPenalty
from pullback.penalties.protocol import Penalty, SumPenalty
from pullback.penalties.schedule import ScalarWeightSchedule
from pullback.penalties.softmax_entropy import EntropyEvaluation, SoftmaxAssignmentSparsityPenalty
from pullback.penalties.statistics import IsometryStatistics
from pullback.penalties.target import TargetPenalty
from pullback.penalties.total_variation import TotalVariationPenalty

__all__ = [
    "ARDPenalty",
    "BlockOrthogonalityPenalty",
    "BlockPlusLowRank",
    "DecoderIncoherencePenalty",
    "DegenerateMetricError",
    "DiagonalPlusLowRank",
    "DuchonRadialSource",
    "EntropyEvaluation",
    "HarmonicRoughnessPenalty",
    "IsometryEvaluation",
    "IsometryPenalty",
    "IsometryStatistics",
    "IvaeRidgeMeanGaugePenalty",
    "LatentPolicy",
    "LatentSampling",
    "MissingJetError",
    "NestedPrefixPenalty",
    "NuclearNormPenalty",
    "OrderedBetaBernoulliPenalty",
    "OrthogonalityPenalty",
    "Penalty",
    "ReferenceScaleWarning",
    "ScalarWeightSchedule",
    "SignedLogDet",
    "SoftmaxAssignmentSparsityPenalty",
    "SumPenalty",
    "TargetPenalty",
    "TotalVariationPenalty",
    "UnnormalisedPriorError",
    "factor_from_flat",
    "jet_from_flat",
    "log_partition",
    "options_of",
]
