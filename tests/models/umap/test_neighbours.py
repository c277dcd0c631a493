"""Nearest rows: the same sets as brute force in float64, whatever the scale, offset and number of copies."""

import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.datasets import load_iris

from pullback.models.umap import nearest, neighbours


def rows(n: int, p: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, p))


def check_nearest(
    X: np.ndarray, k: int, found: tuple[np.ndarray, np.ndarray], metric: str = "euclidean"
) -> None:
    """Itself first, ascending, each row once, true distances, and none nearer that was left out."""
    index, distance = found
    truth = cdist(X, X, metric)
    own = np.arange(len(X))
    assert distance.dtype == np.float64
    assert (index[:, 0] == own).all()
    assert (np.diff(distance[:, 1:], axis=1) >= 0).all()
    assert all(len(set(row)) == k for row in index.tolist())
    scale = truth.max()
    np.testing.assert_allclose(distance, np.take_along_axis(truth, index, 1), rtol=1e-9, atol=1e-12 * scale)
    np.testing.assert_allclose(distance, np.sort(truth, 1)[:, :k], rtol=2e-9, atol=1e-12 * scale)


CASES = {
    "plain": rows(300, 10),
    "far from the origin": rows(300, 10) + 1e6,
    "an outlier": np.concatenate([rows(200, 5), np.full((1, 5), 1e7)]),
    "near copies": np.concatenate([rows(100, 4)] * 3) + 1e-9 * rows(300, 4, 1),
    "many copies": np.repeat(rows(5, 3), 40, 0),
    "whole numbers": np.random.default_rng(0).integers(0, 3, size=(300, 4)).astype(float),
    "all equal": np.ones((40, 2)),
    "iris": load_iris().data,
    "wide": rows(120, 3000),
    "as many as there are": rows(12, 3),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["float32", "float64", "tensor"])
def test_nearest_rows_are_those_of_brute_force(name, kind):
    X = CASES[name].astype("float32" if kind == "float32" else "float64")
    k = min(12, len(X))
    check_nearest(X.astype(float), k, nearest(torch.from_numpy(X) if kind == "tensor" else X, k))


def test_rows_that_float32_cannot_tell_apart_are_searched_again(monkeypatch):
    X = CASES["near copies"]
    seen = []
    plain = neighbours._euclidean

    def watched(table, rows, k, dtype=torch.float32):
        seen.append((dtype, len(rows)))
        return plain(table, rows, k, dtype)

    monkeypatch.setattr(neighbours, "_euclidean", watched)
    monkeypatch.setattr(neighbours, "SPARE", 0)
    check_nearest(X, 2, nearest(X, 2))
    assert [dtype for dtype, _ in seen] == [torch.float32, torch.float64, None]
    assert seen[0][1] >= seen[1][1] >= seen[2][1] > 0


def test_blocks_make_no_difference(monkeypatch):
    X = CASES["plain"]
    whole = nearest(X, 9)
    monkeypatch.setattr(neighbours, "BLOCK_ENTRIES", 1000)
    for part, same in zip(nearest(X, 9), whole, strict=True):
        np.testing.assert_array_equal(part, same)


@pytest.mark.parametrize(
    "metric", ["cosine", "correlation", "cityblock", "chebyshev", "canberra", "sqeuclidean"]
)
def test_other_metrics(metric):
    X = np.abs(rows(80, 6)) + 0.1
    check_nearest(X, 7, nearest(X, 7, metric=metric), metric)


def test_synonyms_functions_and_distances_that_are_known():
    X = rows(50, 3)
    expected = nearest(X, 5, metric="cityblock")
    for other in (
        nearest(X, 5, metric="manhattan"),
        nearest(X, 5, metric=lambda a, b: float(np.abs(a - b).sum())),
        nearest(cdist(X, X, "cityblock"), 5, metric="precomputed"),
    ):
        np.testing.assert_array_equal(other[0], expected[0])
        np.testing.assert_allclose(other[1], expected[1], rtol=1e-12)


