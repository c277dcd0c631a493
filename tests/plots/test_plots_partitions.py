"""Figures of reserved quantities show the numbers that they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

import pullback as pb
from pullback.plots.style import FIT, GEODESIC, GROUND
from pullback.subspaces import SubspaceTable, evaluate_subspaces
from space_cases import blocks, normal


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def table(leak: float = 0.0) -> SubspaceTable:
    z = normal(600, 4)
    Y = {"mass": z[:, 0], "centre": z[:, 1:3].clone()}
    z = z.clone()
    z[:, 3] += leak * z[:, 0]
    return evaluate_subspaces(
        blocks({"mass": 1, "centre": 2}, 4),
        Z_train=z[:400],
        Y_train={q: y[:400] for q, y in Y.items()},
        Z_test=z[400:],
        Y_test={q: y[400:] for q, y in Y.items()},
        bootstraps=0,
    )


def test_the_matrix_shows_every_number_and_colours_what_leaks() -> None:
    found = table(leak=2.0)
    ax = pb.plots.leak_matrix(found)
    texts = [text.get_text() for text in ax.texts]
    assert texts[0] == "1.00\nown"
    assert texts[2] == f"{found.free['mass'].value:.2f}"
    faces = [patch.get_facecolor()[0][:3] for patch in ax.collections]
    assert np.allclose(faces[0], to_rgb(FIT), atol=0.02)
    assert np.allclose(faces[1], to_rgb(GROUND), atol=0.05)  # mass from the block of centre
    assert np.allclose(faces[2], to_rgb(GEODESIC), atol=0.02)  # mass from the free dimensions
    assert [label.get_text() for label in ax.get_xticklabels()] == ["mass", "centre", "free"]


def test_what_was_not_measured_is_a_dash() -> None:
    z = normal(60, 2)
    found = evaluate_subspaces(
        {"a": torch.eye(2).double()},
        Z_train=z[:40],
        Y_train={"a": z[:40]},
        Z_test=z[40:],
        Y_test={"a": z[40:]},
    )
    assert [text.get_text() for text in pb.plots.leak_matrix(found).texts] == ["1.00\nown", "–"]


def test_scatter_says_r2_and_leaves_gaps_out() -> None:
    true = np.array([0.0, 1.0, 2.0, np.nan, 4.0])
    found = np.array([0.0, 1.0, 2.0, 3.0, 5.0])
    ax = pb.plots.readout_scatter(found, true, name="mass")
    expected = 1 - 1 / ((true[[0, 1, 2, 4]] - 1.75) ** 2).sum()
    assert ax.get_title(loc="left") == f"mass: R² {expected:.3f}"
    assert len(ax.collections[0].get_offsets()) == 4


def test_a_trace_follows_spans_to_their_blocks() -> None:
    X = np.random.default_rng(0).normal(size=(200, 5)).astype("float32")
    Y = {"total": X.sum(1), "first": X[:, :2]}
    trace = pb.plots.SubspaceTrace(X, Y, sizes={"total": 1, "first": 2})
    option = pb.SubspacePartition(dict.fromkeys(Y))
    settings = {"hidden": (16,), "max_epochs": 30, "lr": 1e-2, "progress": False, "random_state": 0}
    model = pb.Autoencoder(4, **settings, partition=option, callbacks=trace).fit(X, quantities=Y)
    angles = trace.angles(model.partition_.loss.bases)
    assert [len(rows) for rows in angles.values()] == [30, 30]
    assert max(angles["first"][0]) > 30
    assert max(angles["total"][-1]) < 15
    assert max(trace.angles()["first"][-1]) < 1e-3
    ax = pb.plots.angle_curves(angles)
    assert len(ax.lines) == 3
    assert ax.lines[0].get_ydata()[-1] == angles["total"][-1][0]
