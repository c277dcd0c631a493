"""Losses: against refits and decompositions, unbiased, without gauge, differentiable, in any precision."""

import itertools
import math

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from pullback.subspaces import (
    SufficientStatistics,
    alignment_loss,
    combined_loss,
    conditional_leak,
    conditional_leaks,
    disentanglement_loss,
    free_leak,
    isotropy_loss,
    loo_r2,
    orthogonalize,
    stability_loss,
)
from space_cases import bases, blocks, normal, off

QUICK = settings(max_examples=5, deadline=None, phases=(Phase.explicit, Phase.generate))
SIZES = {"a": 2, "b": 3, "c": 1}


def batch(seed: int = 0, dtype: torch.dtype = torch.float64, B: int = 40):
    Z = normal(B, 9, seed=seed, dtype=dtype)
    W = {q: w.to(dtype) for q, w in bases(SIZES, 9, seed).items()}
    A = {q: normal(k, 4, seed=seed + i, dtype=dtype) for i, (q, k) in enumerate(SIZES.items())}
    Y = {q: normal(B, 4, seed=seed + 5 + i, dtype=dtype) + Z[:, i : i + 4] for i, q in enumerate(SIZES)}
    return Z, W, A, Y


LOSSES = {
    "alignment": lambda Z, W, A, Y, S: alignment_loss(Z, W, A, Y),
    "alignment in units": lambda Z, W, A, Y, S: alignment_loss(Z, W, A, Y, normalize="none"),
    "alignment about all": lambda Z, W, A, Y, S: alignment_loss(Z, W, A, Y, center=S),
    "alignment solved": lambda Z, W, A, Y, S: alignment_loss(Z, W, None, Y),
    "disentanglement": lambda Z, W, A, Y, S: disentanglement_loss(Z, W),
    "conditional leak": lambda Z, W, A, Y, S: conditional_leak(Z, W, Y, statistics=S),
    "free leak": lambda Z, W, A, Y, S: free_leak(Z, W, Y),
    "isotropy": lambda Z, W, A, Y, S: isotropy_loss(Z, W),
    "plain isotropy": lambda Z, W, A, Y, S: isotropy_loss(Z, W, unbiased=False),
    "isotropy of the spectrum": lambda Z, W, A, Y, S: isotropy_loss(Z, W, n_dir=2),
    "stability": lambda Z, W, A, Y, S: stability_loss(W, bases(SIZES, 9, 99)),
    "combined": lambda Z, W, A, Y, S: combined_loss(Z, W, A, Y).total,
}


@pytest.mark.parametrize("name", LOSSES)
@QUICK
@given(seed=st.integers(0, 10**6), order=st.permutations(list(SIZES)))
def test_gauge_signs_and_order_of_names_do_not_matter(name: str, seed: int, order: list[str]) -> None:
    Z, W, A, Y = batch(seed)
    statistics = SufficientStatistics.from_tensors(Z, Y)
    plain = LOSSES[name](Z, W, A, Y, statistics)
    turns = {q: torch.linalg.qr(normal(k, k, seed=seed + 31)).Q for q, k in SIZES.items()}
    turned = LOSSES[name](
        Z,
        {q: turns[q] @ W[q] for q in order},
        {q: turns[q] @ A[q] for q in order},
        {q: Y[q] for q in order},
        statistics,
    )
    assert abs(float(turned - plain)) <= 1e-10 * max(1.0, abs(float(plain)))


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "stability"])
@pytest.mark.parametrize("codes", [1e-6, 1e6])
@pytest.mark.parametrize("units", [1e-12, 1e12])
def test_scales_do_not_matter(name: str, codes: float, units: float) -> None:
    if name == "alignment in units":
        return
    Z, W, A, Y = batch()
    statistics = SufficientStatistics.from_tensors(Z, Y)
    plain = LOSSES[name](Z, W, A, Y, statistics)
    scaled = {q: units * y for q, y in Y.items()}
    decoders = {q: units / codes * a for q, a in A.items()}
    again = SufficientStatistics.from_tensors(codes * Z, scaled)
    assert abs(float(LOSSES[name](codes * Z, W, decoders, scaled, again) - plain)) <= 1e-8


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "stability"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    Z, W, A, Y = batch(B=12)
    statistics = SufficientStatistics.from_tensors(Z, Y)
    assert gradcheck(lambda z: LOSSES[name](z, W, A, Y, statistics), Z[:12].clone().requires_grad_())


