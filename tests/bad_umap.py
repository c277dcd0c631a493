"""Rows of the table of bad input: the functions under parametric UMAP, and encoders by name."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

from pullback import models
from pullback.models import umap

ROWS = np.random.default_rng(0).normal(size=(12, 3))
ONES = np.ones((3, 3)) - np.eye(3)
GRAPH = sparse.csr_matrix(ONES)
CODES, PLACES = torch.zeros(3, 2), torch.tensor([[0, 1], [1, 2]])
INDEX, DISTANCE = np.zeros((3, 2), int), np.zeros((3, 2))


def pairs(**options: Any) -> torch.Tensor:
    return umap.umap_loss(CODES, CODES, CODES, CODES, 1.5, 0.9, **options)


UMAP_CASES: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    ("create_encoder: name", lambda: models.create_encoder("deep", 4, 2), ValueError, "'batchnorm'"),
    ("create_encoder: input_dims", lambda: models.create_encoder("default", 0, 2), ValueError, "input_dims"),
    ("create_encoder: width", lambda: models.create_encoder("default", 4, 0), ValueError, "n_components"),
    ("create_encoder: conv", lambda: models.create_encoder("conv", 4, 2), ValueError, "(channels, height"),
    ("register_encoder: name", lambda: models.register_encoder(nn.Linear), TypeError, "expected a text"),  # type: ignore[arg-type]
    ("register_encoder: factory", lambda: models.register_encoder("mine")(3), TypeError, "factory"),  # type: ignore[arg-type]
    (
        "register_encoder: taken",
        lambda: models.register_encoder("conv")(nn.Linear),
        ValueError,
        "is taken by",
    ),
    (
        "view_registry: written to",
        lambda: operator.setitem(models.view_registry(), "mine", nn.Linear),  # type: ignore[arg-type]
        TypeError,
        "does not support item assignment",
    ),
    ("umap.nearest: list", lambda: umap.nearest(ROWS.tolist(), 2), TypeError, "X: expected an array"),
    ("umap.nearest: NaN", lambda: umap.nearest(ROWS * np.nan, 2), ValueError, "nan at row 0, column 0"),
    ("umap.nearest: k", lambda: umap.nearest(ROWS, 13), ValueError, "k: expected at most the 12 rows"),
    ("umap.nearest: metric", lambda: umap.nearest(ROWS, 2, metric="far"), ValueError, "'euclidean'"),
    ("umap.fuzzy_graph: rows", lambda: umap.fuzzy_graph(ROWS[:2]), ValueError, "at least 3 samples, got 2"),
    ("umap.fuzzy_graph: few", lambda: umap.fuzzy_graph(ROWS, n_neighbors=1), ValueError, "n_neighbors"),
    ("umap.jitter_scale: rows", lambda: umap.jitter_scale(ROWS[:1]), ValueError, "at least 2 samples, got 1"),
    ("umap.graph_of: shapes", lambda: umap.graph_of(INDEX, DISTANCE[:2]), ValueError, "(3, 2) as indices"),
    ("umap.graph_of: rows", lambda: umap.graph_of(INDEX + 3, DISTANCE), ValueError, "rows 0 to 2"),
    ("umap.check_graph: square", lambda: umap.check_graph(ONES, 4), ValueError, "(4, 4) for the 4 rows"),
    ("umap.check_graph: one way", lambda: umap.check_graph(np.triu(ONES), 3), ValueError, "symmetric"),
    ("umap.check_graph: negative", lambda: umap.check_graph(-ONES, 3), ValueError, ">= 0"),
    ("umap.intersect_labels: rows", lambda: umap.intersect_labels(GRAPH, [0, 1]), ValueError, "3 labels"),
    (
        "umap.intersect_labels: weight",
        lambda: umap.intersect_labels(GRAPH, [0, 1, 1], target_weight=2.0),
        ValueError,
        "target_weight: expected a number in [0, 1], got 2.0",
    ),
    ("umap.curve_parameters: min_dist", lambda: umap.curve_parameters(-1.0, 1.0), ValueError, "min_dist"),
    ("umap.curve_parameters: spread", lambda: umap.curve_parameters(0.1, 0.0), ValueError, "spread"),
    ("umap.umap_loss: reduction", lambda: pairs(reduction="none"), ValueError, "'mean', 'sum'"),
    (
        "umap.umap_loss_at: reduction",
        lambda: umap.umap_loss_at(CODES, PLACES, 1, 1.5, 0.9, reduction="none"),  # type: ignore[arg-type]
        ValueError,
        "'mean', 'sum'",
    ),
]
