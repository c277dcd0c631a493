"""The isometry penalty from sums that merge."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from penalties.checks import draw, relative
from penalties.decoders import decoder, reference
from pullback.jets import Jet
from pullback.penalties import (
    DegenerateMetricError,
    IsometryPenalty,
    IsometryStatistics,
    ReferenceScaleWarning,
)


def metrics(n: int, d: int, seed: int = 0) -> Tensor:
    root = draw(n, d, d, seed=seed)
    return root @ root.mT


@pytest.mark.parametrize("with_reference", [False, True], ids=["identity", "reference"])
def test_a_hundred_chunks_equal_the_whole(with_reference: bool) -> None:
    n, d = 1000, 3
    net, z = decoder(d), draw(n, d)
    rows = reference(n, d) if with_reference else None
    whole = IsometryPenalty(1.4, decoder=net, reference=rows)
    total = None
    for k, part in enumerate(z.split(10)):
        wanted = None if rows is None else rows[10 * k : 10 * k + 10]
        one = IsometryStatistics.of(whole.pullback_metric(part), wanted)
        total = one if total is None else total.merge(one)
    assert relative(whole.value_of(total), whole.value(z)) <= 1e-12
    assert relative(whole.value_of(whole.statistics(z)), whole.value(z)) <= 1e-12
    assert total.rows == n
    mean = IsometryPenalty(1.4, decoder=net, reference=rows, reduction="mean")
    assert relative(mean.value_of(total), mean.value(z)) <= 1e-12


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_any_split_merges_to_the_same(sizes: list[int], seed: int) -> None:
    g = metrics(sum(sizes) + 1, 2, seed)
    parts = [IsometryStatistics.of(part) for part in g.split([*sizes, 1])]
    packed = IsometryStatistics.unpack(torch.stack([part.pack() for part in parts]))
    whole = IsometryStatistics.of(g)
    assert relative(packed.half_square(), whole.half_square()) <= 1e-12
    assert torch.allclose(packed.pack(), whole.pack(), rtol=1e-12)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 3), st.booleans(), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_two_ranks_equal_one(n: int, m: int, d: int, with_reference: bool, seed: int) -> None:
    """Each rank sends its packed sums; its surrogate, times their number, averages to the full gradient."""
    J, (first, second) = draw(n + m, 4, d, seed=seed), ((0, n), (n, n + m))
    wanted = reference(n + m, d) if with_reference else None
    J.requires_grad_()
    whole = IsometryPenalty(0.9, reference=wanted)
    (expected,) = torch.autograd.grad(whole.value(Jet(None, J)), J)
    ranks = []
    for low, high in (first, second):
        own = None if wanted is None else wanted[low:high] + 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReferenceScaleWarning)  # a share of the rows has its own trace
            ranks.append((IsometryPenalty(0.9, reference=own), Jet(None, J[low:high])))
    sums = [penalty.statistics(target).pack() for penalty, target in ranks]
    total = IsometryStatistics.unpack(torch.stack(sums))
    assert relative(whole.value_of(total), whole.value(Jet(None, J))) <= 1e-12
    loss = torch.stack([2 * penalty.surrogate(target, total) for penalty, target in ranks]).mean()
    (slope,) = torch.autograd.grad(loss, J)
    assert float((slope - expected).abs().max()) <= 1e-12 * max(1.0, float(expected.abs().max()))


def test_near_isometries_keep_their_digits_in_single_precision() -> None:
    n, d = 100_000, 2
    for deviation in (1e-2, 1e-3):
        g = torch.eye(d, dtype=torch.float64) + deviation * metrics(n, d)
        single = (7.3 * g).float()
        exact = single.double()
        mean = exact.diagonal(dim1=1, dim2=2).mean()
        expected = (exact / mean - torch.eye(d)).square().sum() / 2
        merged = IsometryStatistics.unpack(
            torch.stack([IsometryStatistics.of(part).pack() for part in single.split(1000)])
        )
        assert relative(merged.half_square(), expected) <= 1e-5


@pytest.mark.parametrize("with_reference", [False, True], ids=["identity", "reference"])
def test_two_passes_over_batches_give_the_full_gradient(with_reference: bool) -> None:
    n, d = 12, 2
    net, z = decoder(d), draw(n, d)
    wanted = reference(1, d)[0] if with_reference else None
    penalty = IsometryPenalty(0.9, decoder=net, reference=wanted)
    parameters = [parameter for parameter in net.parameters() if parameter is not net[-1].bias]
    expected = torch.autograd.grad(penalty.value(z), parameters)
    total = None
    for part in z.split(5):
        one = penalty.statistics(part)
        total = one if total is None else total.merge(one)
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for part in z.split(5):
        for s, slope in zip(
            sums, torch.autograd.grad(penalty.surrogate(part, total), parameters), strict=True
        ):
            s += slope
    for found, whole in zip(sums, expected, strict=True):
        assert relative(found, whole) <= 1e-12


def test_statistics_of_nothing() -> None:
    empty = IsometryStatistics.of(torch.zeros(0, 2, 2, dtype=torch.float64))
    some = IsometryStatistics.of(metrics(4, 2))
    assert torch.allclose(empty.merge(some).pack(), some.pack())
    assert torch.allclose(some.merge(empty).pack(), some.pack())
    with pytest.raises(DegenerateMetricError):
        empty.half_square()
