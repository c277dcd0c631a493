"""Figures of manifold dictionaries: what they draw, and what they refuse."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import pullback as pb
from pullback.models.dictionary.topology import choose_topology

N = 240


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A circle and an arc in separate planes, one of them a row; the angle and which it is."""
    draw = np.random.default_rng(0)
    which, t = np.arange(N) % 2, draw.uniform(0, 2 * np.pi, N)
    Z = np.zeros((N, 8))
    for k in range(2):
        own = which == k
        angle = t[own] if k == 0 else 0.5 * t[own]
        Z[own, 3 * k : 3 * k + 3] = np.c_[np.cos(angle), np.sin(angle), np.full(own.sum(), 0.5)]
    return Z + 0.03 * draw.normal(size=Z.shape), t, which


@pytest.fixture(scope="module")
def model(rows) -> pb.ManifoldDictionary:
    init = rows[2]
    return pb.ManifoldDictionary(
        2, ["circle", "interval"], gate="softmax", init=init, max_sweeps=8, random_state=0
    ).fit(rows[0])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_an_atom_lies_among_its_rows(model, rows) -> None:
    ax = pb.plots.plot_atom(model, 0, rows[0])
    assert ax.get_title(loc="left") == "atom 0: circle"
    line = ax.lines[0].get_xydata()
    np.testing.assert_array_equal(line[0], line[-1])
    points = ax.collections[0].get_offsets()
    assert len(points) == N // 2
    away = np.linalg.norm(points[:, None] - line[None], axis=2).min(axis=1)
    assert away.max() < 0.15
    assert len(pb.plots.plot_atom(model, 1).collections) == 0


def test_labels_colour_rows(model, rows) -> None:
    ax = pb.plots.plot_atom(model, 0, rows[0], labels=np.where(rows[1] < 3, "near", "far"))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["far", "near"]


def test_a_gallery_shows_all(model, rows) -> None:
    axes = pb.plots.atom_gallery(model, rows[0])
    assert [ax.get_title(loc="left") for ax in axes] == ["atom 0: circle", "atom 1: interval"]
    _, given = plt.subplots(1, 2)
    assert list(pb.plots.atom_gallery(model, axes=given)) == list(given)
    with pytest.raises(ValueError, match="axes: expected 2"):
        pb.plots.atom_gallery(model, axes=given[:1])


def test_a_dial_scores_coordinates(model, rows) -> None:
    Z, t, which = rows
    ax = pb.plots.coordinate_dial(model, 0, Z, np.where(which == 0, t, np.nan))
    assert float(ax.get_title(loc="left").split()[-1]) > 0.98
    assert len(ax.collections[0].get_offsets()) == N // 2
    hours = np.where(which == 0, np.floor(t / (2 * np.pi) * 12), np.nan)
    ax = pb.plots.coordinate_dial(model, 0, Z, hours)
    assert float(ax.get_title(loc="left").split()[-1]) > 0.95
    with pytest.raises(ValueError, match="three or more rows"):
        pb.plots.coordinate_dial(model, 0, Z, np.full(N, np.nan))


def test_a_round_circle_has_level_speed_and_curvature_one(model) -> None:
    ax = pb.plots.speed_curve(model, 0)
    speed, curvature = (line.get_ydata() for line in ax.lines)
    assert np.abs(speed - 1).max() < 0.15
    assert np.abs(np.asarray(curvature) - 1).mean() < 0.15
    assert len(ax.collections) == 1


def test_coverage_marks_the_largest_gap(model, rows) -> None:
    counts = [patch.get_height() for patch in pb.plots.coverage(model, 0).patches[:36]]
    assert sum(counts) == N // 2
    angle = np.linspace(0.5, 5.0, 60)
    half = np.zeros((60, 8))
    half[:, :3] = np.c_[np.cos(angle), np.sin(angle), np.full(60, 0.5)]
    title = pb.plots.coverage(model, 0, half).get_title(loc="left")
    assert title.startswith("atom 0: 60 rows, largest gap ")
    assert float(title.split()[-3].rstrip("%")) == pytest.approx(100 * (1 - 4.5 / 6.283), abs=3)


def test_usage_and_atoms_that_go_together(model) -> None:
    ax = pb.plots.atom_usage(model)
    places = np.concatenate([dots.get_offsets() for dots in ax.collections])
    np.testing.assert_allclose(places[:, 0], 0.5, atol=0.02)
    shares = pb.plots.coactivation(model).images[0].get_array()
    assert shares.mask.diagonal().all()
    assert shares[0, 1] < 0.05


def test_evidence_names_the_winner(model, rows) -> None:
    rows_of_one = torch.from_numpy(rows[0][rows[2] == 0])
    found = choose_topology(rows_of_one, ["circle", "interval"], sweeps=10)
    ax = pb.plots.evidence_bars(found)
    assert ax.get_title(loc="left").startswith(
        f"rows: {'undecided, ' * (found.verdict == 'undecided')}circle"
    )
    assert next(label.get_text() for label in ax.get_yticklabels()) == found.table[0].name
    with pytest.raises(ValueError, match="chart that was chosen by evidence"):
        pb.plots.evidence_bars(model, 0)


def test_starts_stand_over_the_best(model) -> None:
    ax = pb.plots.restart_spread(model)
    assert ax.collections[0].get_offsets()[0, 0] == 0


def test_error_curves_are_in_order() -> None:
    ax = pb.plots.error_curve({"PCA": [(4, 0.3), (2, 0.6)]}, floor=0.1)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [2, 4])


def test_atoms_that_are_not_there(model, rows, as_users_run) -> None:
    with pytest.raises(ValueError, match="atom: expected a number from 0 to 1, got 2"):
        pb.plots.plot_atom(model, 2)
    with pytest.raises(ValueError, match="labels: expected rows Z"):
        pb.plots.plot_atom(model, 0, labels=[1])
    ray = pb.ManifoldDictionary(1, "line", init=np.zeros(N, int), max_sweeps=2).fit(rows[0])
    with pytest.raises(ValueError, match="atom 0 is a line: expected a circle or an interval"):
        pb.plots.coverage(ray, 0)