@given(st.integers(0, 2**20), st.floats(1e-6, 1e6), st.floats(-1e3, 1e3))
@settings(max_examples=20, deadline=None)
def test_scale_and_offset_change_no_neighbour(seed, scale, shift):
    X = rows(60, 4, seed)
    plain, moved = nearest(X, 6), nearest(scale * (X + shift), 6)
    np.testing.assert_array_equal(plain[0], moved[0])
    np.testing.assert_allclose(moved[1], scale * plain[1], rtol=1e-9, atol=1e-12 * scale * (1 + abs(shift)))


BAD = [
    ([[0.0]], 1, {}, TypeError, "X: expected an array or tensor"),
    (np.zeros(3), 1, {}, ValueError, "X: expected (n, p)"),
    (np.zeros((0, 3)), 1, {}, ValueError, "(0, 3)"),
    (np.array([[0.0], [np.nan]]), 1, {}, ValueError, "nan at row 1, column 0"),
    (np.zeros((3, 2), complex), 1, {}, TypeError, "complex"),
    (np.zeros((3, 2)), 4, {}, ValueError, "k: expected at most the 3 rows"),
    (np.zeros((3, 2)), 0, {}, ValueError, "k"),
    (np.zeros((3, 2)), 2, {"metric": "distance"}, ValueError, "'euclidean'"),
    (np.zeros((3, 2)), 2, {"method": "quick"}, ValueError, "'exact'"),
    (np.zeros((3, 2)), 2, {"metric": "cosine"}, ValueError, "row 0 is zero"),
    (np.ones((3, 2)), 2, {"metric": "correlation"}, ValueError, "row 0 is constant"),
    (np.zeros((3, 2)), 2, {"metric": "precomputed"}, ValueError, "(n, n)"),
    (np.ones((3, 3)), 2, {"metric": "precomputed"}, ValueError, "itself"),
    (np.eye(3) - 1, 2, {"metric": "precomputed"}, ValueError, ">= 0"),
    (np.zeros((3, 2)), 2, {"metric": lambda a, b: np.nan}, ValueError, "between rows 0 and 0"),
]


@pytest.mark.parametrize(("X", "k", "options", "kind", "words"), BAD)
@pytest.mark.usefixtures("as_users_run")
def test_bad_input(X, k, options, kind, words):
    with pytest.raises(kind) as caught:
        nearest(X, k, **options)
    assert words in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("pynndescent") is not None, reason="pynndescent is here")
def test_the_absent_extra_is_named_and_many_rows_are_still_compared(monkeypatch, caplog):
    with pytest.raises(ModuleNotFoundError, match=r"pullback\[umap\]"):
        nearest(rows(20, 2), 3, method="approximate")
    monkeypatch.setattr(neighbours, "EXACT_ROWS", 10)
    with caplog.at_level("INFO", logger="pullback"):
        check_nearest(CASES["plain"], 5, nearest(CASES["plain"], 5))
    assert "searched exactly" in caplog.text


def test_descent_is_put_in_order_whatever_it_returns(monkeypatch):
    """The search itself is pynndescent's; here one without a row itself, with one missing, and in float32."""
    X = rows(40, 3)
    index, distance = nearest(X, 4)
    index, distance = index.copy(), distance.astype(np.float32)
    index[3, 0], index[5] = index[3, 3], index[5, ::-1]
    index[3, 3] = index[3, 1]
    index[7, 2] = -1

    class Descent:
        def __init__(self, data, **options):
            assert data.dtype == np.float32
            self.neighbor_graph = index, distance

    module = type("module", (), {"NNDescent": Descent})
    monkeypatch.setitem(__import__("sys").modules, "pynndescent", module)
    monkeypatch.setattr(neighbours, "find_spec", lambda name: True)
    found = nearest(X, 4, method="approximate")
    truth = nearest(X, 4)
    others = np.delete(np.arange(40), 3)
    np.testing.assert_array_equal(found[0][others], truth[0][others])
    np.testing.assert_allclose(found[1][others], truth[1][others], rtol=1e-12)
    assert found[0][3, 0] == 3


def test_rows_that_may_not_be_written_are_read_without_a_warning():
    x = np.random.default_rng(0).normal(size=(12, 3))
    expected = nearest(x, 4)
    x.setflags(write=False)
    for found, wanted in zip(nearest(x, 4), expected, strict=True):
        assert (found == wanted).all()
