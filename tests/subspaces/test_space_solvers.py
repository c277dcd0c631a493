"""Read-out, encoding, erasure and orthogonal bases against refits, planted truth and what they promise."""

import math
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sklearn.cross_decomposition import PLSSVD

from pullback.linalg import leading_singular, principal_angles
from pullback.subspaces import (
    SufficientStatistics,
    encoding_subspace,
    erase,
    fit_decoders,
    fold_statistics,
    orthogonalize,
    principal_directions,
    readout_subspace,
    solve_subspaces,
    subspaces,
)
from pullback.subspaces.moments import Rows, row_moments
from pullback.subspaces.ridge import Spectrum, fit_ridge, gcv_errors, loo_errors, strengths
from space_cases import bases, factors, normal, off, oracle, planted, r2, rotation

RECOVERY = {
    (1, 100): 8.2,
    (1, 5000): 0.9,
    (10, 500): 4.3,
    (100, 100): 16.7,
    (100, 500): 7.4,
    (100, 5000): 2.0,
}
"""Condition number and rows -> degrees from the true to the found directions that a ridge should reach."""


def degrees(W: torch.Tensor, T: torch.Tensor) -> float:
    return math.degrees(principal_angles(W.mT.double(), T)[-1])


@pytest.mark.parametrize(
    "size",
    [size if size == (100, 100) else pytest.param(size, marks=pytest.mark.slow) for size in RECOVERY],
    ids=str,
)
def test_read_outs_recover_planted_directions(size: tuple[int, int]) -> None:
    found = []
    for seed in range(5):
        data = planted(*size, seed)
        rows = readout_subspace(data.z, data.y, 3)
        moments = readout_subspace(SufficientStatistics.from_tensors(data.z, {"y": data.y}), None, 3)["y"]
        cross = encoding_subspace(data.z, data.y, 3)
        angle = degrees(rows.W, data.T)
        assert abs(angle - degrees(moments.W, data.T)) <= 2
        short = oracle(data) - r2(rows.predict(data.z_test), data.y_test)
        found.append((angle, short, degrees(cross.W, data.T)))
    angle, short, cross = (median(column) for column in zip(*found, strict=True))
    assert angle <= 1.3 * RECOVERY[size]
    assert short <= 0.015
    if size[0] == 100:
        assert cross > 50


@pytest.mark.parametrize("m", [2, 9], ids=["narrow", "wide"])
def test_errors_of_leaving_rows_out_are_those_of_refits(m: int) -> None:
    Z, Y = normal(20, 5), normal(20, m, seed=1)
    moments = row_moments(Z, {"y": Y})["y"]
    spectrum = Spectrum.of(moments.zz)
    grid = strengths(spectrum.values)
    scale = torch.full((m,), 1.7, dtype=torch.float64)
    P = spectrum.vectors.mT @ moments.zy * scale
    found = loo_errors(moments, spectrum, P, scale, Rows(Z, Y), grid)
    for strength, error in zip(grid[::6], found[::6], strict=True):
        total = 0.0
        for i in range(20):
            kept = torch.arange(20) != i
            # the ridge of all rows, in absolute units, with the mean and intercept of the rows kept
            z, y = Z[kept], Y[kept] * 1.7
            S, mean = z - z.mean(0), y.mean(0)
            B = torch.linalg.solve(S.mT @ S + strength * torch.eye(5, dtype=S.dtype), S.mT @ (y - mean))
            total += float((Y[i] * 1.7 - mean - (Z[i] - z.mean(0)) @ B).square().sum())
        assert error.item() == pytest.approx(total, rel=1e-12)


def test_fewer_rows_than_codes_tell_the_spectrum_of_their_scatter() -> None:
    Z = normal(40, 60) * torch.logspace(0, -6, 60, dtype=torch.float64) @ rotation(60, 1) + 1e3
    Y = normal(40, 5, seed=2)
    moments, found = row_moments(Z, {"y": Y})["y"], Spectrum.of_rows(Z - Z.mean(0))
    e, V = found.values, found.vectors
    assert V.shape == (60, 40)
    torch.testing.assert_close(V.mT @ V, torch.eye(40, dtype=torch.float64))
    assert ((V * e) @ V.mT - moments.zz).abs().max() <= 1e-12 * moments.zz.abs().max()
    both = [fit_ridge(moments, torch.ones(5).double(), "gcv", spectrum=s) for s in (found, None)]
    assert float(both[0].strength) == pytest.approx(float(both[1].strength), rel=1e-10)
    torch.testing.assert_close(both[0].coefficients, both[1].coefficients, rtol=1e-6, atol=1e-7)
    rows, whole = (
        solve_subspaces(*data, k=2)
        for data in ((Z, {"y": Y}), (SufficientStatistics.from_tensors(Z, {"y": Y}),))
    )
    assert off(rows.W["y"], whole.W["y"]) <= 1e-6
    with pytest.raises(ValueError, match="codes that vary"):
        Spectrum.of_rows(torch.zeros(3, 5))


