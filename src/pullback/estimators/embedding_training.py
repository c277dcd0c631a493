"""From the options of an embedding to its training run."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from pullback.estimators.following import followers
from pullback.estimators.reading import training_device
from pullback.models.umap import UMAPModule, jitter_scale
from pullback.training import FitResult, TrainingOptions, fit
from pullback.training.embedding_objective import EmbeddingObjective
from pullback.training.graph_batches import GraphRows
from pullback.validation import check_positive, check_whole

DECODED_ROWS = 2048
"""Rows of a step that a decoder learns from."""
FAR_BEYOND = 10**9
"""Epochs of a run whose end is given in steps."""


def train_embedding(
    estimator: Any, module: UMAPModule, rows: Any, seed: int, callbacks: Sequence[Callable[..., Any]]
) -> FitResult:
    """Train the module of a `pullback.ParametricUMAP` whose graph and membership curve are known.

    Args:
        estimator: its options.
        module: encoder and perhaps decoder, trained in place.
        rows: what the encoder sees, a tensor or an object with ``rows(index)``.
        seed: of all randomness.
        callbacks: told (step, loss, estimator) after each epoch.
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
    )
    objective = EmbeddingObjective(
        module,
        estimator.a_,
        estimator.b_,
        negative_sample_rate=estimator.negative_sample_rate,
        repulsion_strength=estimator.repulsion_strength,
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
