"""Parametric UMAP on two processes takes the steps of one, in float64; the map may lie elsewhere."""

import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import os, sys
import numpy as np
from sklearn.datasets import load_digits
import pullback as pb

X = load_digits().data[:400]
found = {}
reserved = pb.SubspacePartition({"total": lambda x: x.sum(1)})
cases = {"once": {}, "touched": {"batch_size": 150}, "decoder": {"decoder": True}}
cases |= {"partition": {"partition": reserved, "batch_size": 150, "n_components": 3}}
for name, options in cases.items():
    options |= {"encoder_kwargs": {"hidden_size": 32}, "random_state": 0, "progress": False, "device": "cpu"}
    model = pb.ParametricUMAP(steps=20, **options).fit(X)
    found |= {name: model.embedding_, name + " loss": model.loss_history_}
if os.environ.get("RANK", "0") == "0":
    np.savez(sys.argv[1], **found)
"""


@pytest.mark.slow
def test_two_processes_embed_as_one(tmp_path) -> None:
    script = tmp_path / "fit.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for out, words in (("one", []), ("two", launcher)):
        command = [sys.executable, *words, str(script), str(tmp_path / out)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (np.load(tmp_path / f"{out}.npz") for out in ("one", "two"))
    for name in ("once", "touched", "decoder", "partition"):
        assert two[name + " loss"] == pytest.approx(one[name + " loss"], rel=1e-9)
        # nothing in the loss depends on where the map lies, so rounding may move it as a whole
        first, second = (found[name] - found[name].mean(axis=0) for found in (one, two))
        assert np.abs(first - second).max() <= 1e-8 * np.abs(first).max()