@pytest.mark.parametrize("name", ["isotropy", "free leak", "disentanglement", "stability"])
def test_gradients_in_the_bases(name: str) -> None:
    Z, W, A, Y = batch(B=14)
    raw = {q: w.clone().requires_grad_() for q, w in W.items()}

    def value(*rows: torch.Tensor) -> torch.Tensor:
        # stay on orthonormal rows, where the losses are defined
        turned = {q: torch.linalg.qr(w.mT).Q.mT for q, w in zip(SIZES, rows, strict=True)}
        return LOSSES[name](Z, turned, A, Y, None)

    assert gradcheck(value, tuple(raw.values()), atol=1e-6)


def test_precision_follows_the_codes(dtype: torch.dtype) -> None:
    Z, W, A, Y = batch(dtype=dtype)
    statistics = SufficientStatistics.from_tensors(Z, Y)
    Z.requires_grad_()
    for name, loss in LOSSES.items():
        if name == "stability":
            continue
        value = loss(Z, W, A, Y, statistics)
        assert value.dtype == dtype, name
        exact = loss(*batch()[:1], *batch()[1:], SufficientStatistics.from_tensors(*batch()[::3]))
        assert value.item() == pytest.approx(exact.item(), abs=2e-4 if dtype == torch.float32 else 1e-12), (
            name
        )
    half = combined_loss(
        Z.bfloat16(),
        {q: w.bfloat16() for q, w in blocks(SIZES, 9).items()},
        None,
        {q: y.half() for q, y in Y.items()},
    )
    assert half.total.dtype == torch.float32


@pytest.mark.parametrize("k", [1, 3])
def test_leave_one_out_is_that_of_refits(k: int) -> None:
    S, Y = normal(18, k), normal(18, 2, seed=1)
    c = S - S.mean(0)
    t = (c.mT @ c / 18).diagonal().mean()
    total = 0.0
    for i in range(18):
        kept = torch.arange(18) != i
        s, y = S[kept], Y[kept]
        s0, y0 = s.mean(0), y.mean(0)
        # ridge t B in absolute units, that of the whole batch
        gram = (s - s0).mT @ (s - s0) + 18 * 1e-2 * t * torch.eye(k, dtype=S.dtype)
        B = torch.linalg.solve(gram, (s - s0).mT @ (y - y0))
        total += float((Y[i] - y0 - (S[i] - s0) @ B).square().sum())
    expected = 1 - total / float((Y - Y.mean(0)).square().sum())
    assert loo_r2(S, Y).item() == pytest.approx(expected, abs=1e-12)


def test_leave_one_out_differentiates_twice() -> None:
    S, Y = normal(9, 2).requires_grad_(), normal(9, 2, seed=1).requires_grad_()
    assert gradcheck(loo_r2, (S, Y))
    assert gradgradcheck(loo_r2, (S, Y))


@pytest.mark.slow
@pytest.mark.parametrize(("k", "expected"), [(1, -0.023), (4, -0.047), (8, -0.085)])
def test_noise_is_neither_rewarded_nor_punished(k: int, expected: float) -> None:
    values = [loo_r2(normal(128, k, seed=s), normal(128, 4, seed=s + 999)).item() for s in range(150)]
    assert sum(values) / 150 == pytest.approx(expected, abs=0.01)


def test_leave_one_out_at_the_edges(dtype: torch.dtype) -> None:
    S, Y = normal(20, 3, dtype=dtype), normal(20, 2, seed=1, dtype=dtype)
    assert loo_r2(S, torch.ones(20, dtype=dtype)).item() == 0
    small = loo_r2(1e-15 * S, Y)
    assert small.item() == pytest.approx(loo_r2(S, Y).item(), abs=1e-4)
    dead = torch.zeros(20, 3, dtype=dtype, requires_grad=True)
    (slope,) = torch.autograd.grad(loo_r2(dead, Y), dead)
    assert torch.isfinite(slope).all()
    duplicate = torch.cat([S, S], dim=1).requires_grad_()
    (slope,) = torch.autograd.grad(loo_r2(duplicate, Y), duplicate)
    assert torch.isfinite(slope).all()


