"""From the options of an embedding to its training run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pullback.estimators.block_sizes import Room
from pullback.estimators.following import followers
from pullback.estimators.reading import training_device
from pullback.estimators.reserving import Reserved, reserve
from pullback.estimators.subspace_partition import SubspacePartition
from pullback.inputs import Table
from pullback.models.umap import UMAPModule, jitter_scale
from pullback.training import FitResult, TrainingOptions, fit
from pullback.training.embedding_objective import EmbeddingObjective
from pullback.training.graph_batches import GraphRows
from pullback.validation import check_positive, check_whole

STRENGTH = 1.0
"""Default strength of a partition beside the cross entropy, a mean over pairs."""
DECODED_ROWS = 2048
"""Rows of a step that a decoder learns from."""
FAR_BEYOND = 10**9
"""Epochs of a run whose end is given in steps."""


def reserve_coordinates(
    estimator: Any, X: Any, table: Table, quantities: Mapping[str, Any] | None
) -> Reserved | None:
    """Known quantities of the rows and the coordinates of the map for them; None without a partition.

    Raises:
        TypeError: a partition that is none.
        ValueError: quantities without a partition; what `pullback.estimators.reserving.reserve` raises.
    """
    option = estimator.partition
    if option is None:
        if quantities is not None:
            raise ValueError("quantities: expected none without partition=SubspacePartition(...), got some")
        return None
    if not isinstance(option, SubspacePartition):
        raise TypeError(f"partition: expected a pullback.SubspacePartition or None, got {option!r}")
    reserved = reserve(
        option,
        X,
        table,
        quantities,
        index=np.arange(len(table)),
        room=Room(estimator.n_components, "n_components"),
        seen=lambda index: estimator._projection.apply(table.rows(index)),
        strength=STRENGTH,
    )
    among = len(table) if estimator.nodes_per_step is None else min(estimator.nodes_per_step, len(table))
    reserved.regularizer.loss.check_rows(among, "X" if among == len(table) else "nodes_per_step")
    return reserved


def train_embedding(
    estimator: Any,
    module: UMAPModule,
    rows: Any,
    seed: int,
    callbacks: Sequence[Callable[..., Any]],
    reserved: Reserved | None = None,
) -> FitResult:
    """Train the module of a `pullback.ParametricUMAP` whose graph and membership curve are known.

    Args:
        estimator: its options.
        module: encoder and perhaps decoder, trained in place.
        rows: what the encoder sees, a tensor or an object with ``rows(index)``.
        seed: of all randomness.
        callbacks: told (step, loss, estimator) after each epoch.
        reserved: known quantities and what they add to the objective.
    """
    source = GraphRows(
        rows,
        estimator.graph_,
        negatives=estimator.negatives,
        negative_sample_rate=estimator.negative_sample_rate,
        most_batches=estimator.num_batches,
        decoded=0 if module.decoder is None else DECODED_ROWS,
        jitter=_jitter(estimator.jitter, rows),
        nodes=estimator.nodes_per_step,
        columns=None if reserved is None else reserved.columns,
    )
    objective = EmbeddingObjective(
        module,
        estimator.a_,
        estimator.b_,
        negative_sample_rate=estimator.negative_sample_rate,
        repulsion_strength=estimator.repulsion_strength,
        partition=None if reserved is None else reserved.regularizer,
    )
    options = _options(estimator, estimator.scaling_.dtype)
    return fit(objective, source, options, generator_seed=seed, callbacks=followers(estimator, callbacks))


def _jitter(jitter: Any, rows: Any) -> float:
    """Standard deviation of the noise on the rows."""
    check_positive("jitter", jitter, zero=True)
    if not jitter:
        return 0.0
    if not isinstance(rows, torch.Tensor):
        raise ValueError(
            f"jitter: expected 0 for rows that are too many to be dense at once, got {jitter}; or pass "
            "pca_components"
        )
    return float(jitter) * jitter_scale(rows)


def _options(estimator: Any, dtype: torch.dtype) -> TrainingOptions:
    check_whole("epochs", estimator.epochs)
    if estimator.steps is not None:
        check_whole("steps", estimator.steps)
    return TrainingOptions(
        max_epochs=estimator.epochs if estimator.steps is None else FAR_BEYOND,
        max_steps=estimator.steps,
        batch_size=estimator.batch_size,
        lr=estimator.lr,
        weight_decay=estimator.weight_decay,
        gradient_clip=estimator.gradient_clip,
        patience=None,
        restore_best=bool(estimator.restore_best_weights),
        device=training_device(estimator.device or "auto", dtype),
        checkpoint_dir=estimator.checkpoint_dir,
        resume=estimator.resume,
        progress=True if estimator.verbose else estimator.progress,
    )
