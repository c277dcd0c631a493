"""What `import pullback` and the first use of its names cost beside `import torch`: CPU time of processes."""

import os
import resource
import statistics
import subprocess
import sys

import pytest

ROUNDS = 7
FIRST_USE = ("jet", "geodesic", "PullbackMetric", "contributions", "VAE")


def seconds(code: str) -> float:
    """CPU time of a fresh interpreter that runs ``code``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def medians(*codes: str) -> list[float]:
    """Median CPU time of each, taken in turn."""
    rounds = [[seconds(code) for code in codes] for _ in range(ROUNDS)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def test_import() -> None:
    bare, torch_alone, both, alone = medians(
        "pass", "import torch", "import torch, pullback", "import pullback"
    )
    torch_time = torch_alone - bare
    print(f"\nimport pullback after torch: {(both - torch_alone) / torch_time:.3f} of import torch")
    print(f"import pullback alone: {(alone - bare) / torch_time:.3f} of import torch")
    assert both - torch_alone <= 0.3 * torch_time


@pytest.mark.parametrize("name", FIRST_USE)
def test_first_use(name: str) -> None:
    bare, torch_alone, used = medians("pass", "import torch", f"import torch, pullback; pullback.{name}")
    print(f"\nfirst use of pb.{name}: {(used - torch_alone) / (torch_alone - bare):.2f} of import torch")
    assert used > bare