def test_generalised_cross_validation_is_its_formula() -> None:
    Z, Y = normal(30, 4), normal(30, 3, seed=1)
    moments = row_moments(Z, {"y": Y})["y"]
    spectrum = Spectrum.of(moments.zz)
    grid = strengths(spectrum.values)
    found = gcv_errors(spectrum.values, spectrum.vectors.mT @ moments.zy, moments.yy.sum(), 30.0, grid)
    S, y = Z - Z.mean(0), Y - Y.mean(0)
    for strength, value in zip(grid, found, strict=True):
        hat = S @ torch.linalg.solve(moments.zz + strength * torch.eye(4, dtype=S.dtype), S.mT)
        rss = (y - hat @ y).square().sum()
        assert value.item() == pytest.approx(float(30 * rss / (30 - 1 - hat.trace()) ** 2), rel=1e-10)


def test_encoding_is_the_span_of_partial_least_squares() -> None:
    Z, Y = normal(80, 10), normal(80, 7, seed=1) + normal(80, 10) @ normal(10, 7, seed=2)
    found = encoding_subspace(Z, Y, 4)
    other = torch.as_tensor(PLSSVD(n_components=4, scale=False).fit(Z.numpy(), Y.numpy()).x_weights_)
    assert principal_angles(found.W.mT, other)[-1] <= 1e-7


def test_nothing_covaries_with_what_an_encoding_leaves() -> None:
    Z, Y = normal(60, 12), normal(60, 3, seed=1)
    found = encoding_subspace(Z, Y)
    assert found.k == 3
    left = Z - Z @ found.W.mT @ found.W
    cross = (left - left.mean(0)).mT @ (Y - Y.mean(0))
    assert cross.abs().max() <= 1e-12 * ((Z - Z.mean(0)).mT @ (Y - Y.mean(0))).abs().max()


@pytest.mark.parametrize("D", [390, 392])
def test_large_solves_keep_all_rows_and_repeat_to_the_bit(D: int) -> None:
    z = normal(100, D, dtype=torch.float32)
    y = z @ normal(D, 256, seed=1, dtype=torch.float32) + normal(100, 256, seed=2, dtype=torch.float32)
    first, second = (subspaces(z, {"q": y}, 32, kind="encoding")["q"] for _ in range(2))
    assert first.shape == (32, D)
    assert torch.equal(first, second)
    exact = torch.linalg.svd((z - z.mean(0)).double().mT @ (y - y.mean(0)).double()).U[:, :32]
    # neighbouring singular values are close, so that the span is not sharp but its share is
    kept = (first.double() @ (z - z.mean(0)).double().mT @ (y - y.mean(0)).double()).square().sum()
    best = (exact.mT @ (z - z.mean(0)).double().mT @ (y - y.mean(0)).double()).square().sum()
    assert kept.item() == pytest.approx(best.item(), rel=1e-6)


@pytest.mark.parametrize("shape", [(9, 6), (6, 9)])
@pytest.mark.parametrize("smallest", [1.0, 1e-9])
def test_leading_singular_vectors(shape: tuple[int, int], smallest: float) -> None:
    left, right = (torch.linalg.qr(normal(n, 6, seed=n)).Q for n in shape)
    sizes = (
        torch.logspace(0, math.log10(smallest), 6, dtype=torch.float64)
        if smallest < 1
        else torch.arange(6, 0, -1.0).double()
    )
    U, s, V = leading_singular((left * sizes) @ right.mT, 4)
    torch.testing.assert_close(s, sizes[:4], rtol=1e-9, atol=1e-15)
    for found, true in ((U, left[:, :4]), (V, right[:, :4])):
        torch.testing.assert_close(found.mT @ found, torch.eye(4, dtype=torch.float64))
        assert principal_angles(found, true)[-1] <= 1e-8


