"""Attributions of small networks with two or more outputs, for tests of what is drawn of them."""

from dataclasses import replace

import torch
from torch import nn

from pullback.attribution import Attribution, contributions


def rows(n: int = 60, p: int = 7, *, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Normal rows around different means, so that no contribution is zero."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, p, generator=generator, dtype=torch.float64).add(torch.arange(p) / p).to(dtype)


def network(p: int = 7, d: int = 2, *, smooth: bool = False, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A network with one hidden layer, its weights always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(p, 12), nn.SiLU() if smooth else nn.ReLU(), nn.Linear(12, d))
    return net.to(dtype).eval()


def explained(n: int = 60, p: int = 7, d: int = 2, **options: object) -> Attribution:
    """Contributions of these rows, named."""
    x = rows(n, p)
    found = contributions(network(p, d), x, baseline=x.mean(0), **options)
    return replace(found, feature_names=tuple(f"gene {j}" for j in range(p)))


def failed(attribution: Attribution) -> Attribution:
    """The same, as if its check had failed."""
    check = replace(attribution.verification, passed=False, pointwise_error=0.02, tolerance=1e-5)
    return replace(attribution, verification=check)
