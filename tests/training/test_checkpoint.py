"""Checkpoints: a killed run ends with the bits of one that was not; one of another run is refused."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from pullback.io import FormatError, load_tensors, save_tensors
from pullback.training import LinearWarmup, Objective, TrainingOptions, fit
from pullback.training.checkpoint import FILE_NAME
from training import scenarios
from training.scenarios import killable, rows, vae


def weights(objective):
    return {name: value.clone() for name, value in objective.state_dict().items()}


def assert_same_run(first, second):
    for name, value in first[0].state_dict().items():
        assert torch.equal(value, second[0].state_dict()[name]), name
    assert first[1].history == second[1].history
    for field in ("best_epoch", "best_loss", "converged", "message", "steps"):
        assert getattr(first[1], field) == getattr(second[1], field)


def kill_after(folder, steps):
    """Start the run in a process of its own and kill it when its checkpoint has come past ``steps``."""
    process = subprocess.Popen(
        [sys.executable, scenarios.__file__, str(folder), "killable"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and process.poll() is None:
            file = folder / FILE_NAME
            if file.exists() and load_tensors(file)[1]["step"] > steps:
                break
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()[-3000:]


def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    """With dropout, warm-up, validation, and a checkpoint in the middle of an epoch."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    reference = killable(whole)
    kill_after(killed, 9)
    _, facts = load_tensors(killed / FILE_NAME)
    assert 9 < facts["step"] < reference[1].steps
    assert facts["batch"] != 0
    assert_same_run(reference, killable(killed, resume=True))


def stop_at(step):
    """A hook that raises as if the process died, after some steps."""
    left = [step]

    def hook():
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("died")

    return hook


@pytest.mark.parametrize("every", [1, 4, 5, None], ids=str)
@pytest.mark.parametrize("died_after", [3, 8, 11])
def test_any_step_is_a_good_one_to_die(tmp_path, every, died_after):
    """4 batches an epoch: checkpoints in the middle of epochs, at their last batch, and between them."""

    def run(folder, hook=None, resume=False):
        objective = Objective(vae(0.1), weights={"kl": LinearWarmup(9)}, free_bits=0.05)
        objective.model.after_step = hook
        options = TrainingOptions(
            max_epochs=5,
            batch_size=16,
            lr=0.01,
            lr_schedule="cosine",
            weight_decay=0.01,
            checkpoint_dir=folder,
            checkpoint_every=every,
            resume=resume,
            progress=False,
        )
        return objective, fit(objective, rows(61), options, validation=rows(20), generator_seed=1)

    reference = run(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="died"):
        run(tmp_path / "died", stop_at(died_after))
    assert_same_run(reference, run(tmp_path / "died", resume=True))


@pytest.mark.parametrize(("every", "died_after"), [(1, 2), (3, 10), (None, 9)])
def test_the_step_size_of_a_flow_survives(tmp_path, every, died_after):
    """A step size that was halved before and after the death; the metric of the last step goes on."""

    def run(folder, hook=None, resume=False):
        model = scenarios.rhvae(0.1, step_size=0.25)
        if hook is not None:
            model.after_step = lambda: (model.update_metric_(), hook())
        options = TrainingOptions(
            max_epochs=4,
            batch_size=16,
            lr=0.05,
            checkpoint_dir=folder,
            checkpoint_every=every,
            resume=resume,
            progress=False,
        )
        objective = Objective(model, weights={"kl": LinearWarmup(9)})
        return objective, fit(objective, rows(61), options, validation=rows(20), generator_seed=1)

    reference = run(tmp_path / "whole")
    assert "step size halved " in reference[1].message
    with pytest.raises(RuntimeError, match="died"):
        run(tmp_path / "died", stop_at(died_after))
    assert_same_run(reference, run(tmp_path / "died", resume=True))


def test_a_shuffled_loader_resumes_too(tmp_path):
    def run(folder, hook=None, resume=False):
        objective = Objective(vae())
        objective.model.after_step = hook
        loader = torch.utils.data.DataLoader(rows(61), batch_size=16, shuffle=True)
        options = TrainingOptions(
            max_epochs=4, checkpoint_dir=folder, checkpoint_every=3, resume=resume, progress=False
        )
        return objective, fit(objective, loader, options, generator_seed=1)

    reference = run(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="died"):
        run(tmp_path / "died", stop_at(7))
    assert_same_run(reference, run(tmp_path / "died", resume=True))