@pytest.mark.parametrize("kind", ["readout", "encoding"])
@pytest.mark.parametrize("units", [1e-12, 1e12])
@pytest.mark.parametrize("codes", [1e-6, 1e6])
def test_units_do_not_matter(kind: str, units: float, codes: float) -> None:
    z, y = factors(120, 0.5, 0)
    plain = solve_subspaces(z, {"q": y}, kind=kind)
    scaled = solve_subspaces(codes * z, {"q": units * y}, kind=kind)
    assert scaled.parts["q"].k == plain.parts["q"].k == 5
    assert off(scaled.W["q"], plain.W["q"]) <= 1e-8
    assert off(scaled.A["q"] * codes / units, plain.A["q"]) <= 1e-8


@settings(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(st.integers(0, 10**6), st.permutations(["a", "b", "c"]))
def test_turning_the_codes_turns_the_subspaces(seed: int, order: list[str]) -> None:
    Z = normal(60, 6, seed=seed)
    Y = {
        q: Z @ normal(6, 3, seed=seed + i) + 0.3 * normal(60, 3, seed=seed + 9 + i)
        for i, q in enumerate("abc")
    }
    turn = torch.linalg.qr(normal(6, 6, seed=seed + 5)).Q
    plain = solve_subspaces(Z, Y, k=2)
    turned = solve_subspaces(Z @ turn, {q: Y[q] for q in order}, k=2)
    for q in "abc":
        assert off(turned.W[q].mT @ turned.W[q], turn.mT @ plain.W[q].mT @ plain.W[q] @ turn) <= 1e-8
        assert off(turned.W[q].mT @ turned.A[q], turn.mT @ plain.W[q].mT @ plain.A[q]) <= 1e-8


def test_a_number_is_a_bound_and_a_dict_is_exact() -> None:
    Z = normal(50, 5)
    Y = {"one": Z[:, 0], "two": Z[:, 1:3]}
    assert {q: len(W) for q, W in subspaces(Z, Y, 4).items()} == {"one": 1, "two": 2}
    with pytest.raises(ValueError, match=r"k=3 but rank of cov\(z, y\) is 2"):
        subspaces(Z, Y, {"one": 1, "two": 3})
    with pytest.raises(ValueError, match=r"k=3 but rank of cov\(z, y\) is 2"):
        readout_subspace(Z, Y["two"], 3)
    assert {q: len(W) for q, W in subspaces(Z, Y).items()} == {"one": 1, "two": 2}


def test_rank_hidden_by_rounding_of_single_precision() -> None:
    Z = normal(200, 8, dtype=torch.float32)
    y = Z[:, :2] @ normal(2, 9, seed=1, dtype=torch.float32)
    assert encoding_subspace(Z, y).k == 2


def test_noise_has_no_subspace() -> None:
    space = solve_subspaces(normal(200, 6), {"noise": normal(200, 4, seed=1)})
    W, A, _ = space["noise"]
    assert (W.shape, A.shape) == ((0, 6), (0, 4))
    predicted = space.predict(normal(3, 6, seed=2))["noise"]
    torch.testing.assert_close(predicted, space.parts["noise"].y_mean.expand(3, 4))
    assert space.parts["noise"].cv_error[0] == pytest.approx(1, abs=0.1)


def test_constant_columns_are_left_out_and_listed() -> None:
    Z = normal(50, 4)
    y = torch.stack([Z[:, 0], torch.full((50,), 0.1), Z[:, 1]], dim=1)
    found = readout_subspace(Z.float(), y.float(), 2)
    assert found.constant == (1,)
    assert (found.A[:, 1] == 0).all()
    torch.testing.assert_close(found.predict(Z.float()), y.float(), atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="quantity 'q' is constant: k = 0"):
        solve_subspaces(Z, {"q": torch.full((50,), 0.1)}, k=1)


def test_folds_serve_in_place_of_rows() -> None:
    z, y = factors(200, 0.5, 0)
    folds = fold_statistics(z, {"q": y})
    found, rows = solve_subspaces(folds), solve_subspaces(z, {"q": y})
    assert found.parts["q"].k == rows.parts["q"].k == 5
    assert off(found.W["q"], rows.W["q"]) <= 1e-9
    with pytest.raises(ValueError, match="fold_statistics"):
        solve_subspaces(SufficientStatistics.from_tensors(z, {"q": y}))


def test_columns_of_mixed_units() -> None:
    Z = normal(400, 6)
    y = torch.stack([Z[:, 0], 1e-4 * Z[:, 1]], dim=1) + 0.1 * normal(400, 2, seed=1) * torch.tensor([1, 1e-4])
    one = readout_subspace(Z, y, 1)
    both = readout_subspace(Z, y, 2, standardize="column")
    assert abs(one.W[0, 0]) > 0.99
    assert (both.W[:, :2].norm(dim=0) > 0.99).all()


def test_few_rows_do_not_break_decoders() -> None:
    train, test = [], []
    for seed in range(6):
        data = planted(10, 20, seed, fresh=500)
        found = solve_subspaces(data.z, {"q": data.y}, k=16)
        train.append(r2(found.predict(data.z)["q"], data.y))
        test.append(r2(found.predict(data.z_test)["q"], data.y_test))
    assert median(test) > 0
    assert min(test) > -1


def test_decoders_are_least_squares_ridge_and_from_statistics() -> None:
    Z, Y = normal(40, 6), {"a": normal(40, 3, seed=1)}
    W = bases({"a": 2}, 6)
    S = (Z - Z.mean(0)) @ W["a"].mT
    y = Y["a"] - Y["a"].mean(0)
    statistics = SufficientStatistics.from_tensors(Z, Y)
    plain = torch.linalg.lstsq(S, y).solution
    assert off(fit_decoders(W, Z, Y, ridge=0.0)["a"], plain) <= 1e-12
    assert off(fit_decoders(W, statistics, ridge=0.0)["a"], plain) <= 1e-12
    gram = S.mT @ S
    ridged = torch.linalg.solve(gram + 0.5 * gram.diagonal().mean() * torch.eye(2, dtype=S.dtype), S.mT @ y)
    assert off(fit_decoders(W, Z, Y, ridge=0.5)["a"], ridged) <= 1e-12
    assert off(fit_decoders(W, Z, Y, ridge="gcv")["a"], fit_decoders(W, statistics)["a"]) <= 1e-12


def test_principal_directions_are_unit_and_take_vectors() -> None:
    Z = normal(30, 5)
    (w, v) = principal_directions(Z, {"a": 1e-9 * Z[:, 2]})["a"]
    assert w.norm().item() == pytest.approx(1, abs=1e-14)
    assert v.tolist() == [1.0]
    with pytest.raises(ValueError, match="constant"):
        principal_directions(Z, {"a": torch.ones(30)})


@pytest.mark.parametrize("method", ["polar", "ordered"])
def test_orthogonal_bases(method: str) -> None:
    W = bases({"a": 2, "b": 3, "c": 1}, 9)
    found = orthogonalize(W, method=method)
    stack = torch.cat(list(found.values()))
    torch.testing.assert_close(stack @ stack.mT, torch.eye(6, dtype=torch.float64))
    turned = orthogonalize(
        {q: torch.linalg.qr(normal(len(w), len(w), seed=5)).Q @ w for q, w in W.items()}, method=method
    )
    for q in W:
        assert off(turned[q].mT @ turned[q], found[q].mT @ found[q]) <= 1e-10
    if method == "polar":
        backwards = orthogonalize(dict(reversed(W.items())))
        assert all(off(backwards[q], found[q]) <= 1e-10 for q in W)
    else:
        assert off(found["a"].mT @ found["a"], W["a"].mT @ W["a"]) <= 1e-12


def test_recorded_order_of_orthogonal_bases() -> None:
    from space_cases import Case

    case = Case("f64_a")
    for q, W in orthogonalize(case.all("W"), method="ordered").items():
        assert off(W.mT @ W, case[f"{q}/W_orth"].mT @ case[f"{q}/W_orth"]) <= 1e-10


def test_shared_directions_cannot_be_made_orthogonal() -> None:
    W = bases({"a": 2, "b": 1}, 6)
    with pytest.raises(ValueError, match=r"quantities a, b share a direction: cos = 1\.0"):
        orthogonalize({"a": W["a"], "b": W["a"][:1]})
    with pytest.raises(ValueError, match="sum of sizes 7 > latent_dim 6"):
        orthogonalize(bases({"a": 4, "b": 3}, 6))


def test_solving_with_orthogonal_bases_fits_decoders_again() -> None:
    Z = normal(300, 6)
    Y = {"a": Z[:, :2], "b": Z[:, 2:4] + 0.5 * Z[:, :2]}
    space = solve_subspaces(Z, Y, k={"a": 2, "b": 2}, orthogonal="polar")
    assert (space.W["a"] @ space.W["b"].mT).abs().max() <= 1e-12
    again = fit_decoders(space.W, Z, Y, ridge="gcv")
    assert off(space.A["b"], again["b"]) <= 1e-10
    assert (list(space), len(space), "a" in space, space.keys()) == (["a", "b"], 2, True, ["a", "b"])
    assert [q for q, _ in space.items()] == ["a", "b"]
    assert torch.equal(space["a"][2], space.values()[0][2])


def test_erasure_keeps_its_promises() -> None:
    data = planted(100, 5000, 0)
    eraser = erase(data.z, data.y)
    P = eraser.P
    assert off(P @ P, P) <= 1e-9
    erased = eraser(data.z)
    cross = (erased - erased.mean(0)).mT @ (data.y - data.y.mean(0))
    assert cross.abs().max() <= 1e-10 * ((data.z - data.z.mean(0)).mT @ (data.y - data.y.mean(0))).abs().max()
    assert off(erase(data.z, 1e-6 * data.y).P, P) <= 1e-9
    assert eraser.rank == 16
    centred = data.z - data.z.mean(0)
    assert eraser.distortion == pytest.approx(
        float((erased - data.z).square().sum() / centred.square().sum())
    )
    assert eraser.variance_kept == pytest.approx(
        float((erased - erased.mean(0)).square().sum() / centred.square().sum())
    )


@pytest.mark.slow
def test_erasing_the_rank_of_the_signal_moves_less() -> None:
    found = []
    for seed in range(5):
        data = planted(100, 5000, seed)
        eraser = erase(data.z, data.y, target_rank=3)
        reader = readout_subspace(eraser(data.z), data.y, 3)
        found.append((r2(reader.predict(eraser(data.z_test)), data.y_test), eraser.variance_kept))
        assert eraser.rank == 3
    left, kept = (median(column) for column in zip(*found, strict=True))
    assert left <= 0.01
    assert kept >= 0.78


def test_precision_follows_the_input(dtype: torch.dtype) -> None:
    Z, Y = normal(60, 5, dtype=dtype), {"a": normal(60, 2, seed=1, dtype=dtype)}
    Y["a"] = Y["a"] + Z[:, :2]
    space = solve_subspaces(Z, Y, k=2)
    part = space.parts["a"]
    for tensor in (*space["a"], part.z_mean, part.y_mean, part.explained, part.predict(Z), erase(Z, Y).P):
        assert tensor.dtype == dtype
    assert fit_decoders(space.W, Z, Y)["a"].dtype == dtype
    assert principal_directions(Z, Y)["a"][0].dtype == dtype
    half = solve_subspaces(Z.bfloat16(), {"a": Y["a"].half()}, k=2)
    assert half.W["a"].dtype == torch.float32


def test_codes_that_are_no_tensor_are_named(as_users_run: None) -> None:
    Y = {"a": torch.zeros(9)}
    for call in (solve_subspaces, encoding_subspace, readout_subspace, erase):
        with pytest.raises(
            TypeError, match=r"stats_or_Z: expected a torch.Tensor.*ndarray; use torch.as_tensor"
        ):
            call(np.zeros((9, 3)), Y)


@pytest.mark.parametrize("call", [solve_subspaces, encoding_subspace, readout_subspace, erase])
def test_a_quantity_that_no_row_has_is_named(call) -> None:
    Z = normal(60, 4)
    Y = {"a": Z[:, 0], "b": Z[:, 1] * torch.nan}
    statistics = SufficientStatistics.from_tensors(Z, Y, missing="drop")
    with pytest.raises(ValueError, match=r"Y\['b'\]: expected rows with a value, got none"):
        call(statistics)


def test_codes_without_covariance_have_no_direction() -> None:
    with pytest.raises(ValueError, match="quantity 'a' has no covariance with z"):
        principal_directions(torch.ones(50, 3), {"a": torch.arange(50.0)})
