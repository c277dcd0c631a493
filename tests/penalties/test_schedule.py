"""Ramps and strengths."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pullback.penalties import OrthogonalityPenalty, ScalarWeightSchedule
from pullback.penalties.strength import strength, strengths


def test_closed_forms() -> None:
    geometric = ScalarWeightSchedule(2.0, 0.5, "geometric", rate=0.5)
    assert [geometric(k) for k in range(4)] == [2.0, 1.25, 0.875, 0.6875]
    linear = ScalarWeightSchedule(0.0, 1.0, "linear", steps=4)
    assert [linear(k) for k in (0, 1, 4, 9)] == [0.0, 0.25, 1.0, 1.0]
    reciprocal = ScalarWeightSchedule(0.0, 1.0, "reciprocal_iter")
    assert [reciprocal(k) for k in (0, 1, 3)] == [0.0, 0.5, 0.75]
    assert "reciprocal_iter" in repr(reciprocal)


def test_stepping_counts() -> None:
    ramp = ScalarWeightSchedule(0.0, 1.0, "linear", steps=4, iter_count=1)
    assert [ramp.step(), ramp.step(), ramp.iter_count, ramp(0)] == [0.25, 0.5, 3, 0.0]


@given(
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.sampled_from(["geometric", "linear", "reciprocal_iter"]),
    st.integers(0, 10**6 - 1),
)
def test_weights_stay_between_their_ends(start: float, end: float, kind: str, it: int) -> None:
    ramp = ScalarWeightSchedule(start, end, kind, rate=0.9, steps=100)
    assert min(start, end) <= ramp(it) <= max(start, end)


def test_any_function_is_a_schedule() -> None:
    penalty = OrthogonalityPenalty(schedule=lambda step: 1.0 / (1 + step))
    assert penalty.weight == 1.0
    penalty.apply_schedule(3)
    assert penalty.weight == 0.25


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ScalarWeightSchedule(-1.0, 1.0, "reciprocal_iter"), "w_start"),
        (lambda: ScalarWeightSchedule(0.0, math.inf, "reciprocal_iter"), "w_end"),
        (lambda: ScalarWeightSchedule(0.0, 1.0, "cosine"), "kind: expected one of 'geometric'"),
        (lambda: ScalarWeightSchedule(0.0, 1.0, "geometric"), "rate"),
        (lambda: ScalarWeightSchedule(0.0, 1.0, "geometric", rate=1.0), "rate"),
        (lambda: ScalarWeightSchedule(0.0, 1.0, "linear", steps=0), "steps"),
        (lambda: ScalarWeightSchedule(0.0, 1.0, "reciprocal_iter")(-1), "it: expected"),
        (lambda: ScalarWeightSchedule(0.0, 1.0, "reciprocal_iter")(10**6), "it: expected"),
        (lambda: ScalarWeightSchedule(0.0, 1.0, "reciprocal_iter", iter_count=-2), "it: expected"),
        (lambda: ScalarWeightSchedule(0.0, 1.0, "reciprocal_iter")(1.5), "it: expected a whole number"),
        (lambda: OrthogonalityPenalty(schedule=lambda step: "much"), "weight: expected a number"),
        (
            lambda: OrthogonalityPenalty(schedule=lambda step: math.nan if step else 1.0).apply_schedule(2),
            "weight: expected a finite number, got nan at step 2",
        ),
        (lambda: OrthogonalityPenalty(schedule=3), "weight: expected a function"),
    ],
)
def test_bad_input_is_named(as_users_run: None, build, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        build()


def test_strength_is_the_weight_times_the_exponential() -> None:
    assert strength(-2.0, 0.0, torch.float64) == -2.0
    assert strength(-2.0, 1.0, torch.float64) == pytest.approx(-2 * math.e)
    assert strength(0.0, 800.0, torch.float64) == 0.0
    rho = torch.tensor([0.5], dtype=torch.float32, requires_grad=True)
    found = strength(3.0, rho, torch.float32)
    assert found.dtype == torch.float64
    (slope,) = torch.autograd.grad(found, rho)
    assert slope.item() == pytest.approx(3 * math.exp(0.5))
    several = strengths(
        torch.tensor([1.0, 0.0, -2.0]).double(), torch.tensor([0.1, 999.0, 0.3]), torch.zeros(1)
    )
    assert several.dtype == torch.float32
    assert several.tolist() == pytest.approx([math.exp(0.1), 0.0, -2 * math.exp(0.3)])


def test_a_strength_in_range_is_exact_where_its_factors_are_not() -> None:
    rho = torch.tensor([710.0, 999.0], dtype=torch.float64, requires_grad=True)
    found = strengths(torch.tensor([1e-20, 0.0]).double(), rho, torch.zeros(1).double())
    expected = math.exp(710 + math.log(1e-20))
    assert found.tolist() == pytest.approx([expected, 0.0], rel=1e-6)
    (slope,) = torch.autograd.grad(found.sum(), rho)
    assert slope.tolist() == pytest.approx([expected, 0.0], rel=1e-6)


@pytest.mark.parametrize(
    ("rho", "dtype"), [(701.0, torch.float64), (86.0, torch.float32), (math.nan, torch.float64)]
)
def test_strengths_out_of_range_are_refused(rho: float, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"rho: expected \|ln"):
        strength(1.0, rho, dtype)
    with pytest.raises(ValueError, match=r"rho: expected \|ln"):
        strengths(torch.ones(2).double(), rho, torch.zeros(1, dtype=dtype))
