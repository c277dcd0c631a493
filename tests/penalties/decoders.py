"""Decoders, ambients and references that the tests of the isometry penalty share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from penalties.checks import draw
from pullback import ambient
from pullback.jets import Jet, jet
from pullback.typing import Ambient


def decoder(d: int, p: int = 6, h: int = 8, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A smooth net with weights from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(d)
        net = nn.Sequential(
            nn.Linear(d, h), nn.Tanh(), nn.Linear(h, h), nn.Softplus(), nn.Linear(h, p)
        ).double()
        return net.to(dtype)


def known(net: nn.Module, z: Tensor, order: int = 3) -> Jet:
    found = jet(net, z, order)
    assert isinstance(found, Jet)
    return found


def reference(n: int, d: int) -> Tensor:
    """One symmetric matrix a row, mean trace 1 a dimension."""
    root = draw(n, d, d, seed=11)
    wanted = root @ root.mT
    return wanted / wanted.diagonal(dim1=1, dim2=2).mean()


CONSTANT: dict[str, Callable[[int, int], Ambient]] = {
    "Euclidean": lambda n, p: ambient.Euclidean(),
    "Diagonal": lambda n, p: ambient.Diagonal(draw(p, seed=12).abs() + 0.1),
    "Gaussian": lambda n, p: ambient.Gaussian(0.3),
    "LowRank": lambda n, p: ambient.LowRank(draw(p, 5, seed=13)),
    "LowRank, a factor a row": lambda n, p: ambient.LowRank(draw(n, p, 5, seed=14)),
}
MOVING: dict[str, Callable[[int, int], Ambient]] = {
    "Bernoulli": lambda n, p: ambient.Bernoulli(),
    "Poisson": lambda n, p: ambient.Poisson(),
    "NegativeBinomial": lambda n, p: ambient.NegativeBinomial(2.0),
    "Categorical": lambda n, p: ambient.Categorical(),
    "LearnedGaussian": lambda n, p: ambient.LearnedGaussian(),
    "LowRank of z": lambda n, p: ambient.LowRank(
        lambda z: torch.sin(z.sum(1)[:, None, None] + torch.ones(p, 4))
    ),
}


def plain_value(net: nn.Module, z: Tensor, W: Ambient, wanted: Tensor | None = None) -> Tensor:
    """P at μ = 1 straight from its definition."""
    J = torch.func.vmap(torch.func.jacrev(lambda x: net(x.unsqueeze(0)).squeeze(0)))(z)
    if isinstance(W, ambient.LowRank):
        W = W.at(z)
    g = J.mT @ W.apply(net(z), J)
    mean = g.diagonal(dim1=1, dim2=2).mean()
    eye = torch.eye(z.shape[1], dtype=z.dtype)
    return (g / mean - (eye if wanted is None else wanted)).square().sum() / 2
