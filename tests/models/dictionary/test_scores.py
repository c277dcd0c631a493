"""Scores of a dictionary against the truth: exact cases, symmetries, and the best that is possible."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planted import SIX, Planted, planted
from pullback.models.dictionary.scores import (
    DictionaryScores,
    assignment_share,
    contribution_r2,
    coordinate_score,
    effective_atoms,
    fraction_unexplained,
    match_atoms,
    score_dictionary,
    support_f1,
)

KINDS = ("circle", "interval", "sphere", "torus", "plane")
DRAW = planted(200, kinds=KINDS, seed=3)


def scored(draw: Planted, order: list[int], parts: list[torch.Tensor], A: torch.Tensor) -> DictionaryScores:
    return score_dictionary(
        draw.Z,
        draw.A,
        draw.kinds,
        draw.t,
        estimate=A[:, order],
        fitted_kinds=[draw.kinds[k] for k in order],
        fitted_coordinates=[draw.t[k] for k in order],
        contributions=[parts[k] for k in order],
        clean=draw.clean,
        parts=draw.parts,
    )


def rotated(kind: str, t: torch.Tensor, seed: int) -> torch.Tensor:
    """Coordinates changed by a symmetry of the kind."""
    g = torch.Generator().manual_seed(seed)
    shift = 7 * torch.rand(t.shape[1], generator=g, dtype=t.dtype)
    square = torch.linalg.qr(torch.randn(t.shape[1], t.shape[1], generator=g, dtype=t.dtype)).Q
    if kind == "sphere":
        return t @ square
    if kind == "plane":
        return t @ (square + 2 * torch.eye(2, dtype=t.dtype)) + shift
    if kind == "interval":
        return -t.exp() + shift
    return (shift - t.flip(1)) % (2 * math.pi)


@pytest.mark.parametrize(("kind", "t"), list(zip(KINDS, DRAW.t, strict=True)), ids=KINDS)
def test_coordinates_up_to_symmetry_score_one(kind: str, t: torch.Tensor, dtype: torch.dtype) -> None:
    for seed in range(3):
        assert coordinate_score(kind, t.to(dtype), rotated(kind, t, seed).to(dtype)) == pytest.approx(1)


@pytest.mark.parametrize(("kind", "t"), list(zip(KINDS, DRAW.t, strict=True)), ids=KINDS)
def test_unrelated_coordinates_score_low(kind: str, t: torch.Tensor) -> None:
    assert coordinate_score(kind, t, t[torch.randperm(200, generator=torch.Generator().manual_seed(0))]) < 0.3


def test_other_kinds_do_not_count_save_a_circle_cut_open() -> None:
    t = DRAW.t[1]
    assert math.isnan(coordinate_score("circle", DRAW.t[0], t, fitted="interval"))
    assert math.isnan(coordinate_score("interval", t, DRAW.t[2], fitted="sphere"))
    assert coordinate_score("interval", t, 1.75 * t + 3, fitted="circle") == pytest.approx(1)
    assert coordinate_score("interval", t, torch.zeros_like(t)) == 0


def test_the_truth_has_perfect_scores_in_any_order() -> None:
    draw = planted(300, "additive", seed=1)
    found = scored(draw, [3, 5, 0, 1, 4, 2], list(draw.parts), draw.A)
    assert found.matched.tolist() == [2, 3, 5, 0, 4, 1]
    assert (found.assignment, found.support_f1) == (1, 1)
    assert found.clean_fvu < 1e-20
    assert found.contributions == pytest.approx([1] * 6)
    assert found.coordinates == pytest.approx([1] * 6)
    assert found.fvu == pytest.approx(fraction_unexplained(draw.Z, draw.clean))


def test_a_lost_atom_is_a_miss_everywhere() -> None:
    draw = planted(300, "additive", seed=1)
    found = scored(draw, [0, 1, 2, 3, 4], list(draw.parts), draw.A)
    assert found.matched.tolist() == [0, 1, 2, 3, 4, -1]
    assert math.isnan(found.coordinates[5])
    assert math.isnan(found.contributions[5])
    assert found.support_f1 < 0.95
    assert found.clean_fvu == pytest.approx(
        float(draw.parts[5].square().sum() / (draw.clean - draw.clean.mean(0)).square().sum())
    )


def test_counts_by_hand() -> None:
    truth = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    estimate = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 2.0, 0.05]])
    assert match_atoms(truth, estimate).tolist() == [1, 0]
    assert support_f1(truth, estimate) == pytest.approx(2 * 3 / (4 + 3))
    assert assignment_share(torch.eye(2), torch.tensor([[0.2, 0.1], [0.2, 0.3]])) == 1
    assert effective_atoms(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])) == pytest.approx(2)
    assert math.isnan(effective_atoms(torch.zeros(2, 2)))
    assert contribution_r2(torch.ones(2, 2), torch.zeros(2, 2)) == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_scores_do_not_depend_on_scale_or_rotation(seed: int, scale: float) -> None:
    g = torch.Generator().manual_seed(seed)
    Z = torch.randn(20, 4, generator=g, dtype=torch.float64)
    near = Z + 0.3 * torch.randn(20, 4, generator=g, dtype=torch.float64)
    Q = scale * torch.linalg.qr(torch.randn(4, 4, generator=g, dtype=torch.float64)).Q
    assert fraction_unexplained(Z @ Q, near @ Q) == pytest.approx(fraction_unexplained(Z, near))
    assert contribution_r2(Z @ Q, near @ Q) == pytest.approx(contribution_r2(Z, near))
    a = Z.abs()
    assert effective_atoms(a * scale) == pytest.approx(effective_atoms(a))


def test_planted_rows_are_as_specified() -> None:
    draw = planted(4000, "additive")
    assert draw.kinds == SIX
    counts = (draw.A > 0).sum(1).bincount() / 4000
    assert counts[1:].tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    active = draw.A[draw.A > 0]
    assert float(active.min()) > 0.4 / 0.7
    assert float(active.max()) < 1 / 0.7
    assert float((draw.Z - draw.clean).std()) == pytest.approx(0.05, rel=0.01)
    assert planted(50, "simplex").A.sum(1).tolist() == pytest.approx([1] * 50)
    assert torch.equal(planted(50, frames=draw.frames).frames, draw.frames)
