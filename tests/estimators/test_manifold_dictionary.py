"""ManifoldDictionary as users meet it: golden mixtures, steering, streams, labels, units, files."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

import pullback as pb
from bad_dictionary import refused_by
from planted import planted
from pullback import charts
from pullback.estimators.dictionary_rows import new_frame
from pullback.models.dictionary.decoder_step import gather, solve
from pullback.models.dictionary.scores import assignment_share
from sums import GOLDEN, aligned, codes_of, golden_rows, layout_of, unexplained

TINY = ("circle", "interval")
QUICK = {"gate": "softmax", "n_restarts": 1, "max_sweeps": 8, "random_state": 0}


def ring(n: int = 120, p: int = 5, sigma: float = 0.02, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    t = draw.uniform(0, 2 * np.pi, n)
    Z = np.zeros((n, p))
    Z[:, 0], Z[:, 1], Z[:, 2] = np.cos(t), np.sin(t), 0.5
    return Z + sigma * draw.normal(size=Z.shape), t


@pytest.fixture(scope="module")
def two() -> tuple[pb.ManifoldDictionary, np.ndarray]:
    """A mixture of a circle and an arc."""
    rows = planted(200, "single", kinds=TINY, p=12, seed=3)
    Z = rows.Z.numpy()
    return pb.ManifoldDictionary(2, list(TINY), **QUICK).fit(Z), Z


@pytest.mark.slow
@parametrize_with_checks(
    [
        pb.ManifoldDictionary(1, "interval", n_restarts=1, max_sweeps=2),
        pb.ManifoldDictionary(1, "interval", gate="softmax", n_restarts=1, max_sweeps=2),
    ]
)
def test_scikit_learn_checks_of_dictionaries(estimator, check) -> None:
    check(estimator)


def test_what_a_fit_leaves(two) -> None:
    model, Z = two
    assert [atom.chart.name for atom in model.atoms_] in ([*TINY], [*TINY[::-1]])
    told = model.diagnostics_
    assert told.fvu < 0.1
    assert told.sigma == pytest.approx(0.05, rel=0.1)
    assert told.n_eff <= 1.02
    assert told.usage.sum() == pytest.approx(1)
    assert len(told.restart_objectives) == len(told.restart_views) == 1
    assert max(check.speed_variation for check in told.gauge) < 0.1
    codes = model.transform(Z)
    assert codes.shape == (200, 2)
    assert np.asarray(codes).shape == (200, 2)
    assert np.abs(np.asarray(codes).sum(1) - 1).max() < 1e-5
    assert np.isnan(codes.coords[codes.indices < 0]).all()
    assert 0.01 < np.nanmedian(codes.coord_sd[:, 0]) < 0.2
    fitted = model.inverse_transform(codes)
    assert isinstance(fitted, np.ndarray)
    assert model.score(Z) == pytest.approx(1 - told.fvu, abs=0.01)
    torch.testing.assert_close(torch.tensor(codes.residual), torch.tensor(np.linalg.norm(Z - fitted, axis=1)))
    assert codes.converged.mean() > 0.9


def test_codes_of_a_fit_at_once() -> None:
    Z, _ = ring(60)
    options = {**QUICK, "init": "random", "max_sweeps": 3}
    one, two = (pb.ManifoldDictionary(1, "circle", **options) for _ in range(2))
    found = one.fit_transform(Z)
    assert np.array_equal(found.coords, two.fit(Z).transform(Z).coords)


@pytest.mark.slow
def test_the_golden_mixture() -> None:
    train, test = golden_rows("mix_train"), golden_rows("mix_test")
    model = pb.ManifoldDictionary(6, list(train.kinds), gate="softmax", random_state=0).fit(train.Z)
    assert 1 - model.score(test.Z) <= 0.120
    codes = model.transform(test.Z)
    assert assignment_share(test.A, codes.to_array()) >= 0.99
    other = pb.ManifoldDictionary(6, list(train.kinds), gate="softmax", random_state=1).fit(train.Z)
    found = model.align(other, test.Z)
    assert found.scores.min() >= 0.99


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_give_tensors_of_their_dtype(dtype: torch.dtype) -> None:
    Z = torch.tensor(ring()[0]).to(dtype)
    model = pb.ManifoldDictionary(1, "circle", **QUICK).fit(Z)
    codes = model.transform(Z)
    for found in (
        codes.weights,
        codes.coords,
        codes.residual,
        model.components_,
        model.inverse_transform(codes),
    ):
        assert isinstance(found, torch.Tensor)
        assert found.dtype == dtype
    assert next(iter(model.module_.parameters())).dtype == dtype
    # of these only the kind of array matters
    brief = {**QUICK, "init": "random", "max_sweeps": 1}
    array = pb.ManifoldDictionary(1, "circle", **brief).fit(Z.numpy()).transform(Z.numpy())
    assert array.weights.dtype == np.dtype(str(dtype).removeprefix("torch."))
    narrow = pb.ManifoldDictionary(1, "circle", dtype="float32", **brief).fit(Z)
    assert narrow.transform(Z).weights.dtype == torch.float32


@pytest.mark.parametrize("gate", ["softmax", pytest.param("amplitude", marks=pytest.mark.slow)])
def test_fits_follow_the_scale_and_orientation_of_rows(gate: str) -> None:
    Z, _ = ring(p=8)
    g = np.random.default_rng(1)
    Q = np.linalg.qr(g.normal(size=(8, 8)))[0]
    options = {"gate": gate, "n_restarts": 1, "max_sweeps": 6, "random_state": 0, "isometry": 0.0}
    one = pb.ManifoldDictionary(1, "circle", **options).fit(Z)
    two = pb.ManifoldDictionary(1, "circle", **options).fit(50.0 * Z @ Q)
    assert two.diagnostics_.fvu == pytest.approx(one.diagnostics_.fvu, rel=1e-6)
    assert two.sigma_ == pytest.approx(50 * one.sigma_, rel=1e-6)


def test_steering_moves_rows_along_an_atom(two) -> None:
    model, Z = two
    k = [atom.chart.name for atom in model.atoms_].index("circle")
    assert np.array_equal(model.steer(Z, k, [0.0]), Z)
    moved = model.steer(Z, k, [math.pi])
    codes = model.transform(Z)
    uses = (codes.indices == k).any(1)
    assert np.array_equal(moved[~uses], Z[~uses])
    sure = codes.indices[:, 0] == k
    before, after = codes.coords[sure, 0, 0], model.transform(moved[sure]).coords[:, 0, 0]
    assert np.abs(np.angle(np.exp(1j * (after - before - math.pi)))).max() < 0.4
    back = model.steer(moved, k, np.full((len(Z), 1), -math.pi))
    assert np.abs(back - Z)[sure].max() < 0.3


def test_ablation_takes_an_atom_out(two) -> None:
    model, Z = two
    codes = model.transform(Z)
    sure = codes.indices[:, 0] == 0
    without = model.ablate(Z, 0)
    assert np.abs(without[sure]).max() < np.abs(Z[sure]).max()
    fitted = model.inverse_transform(codes)
    torch.testing.assert_close(
        torch.tensor((Z - without)[sure]), torch.tensor(fitted[sure]), atol=1e-3, rtol=0
    )
    mean = model.ablate(Z, 0, mode="mean")
    spread = (mean[sure] - mean[sure].mean(0)).var() / (Z[sure] - Z[sure].mean(0)).var()
    assert spread < 0.2


def test_atoms_know_their_geometry(two) -> None:
    model, _ = two
    atom = next(atom for atom in model.atoms_ if atom.chart.name == "circle")
    t = atom.chart.grid(50).numpy()
    J, G = atom.jacobian(t), atom.metric(t)
    assert J.shape == (50, 12, 1)
    np.testing.assert_allclose(G[:, 0, 0], np.square(J[:, :, 0]).sum(1))
    h = 1e-5
    np.testing.assert_allclose(J[:, :, 0], (atom.decode(t + h) - atom.decode(t - h)) / (2 * h), atol=1e-7)
    length = atom.arclength(t)
    assert length[0] == 0
    speed = np.sqrt(G[:, 0, 0]).mean()
    assert length[-1] == pytest.approx(speed * t[-1, 0], rel=0.02)
    assert atom.roughness_weight > 0


def test_batches_of_a_stream_move_decoders() -> None:
    rows = planted(200, "single", kinds=TINY, p=12, seed=3)
    groups = rows.A.argmax(1)
    streamed = pb.ManifoldDictionary(2, lambda at, labels: list(TINY), init=groups, **QUICK)
    streamed.partial_fit(rows.Z.numpy())
    kinds = [atom.chart.name for atom in streamed.atoms_]
    before = np.array(streamed.components_)
    again = planted(200, "single", kinds=TINY, p=12, seed=99, frames=rows.frames)
    for _ in range(3):
        streamed.partial_fit(again.Z.numpy())
    assert [atom.chart.name for atom in streamed.atoms_] == kinds
    assert np.abs(streamed.components_ - before).max() > 1e-6
    assert streamed.score(again.Z.numpy()) > 0.9


def test_sums_of_batches_give_the_decoders_of_all_rows() -> None:
    rows = planted(300, "additive", seed=2)
    layout = layout_of(rows.kinds)
    codes, lam = codes_of(layout, rows), torch.full((6,), 0.01, dtype=torch.float64)
    whole = gather(layout, codes, rows.Z)
    parts = [gather(layout, codes.rows(slice(i, i + 100)), rows.Z[i : i + 100]) for i in (0, 100, 200)]
    both = parts[0].plus(parts[1]).plus(parts[2])
    torch.testing.assert_close(
        solve(layout, both, lam, 1e-4).B, solve(layout, whole, lam, 1e-4).B, atol=1e-10, rtol=0
    )


def test_labels_order_values_that_the_rows_alone_do_not() -> None:
    E, kind, value = GOLDEN["emb_E"], GOLDEN.arrays["emb_kind"], GOLDEN.arrays["emb_val"]
    for which, days, asked in ((0, 7, 0.99), (1, 12, 0.98)):
        rows, v = E[kind == which], value[kind == which]
        train = v[:, 1] < 8
        mean = rows[train].mean(0)
        axes = torch.linalg.svd(rows[train] - mean, full_matrices=False)[2][:8]
        Y = (rows / rows.norm(dim=1).mean()).numpy()
        model = pb.ManifoldDictionary(1, "circle", **QUICK)
        model.fit(Y[train], center_by=v[train, 1], labels=v[train, 0].astype(float))
        t = model.transform(Y[~train], center_by=v[~train, 1]).coords[:, 0, 0]
        wanted = 2 * np.pi * v[~train, 0] / days
        assert np.abs(np.exp(1j * (t - wanted)).mean()) >= asked
        assert axes.shape == (8, 384)


def test_metric_offset_and_nuisance() -> None:
    Z, t = ring(80, 6)
    wide = np.c_[Z, 5 * np.random.default_rng(1).normal(size=(80, 1))]
    weight = torch.tensor([1.0] * 6 + [1e-6])
    model = pb.ManifoldDictionary(1, "circle", ambient=pb.ambient.Diagonal(weight), **QUICK).fit(wide)
    found = model.transform(wide).coords[:, 0, 0]
    score, flipped = (np.abs(np.exp(1j * (found + sign * t)).mean()) for sign in (-1, 1))
    assert max(score, flipped) > 0.99
    assert model.components_.shape == (5, 7)
    U = torch.eye(6)[:, :3]
    short = pb.ManifoldDictionary(1, "circle", ambient=pb.ambient.LowRank(U), **QUICK).fit(Z)
    assert short.inverse_transform(short.transform(Z)).shape == Z.shape
    moved = pb.ManifoldDictionary(1, "circle", offset="mean", **QUICK).fit(Z + 30)
    assert moved.score(Z + 30) > 0.9
    group = np.arange(80) % 2
    shifted = Z + 40.0 * group[:, None]
    model = pb.ManifoldDictionary(1, "circle", **QUICK).fit(shifted, center_by=group)
    assert model.diagnostics_.fvu < 0.05
    assert model.transform(shifted, center_by=group).residual.mean() < 0.2


def test_files_give_the_same_dictionary(two, tmp_path: Path) -> None:
    model, Z = two
    again = pb.load(model.save(tmp_path / "m"))
    assert isinstance(again, pb.ManifoldDictionary)
    one, other = model.transform(Z), again.transform(Z)
    assert np.array_equal(one.coords, other.coords, equal_nan=True)
    assert np.array_equal(one.weights, other.weights)
    assert again.diagnostics_.fvu == model.diagnostics_.fvu
    assert again.get_params()["charts"] == list(TINY)
    assert again.partial_fit(Z).n_features_in_ == 12
    assert np.array_equal(again.codes_.indices, model.codes_.indices)
    own = pb.ManifoldDictionary(1, charts.interval(3, boundary="smooth"), **QUICK).fit(Z)
    other_way = pb.ManifoldDictionary.load(own.save(tmp_path / "own"))
    assert other_way.atoms_[0].chart == charts.interval(3, boundary="smooth")
    assert other_way.charts == charts.interval(3, boundary="smooth")
    found = model.align(again)
    assert found.permutation.tolist() == [0, 1]
    assert model.align(again, Z).scores.min() > 0.999


def test_starts_from_groups_and_from_another_dictionary(two) -> None:
    model, Z = two
    groups = model.transform(Z).indices[:, 0]
    names = [atom.chart.name for atom in model.atoms_]
    given = pb.ManifoldDictionary(2, lambda rows, labels: names, init=groups, **QUICK).fit(Z)
    assert [atom.chart.name for atom in given.atoms_] == names
    warm = pb.ManifoldDictionary(2, list(TINY), init=model, **QUICK).fit(Z)
    assert warm.diagnostics_.fvu == pytest.approx(model.diagnostics_.fvu, rel=0.05)
    drawn = pb.ManifoldDictionary(2, "circle", init="random", **QUICK).fit(Z)
    assert drawn.diagnostics_.sigma > model.diagnostics_.sigma


def test_latents_of_a_sparse_autoencoder_become_atoms() -> None:
    g = np.random.default_rng(0)
    t, which = g.uniform(0, 2 * np.pi, 300), g.integers(0, 2, 300)
    F = np.linalg.qr(g.normal(size=(10, 4)))[0].T
    angles = np.arange(8) * np.pi / 4
    decoder = np.concatenate([np.c_[np.cos(angles), np.sin(angles)] @ F[2 * k : 2 * k + 2] for k in (0, 1)])
    fire = np.maximum(np.cos(t[:, None] - angles), 0) ** 2 / 2
    codes = np.concatenate([fire * (which == 0)[:, None], fire * (which == 1)[:, None]], 1)
    model = pb.ManifoldDictionary.from_sae(decoder, codes, 2, "circle", max_sweeps=8, random_state=0)
    owner = model.transform(codes @ decoder).indices[:, 0]
    assert max((owner == which).mean(), (owner != which).mean()) > 0.95


def test_weighted_rows_of_weight_zero_do_not_matter() -> None:
    Z, _ = ring(160)
    spoiled = Z.copy()
    spoiled[::4] += 3.0
    weights = np.ones(160)
    weights[::4] = 0
    groups = np.where(weights > 0, 0, -1)
    model = pb.ManifoldDictionary(1, "circle", init=groups, **QUICK)
    model.fit(spoiled, row_weights=weights)
    kept = weights > 0
    assert (
        unexplained(torch.tensor(Z[kept]), torch.tensor(model.inverse_transform(model.transform(Z[kept]))))
        < 0.05
    )


def test_before_fit_and_clone() -> None:
    model = pb.ManifoldDictionary(3, "circle", gate="softmax")
    with pytest.raises(NotFittedError):
        model.transform(np.zeros((2, 3)))
    again = clone(model)
    assert again.get_params() == model.get_params()


def test_golden_codes_are_aligned_by_their_own_checker(two) -> None:
    rows = golden_rows("mix_train")
    layout = layout_of(rows.kinds)
    assert min(aligned(layout, codes_of(layout, rows), rows)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.usefixtures("as_users_run")
def test_what_a_fitted_dictionary_refuses() -> None:
    Z, _ = ring(80, 6)
    Z[40:, 3] += 2.0
    groups = np.repeat([0, 1], 40)
    fitted = pb.ManifoldDictionary(2, lambda rows, labels: ["sphere", "line"], init=groups, max_sweeps=2).fit(
        Z
    )
    for _, call, error, message in refused_by(fitted):
        with pytest.raises(error) as caught:
            call()
        assert message in str(caught.value)


@pytest.mark.slow
def test_random_starts_raise_alarms_and_structured_ones_do_not() -> None:
    rows = golden_rows("mix_train")
    kinds = list(rows.kinds)
    wrong = {"residual_above_noise", "soft_assignment"}
    for seed in range(3):
        options = {"gate": "softmax", "n_restarts": 1, "max_sweeps": 25, "random_state": seed}
        drawn = pb.ManifoldDictionary(6, kinds, init="random", **options).fit(rows.Z)
        assert wrong & {alarm.code for alarm in drawn.diagnostics_.alarms}
    good = pb.ManifoldDictionary(6, kinds, gate="softmax", random_state=0).fit(rows.Z)
    assert not wrong & {alarm.code for alarm in good.diagnostics_.alarms}


def test_rows_without_a_group_take_the_mean_of_all_groups() -> None:
    rows = torch.tensor([[1.0], [3.0], [10.0], [20.0], [7.0], [8.0]])
    for names in (
        np.array([0, 0, 1, 1, np.nan, np.nan]),
        np.array(["a", "a", "b", "b", None, None], dtype=object),
    ):
        frame = new_frame(rows, None, None, names)
        assert frame.means.flatten().tolist() == [2, 15]
        assert frame.taken(rows, names).flatten().tolist() == [2, 2, 15, 15, 8.5, 8.5]
    with pytest.raises(ValueError, match="center_by: expected labels, got none for any row"):
        new_frame(rows, None, None, [None] * 6)


def test_fewer_atoms_than_a_row_may_use_are_counted() -> None:
    draw = np.random.default_rng(0)
    t, plane = draw.uniform(0, 2 * np.pi, 160), np.linalg.qr(draw.normal(size=(40, 4)))[0].T
    circle = np.c_[np.cos(t), np.sin(t)]
    Z = np.where((np.arange(160) % 2 == 0)[:, None], circle @ plane[:2], circle @ plane[2:])
    Z = Z + 0.02 * draw.normal(size=Z.shape)
    model = pb.ManifoldDictionary("auto", "circle", max_sweeps=4, n_restarts=1, random_state=0).fit(Z)
    assert len(model.atoms_) == 2
    assert model.transform(Z).indices.shape[1] == 2
