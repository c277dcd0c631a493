"""Which samples are joined, and how geodesics compare with straight lines."""

import numpy as np
import pytest

from pullback.metrics import EuclideanMetric
from pullback.plots.labels import read_labels
from pullback.reporting.pairs import (
    choose_pairs,
    compare_paths,
    farthest_first,
    match_far_apart,
    medoids,
    stations_of,
)

SQUARE = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 2.0], [3.0, 2.0], [1.4, 1.0]])


def test_farthest_first_takes_the_corners_before_the_middle() -> None:
    assert set(farthest_first(SQUARE, 4)) == {0, 1, 2, 3}
    assert len(farthest_first(np.ones((4, 2)), 3)) == 1
    assert len(farthest_first(SQUARE, 99)) == 5


def test_match_far_apart() -> None:
    pairs = match_far_apart(SQUARE, 2)
    assert sorted(map(sorted, pairs)) == [[0, 3], [1, 2]]
    assert len(match_far_apart(SQUARE, 10)) == 2
    assert len(match_far_apart(SQUARE, 10, most_uses=2)) > 2
    assert match_far_apart(np.zeros((3, 2)), 2) == []


def test_medoids() -> None:
    groups = np.array([0, 0, 1, 1, 1])
    points = np.array([[0.0], [1.0], [5.0], [6.0], [9.0]])
    assert medoids(points, groups).tolist() == [0, 3]


def test_pairs_join_typical_samples_of_different_labels_first() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    kind = rng.integers(0, 3, 90)
    codes = centres[kind] + 0.3 * rng.normal(size=(90, 2))
    labels = read_labels(np.array(["a", "b", "c"])[kind])
    names = [f"row {i}" for i in range(90)]
    pairs = choose_pairs(codes, 5, labels, names)
    assert len(pairs) == 5
    assert {pair.name for pair in pairs[:3]} == {"a → b", "a → c", "b → c"}
    for pair in pairs[:3]:
        ends = [labels.categories[labels.values[row]] for row in (pair.start, pair.end)]
        assert " → ".join(ends) == pair.name
    assert pairs[3].name == f"row {pairs[3].start} → row {pairs[3].end}"
    assert pairs == choose_pairs(codes, 5, labels, names)


def test_coinciding_codes_cannot_be_joined() -> None:
    assert choose_pairs(np.zeros((9, 2)), 4, None, ["x"] * 9) == ()


@pytest.mark.parametrize("d", [1, 2, 3])
def test_in_flat_space_the_geodesic_is_the_straight_line(d: int) -> None:
    codes = np.random.default_rng(0).normal(size=(40, d))
    pairs = choose_pairs(codes, 3, None, [str(i) for i in range(40)])
    paths = compare_paths(EuclideanMetric(d), codes, pairs)
    expected = [np.linalg.norm(codes[pair.start] - codes[pair.end]) for pair in pairs]
    np.testing.assert_allclose(paths.length, expected, rtol=1e-8)
    np.testing.assert_allclose(paths.straight_length, expected, rtol=1e-8)
    np.testing.assert_allclose(paths.saved, 0, atol=1e-8)
    assert paths.converged.all()
    np.testing.assert_allclose(paths.points[:, [0, -1]], paths.straight[:, [0, -1]])
    stations = stations_of(paths)
    assert stations[0] == 0
    assert stations[-1] == paths.straight.shape[1] - 1
    assert len(stations) == 11