def test_alignment_is_an_unexplained_share() -> None:
    Z = normal(50, 4)
    W = blocks({"a": 1, "b": 1}, 4)
    Y = {"a": 3 * Z[:, 0] + 7, "b": 1e6 * Z[:, 1] + normal(50, seed=2) * 5e5}
    A = {"a": torch.full((1, 1), 3.0).double(), "b": torch.full((1, 1), 1e6).double()}
    b = Y["b"] - Y["b"].mean()
    left = ((Z[:, 1] - Z[:, 1].mean()) * 1e6 - b).square().sum() / b.square().sum()
    assert alignment_loss(Z, W, A, Y).item() == pytest.approx(left.item() / 2, rel=1e-12)
    one = alignment_loss(
        Z[:1], W, A, {q: y[:1] for q, y in Y.items()}, center=SufficientStatistics.from_tensors(Z, Y)
    )
    assert one.item() > 0
    with pytest.raises(ValueError, match="at least 2 rows"):
        alignment_loss(Z[:1], W, A, {q: y[:1] for q, y in Y.items()})


def canonical(Z: torch.Tensor, W: dict[str, torch.Tensor]) -> float:
    """The corrected mean squared canonical correlation, by singular values of Q factors."""
    B, found = len(Z), []
    Q = {q: torch.linalg.qr((Z - Z.mean(0)) @ w.mT).Q for q, w in W.items()}
    for a, b in itertools.combinations(W, 2):
        x = float(torch.linalg.svdvals(Q[a].mT @ Q[b]).square().sum()) / min(len(W[a]), len(W[b]))
        chance = max(len(W[a]), len(W[b])) / (B - 1)
        found.append((x - chance) / (1 - chance))
    return sum(found) / len(found)


