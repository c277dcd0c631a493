"""Clouds: harmonic coordinates of curves and groups of rows that lie on different manifolds."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg
from torch.nn.functional import one_hot

from planted import Golden, planted
from pullback.models.dictionary.clustering import merge_clusters, spectral_clusters, subspace_clusters
from pullback.models.dictionary.harmonic import LANDMARKS, _slowest, harmonic_embedding
from pullback.models.dictionary.scores import assignment_share, coordinate_score

GOLDEN = Golden()


def share(A: torch.Tensor, labels: torch.Tensor) -> float:
    return assignment_share(A, one_hot(labels, A.shape[1]).double())


@pytest.mark.parametrize("kind", ["circle", "interval"])
def test_curves_are_unrolled(kind: str, dtype: torch.dtype) -> None:
    Y = harmonic_embedding(GOLDEN[f"one_{kind}_Z"].to(dtype))
    assert Y.dtype == dtype
    assert Y.shape == (400, 4)
    assert Y.square().mean(0).tolist() == pytest.approx([1] * 4, rel=1e-4)
    t = torch.atan2(Y[:, 1:2], Y[:, :1]) if kind == "circle" else Y[:, :1]
    assert coordinate_score(kind, GOLDEN[f"one_{kind}_t"], t.double()) > 0.97


def test_rows_beyond_the_landmarks_are_interpolated(generator: torch.Generator) -> None:
    t = 2 * math.pi * torch.rand(LANDMARKS + 400, 1, generator=generator, dtype=torch.float64)
    Y = harmonic_embedding(torch.cat([t.cos(), t.sin()], 1), 2, generator=generator)
    assert coordinate_score("circle", t, torch.atan2(Y[:, 1:], Y[:, :1])) > 0.95


@pytest.mark.parametrize("neighbours", [2, 8, 12])
@pytest.mark.parametrize("crowding", [1, 2, 4])
def test_crowded_rows_and_gaps_keep_their_order(
    crowding: int, neighbours: int, generator: torch.Generator
) -> None:
    for _ in range(4):
        s = torch.rand(300, 1, generator=generator, dtype=torch.float64) ** crowding
        found = harmonic_embedding(torch.cat([s, 0.3 * s**2], 1), 1, neighbours=neighbours)
        assert coordinate_score("interval", s, found) > 0.999


@pytest.mark.parametrize("name", ["mix_train", "mix_test"])
def test_golden_mixtures_fall_apart(name: str) -> None:
    labels = spectral_clusters(GOLDEN[f"{name}_Z"], 6)
    assert share(GOLDEN[f"{name}_A"], labels) >= 0.99
    found = subspace_clusters(GOLDEN[f"{name}_Z"], labels)
    assert share(GOLDEN[f"{name}_A"], found.labels) >= 0.99


def test_groups_of_many_rows_and_of_equal_rows(generator: torch.Generator) -> None:
    draw = planted(LANDMARKS + 300, p=32, kinds=("circle", "sphere"))
    assert share(draw.A, spectral_clusters(draw.Z, 2, generator=generator)) > 0.99
    equal = spectral_clusters(torch.ones(12, 3), 3, neighbours=4)
    assert equal.shape == (12,)
    assert spectral_clusters(torch.zeros(2, 1), 2).tolist() == [0, 1]


def test_subspaces_repair_wrong_labels(generator: torch.Generator) -> None:
    draw = planted(600, p=32, kinds=("circle", "interval", "sphere"))
    true = draw.A.argmax(1)
    wrong = torch.where(torch.rand(600, generator=generator) < 0.1, (true + 1) % 3, true)
    for affine in (True, False):
        found = subspace_clusters(draw.Z, wrong, affine=affine)
        assert share(draw.A, found.labels) > 0.99
        assert found.residual < subspace_clusters(draw.Z, wrong, affine=affine, rounds=1).residual


def test_split_groups_are_merged_again() -> None:
    draw = planted(600, p=32, kinds=("circle", "interval", "sphere"))
    split = 2 * draw.A.argmax(1) + (draw.Z[:, 0] > draw.Z[:, 0].median()).long()
    merged = merge_clusters(draw.Z, split, 3)
    assert int(merged.max()) == 2
    assert share(draw.A, merged) == 1


def test_a_row_far_from_all_others_has_a_place_too(generator: torch.Generator) -> None:
    t = 2 * math.pi * torch.rand(80, 1, generator=generator, dtype=torch.float64)
    ring = torch.cat([t.cos(), t.sin()], 1)
    away = torch.tensor([[1e3, 0.0], [-1e4, 2.0]], dtype=torch.float64)
    found = harmonic_embedding(torch.cat([ring, away]), 4)
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize("pieces", [2, 6, 12])
def test_graphs_in_equal_pieces_have_all_their_vectors(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    W = linalg.block_diag(*[np.ones((5, 5))] * pieces)
    exact = _slowest(W, pieces)
    assert exact.shape == (5 * pieces, pieces)
    eigh = linalg.eigh

    def missing(matrix, subset_by_index=None):
        """As LAPACK, where it misses one of several equal eigenvalues."""
        values, vectors = eigh(matrix)
        return (
            (values, vectors)
            if subset_by_index is None
            else (values[-pieces + 1 :], vectors[:, -pieces + 1 :])
        )

    monkeypatch.setattr("pullback.models.dictionary.harmonic.linalg.eigh", missing)
    found = _slowest(W, pieces)
    np.testing.assert_allclose(found @ found.T, exact @ exact.T, atol=1e-10)
