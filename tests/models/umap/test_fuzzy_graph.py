"""The fuzzy graph: equal to umap-learn's on the same neighbours; scales, symmetry, bad graphs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from pullback.models.umap import check_graph, fuzzy_graph, graph_of, nearest
from pullback.models.umap.graph import local_scales
from umap_golden import GOLDEN, recorded


@pytest.mark.parametrize("name", ["iris", "digits", "breast"])
def test_graph_equals_the_recorded_one(name):
    graph = graph_of(GOLDEN[f"{name}_knn_indices"].astype(int), GOLDEN[f"{name}_knn_distances"])
    truth = recorded(f"{name}_graph")
    assert graph.nnz == truth.nnz
    assert abs(graph - truth).max() <= 1e-5


@pytest.mark.parametrize("name", ["iris", "digits", "breast"])
def test_scales_are_the_recorded_ones_and_solve_their_equation(name):
    index, distance = GOLDEN[f"{name}_knn_indices"].astype(int), GOLDEN[f"{name}_knn_distances"]
    rho, sigma = local_scales(index, distance)
    np.testing.assert_allclose(rho, GOLDEN[f"{name}_rho"], rtol=1e-6)
    np.testing.assert_allclose(sigma, GOLDEN[f"{name}_sigma"], rtol=1e-4)
    strength = np.exp(-np.maximum(distance - rho[:, None], 0) / sigma[:, None])
    strength[index == np.arange(len(index))[:, None]] = 0
    np.testing.assert_allclose(strength.sum(1), np.log2(index.shape[1]), rtol=1e-9)


def rows(n: int = 60, p: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, p))


def test_graph_is_symmetric_with_memberships_and_a_certain_neighbour():
    graph = fuzzy_graph(rows(), n_neighbors=8)
    assert graph.dtype == np.float64
    assert abs(graph - graph.T).max() == 0
    assert not graph.diagonal().any()
    assert 0 < graph.data.min() <= graph.data.max() <= 1
    np.testing.assert_allclose(graph.max(1).toarray(), 1, rtol=1e-15)


@given(st.integers(0, 2**20), st.floats(1e-3, 1e3))
@settings(max_examples=15, deadline=None)
def test_graph_knows_no_units_and_no_order(seed, scale):
    X = rows(40, 3, seed)
    order = np.random.default_rng(seed).permutation(40)
    graph = fuzzy_graph(X, n_neighbors=6)
    other = fuzzy_graph(scale * X[order], n_neighbors=6)
    np.testing.assert_allclose(other.toarray(), graph[order][:, order].toarray(), rtol=1e-6, atol=1e-9)


def test_copies_and_a_self_elsewhere_than_first():
    X = np.repeat(rows(12, 3), 4, 0)
    graph = fuzzy_graph(X, n_neighbors=6)
    assert np.isfinite(graph.data).all()
    index, distance = nearest(X, 6)
    np.testing.assert_array_equal(
        graph_of(index[:, ::-1].copy(), distance[:, ::-1].copy()).toarray(), graph.toarray()
    )
    equal = fuzzy_graph(np.ones((10, 2)), n_neighbors=4)
    assert (equal.data == 1).all()


def test_float32_and_precomputed_give_the_same_graph():
    X = rows()
    graph = fuzzy_graph(X, n_neighbors=8)
    np.testing.assert_allclose(
        fuzzy_graph(X.astype("float32"), n_neighbors=8).toarray(), graph.toarray(), atol=1e-5
    )
    distances = np.linalg.norm(X[:, None] - X[None], axis=2)
    known = fuzzy_graph(distances, n_neighbors=8, metric="precomputed")
    np.testing.assert_allclose(known.toarray(), graph.toarray(), atol=1e-9)


def test_more_neighbours_than_rows_are_cut_with_a_warning():
    with pytest.warns(UserWarning, match="n_neighbors=15 is cut to the 5 rows"):
        assert fuzzy_graph(rows(5)).shape == (5, 5)


ONES = np.ones((3, 3)) - np.eye(3)


def test_a_graph_of_ones_own_comes_back_without_its_diagonal():
    for graph in (ONES, sparse.coo_matrix(ONES), sparse.csr_array(ONES + np.eye(3)), ONES.astype("float32")):
        checked = check_graph(graph, 3)
        assert isinstance(checked, sparse.csr_matrix)
        np.testing.assert_array_equal(checked.toarray(), ONES)


BAD_GRAPHS = [
    ([[0, 1], [1, 0]], TypeError, "SciPy sparse"),
    (np.ones((3, 2)), ValueError, "(3, 3)"),
    (np.ones((4, 4)), ValueError, "(3, 3) for the 3 rows"),
    (-ONES, ValueError, ">= 0"),
    (ONES * np.nan, ValueError, "finite"),
    (np.triu(ONES), ValueError, "symmetric matrix, got 1.0 at (0, 1) and 0.0"),
    (np.eye(3), ValueError, "edges"),
]


@pytest.mark.parametrize(("graph", "kind", "words"), BAD_GRAPHS)
@pytest.mark.usefixtures("as_users_run")
def test_bad_graphs(graph, kind, words):
    with pytest.raises(kind) as caught:
        check_graph(graph, 3)
    assert words in str(caught.value)


BAD = [
    (lambda: fuzzy_graph(np.zeros((2, 2))), "at least 3 samples, got 2"),
    (lambda: fuzzy_graph(rows(), n_neighbors=1), "n_neighbors"),
    (lambda: graph_of(np.zeros((3, 2), int), np.zeros((3, 3))), "(3, 2) as indices, got (3, 3)"),
    (lambda: graph_of(np.full((3, 2), 3), np.zeros((3, 2))), "rows 0 to 2"),
    (lambda: graph_of(np.zeros((3, 2), int), np.full((3, 2), np.inf)), "finite"),
]


@pytest.mark.parametrize(("call", "words"), BAD)
@pytest.mark.usefixtures("as_users_run")
def test_bad_input(call, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call()
    assert words in str(caught.value)
