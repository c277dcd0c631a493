"""The rule of convergence does not depend on offset or unit, and says what to do."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pullback.training import TrainingOptions
from pullback.training.verdict import (
    failure_message,
    falling_rate,
    has_diverged,
    interrupt_message,
    judge_finished,
)


def decay(epochs: int, rate: float) -> list[float]:
    return [math.exp(-rate * epoch) for epoch in range(epochs)]


def test_a_settled_loss_has_converged():
    converged, message = judge_finished(decay(100, 0.2), 100)
    assert converged
    assert message == "reached max_epochs=100; the loss had settled"


def test_a_falling_loss_has_not_and_the_message_has_its_rate():
    losses = [10.0 - 0.1 * epoch for epoch in range(50)]
    converged, message = judge_finished(losses, 50)
    assert not converged
    assert (
        message
        == "reached max_epochs=50; loss still falling by 2 % of its whole fall per epoch: raise max_epochs"
    )


def test_few_epochs_are_not_judged():
    converged, message = judge_finished([3.0, 2.0, 2.0], 3)
    assert not converged
    assert "too few epochs to judge" in message


@given(st.floats(-1e3, 1e3), st.floats(1e-2, 1e3), st.floats(0.01, 1.0))
def test_offset_and_unit_do_not_matter(offset, unit, rate):
    losses = decay(40, rate)
    moved = [offset + unit * loss for loss in losses]
    assert falling_rate(moved) == pytest.approx(falling_rate(losses), abs=1e-6)


def test_a_loss_that_never_falls_has_a_rate_of_zero():
    assert falling_rate([1.0] * 20) == 0.0
    assert falling_rate([1.0, *[2.0] * 20]) == 0.0


@pytest.mark.parametrize(
    ("loss", "initial", "diverged"),
    [
        (2.0, 3.0, False),
        (math.nan, 3.0, True),
        (math.inf, 3.0, True),
        (5e3, 3.0, True),
        (900.0, -50.0, False),
    ],
)
def test_divergence(loss, initial, diverged):
    assert has_diverged(loss, initial) is diverged


def test_messages_say_what_to_try():
    text = failure_message(None, 4, 3, TrainingOptions(lr=0.1))
    assert "loss became infinite or NaN in epoch 4; the weights are those of epoch 3" in text
    assert "loss rose to 1e+09" in failure_message(1e9, 4, 3, TrainingOptions(lr=0.1))
    assert "lower lr (now 0.1), gradient_clip=1.0" in text
    assert "smaller gradient_clip" in failure_message(1e9, 1, 0, TrainingOptions(gradient_clip=1.0))
    assert interrupt_message("Ctrl-C", 5, 4).endswith("the weights are those of epoch 4")
    assert "unfinished epoch" in interrupt_message("SIGTERM", 1, 0)