def simple(folder, data=None, objective=None, seed=0, **options):
    objective = objective or Objective(vae())
    known = {"max_epochs": 3, "batch_size": 16, "checkpoint_dir": folder, "progress": False}
    result = fit(
        objective, rows(40) if data is None else data, TrainingOptions(**known | options), generator_seed=seed
    )
    return objective, result


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    def interrupt(summary):
        if summary.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    options = TrainingOptions(max_epochs=6, batch_size=16, checkpoint_dir=tmp_path / "a", progress=False)
    first = fit(Objective(vae()), rows(40), options, generator_seed=0, callbacks=[interrupt])
    assert not first.converged
    resumed = simple(tmp_path / "a", max_epochs=6, resume=True)
    assert_same_run(simple(tmp_path / "b", max_epochs=6), resumed)


def test_a_finished_run_returns_at_once_and_can_be_prolonged(tmp_path):
    finished = simple(tmp_path / "a")
    assert_same_run(finished, simple(tmp_path / "a", resume=True))
    longer = simple(tmp_path / "a", max_epochs=7, resume=True)
    assert len(longer[1].history["loss"]) == 7
    assert_same_run(simple(tmp_path / "b", max_epochs=7), longer)


def test_resume_without_a_checkpoint_starts_and_without_resume_starts_anew(tmp_path, caplog):
    first = simple(tmp_path / "new" / "folder", resume=True)
    again = simple(tmp_path / "new" / "folder")
    assert "the checkpoint of an earlier run will be replaced" in caplog.text
    assert_same_run(first, again)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 8}, "batch_size: 16 there, 8 here"),
        ({"lr": 0.5}, "lr: 0.001 there, 0.5 here"),
        ({"seed": 4}, "random seed: 0 there, 4 here"),
        ({"data": rows(41)}, "data rows: 40 there, 41 here; data checksum"),
        ({"data": 1 - rows(40)}, "differs in data checksum"),
        ({"objective": Objective(vae(0.5))}, "differs in model"),
        ({"objective": Objective(vae(), free_bits=0.2)}, "free_bits: 0.0 there, 0.2 here"),
        ({"objective": Objective(scenarios.rhvae())}, "differs in model; tensors"),
        ({"objective": Objective(vae(), penalties=[scenarios.MeanOutput()])}, "differs in penalties"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, message):
    simple(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        simple(tmp_path, resume=True, **change)
    assert "belongs to another run" in str(caught.value)
    assert "choose another folder, or resume=False to start anew" in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"beta0": 0.4}, {"step_size": 0.1}, {"temperature": 2.0}, {"n_steps": 2}]
)
def test_a_flow_with_other_options_is_another_run(tmp_path, options):
    simple(tmp_path, objective=Objective(scenarios.rhvae()))
    with pytest.raises(ValueError, match="belongs to another run, which differs in model;"):
        simple(tmp_path, resume=True, objective=Objective(scenarios.rhvae(**options)))


def test_foreign_and_damaged_files_are_refused(tmp_path):
    simple(tmp_path)
    file = tmp_path / FILE_NAME
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match="truncated"):
        simple(tmp_path, resume=True)
    save_tensors(file, {"a": torch.zeros(1)}, {"kind": "model"})
    with pytest.raises(FormatError, match="not a training checkpoint"):
        simple(tmp_path, resume=True)


def test_no_part_of_a_checkpoint_is_left_behind(tmp_path):
    (tmp_path / f".{FILE_NAME}.0a.tmp.safetensors").write_text("of a run that was killed as it wrote")
    simple(tmp_path, checkpoint_every=1)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_checkpoint_options_do_not_steer_the_run(tmp_path):
    plain = simple(None)
    assert_same_run(plain, simple(tmp_path / "a", checkpoint_every=1))
    options = TrainingOptions(max_epochs=3, batch_size=16, progress=False)
    objective = Objective(vae())
    again = objective, fit(objective, rows(40), replace(options, patience=None), generator_seed=0)
    assert_same_run(plain, again)
