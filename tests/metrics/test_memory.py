"""Peak memory of wide decoders, measured in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
import torch
from torch import nn
import pullback as pb
from pullback.geometry.curvatures import christoffel

def memory(entry):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(entry)) / 1024

grad = sys.argv[1] == "grad"
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
p = 32_000
decoders = {
    d: nn.Sequential(nn.Linear(d, 128), nn.Tanh(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, p))
    for d in (8, 10)
}
U = torch.randn(p, 64, generator=generator)
many, few = torch.randn(10_000, 8, generator=generator), torch.randn(256, 10, generator=generator)
plain, low = pb.PullbackMetric(decoders[8]), pb.PullbackMetric(decoders[8], pb.ambient.LowRank(U))
ten = pb.PullbackMetric(decoders[10], pb.ambient.LowRank(U))
counts = pb.PullbackMetric(decoders[8], pb.ambient.Poisson())
two = nn.Sequential(nn.Linear(2, 128), nn.Tanh(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 8000))
learned = pb.PullbackMetric(two, pb.ambient.LearnedNegativeBinomial())
with torch.set_grad_enabled(grad):
    pb.magnification(plain, many[:2])
    start = memory("VmRSS")
    jobs = {
        "magnification": lambda: pb.magnification(plain, many),
        "magnification, low rank": lambda: pb.magnification(low, many),
        "tensor, low rank": lambda: low.tensor(many),
        "tensor of 256": lambda: ten.tensor(few),
        "derivative of 256": lambda: ten.derivative(few),
        "christoffel of 256": lambda: christoffel(ten, few),
        "magnification of counts": lambda: pb.magnification(counts, many[:300]),
        "derivative of counts": lambda: counts.derivative(many[:300]),
        "learned dispersion": lambda: learned.tensor(many[:300, :2]),
        "derivative of learned dispersion": lambda: learned.derivative(many[:300, :2]),
    }
    peaks = {}
    for name, job in jobs.items():
        result = job()
        assert torch.isfinite(result).all()
        assert result.requires_grad == grad
        if grad and "learned" in name:
            result.sum().backward()
        del result
        peaks[name] = memory("VmHWM") - start
print(json.dumps(peaks))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("mode", ["grad", "no_grad"])
def test_wide_decoders_need_less_than_a_gigabyte(mode):
    """Acceptance 15, and 10 000 points of 32 000 features: a full Jacobian would take 10 GB."""
    run = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    peaks = json.loads(run.stdout)
    assert len(peaks) == 10
    assert max(peaks.values()) < 1024, peaks