@pytest.mark.parametrize("sizes", [{"a": 2, "b": 2, "c": 2}, SIZES], ids=["equal", "unequal"])
def test_disentanglement_is_canonical_correlation(sizes: dict[str, int]) -> None:
    Z, W = normal(40, 9), bases(sizes, 9)
    assert disentanglement_loss(Z, W).item() == pytest.approx(canonical(Z, W), abs=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("B", [32, 128])
def test_disentanglement_of_independent_blocks_is_zero(B: int) -> None:
    W = blocks({"a": 3, "b": 5}, 8)
    values = [disentanglement_loss(normal(B, 8, seed=s), W).item() for s in range(200)]
    assert abs(sum(values) / 200) <= 0.015


@pytest.mark.parametrize("scales", [(1, 1, 1), (10, 10, 10), (0.1, 0.1, 0.1), (0.1, 1, 10)], ids=str)
def test_disentanglement_sees_containment_at_any_scale(scales: tuple[float, ...]) -> None:
    values = []
    for seed in range(10):
        z = normal(64, 5, seed=seed)
        a = z[:, :3] * torch.tensor(scales)
        Z = torch.cat([a, z[:, :3] @ normal(3, 3, seed=seed + 1), z[:, 3:]], dim=1)
        W = blocks({"a": 3, "b": 5}, 8)
        value = disentanglement_loss(Z, W)
        assert disentanglement_loss(Z, dict(reversed(W.items()))).item() == pytest.approx(
            value.item(), abs=1e-12
        )
        values.append(value.item())
    assert sum(values) / len(values) >= 0.999
    same = bases({"a": 3}, 8)["a"]
    assert disentanglement_loss(normal(64, 8), {"a": same, "b": same}).item() >= 0.999


def test_dead_and_equal_coordinates_have_finite_gradients(dtype: torch.dtype) -> None:
    Z = normal(32, 6, dtype=dtype)
    Z[:, 1] = Z[:, 0]
    Z[:, 2:4] = 0
    Z.requires_grad_()
    W = blocks({"a": 2, "b": 1, "c": 2}, 6, dtype)
    for loss in (disentanglement_loss(Z, W), disentanglement_loss(Z, blocks({"a": 3, "b": 1}, 6, dtype))):
        (slope,) = torch.autograd.grad(loss, Z, retain_graph=True)
        assert torch.isfinite(loss)
        assert torch.isfinite(slope).all()


def test_one_quantity_has_nothing_to_be_mixed_with() -> None:
    Z = normal(20, 4).requires_grad_()
    loss = disentanglement_loss(Z, blocks({"a": 2}, 4))
    assert loss.item() == 0
    loss.backward()
    assert (Z.grad == 0).all()


def test_correlated_quantities_leak_nothing_that_they_do_not_imply() -> None:
    Z = normal(4000, 4)
    turned = torch.stack([Z[:, 0], 0.8 * Z[:, 0] + 0.6 * Z[:, 1]], dim=1)
    Y = {"a": turned[:, 0], "b": turned[:, 1]}
    W = {"a": torch.eye(4).double()[:1], "b": torch.tensor([[0.8, 0.6, 0.0, 0.0]]).double()}
    statistics = SufficientStatistics.from_tensors(Z, Y)
    assert disentanglement_loss(Z, W).item() == pytest.approx(0.64, abs=0.03)
    assert conditional_leak(Z, W, Y, statistics=statistics).item() <= 1e-3
    assert disentanglement_loss(Z, W, Y=Y).item() == conditional_leak(Z, W, Y, statistics=statistics).item()
    wide = {"a": torch.eye(4).double()[:2], "b": W["b"]}
    leaks = conditional_leaks(Z, wide, Y, statistics=statistics)
    assert leaks["b", "a"].item() > 0.98
    assert leaks["a", "b"].item() <= 1e-3


def test_pairs_that_imply_each_other_are_left_out() -> None:
    Z = normal(100, 3).requires_grad_()
    Y = {"a": Z[:, 0].detach(), "b": 5 * Z[:, 0].detach()}
    statistics = SufficientStatistics.from_tensors(Z, Y)
    assert set(conditional_leaks(Z, blocks({"a": 1, "b": 1}, 3), Y, statistics=statistics).values()) == {None}
    conditional_leak(Z, blocks({"a": 1, "b": 1}, 3), Y, statistics=statistics).backward()
    assert (Z.grad == 0).all()


def test_leaks_of_a_batch_use_the_regressions_of_all_data() -> None:
    Z, W, _, Y = batch(B=200)
    statistics = SufficientStatistics.from_tensors(Z, Y)
    S_rr, S_rq = statistics.block("b", "b"), statistics.block("b", "a")
    ridge = 1e-6 * S_rr.diagonal().mean() * torch.eye(4, dtype=S_rr.dtype)
    C = torch.linalg.solve(S_rr + ridge, S_rq)
    residual = Y["a"] - Y["a"].mean(0) - (Y["b"] - Y["b"].mean(0)) @ C
    rows = slice(0, 20)
    expected = loo_r2(Z[rows] @ W["b"].mT, residual[rows]).clamp_min(0)
    found = conditional_leaks(Z[rows], W, {q: y[rows] for q, y in Y.items()}, statistics=statistics)
    assert off(found["a", "b"], expected) <= 1e-9


def test_free_leak_is_read_from_the_complement() -> None:
    Z = normal(300, 5)
    W = blocks({"a": 2}, 5)
    Y = {"a": Z[:, 2:4]}
    assert free_leak(Z, W, Y).item() == pytest.approx(loo_r2(Z[:, 2:], Y["a"]).item(), abs=1e-10)
    full = free_leak(Z.requires_grad_(), blocks({"a": 5}, 5), Y)
    assert full.item() == 0
    assert not full.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize(("B", "f"), [(64, 8), (64, 32), (32, 64)])
def test_isotropy_of_white_codes_is_zero(B: int, f: int) -> None:
    W = blocks({"a": 2}, f + 2)
    values = [isotropy_loss(normal(B, f + 2, seed=s), W).item() for s in range(300)]
    assert abs(sum(values) / 300) <= 0.01


def test_isotropy_sees_collapse_and_shared_directions() -> None:
    W = blocks({"a": 2}, 66)
    Z = normal(256, 66)
    Z[:, 34:] = 0
    assert isotropy_loss(Z, W).item() == pytest.approx(1, abs=0.05)
    overlap = bases({"a": 3}, 12)["a"]
    white = normal(100, 12)
    once = isotropy_loss(white, {"a": overlap})
    assert isotropy_loss(white, {"a": overlap, "b": overlap}).item() == pytest.approx(once.item(), abs=1e-10)
    assert isotropy_loss(white, blocks({"a": 11}, 12)).item() == 0
    plain = isotropy_loss(white, {"a": overlap}, unbiased=False)
    N = torch.linalg.svd(overlap).Vh[3:].mT
    C = N.mT @ torch.cov(white.mT) @ N
    assert plain.item() == pytest.approx(float(9 * C.square().sum() / C.trace() ** 2 - 1), rel=1e-10)


@pytest.mark.slow
def test_unbiased_isotropy_meets_the_truth() -> None:
    spread = torch.linspace(0.4, 1.6, 32, dtype=torch.float64)
    truth = 32 * float((spread**4).sum()) / float((spread**2).sum()) ** 2 - 1
    W = blocks({"a": 1}, 33)
    draws = [normal(64, 33, seed=s) * torch.cat([torch.ones(1), spread]) for s in range(200)]
    assert sum(isotropy_loss(z, W).item() for z in draws) / 200 == pytest.approx(truth, abs=0.02)
    assert sum(isotropy_loss(z, W, unbiased=False).item() for z in draws) / 200 > truth + 0.3


def test_stability_has_gradients_and_no_gauge() -> None:
    W, before = bases(SIZES, 9), bases(SIZES, 9, seed=3)
    signs = {q: -w for q, w in before.items()}
    assert off(stability_loss(W, signs), stability_loss(W, before)) <= 1e-12
    assert stability_loss(W, W).item() <= 1e-20
    expected = sum(1 - float((W[q] @ before[q].mT).square().sum()) / SIZES[q] for q in SIZES) / 3
    assert stability_loss(W, before).item() == pytest.approx(expected, rel=1e-12)
    free = {q: w.clone().requires_grad_() for q, w in W.items()}
    stability_loss(free, before).backward()
    assert all(w.grad.abs().max() > 0.1 for w in free.values())
    with pytest.raises(ValueError, match="expected shape"):
        stability_loss(W, before | {"a": before["a"][:1]})


def test_combined_is_the_sum_of_its_terms() -> None:
    Z, W, A, Y = batch()
    W = orthogonalize(W)
    before = bases(SIZES, 9, seed=3)
    loss = combined_loss(Z, W, A, Y, before)
    assert off(loss.alignment, alignment_loss(Z, W, A, Y)) <= 1e-12
    assert off(loss.disentanglement, disentanglement_loss(Z, W)) <= 1e-12
    assert off(loss.isotropy, isotropy_loss(Z, W)) <= 1e-10
    assert off(loss.stability, stability_loss(W, before)) <= 1e-12
    assert off(loss.total, loss.alignment + loss.disentanglement + loss.isotropy) <= 1e-12
    free = {q: w.clone().requires_grad_() for q, w in W.items()}
    weights = {"alignment": 2.0, "disentanglement": 0.0, "isotropy": lambda step: step / 4, "stability": 3.0}
    weighted = combined_loss(Z, free, None, Y, before, weights=weights, n_dir=2, step=2)
    assert weighted.disentanglement is None
    expected = (
        2 * alignment_loss(Z, W, None, Y) + isotropy_loss(Z, W, n_dir=2) / 2 + 3 * stability_loss(W, before)
    )
    assert off(weighted.total, expected) <= 1e-10


def test_combined_without_free_dimensions() -> None:
    Z = normal(30, 4)
    W, Y = blocks({"a": 2, "b": 2}, 4), {"a": Z[:, :2], "b": Z[:, 2:]}
    loss = combined_loss(Z, W, None, Y)
    assert loss.isotropy is None
    assert math.isfinite(loss.total)
    with pytest.raises(ValueError, match="no free dimensions"):
        combined_loss(Z, W, None, Y, weights={"isotropy": 1.0})
    with pytest.raises(ValueError, match="constant term; use subspace_change"):
        combined_loss(Z, W, None, Y, W, weights={"stability": 1.0})


@pytest.mark.parametrize(
    "name", [name for name in LOSSES if name not in ("stability", "alignment about all")]
)
def test_one_row_is_refused(name: str) -> None:
    Z, W, A, Y = batch()
    statistics = SufficientStatistics.from_tensors(Z, Y)
    with pytest.raises(ValueError, match="needs at least"):
        LOSSES[name](Z[:1], W, A, {q: y[:1] for q, y in Y.items()}, statistics)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    Z, W, A, Y = batch()
    for loss in LOSSES.values():
        loss(Z, W, A, Y, SufficientStatistics.from_tensors(Z, Y))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_quantity_that_is_constant_in_the_batch_counts_one(dtype: torch.dtype) -> None:
    Z = normal(32, 4).to(dtype).requires_grad_()
    W = {"a": torch.eye(4, dtype=dtype)[:1], "b": torch.eye(4, dtype=dtype)[1:2]}
    A = {q: torch.ones(1, 1, dtype=dtype) for q in W}
    Y = {"a": torch.full((32,), 0.3, dtype=dtype), "b": Z[:, 1].detach() * 2}
    for decoders in (A, None):
        loss = alignment_loss(Z, W, decoders, Y)
        expected = 0.625 if decoders else 0.5
        assert float(loss.detach()) == pytest.approx(expected, abs=0.02)
        (gradient,) = torch.autograd.grad(loss, Z)
        assert bool(torch.isfinite(gradient).all())
        assert float(gradient[:, 0].abs().max()) == 0
