"""Rows of the table of bad input: public functions of rooms that have no name at the top."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

import pullback as pb
from pullback import data, jets, metrics, models, penalties, training

POINTS = torch.zeros(4, 2)
CURVES = np.zeros((2, 5, 3))
TABLE = torch.zeros(6, 3)
NOT_SQUARE = metrics.from_tensor(lambda z: torch.ones(len(z), 2, 3), 2)
LOPSIDED = metrics.from_tensor(lambda z: torch.tensor([[1.0, 0.5], [0.0, 1.0]]).expand(len(z), 2, 2), 2)


def objective() -> Any:
    return training.Objective(models.Autoencoder(nn.Linear(3, 1), nn.Linear(1, 3), models.Gaussian()))


def train(rows: Any = TABLE, **options: Any) -> Any:
    settings = {"max_epochs": 1, "progress": False} | options
    return training.fit(objective(), rows, training.TrainingOptions(**settings), generator_seed=0)


ROOM_CASES: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    # data
    ("data.sentence_states: none", lambda: pb.data.sentence_states([]), ValueError, "at least one text"),
    (
        "data.sentence_states: layer",
        lambda: pb.data.sentence_states(["a"], layer=7),
        ValueError,
        "layer: expected a number from 0 to 6",
    ),
    ("data.describe: name", lambda: data.describe("digit"), ValueError, "did you mean 'digits'"),
    (
        "data.path_columns: rank",
        lambda: data.path_columns(CURVES[0]),
        ValueError,
        "points: expected (m, nodes",
    ),
    (
        "data.path_columns: values",
        lambda: data.path_columns(CURVES, CURVES[:1]),
        ValueError,
        "values: expected",
    ),
    ("data.path_columns: t", lambda: data.path_columns(CURVES, t=[0.0, 1.0]), ValueError, "t: expected"),
    (
        "data.path_columns: pairs",
        lambda: data.path_columns(CURVES, pairs="abc"),
        ValueError,
        "pairs: expected",
    ),
    ("data.write_table: suffix", lambda: data.write_table("t.xyz", {"a": [1]}), ValueError, ".csv"),
    (
        "data.write_table: folder",
        lambda: data.write_table("no/t.csv", {"a": [1]}),
        FileNotFoundError,
        "folder",
    ),
    ("data.write_table: empty", lambda: data.write_table("t.csv", {}), ValueError, "columns: expected"),
    (
        "data.write_table: lengths",
        lambda: data.write_table("t.csv", {"a": [1], "b": [1, 2]}),
        ValueError,
        "rows",
    ),
    (
        "data.write_table: rank",
        lambda: data.write_table("t.csv", {"a": CURVES}),
        ValueError,
        "(n,) or (n, d)",
    ),
    (
        "data.write_table: text",
        lambda: data.write_table("t.npy", {"a": ["x"]}),
        ValueError,
        "got text in 'a'",
    ),
    # models
    ("models.make_activation: name", lambda: models.make_activation("tanch"), ValueError, "'tanh'"),
    ("models.make_activation: module", lambda: models.make_activation(nn.Tanh()), TypeError, "activation"),  # type: ignore[arg-type]
    ("models.make_likelihood: name", lambda: models.make_likelihood("normal", 3), ValueError, "'gaussian'"),
    (
        "models.make_likelihood: zero-inflated",
        lambda: models.make_likelihood("zinb", 3),
        ValueError,
        "zero-infl",
    ),
    (
        "models.make_likelihood: classes",
        lambda: models.make_likelihood("categorical", 3),
        ValueError,
        "classes",
    ),
    # training
    ("training.cyclic_annealing: epoch", lambda: training.cyclic_annealing(-1, 8, 2), ValueError, "epoch"),
    ("training.cyclic_annealing: cycles", lambda: training.cyclic_annealing(0, 8, 0), ValueError, "n_cycles"),
    (
        "training.cyclic_annealing: fraction",
        lambda: training.cyclic_annealing(0, 8, 2, fraction=0.0),
        ValueError,
        "fraction: expected a number in (0, 1], got 0.0",
    ),
    ("training.fit: empty", lambda: train(TABLE[:0]), ValueError, "data"),
    ("training.fit: epochs", lambda: train(max_epochs=0), ValueError, "max_epochs"),
    ("training.fit: rate", lambda: train(lr=float("nan")), ValueError, "lr"),
    ("training.fit: schedule", lambda: train(lr_schedule="linear"), ValueError, "'cosine'"),
    ("training.fit: precision", lambda: train(precision="8-true"), ValueError, "'bf16-mixed'"),
    ("training.fit: resume", lambda: train(resume=True), ValueError, "checkpoint_dir"),
    # metrics and derivatives
    ("metrics.as_metric: number", lambda: metrics.as_metric(3), TypeError, "tensor(z)"),
    ("metrics.from_tensor: dim", lambda: metrics.from_tensor(lambda z: z, 0), ValueError, "dim"),
    (
        "metrics.checked_tensor: shape",
        lambda: metrics.checked_tensor(NOT_SQUARE, POINTS),
        ValueError,
        "(4, 2, 2)",
    ),
    (
        "metrics.checked_tensor: symmetry",
        lambda: metrics.checked_tensor(LOPSIDED, POINTS),
        ValueError,
        "symmetric",
    ),
    (
        "jets.linearize: rank",
        lambda: jets.linearize(nn.Linear(2, 3), POINTS[0]),
        ValueError,
        "expected (n, d)",
    ),  # type: ignore[arg-type]
    ("jets.linearize: map", lambda: jets.linearize(3, POINTS), TypeError, "f: expected"),  # type: ignore[arg-type]
    # penalties
    (
        "penalties.jet_from_flat: width",
        lambda: penalties.jet_from_flat(torch.zeros(5, 7), d=2),
        ValueError,
        "p·2 entries",
    ),
    (
        "penalties.jet_from_flat: d",
        lambda: penalties.jet_from_flat(torch.zeros(5, 6), d=0),
        ValueError,
        "d: ",
    ),
    (
        "penalties.factor_from_flat: p",
        lambda: penalties.factor_from_flat(torch.zeros(5, 6), 4),
        ValueError,
        "p=4",
    ),
    (
        "penalties.log_partition: negative",
        lambda: penalties.log_partition(-1.0, 3),
        ValueError,
        "got -1 to -1",
    ),
    ("penalties.log_partition: atoms", lambda: penalties.log_partition(1.0, 0), ValueError, "atoms"),
    ("penalties.options_of: number", lambda: penalties.options_of(3), TypeError, "penalty: expected"),
]

ROOMS = (pb.ambient, pb.charts, data, pb.dynamics, pb.geometry, jets, metrics, models, penalties, training)
WITHOUT_ARGUMENTS = {"available", "line"}
"""Functions that nothing bad can be given."""
