"""The table of probes: against scikit-learn, on codes whose contents are known."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from pullback import subspaces as ps
from pullback.subspaces.probes import probe
from space_cases import blocks, normal, rotation

SIZES = {"a": 1, "b": 2}
D, TRAIN = 6, 400


def known(n: int = 700, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Codes whose blocks hold their quantities; b is correlated with a."""
    s = normal(n, D, seed=seed)
    y = torch.stack([s[:, 0] + s[:, 1], s[:, 2]], dim=1)
    codes = torch.cat([s[:, :1], y, s[:, 3:]], dim=1)
    return codes, {"a": s[:, 0], "b": y}


def split(z: Tensor, Y: dict[str, Tensor]) -> dict:
    return {
        "Z_train": z[:TRAIN],
        "Y_train": {q: y[:TRAIN] for q, y in Y.items()},
        "Z_test": z[TRAIN:],
        "Y_test": {q: y[TRAIN:] for q, y in Y.items()},
    }


def sklearn_r2(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor) -> float:
    mean, sd = y.mean(0), y.std(0, correction=0)
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-3, 4, 8)))
    predicted = model.fit(x, (y - mean) / sd).predict(x_test).reshape(len(y_test), -1)
    target = ((y_test - mean) / sd).numpy()
    r2 = 1 - ((predicted - target) ** 2).sum(0) / ((target - target.mean(0)) ** 2).sum(0)
    return float(np.clip(r2, -1, None).mean())


@pytest.mark.parametrize(("n", "d", "m"), [(60, 5, 1), (60, 5, 4), (40, 30, 3), (200, 1, 2)])
def test_a_probe_is_that_of_scikit_learn(n: int, d: int, m: int) -> None:
    x = normal(n + 50, d) * torch.logspace(-3, 3, d, dtype=torch.float64) + 7
    y = 100 * x[:, :1] @ normal(1, m, seed=1) + normal(n + 50, m, seed=2)
    alphas = torch.logspace(-3, 4, 8, dtype=torch.float64)
    found = float(probe(x[:n], y[:n], x[n:], y[n:], alphas).r2())
    assert found == pytest.approx(sklearn_r2(x[:n], y[:n], x[n:], y[n:]), abs=1e-8)


def test_blocks_that_hold_what_they_should() -> None:
    z, Y = known()
    table = ps.evaluate_subspaces(blocks(SIZES, D), **split(z, Y))
    for q in SIZES:
        assert table.own[q].value > 0.999
        assert abs(table.free[q].value) < 0.05
        assert not table.automatic[q]
        assert table.own[q].low <= table.own[q].value <= table.own[q].high
    assert table.floor["a", "b"].value == pytest.approx(0.5, abs=0.1)
    assert abs(table.excess["a", "b"].value) < 1e-3  # the block of b tells of a what b itself tells
    assert table.overlap == {("a", "b"): 0.0}
    assert (table.rank, table.latent_dim, table.n_train, table.n_test) == (3, 6, 400, 300)


def test_a_leak_is_an_excess_whose_interval_leaves_zero_out() -> None:
    z, Y = known()
    z = z.clone()
    z[:, 1] += 2 * z[:, 0]  # the block of b now tells of a
    table = ps.evaluate_subspaces(blocks(SIZES, D), **split(z, Y))
    assert table.excess["a", "b"].low > 0.1
    assert table.largest_excess == table.excess["a", "b"].value


def test_a_partition_and_a_space_are_read_as_their_bases() -> None:
    z, Y = known()
    basis = rotation(D, 3)
    partition = ps.PartitionLoss(D, SIZES, basis=basis)
    rows = split(z @ basis, Y)
    first = ps.evaluate_subspaces(partition, **rows, bootstraps=0)
    second = ps.evaluate_subspaces(partition.bases, **rows, bootstraps=0)
    assert first.to_dict() == second.to_dict()
    assert math.isnan(first.own["a"].low)
    space = ps.solve_subspaces(rows["Z_train"], rows["Y_train"], k=SIZES)
    assert ps.evaluate_subspaces(space, **rows).own["b"].value > 0.999


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_untrained_encoder_with_its_encoding_taken_out_is_called_automatic(dtype) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(900, 30, generator=g).to(dtype)
    encoder = nn.Sequential(nn.Linear(30, 40), nn.GELU(), nn.Linear(40, 12)).to(dtype)
    with torch.no_grad():
        z = encoder(x)
    rows = split(z, {"a": x[:, 0] * x[:, 1].abs() + x[:, 2], "b": x[:, 3:5]})
    W = ps.subspaces(rows["Z_train"], rows["Y_train"], {"a": 1, "b": 2}, kind="encoding")
    table = ps.evaluate_subspaces(W, **rows)
    assert all(table.automatic.values())
    assert all(abs(table.complement[q].value) <= 0.02 for q in W)
    assert "automatic" in str(table)
    solved = ps.evaluate_subspaces(ps.subspaces(rows["Z_train"], rows["Y_train"], {"a": 1, "b": 2}), **rows)
    assert not any(solved.automatic.values())


