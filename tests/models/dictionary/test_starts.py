"""Starts: cones of single atoms, clusters of mixtures, charts for groups of rows, joint fits from them."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planted import SIX, Golden, Planted, by_truth, planted, scores_of
from pullback.charts import as_chart
from pullback.models.dictionary.alarms import assignment_alarms, residual_alarms
from pullback.models.dictionary.cluster_start import CLOSED, cluster_start
from pullback.models.dictionary.clustering import merge_clusters
from pullback.models.dictionary.codes import Codes, decode
from pullback.models.dictionary.cones import find_cones
from pullback.models.dictionary.encoding import encode_softmax
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.noise import noise_level
from pullback.models.dictionary.pieces import noise_subspace
from pullback.models.dictionary.pure_fit import fit_pure, pure_of
from pullback.models.dictionary.pure_start import _clusters, direction_clusters, pure_rows, pure_start
from pullback.models.dictionary.scores import effective_atoms, score_dictionary
from pullback.models.dictionary.start import fit_groups
from pullback.models.dictionary.sweep import alternate
from pullback.models.dictionary.sweep_options import SweepOptions

GOLDEN = Golden()
KINDS = ("circle", "interval", "sphere")


def spanned(draw: Planted) -> tuple[torch.Tensor, float]:
    """Rows in the directions that stand out of noise, and the noise."""
    level = noise_level(draw.Z)
    assert level.sigma is not None
    V = torch.linalg.svd(draw.Z, full_matrices=False).Vh[: level.rank]
    return draw.Z @ V.mT, level.sigma


def good(values: Sequence[float]) -> int:
    return sum(value > 0.9 for value in values)


def test_cones_are_the_rows_of_single_atoms_with_their_dimension() -> None:
    draw = planted(1200, "additive", kinds=KINDS, p=32, seed=1)
    Y, sigma = spanned(draw)
    alone = (draw.A > 0).sum(1) == 1
    cones = find_cones(Y, sigma, most=3)
    owners = [int(draw.A[cone.rows].sum(0).argmax()) for cone in cones]
    assert sorted(owners) == [0, 1, 2]
    for cone, k in zip(cones, owners, strict=True):
        mine = alone & (draw.A[:, k] > 0)
        assert float(mine[cone.rows].double().mean()) > 0.98
        assert len(cone.rows) > 0.9 * int(mine.sum())
        assert cone.basis.shape[1] == {"circle": 5, "interval": 3, "sphere": 4}[KINDS[k]]
        assert torch.allclose(cone.basis.mT @ cone.basis, torch.eye(cone.basis.shape[1], dtype=torch.float64))


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_cones_turn_and_scale_with_the_rows(seed: int, scale: float) -> None:
    draw = planted(260, "additive", kinds=("interval", "interval"), p=16, seed=2)
    Y, sigma = spanned(draw)
    g = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(Y.shape[1], Y.shape[1], generator=g, dtype=torch.float64)).Q
    first, second = find_cones(Y, sigma, most=2), find_cones(scale * Y @ Q, scale * sigma, most=2)
    assert [cone.rows.tolist() for cone in first] == [cone.rows.tolist() for cone in second]


def test_a_direction_needs_more_than_one_row() -> None:
    g = torch.Generator().manual_seed(0)
    rows = 0.1 * torch.randn(50, 6, generator=g, dtype=torch.float64)
    rows[:, 0] += 3
    rows[7, 4] += 5
    basis = noise_subspace(rows, 0.1)
    assert basis.shape[1] == 1
    assert abs(float(basis[0, 0])) > 0.99


def test_too_few_rows_and_pure_noise_have_no_cones() -> None:
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(200, 6, generator=g, dtype=torch.float64)
    assert find_cones(noise[:5], 1.0) == []
    assert all(cone.basis.shape[1] <= 6 for cone in find_cones(noise, 1.0, most=2))


def test_dense_directions_are_pure() -> None:
    draw = planted(1200, "additive", kinds=("circle", "circle", "interval"), p=24, seed=0)
    Y, _ = spanned(draw)
    rows = pure_rows(Y, 0.25)
    assert float(((draw.A[rows] > 0).sum(1) == 1).double().mean()) > 0.95
    found = direction_clusters(Y[rows], 3)
    held = torch.stack([draw.A[rows][found.labels == c].mean(0) for c in range(3)])
    assert float((held.max(1).values / held.sum(1)).min()) > 0.85
    assert int(merge_clusters(Y[rows], found.labels, 1).max()) == 0


def test_charts_for_groups_in_every_form() -> None:
    draw = planted(50, kinds=("circle", "interval"), p=12, seed=3)
    groups = [(draw.A[:, k] > 0).nonzero().flatten() for k in range(2)]

    def names(kinds: object) -> list[str]:
        found = fit_groups(draw.Z, groups, kinds, sweeps=3)  # type: ignore[arg-type]
        return [one.fit.chart.name for one in found]

    assert names("circle") == ["circle", "circle"]
    assert names(as_chart("interval")) == ["interval", "interval"]
    assert names(["interval", "sphere"]) == ["sphere", "interval"]
    assert names(lambda rows, labels: ["circle", "plane"]) == ["circle", "plane"]
    with pytest.raises(ValueError, match="expected 2 charts"):
        names(["circle"])
    with pytest.raises(ValueError, match="expected 2 charts of the function"):
        names(lambda rows, labels: ["circle"])


def test_a_mixture_from_clusters() -> None:
    dtype = torch.float32
    draw = planted(160, kinds=("circle", "interval"), p=16, seed=3)
    start = cluster_start(draw.Z.to(dtype), 2, by_truth(draw.A, draw.kinds), sweeps=6)
    assert start.found == 2
    logits = start.codes.logits
    assert logits is not None
    assert sorted(logits.unique().tolist()) == [CLOSED, 0.0]
    fit = alternate(
        Layout(start.charts), draw.Z.to(dtype), start.codes, SweepOptions(gate="softmax", max_sweeps=8)
    )
    found = scores_of(fit, draw)
    assert found.assignment > 0.99
    assert min(found.coordinates) > 0.98
    one_each = cluster_start(draw.Z.to(dtype), 2, "circle", softmax=False, sweeps=4)
    assert one_each.codes.atoms.shape == (160, 1)


@pytest.mark.slow
def test_sums_from_cones() -> None:
    draw = planted(400, "additive", kinds=("circle", "interval"), p=16, seed=4)
    start = pure_start(draw.Z, 2, by_truth(draw.A, draw.kinds), n_active=2)
    assert start.found == 2
    pure = fit_pure(draw.Z, start, SweepOptions(n_active=2, max_sweeps=6), rounds=1)
    found = scores_of(pure.fit, draw)
    assert found.support_f1 > 0.97
    assert good(found.coordinates) == good(found.contributions) == 2
    assert residual_alarms(pure.fit.s2, start.sigma, *draw.Z.shape) == []
    assert pure.pure == tuple(len(rows) for rows in pure_of(pure.fit))
    rebuilt = decode(pure.fit.layout, pure.fit.B, pure.fit.codes)
    assert float((rebuilt - draw.clean).square().mean()) < 0.05**2 / 2


def test_a_start_without_a_noise_level() -> None:
    draw = planted(150, "additive", kinds=("circle", "interval"), p=6, sigma=0.02, seed=4)
    start = pure_start(draw.Z, 2, "circle", n_active=2)
    assert (start.sigma, start.found) == (None, 0)
    assert all(len(group) >= 4 for group in start.groups)
    assert bool(torch.isfinite(start.codes.weights).all())


@pytest.mark.slow
def test_golden_mixture_blind() -> None:
    """Kinds chosen by evidence: assignment, coordinates and error on rows of training and test."""
    Z, A = GOLDEN["mix_train_Z"], GOLDEN["mix_train_A"]
    start = cluster_start(Z, 6)
    fit = alternate(Layout(start.charts), Z, start.codes, SweepOptions(gate="softmax"))
    assert fit.s2**0.5 == pytest.approx(0.05, rel=0.03)
    test = GOLDEN["mix_test_Z"]
    codes = encode_softmax(fit.layout, test / fit.scale, fit.B / fit.scale).codes
    for name, rows, found in (("mix_train", Z, fit.codes), ("mix_test", test, codes)):
        atoms = [found.coords[:, k, : chart.c] for k, chart in enumerate(fit.layout.charts)]
        scores = score_dictionary(
            rows,
            GOLDEN[f"{name}_A"],
            SIX,
            GOLDEN.coordinates(name),
            estimate=found.weights,
            fitted_kinds=[chart.name for chart in fit.layout.charts],
            fitted_coordinates=atoms,
            contributions=[
                found.weights[:, k : k + 1] * (chart.jet(atoms[k], 0).value @ fit.B[fit.layout.block(k)])
                for k, chart in enumerate(fit.layout.charts)
            ],
        )
        assert scores.assignment >= 0.99
        assert min(scores.coordinates[:5]) >= 0.995
        assert scores.coordinates[5] >= 0.99
        assert scores.fvu <= 0.120
        assert effective_atoms(found.weights) <= 1.02
    assert A.shape[1] == fit.layout.K


@pytest.mark.slow
def test_random_starts_raise_alarms() -> None:
    """Codes at random: the residual or the assignment tells, 8 of 8; structured starts are quiet."""
    Z, sigma = GOLDEN["mix_train_Z"], noise_level(GOLDEN["mix_train_Z"]).sigma
    charts = tuple(as_chart(kind) for kind in SIX)
    for seed in range(8):
        g = torch.Generator().manual_seed(seed)
        coords = torch.zeros(len(Z), 6, 3, dtype=torch.float64)
        for k, chart in enumerate(charts):
            grid = chart.grid(400)
            coords[:, k, : chart.c] = grid[torch.randint(len(grid), (len(Z),), generator=g)]
        logits = torch.randn(len(Z), 6, generator=g, dtype=torch.float64)
        fit = alternate(
            Layout(charts), Z, Codes.softmax(logits, coords), SweepOptions(gate="softmax", max_sweeps=8)
        )
        assert residual_alarms(fit.s2, sigma, *Z.shape) or assignment_alarms(fit.codes)
    start = cluster_start(Z, 6, by_truth(GOLDEN["mix_train_A"], SIX))
    fit = alternate(Layout(start.charts), Z, start.codes, SweepOptions(gate="softmax"))
    assert not residual_alarms(fit.s2, sigma, *Z.shape)
    assert not assignment_alarms(fit.codes)


@pytest.mark.slow
@pytest.mark.parametrize("blind", [False, True], ids=["given", "blind"])
def test_sums_of_six_atoms(blind: bool) -> None:
    """N = 2500, 1 to 3 of 6 active: all atoms are found, or an alarm says that they are not."""
    draw = planted(2500, "additive", seed=3)
    start = pure_start(draw.Z, 6, "auto" if blind else by_truth(draw.A, draw.kinds))
    pure = fit_pure(draw.Z, start, SweepOptions(max_sweeps=24), choose=blind)
    found = scores_of(pure.fit, draw)
    complete = good(found.coordinates) == 6 and good(found.contributions) == 6
    assert complete or residual_alarms(pure.fit.s2, start.sigma, *draw.Z.shape)
    assert good(found.coordinates) >= 5
    assert found.support_f1 >= 0.99
    assert math.isfinite(found.clean_fvu)


@pytest.mark.parametrize("left", [0, 1, 2, 3, 7, 12])
def test_clusters_of_few_rows_that_cones_left_can_bear_a_chart(left: int, generator: torch.Generator) -> None:
    Y = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    taken = [torch.arange(left, 40)]
    for wanted in (1, 2):
        groups = _clusters(Y, taken, wanted, 0.25, generator)
        assert len(groups) == wanted
        assert min(len(group) for group in groups) >= 4
