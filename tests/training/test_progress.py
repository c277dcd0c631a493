"""The progress bar shows losses, rate and time where somebody looks, and nothing elsewhere."""

import io

import pytest
from rich.console import Console

from pullback.training import Objective, TrainingOptions, fit
from pullback.training.progress import ProgressBar, wants_bar
from training.scenarios import rows, vae


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_shown_as_asked_or_on_a_terminal(terminal):
    assert wants_bar(None, console(terminal)) is terminal
    assert wants_bar(True, console(terminal)) is True
    assert wants_bar(False, console(terminal)) is False


def test_the_bar_shows_losses_rate_and_epochs():
    screen = console(True)
    with ProgressBar(10, 5, epoch=2, console=screen) as bar:
        for _ in range(3):
            assert bar.due() in (True, False)
        bar.draw(4, 2, {"loss": 1.25, "kl": 0.5})
    text = screen.file.getvalue()
    for part in ("epoch", "4/10", "loss 1.25", "kl 0.5", "steps/s"):
        assert part in text


def test_a_hidden_bar_does_nothing():
    screen = console(True)
    with ProgressBar(10, None, shown=False, console=screen) as bar:
        assert bar.due() is False
        bar.draw(1, 0, {"loss": 1.0})
    assert screen.file.getvalue() == ""


@pytest.mark.parametrize(("progress", "silent"), [(False, True), (None, True), (True, False)])
def test_training_is_silent_without_a_terminal(progress, silent, capfd):
    options = TrainingOptions(max_epochs=2, batch_size=16, progress=progress)
    fit(Objective(vae()), rows(40), options, generator_seed=0)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert (captured.err == "") is silent