def test_what_cannot_be_measured_is_not_a_number_and_noted() -> None:
    z, Y = known()
    Y["a"] = torch.full_like(Y["a"], 3.0)
    table = ps.evaluate_subspaces(blocks({"a": 2, "b": 4}, D), **split(z, Y))
    assert math.isnan(table.own["a"].value)
    assert math.isnan(table.free["b"].value)
    assert any("a from own: no column that varies" in note for note in table.notes)
    assert any("b from free: no dimension to read from" in note for note in table.notes)
    assert json.loads(json.dumps(table.to_dict()))["quantities"]["a"]["own"] == [None, None, None]


def test_missing_values_leave_their_rows_out() -> None:
    z, Y = known()
    expected = ps.evaluate_subspaces(blocks(SIZES, D), **split(z, Y), bootstraps=0)
    z = torch.cat([normal(50, D, seed=9), z])
    Y = {q: torch.cat([torch.full((50, *y.shape[1:]), torch.nan), y]) for q, y in Y.items()}
    rows = split(z, Y)
    rows["Z_train"] = z[: TRAIN + 50]
    rows["Y_train"] = {q: y[: TRAIN + 50] for q, y in Y.items()}
    rows["Z_test"], rows["Y_test"] = z[TRAIN + 50 :], {q: y[TRAIN + 50 :] for q, y in Y.items()}
    found = ps.evaluate_subspaces(blocks(SIZES, D), **rows, bootstraps=0)
    assert found.own["b"].value == pytest.approx(expected.own["b"].value, abs=1e-12)
    assert found.excess["a", "b"].value == pytest.approx(expected.excess["a", "b"].value, abs=1e-12)


def test_its_forms_hold_the_same_numbers() -> None:
    z, Y = known()
    table = ps.evaluate_subspaces(blocks(SIZES, D), **split(z, Y))
    frame = table.to_frame()
    row = frame[(frame.quantity == "a") & (frame.source == "b") & (frame.kind == "floor")].iloc[0]
    assert [row.value, row.low, row.high] == table.to_dict()["quantities"]["a"]["floor"]["b"]
    assert len(frame) == 4 * 2 + 3 * 2
    text = str(table)
    assert f"{table.own['b'].value:.3f}" in text
    assert "a <- b" in text
    assert "D = 6: a 1, b 2, free 3" in text


def test_intervals_shrink_with_test_rows_and_repeat() -> None:
    z, Y = known(4000)
    Y["a"] = Y["a"] + normal(4000, seed=3)
    W, rows = blocks(SIZES, D), split(z, Y)
    wide = ps.evaluate_subspaces(
        W, **(rows | {"Z_test": z[400:500], "Y_test": {q: y[400:500] for q, y in Y.items()}})
    )
    narrow = ps.evaluate_subspaces(W, **rows)
    ratio = (wide.own["a"].high - wide.own["a"].low) / (narrow.own["a"].high - narrow.own["a"].low)
    assert 3 < ratio < 12  # √36 = 6
    assert ps.evaluate_subspaces(W, **rows).to_dict() == narrow.to_dict()


def test_resamples_without_a_rare_category_say_nothing_of_it() -> None:
    """A column with one held-out member is constant in a third of the resamples."""
    for seed in range(5):
        z = normal(240, 4, seed=seed)
        rare = ((torch.arange(240) % 40) == 0).double()
        both = torch.stack([rare, z[:, 2]], dim=1)
        Y = {"mass": z[:, 0], "rare": rare, "both": both}
        W = {"mass": torch.eye(4)[:1], "rare": torch.eye(4)[1:2], "both": torch.eye(4)[2:3]}
        table = ps.evaluate_subspaces(
            {q: w.double() for q, w in W.items()},
            Z_train=z[:200],
            Y_train={q: y[:200] for q, y in Y.items()},
            Z_test=z[200:],
            Y_test={q: y[200:] for q, y in Y.items()},
        )
        for q in Y:
            assert -1 <= table.own[q].low <= table.own[q].high <= 1
            assert table.own[q].low <= table.own[q].value <= table.own[q].high
        assert table.own["rare"].low > -1


def test_large_offsets_are_measured_in_the_precision_in_which_they_came() -> None:
    z = normal(300, 2)
    found = probe(z[:200], z[:200, :1] + 1e7, z[200:], z[200:, :1] + 1e7, torch.logspace(-3, 4, 8).double())
    assert float(found.r2()) > 0.99
