"""Two processes and one: the same weights, the same history, the same end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pullback.io import load_tensors
from pullback.training.distributed import ALONE, resolve_device, started_by_torchrun
from training import scenarios

NAMES = [
    "full",
    "sparse_batches",
    "unused",
    "streamed",
    "gauged",
    "partitioned",
    "riemannian",
    "lone_rows",
    "stopped",
]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    """Results of all scenarios, run by two processes that torchrun started on a free port."""
    out = tmp_path_factory.mktemp("two")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, scenarios.__file__, str(out), *NAMES],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def difference(name: str, folder: Path) -> tuple[float, dict, scenarios.FitResult]:
    objective, result = scenarios.SCENARIOS[name]()
    weights, facts = load_tensors(folder / name)
    own = objective.state_dict()
    assert weights.keys() == own.keys()
    return max((own[key].float() - weights[key].float()).abs().max().item() for key in own), facts, result


@pytest.mark.parametrize("name", NAMES[:-1])
def test_two_processes_take_the_steps_of_one(name, two_processes):
    largest, facts, result = difference(name, two_processes)
    assert largest <= 1e-5
    assert facts["steps"] == result.steps
    assert facts["history"].keys() == result.history.keys()
    for key, values in result.history.items():
        assert facts["history"][key] == pytest.approx(values, rel=1e-5, abs=1e-6)


def test_the_full_scenario_takes_twenty_steps_and_learns(two_processes):
    _, facts = load_tensors(two_processes / "full")
    assert facts["steps"] == 20
    assert set(facts["history"]) >= {"kl", "free_bits", "mean_output", "spread", "validation/loss"}
    assert facts["history"]["loss"][-1] < facts["history"]["loss"][0]


@pytest.mark.parametrize("name", ["riemannian", "lone_rows"])
def test_processes_halve_the_step_size_together(name, two_processes):
    weights, facts = load_tensors(two_processes / name)
    assert "step size halved " in facts["message"]
    assert 1e-3 < float(weights["model.step_size"]) < 1


def test_an_interrupt_of_one_process_ends_all(two_processes):
    _, facts = load_tensors(two_processes / "stopped")
    assert "interrupted" in facts["message"]
    assert len(facts["history"]["loss"]) < 100


def test_one_process_needs_no_group(monkeypatch):
    assert not started_by_torchrun()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not started_by_torchrun()
    x = torch.ones(3, 2)
    assert ALONE(x) is x
    assert ALONE.gather(x) is x
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("name", ["tpu9", "cuda:99", "xla"])
def test_devices_that_are_not_there_are_refused(name):
    with pytest.raises(ValueError, match="device: "):
        resolve_device(name)


def test_devices_by_name():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
