"""Other devices and several processes give the model of one CPU process."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import pullback as pb

TINY = {"hidden": (8,), "max_epochs": 5, "batch_size": 16, "progress": False, "random_state": 0}
X = np.random.default_rng(0).normal(size=(100, 5))

PROGRAM = textwrap.dedent("""
    import atexit, os, sys
    import numpy as np
    import torch.distributed as dist
    import pullback as pb

    def note_the_end():
        if not dist.is_initialized():
            np.save(sys.argv[1] + f"/left{os.environ['RANK']}.npy", True)

    # Registered first, so run last: after whatever the fit has registered.
    atexit.register(note_the_end)
    X = np.load(sys.argv[1] + "/X.npy")
    options = {"hidden": (8,), "max_epochs": 5, "batch_size": 16, "progress": False, "random_state": 0}
    model = pb.VAE(2, **options, device="cpu").fit(X)
    np.save(sys.argv[1] + f"/z{os.environ['RANK']}.npy", model.embedding_)
""")


@pytest.mark.slow
def test_two_processes_fit_the_model_of_one(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    np.save(tmp_path / "X.npy", X)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    subprocess.run(
        [sys.executable, *launch, str(tmp_path / "program.py"), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=150,
    )
    assert all((tmp_path / f"left{rank}.npy").exists() for rank in (0, 1)), "the process group was not left"
    alone = pb.VAE(2, **TINY, device="cpu").fit(X).embedding_
    first, second = (np.load(tmp_path / f"z{rank}.npy") for rank in (0, 1))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, alone, rtol=1e-10, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("cls", [pb.Autoencoder, pb.VAE, pb.HVAE, pb.RHVAE])
def test_a_gpu_fits_the_model_of_the_cpu(cls, tmp_path: Path) -> None:
    here, there = (cls(2, **TINY, device=device).fit(X) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(there.embedding_, here.embedding_, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(
        there.inverse_transform(here.embedding_), here.inverse_transform(here.embedding_)
    )
    assert there.score(X) == pytest.approx(here.score(X))
    assert there.sample(3, observe="sample", random_state=0).x.shape == (3, 5)
    z = torch.from_numpy(here.embedding_[:3])
    torch.testing.assert_close(there.metric().tensor(z), here.metric().tensor(z), rtol=1e-6, atol=1e-8)
    assert there.metric(device="cuda").tensor(z.cuda()).device.type == "cuda"
    found = pb.load(there.save(tmp_path / "model"))
    np.testing.assert_allclose(found.transform(X), there.embedding_, rtol=1e-9)
