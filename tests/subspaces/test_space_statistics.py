"""Statistics add up to what one pass gives, in any order, with weights, gaps and shards."""

import socket

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing

from pullback.subspaces import (
    SufficientStatistics,
    encoding_subspace,
    fold_statistics,
    moments,
    readout_subspace,
    scatter,
)
from space_cases import normal, off

NAN = float("nan")


def rough(n: int = 1000) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Columns of scale 1 to 1e3 on an offset of 1e4."""
    x = normal(n, 12) @ normal(12, 12, seed=1) * torch.logspace(0, 3, 12, dtype=torch.float64) + 1e4
    return x[:, :6], {"a": x[:, 6:10], "b": x[:, 10:]}


def gap(found: SufficientStatistics, whole: SufficientStatistics) -> float:
    """Largest difference of mean and scatter relative to √(S_ii S_jj)."""
    size = whole.scatter.diagonal().sqrt()
    means = ((found.mean - whole.mean).abs() / size).max()
    return float(
        torch.maximum(((found.scatter - whole.scatter).abs() / torch.outer(size, size)).max(), means)
    )


@pytest.mark.parametrize("seed", range(8))
def test_any_split_in_any_order_is_the_whole(seed: int) -> None:
    order = torch.randperm(28, generator=torch.Generator().manual_seed(seed)).tolist()
    Z, Y = rough()
    whole = SufficientStatistics.from_tensors(Z, Y)
    rows = torch.arange(1000).split(37)
    parts = [
        SufficientStatistics.from_tensors(Z[rows[i]], {q: y[rows[i]] for q, y in Y.items()}) for i in order
    ]
    found = SufficientStatistics.merge_all(parts)
    assert found.n == 1000
    assert gap(found, whole) <= 1e-12


def test_the_whole_is_the_textbook_sum() -> None:
    Z, Y = rough()
    x = torch.cat([Z, *Y.values()], dim=1)
    found = SufficientStatistics.from_tensors(Z, Y)
    centred = x - x.mean(0)
    size = centred.square().sum(0).sqrt()
    assert ((found.scatter - centred.mT @ centred).abs() / torch.outer(size, size)).max() <= 1e-12
    torch.testing.assert_close(found.covariance, centred.mT @ centred / 1000)
    torch.testing.assert_close(found.block("z", "b"), found.scatter[:6, 10:])
    torch.testing.assert_close(found.mean_of("a"), x.mean(0)[6:10])


def test_scatters_are_symmetric_wherever_their_blocks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    Z, Y = rough(200)
    whole = SufficientStatistics.from_tensors(Z, Y)
    alone = moments.row_moments(Z, Y)
    monkeypatch.setattr(scatter, "BLOCK", 5)
    monkeypatch.setattr(scatter, "CHUNK", 70)
    found = SufficientStatistics.from_tensors(Z, Y)
    assert gap(found, whole) <= 1e-12
    size = whole.scatter.diagonal()[:6].sqrt()
    again = moments.row_moments(Z, Y)
    for q in Y:
        for one in (alone[q], again[q]):
            assert ((one.zz - whole.block("z", "z")).abs() / torch.outer(size, size)).max() <= 1e-12
            torch.testing.assert_close(one.zy, whole.block("z", q), rtol=1e-10, atol=0)
            torch.testing.assert_close(one.yy, whole.block(q, q).diagonal(), rtol=1e-12, atol=0)


def test_order_of_names_and_updates() -> None:
    Z, Y = rough(100)
    turned = dict(reversed(Y.items()))
    first = SufficientStatistics.from_tensors(Z[:50], {q: y[:50] for q, y in Y.items()})
    found = first.update(Z[50:], {q: y[50:] for q, y in turned.items()})
    whole = SufficientStatistics.from_tensors(Z, Y)
    assert found.names == whole.names
    assert gap(found, whole) <= 1e-12


def test_empty_is_the_identity_and_solvers_refuse_it() -> None:
    Z, Y = rough(50)
    whole, empty = SufficientStatistics.from_tensors(Z, Y), SufficientStatistics.empty()
    for found in (whole.merge(empty), empty.merge(whole), SufficientStatistics.merge_all([empty, whole])):
        assert torch.equal(found.scatter, whole.scatter)
    with pytest.raises(ValueError, match="no rows"):
        encoding_subspace(empty)


def test_weights_of_whole_numbers_repeat_rows() -> None:
    Z, Y = rough(60)
    weights = torch.arange(60) % 3
    again = torch.arange(60).repeat_interleave(weights)
    found = SufficientStatistics.from_tensors(Z, Y, weights=weights.double())
    repeated = SufficientStatistics.from_tensors(Z[again], {q: y[again] for q, y in Y.items()})
    assert gap(found, repeated) <= 1e-12
    assert found.n == 60
    assert found.n_effective.item() == pytest.approx(60**2 / (20 + 80))


def test_missing_rows_leave_their_own_quantity_alone() -> None:
    Z, Y = rough(80)
    Y["a"][3, 1] = NAN
    Y["b"][5] = float("inf")
    with pytest.raises(ValueError, match=r"Y\['a'\].* 1 rows.*missing='drop'"):
        SufficientStatistics.from_tensors(Z, Y)
    halves = [
        SufficientStatistics.from_tensors(Z[i::2], {q: y[i::2] for q, y in Y.items()}, missing="drop")
        for i in (0, 1)
    ]
    found = halves[0].merge(halves[1])
    kept = torch.arange(80) != 3
    alone = SufficientStatistics.from_tensors(Z[kept], {"a": Y["a"][kept]})
    assert gap(found.parts["a"], alone) <= 1e-12
    assert found.n == 80
    assert found.block("z", "a").shape == (6, 4)
    with pytest.raises(ValueError, match="missing='raise'"):
        found.block("a", "b")
    spans = [readout_subspace(s, None, 1)["a"].W for s in (found, alone)]
    assert off(*spans) <= 1e-9


@pytest.mark.parametrize("missing", ["raise", "drop"])
def test_state_goes_through_tensors(missing: str) -> None:
    Z, Y = rough(40)
    whole = SufficientStatistics.from_tensors(Z.float(), Y, missing=missing)
    again = SufficientStatistics.from_state_dict(dict(sorted(whole.state_dict().items())))
    assert (again.names, again.sizes, again.dtype) == (whole.names, whole.sizes, torch.float32)
    assert torch.equal(again.scatter, whole.scatter)
    assert torch.equal(again.block("z", "b"), whole.block("z", "b"))


def test_folds_make_up_the_whole() -> None:
    Z, Y = rough(53)
    folds = fold_statistics(Z, Y, folds=4, generator=torch.Generator().manual_seed(3))
    assert [int(fold.n) for fold in folds] == [14, 13, 13, 13]
    assert gap(SufficientStatistics.merge_all(folds), SufficientStatistics.from_tensors(Z, Y)) <= 1e-12


def test_float_kinds_may_mix_and_nothing_carries_gradients() -> None:
    Z = normal(30, 4).float().requires_grad_()
    found = SufficientStatistics.from_tensors(Z, {"a": normal(30, 2).bfloat16(), "b": normal(30)})
    assert found.scatter.dtype == torch.float64
    assert not found.scatter.requires_grad
    assert found.dtype == torch.float32


def rank_rows(rank: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    Z, Y = rough(90)
    rows = slice(rank * 40, 40 + rank * 50)
    return Z[rows], {q: y[rows] for q, y in Y.items()}


def gather(rank: int, port: int, results) -> None:
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    Z, Y = rank_rows(rank)
    Y = Y if rank == 0 else dict(reversed(Y.items()))
    found = SufficientStatistics.from_tensors(Z, Y).all_gather_merge()
    results[rank] = found._in_order(("a", "b")).scatter.numpy()
    distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_hold_the_same_bits() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(gather, (port, results), nprocs=2)
        first, second = (torch.as_tensor(results[rank]) for rank in (0, 1))
    assert torch.equal(first, second)
    whole = SufficientStatistics.from_tensors(*rough(90))
    size = whole.scatter.diagonal().sqrt()
    assert ((first - whole.scatter).abs() / torch.outer(size, size)).max() <= 1e-12


def test_alone_there_is_nothing_to_gather() -> None:
    whole = SufficientStatistics.from_tensors(*rough(20))
    assert whole.all_gather_merge() is whole
