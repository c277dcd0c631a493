"""Targets in the graph: categories as umap-learn weighs them, numbers by their own fuzzy set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from pullback.models.umap import fuzzy_graph, graph_of, intersect_labels
from umap_golden import GOLDEN, recorded

CASES = [("supervised", "y", 0.5), ("partial", "partial_y", 0.5), ("weight_0.9", "partial_y", 0.9)]


@pytest.mark.parametrize("name", ["iris", "digits"])
@pytest.mark.parametrize(("key", "labels", "weight"), CASES)
def test_categories_equal_the_recorded_intersection(name, key, labels, weight):
    graph = graph_of(GOLDEN[f"{name}_knn_indices"].astype(int), GOLDEN[f"{name}_knn_distances"])
    ours = intersect_labels(graph, GOLDEN[f"{name}_{labels}"], target_weight=weight)
    truth = recorded(f"{name}_{key}")
    assert ours.nnz == truth.nnz
    assert abs(ours - truth).max() <= 1e-5


@pytest.fixture(scope="module")
def graph() -> sparse.csr_matrix:
    return fuzzy_graph(np.random.default_rng(0).normal(size=(80, 4)), n_neighbors=10)


Y = np.random.default_rng(1).integers(0, 3, 80)
HIDDEN = np.random.default_rng(2).random(80) < 0.3


def with_unknown(labels: np.ndarray, unknown: object) -> np.ndarray:
    out = labels.astype(object)
    out[HIDDEN] = unknown
    return out


NAMES = np.array(["ant", "bee", "cat"])[Y]
SAME = {
    "integers": np.where(HIDDEN, -1, Y),
    "list": np.where(HIDDEN, -1, Y).tolist(),
    "float with NaN": np.where(HIDDEN, np.nan, Y.astype(float)),
    "names with None": with_unknown(NAMES, None),
    "names with NaN": with_unknown(NAMES, float("nan")),
    "other numbers": np.where(HIDDEN, -1, 10 * Y + 7),
    "objects": with_unknown(Y, None),
}


@pytest.mark.parametrize("kind", SAME)
def test_the_kind_of_label_does_not_matter(graph, kind):
    plain = intersect_labels(graph, SAME["integers"])
    np.testing.assert_array_equal(intersect_labels(graph, SAME[kind]).toarray(), plain.toarray())


@pytest.mark.parametrize(
    "y", [Y, np.random.default_rng(3).normal(size=80), np.random.default_rng(3).normal(size=(80, 2))]
)
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_the_result_is_a_graph_within_the_graph(graph, y, weight):
    joint = intersect_labels(graph, y, target_weight=weight)
    assert abs(joint - joint.T).max() == 0
    assert 0 < joint.data.min() <= joint.data.max() <= 1
    assert not (joint.toarray()[graph.toarray() == 0]).any()
    largest = joint.max(1).toarray()
    # a row without a neighbour of its category loses all edges where the target alone counts
    alone = largest == 0
    assert not alone.any() or (weight == 1 and y is Y)
    np.testing.assert_allclose(largest[~alone], 1, rtol=1e-12)


def test_one_label_or_none_at_all_leaves_the_graph_as_it_locally_is(graph):
    for y in (np.zeros(80, int), np.full(80, -1), np.zeros(80) + 0.5):
        joint = intersect_labels(graph, y).toarray()
        # each row has a certain neighbour already, so that only the union, applied again, changes it
        w = graph.toarray()
        np.testing.assert_allclose(joint, 2 * w - w**2, atol=1e-12)


def test_full_weight_cuts_edges_between_categories(graph):
    joint = intersect_labels(graph, Y, target_weight=1.0).tocoo()
    assert (Y[joint.row] == Y[joint.col]).all()


def test_numbers_pull_neighbours_with_like_targets_together(graph):
    y = np.random.default_rng(5).normal(size=80)
    edges = graph.tocoo()
    gap = np.abs(y[edges.row] - y[edges.col])
    mean = []
    for weight in (0.0, 0.5, 1.0):
        joint = intersect_labels(graph, y, target_weight=weight).toarray()[edges.row, edges.col]
        mean.append((gap * joint).sum() / joint.sum())
    assert mean[0] > 1.3 * mean[1]
    assert mean[0] > 1.3 * mean[2]


@given(st.floats(1e-3, 1e3), st.floats(-100, 100))
@settings(max_examples=10, deadline=None)
def test_numbers_know_no_units(graph, scale, shift):
    y = np.random.default_rng(6).normal(size=80)
    plain = intersect_labels(graph, y, target="continuous")
    moved = intersect_labels(graph, scale * y + shift, target="continuous")
    np.testing.assert_allclose(moved.toarray(), plain.toarray(), rtol=1e-5, atol=1e-7)


def test_numbers_as_a_sum_over_the_edges_of_a_small_graph():
    full = sparse.csr_matrix(np.ones((3, 3)) - np.eye(3))
    y = np.array([0.0, 1.0, 3.5])
    joint = intersect_labels(full, y).toarray()
    # distances: row 0 has 1 and 3.5, row 1 has 1 and 2.5, row 2 has 2.5 and 3.5; k = 2: sums are log2 3
    rest = np.log2(3) - 1
    seen = np.array([[0, 1, rest], [1, 0, rest], [rest, 1, 0]])
    union = seen + seen.T - seen * seen.T
    scaled = union / union.max(1, keepdims=True)
    np.testing.assert_allclose(joint, scaled + scaled.T - scaled * scaled.T, rtol=1e-9)


BAD = [
    (Y[:5], {}, "y: expected 80 labels"),
    (Y, {"target_weight": 1.5}, "target_weight: expected a number in [0, 1]"),
    (Y, {"target": "ordinal"}, "'continuous'"),
    (NAMES, {"target": "continuous"}, "expected numbers"),
    (np.where(HIDDEN, np.inf, 0.5), {}, "finite numbers"),
    (np.zeros((80, 2)), {"target": "categorical"}, "one category a row"),
]


@pytest.mark.parametrize(("y", "options", "words"), BAD)
@pytest.mark.usefixtures("as_users_run")
def test_bad_input(graph, y, options, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        intersect_labels(graph, y, **options)
    assert words in str(caught.value)
