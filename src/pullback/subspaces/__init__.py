"""Named quantities of the data in latent subspaces of their own: solvers, losses, and how to size them.

A quantity y is read from codes z as (z - z̄) Wᵀ A + ȳ with W (k, D) orthonormal rows. (R W, R A) with R
orthogonal is the same subspace, and nothing here depends on R.
"""

from pullback.subspaces.alignment import alignment_loss
from pullback.subspaces.bases import orthogonalize
from pullback.subspaces.combined import CombinedLoss, combined_loss
from pullback.subspaces.decoders import fit_decoders
from pullback.subspaces.disentanglement import disentanglement_loss
from pullback.subspaces.drift import SubspaceChange, stability_loss, subspace_change
from pullback.subspaces.encoding import encoding_subspace, principal_directions
from pullback.subspaces.erasure import Eraser, erase
from pullback.subspaces.evaluate import evaluate_subspaces
from pullback.subspaces.folds import fold_statistics
from pullback.subspaces.isotropy import isotropy_loss
from pullback.subspaces.leaks import conditional_leak, conditional_leaks, free_leak
from pullback.subspaces.loo import loo_r2
from pullback.subspaces.partition import PartitionLoss
from pullback.subspaces.partition_scores import PartitionTerms
from pullback.subspaces.pooling import pool
from pullback.subspaces.quantities import compute_Q, ensure_dim, input_to_quantity, to_device
from pullback.subspaces.rank import effective_rank, k_per_q, participation_ratio
from pullback.subspaces.readout import readout_subspace
from pullback.subspaces.sizing import minimal_latent_dim, optimal_bins, solve_dims
from pullback.subspaces.space import Space, solve_subspaces, subspaces
from pullback.subspaces.statistics import SufficientStatistics
from pullback.subspaces.subspace import Subspace
from pullback.subspaces.table import SubspaceTable

__all__ = [
    "CombinedLoss",
    "Eraser",
    "PartitionLoss",
    "PartitionTerms",
    "Space",
    "Subspace",
    "SubspaceChange",
    "SubspaceTable",
    "SufficientStatistics",
    "alignment_loss",
    "combined_loss",
    "compute_Q",
    "conditional_leak",
    "conditional_leaks",
    "disentanglement_loss",
    "effective_rank",
    "encoding_subspace",
    "ensure_dim",
    "erase",
    "evaluate_subspaces",
    "fit_decoders",
    "fold_statistics",
    "free_leak",
    "input_to_quantity",
    "isotropy_loss",
    "k_per_q",
    "loo_r2",
    "minimal_latent_dim",
    "optimal_bins",
    "orthogonalize",
    "participation_ratio",
    "pool",
    "principal_directions",
    "readout_subspace",
    "solve_dims",
    "solve_subspaces",
    "stability_loss",
    "subspace_change",
    "subspaces",
    "to_device",
]
