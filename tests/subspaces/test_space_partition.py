"""Fixed blocks: the grouped loss against single read-outs, gradients, gaps, state, reading and steering."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from pullback import subspaces as ps
from pullback.subspaces import partition_scores
from pullback.subspaces.leaks import implied_residual
from space_cases import blocks, normal, rotation

NAN = float("nan")
SIZES = {"a": 1, "b": 2, "c": 4}
D, B = 10, 96


def quantities(n: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
    """Correlated quantities of several units and widths."""
    s = normal(n, 8, seed=seed)
    a = s[:, :1] * 1e3 + 5e3
    b = s[:, :2] @ rotation(2, 3) + 0.5 * s[:, 2:4]
    c = 1e-3 * (s[:, 2:6] @ normal(4, 9, seed=5) + 0.3 * normal(n, 9, seed=6))
    return {"a": a.to(dtype), "b": b.to(dtype), "c": c.to(dtype)}


def fitted(dtype: torch.dtype = torch.float64, **options) -> tuple[ps.PartitionLoss, dict[str, Tensor]]:
    partition = ps.PartitionLoss(D, SIZES, **options)
    partition.fit_targets(quantities(500, dtype))
    return partition, quantities(B, dtype, seed=1)


def codes(dtype: torch.dtype = torch.float64) -> Tensor:
    """Codes that tell something of all quantities in all blocks."""
    Y = quantities(B, torch.float64, seed=1)
    told = torch.cat([(y - y.mean(0)) / y.std(0) for y in Y.values()], dim=1)
    return (told @ normal(12, D, seed=2) * 0.3 + normal(B, D, seed=4)).to(dtype)


def standardised(Y: dict[str, Tensor]) -> dict[str, Tensor]:
    known = quantities(500, Y["a"].dtype)
    return {q: (y - known[q].mean(0)) / known[q].std(0, correction=0) for q, y in Y.items()}


def one_by_one(z: Tensor, Y: dict[str, Tensor], W: dict[str, Tensor], kept: dict[str, Tensor]) -> Tensor:
    """Q² + Q read-outs, each by itself."""
    known = standardised(quantities(500, z.dtype))
    statistics = ps.SufficientStatistics.from_tensors(known["a"], known)
    y = standardised(Y)
    rest = torch.eye(D, dtype=z.dtype) - sum(w.mT @ w for w in W.values())
    N = torch.linalg.svd(rest).U[:, : D - sum(SIZES.values())]

    def score(S: Tensor, target: Tensor, rows: Tensor) -> Tensor:
        return ps.loo_r2(S[rows], target[rows])

    fit = [1 - score(z @ W[q].mT, y[q], kept[q]) for q in W]
    free = [score(z @ N, y[q], kept[q]).clamp_min(0) for q in W]
    leak = []
    for q, r in permutations(W, 2):
        residual = implied_residual(y[q], y[r], statistics, q, r)
        assert residual is not None
        leak.append(score(z @ W[r].mT, residual, kept[q] & kept[r]).clamp_min(0))
    return sum(torch.stack(part).mean() for part in (fit, leak, free))  # type: ignore[return-value]


@pytest.mark.parametrize("side_by_side", [True, False])
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grouped_solves_equal_single_ones(monkeypatch, dtype, turned, side_by_side) -> None:
    monkeypatch.setattr(partition_scores, "PADDED", 10**6 if side_by_side else 0)
    basis = rotation(D, 9).to(dtype) if turned else None
    partition, Y = fitted(dtype, basis=basis)
    W = partition.bases if turned else blocks(SIZES, D, dtype)
    full = dict.fromkeys(Y, torch.ones(B, dtype=torch.bool))
    z = codes(dtype).requires_grad_()
    ours, theirs = partition(z, Y).total, one_by_one(z, Y, W, full)
    close = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-10}
    torch.testing.assert_close(ours, theirs, **close)
    ours, theirs = (torch.autograd.grad(total, z, retain_graph=True)[0] for total in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=1e-3 if dtype == torch.float32 else 1e-7, atol=1e-7)


def test_rows_with_gaps_leave_the_terms_of_their_quantity_alone() -> None:
    partition, Y = fitted()
    full = {q: torch.isfinite(y).all(1) for q, y in Y.items()}
    Y["a"][:20] = NAN
    Y["c"][10:40, 3] = NAN
    kept = {q: torch.isfinite(y).all(1) for q, y in Y.items()}
    assert all(full[q].sum() > kept[q].sum() for q in "ac")
    z = codes().requires_grad_()
    total = partition(z, Y).total
    torch.testing.assert_close(total, one_by_one(z, Y, blocks(SIZES, D), kept), rtol=1e-9, atol=1e-10)
    assert bool(torch.isfinite(torch.autograd.grad(total, z)[0]).all())


def test_a_quantity_with_hardly_a_row_says_nothing() -> None:
    partition, Y = fitted()
    Y["c"][3:] = NAN
    terms = partition(codes(), Y)
    assert terms.fit["c"] == 1
    assert terms.free["c"] == 0
    assert terms.leak["c", "a"] == terms.leak["a", "c"] == 0


def test_gaps_in_training_rows_are_left_out_pair_by_pair() -> None:
    Y = quantities(500)
    partition = ps.PartitionLoss(D, SIZES)
    partition.fit_targets({q: torch.cat([y, torch.full_like(y[:9], NAN)]) for q, y in Y.items()})
    whole = ps.PartitionLoss(D, SIZES)
    whole.fit_targets(Y)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(partition.state_dict()[name], value, rtol=1e-9, atol=1e-9)


def test_gradient() -> None:
    partition, Y = fitted(weights={"isotropy": 0.3})
    few = {q: y[:12] for q, y in Y.items()}
    z = codes()[:12].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: partition(z, few).total, z)


def test_names_may_come_in_any_order() -> None:
    partition, Y = fitted()
    first = partition(codes(), Y).total
    partition.fit_targets(dict(reversed(quantities(500).items())))
    assert partition(codes(), dict(reversed(Y.items()))).total == first


def test_targets_from_statistics_are_those_from_rows() -> None:
    partition, Y = fitted()
    known = quantities(500)
    other = ps.PartitionLoss(D, SIZES)
    other.fit_targets(ps.SufficientStatistics.from_tensors(normal(500, D), known))
    torch.testing.assert_close(other(codes(), Y).total, partition(codes(), Y).total)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scales_drop_out(scale: float) -> None:
    partition, Y = fitted()
    first = partition(codes(), Y).total
    partition.fit_targets({q: scale * y for q, y in quantities(500).items()})
    second = partition(codes() / scale, {q: scale * y for q, y in Y.items()}).total
    torch.testing.assert_close(second, first, rtol=1e-8, atol=1e-8)


def test_weights_and_their_terms() -> None:
    partition, Y = fitted(weights={"fit": lambda step: step, "leak": 0.5, "free": 0, "isotropy": 2})
    terms = partition(codes(), Y, step=3)
    leaks = [value for value in terms.leak.values() if value is not None]
    assert terms.isotropy is not None
    total = 3 * torch.stack([*terms.fit.values()]).mean() + 0.5 * torch.stack(leaks).mean()
    torch.testing.assert_close(terms.total, total + 2 * terms.isotropy)
    free = codes()[:, 7:]
    axes = {"rest": torch.eye(D, dtype=free.dtype)[:7]}
    torch.testing.assert_close(terms.isotropy, ps.isotropy_loss(codes(), axes))


def test_what_is_implied_cannot_leak() -> None:
    Y = {"a": normal(200, 1), "b": torch.cat([normal(200, 1), normal(200, 1, seed=1)], dim=1)}
    partition = ps.PartitionLoss(4, {"a": 1, "b": 2})
    partition.fit_targets(Y)
    leak = partition(normal(200, 4, seed=2), Y).leak
    assert leak["a", "b"] is None  # b holds a
    assert leak["b", "a"] is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_collapsed_blocks_have_finite_gradients(dtype) -> None:
    partition, Y = fitted(dtype)
    z = codes(dtype)
    z[:, :3] = 0
    z.requires_grad_()
    (gradient,) = torch.autograd.grad(partition(z, Y).total, z)
    assert bool(torch.isfinite(gradient).all())


def test_six_rows_for_four_coordinates_stay_finite() -> None:
    partition, Y = fitted()
    few = {q: y[:6] for q, y in Y.items()}
    total = partition(codes()[:6], few).total
    assert bool(torch.isfinite(total))
    assert total < 400


def test_no_free_dimensions() -> None:
    partition = ps.PartitionLoss(7, SIZES)
    partition.fit_targets(quantities(500))
    terms = partition(codes()[:, :7], quantities(B, seed=1))
    assert all(value == 0 for value in terms.free.values())
    assert partition.free(codes()[:, :7]).shape == (B, 0)


def test_constant_columns_are_left_out() -> None:
    partition, Y = fitted()
    wider = {q: torch.cat([y, torch.full_like(y[:, :1], 7.0)], dim=1) for q, y in quantities(500).items()}
    partition2 = ps.PartitionLoss(D, SIZES)
    partition2.fit_targets(wider)
    Y2 = {q: torch.cat([y, torch.full_like(y[:, :1], 7.0)], dim=1) for q, y in Y.items()}
    torch.testing.assert_close(partition2(codes(), Y2).total, partition(codes(), Y).total)


def test_state_carries_everything() -> None:
    partition, Y = fitted(basis=rotation(D, 9))
    partition.fit_decoders(ps.SufficientStatistics.from_tensors(codes(), Y))
    other = ps.PartitionLoss(D, SIZES)
    other.load_state_dict(partition.state_dict())
    assert other(codes(), Y).total == partition(codes(), Y).total
    assert torch.equal(other.predict(codes())["c"], partition.predict(codes())["c"])
    assert not list(partition.parameters())


def test_blocks_are_orthogonal_and_in_order() -> None:
    partition, _ = fitted(basis=rotation(D, 9))
    stack = torch.cat(list(partition.bases.values()))
    torch.testing.assert_close(stack @ stack.mT, torch.eye(7, dtype=stack.dtype))
    z = codes()
    for q, block in partition.blocks(z).items():
        torch.testing.assert_close(block, z @ partition.bases[q].mT)
    plain, _ = fitted()
    assert torch.equal(torch.cat([*plain.blocks(z).values(), plain.free(z)], dim=1), z)


def test_prediction_is_that_of_the_decoders() -> None:
    partition, Y = fitted()
    z = codes()
    statistics = ps.SufficientStatistics.from_tensors(z, Y)
    A = partition.fit_decoders(statistics)
    W = blocks(SIZES, D)
    assert A.keys() == W.keys()
    expected = ps.fit_decoders(W, statistics)
    for q, y in partition.predict(z).items():
        torch.testing.assert_close(y, (z - z.mean(0)) @ W[q].mT @ expected[q] + Y[q].mean(0))


def test_steering_moves_one_block_and_reaches_the_value() -> None:
    partition, Y = fitted(basis=rotation(D, 9))
    z = codes()
    partition.fit_decoders(ps.SufficientStatistics.from_tensors(z, Y))
    wanted = torch.tensor([[0.3, -0.2]], dtype=z.dtype)
    moved = partition.steer(z, {"b": wanted})
    torch.testing.assert_close(partition.predict(moved)["b"], wanted.expand(B, 2))
    before, after = partition.blocks(z), partition.blocks(moved)
    for q in "ac":
        torch.testing.assert_close(after[q], before[q])
    torch.testing.assert_close(partition.free(moved), partition.free(z))
    # nine columns of rank four: the nearest values, and the step does not leave the row space of the decoder
    near = partition.steer(z, {"c": Y["c"][:1]})
    left = Y["c"][:1] - partition.predict(near)["c"]
    A = partition.decoder[3:7, 3:12]
    assert (left @ A.mT).norm() < 1e-6 * left.norm() * A.norm()


def test_it_trains_what_it_promises() -> None:
    """A linear encoder that starts mixed up ends with each quantity in its block and nowhere else."""
    s = normal(600, 6, seed=8, dtype=torch.float32)
    Y = {"a": s[:, :1], "b": s[:, 1:3]}
    x = s @ rotation(6, 1).float()
    partition = ps.PartitionLoss(6, {"a": 1, "b": 2})
    partition.fit_targets(Y)
    weight = torch.nn.Parameter(rotation(6, 2).float())
    optimizer = torch.optim.Adam([weight], lr=2e-2)
    first = partition(x @ weight, Y).total.item()
    for _ in range(300):
        optimizer.zero_grad()
        terms = partition(x @ weight, Y)
        terms.total.backward()
        optimizer.step()
    assert first > 1
    assert terms.total < 0.01
