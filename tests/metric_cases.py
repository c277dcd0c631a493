"""Every metric of the family, by name, for the tests that go over all of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pullback import ambient as A
from pullback.geometry.reference import PoincareDisk, Sphere
from pullback.metrics import (
    CentroidMetric,
    ConformalMetric,
    EnsembleMetric,
    EuclideanMetric,
    ExpectedPullbackMetric,
    PullbackMetric,
    SumMetric,
    TensorMetric,
    from_tensor,
)

P = 6


def numbers(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def decoder(dtype: torch.dtype = torch.float64, d: int = 2, p: int = P, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(d, 8), nn.Tanh(), nn.Linear(8, 7), nn.Softplus(), nn.Linear(7, p))
    return net.to(dtype).requires_grad_(False)


FACTOR = numbers(P, 4, seed=3)
AMBIENTS = {
    "Euclidean": A.Euclidean(),
    "Diagonal": A.Diagonal(torch.linspace(0.5, 2, P, dtype=torch.float64)),
    "Gaussian": A.Gaussian(0.3),
    "LowRank": A.LowRank(FACTOR),
    "LowRank of z": A.LowRank(lambda z: FACTOR.to(z) * (1 + z[:, :1, None] ** 2)),
    "Bernoulli": A.Bernoulli(),
    "Poisson": A.Poisson(),
    "NegativeBinomial": A.NegativeBinomial(torch.linspace(1, 9, P, dtype=torch.float64)),
    "Categorical": A.Categorical(2),
    "LearnedGaussian": A.LearnedGaussian(),
    "LearnedNegativeBinomial": A.LearnedNegativeBinomial(),
}


class OnlyTensor:
    """A user's object with nothing but `tensor`: the Poincaré disk."""

    def tensor(self, z: Tensor) -> Tensor:
        return PoincareDisk().tensor(z / 8)


def centroids(dtype: torch.dtype, d: int, reduction: str) -> CentroidMetric:
    L = torch.tril(numbers(12, d, d, seed=5, dtype=dtype))
    return CentroidMetric(
        numbers(12, d, seed=4, dtype=dtype), L, temperature=1.2, regularization=0.1, reduction=reduction
    )


def lifted(z: Tensor) -> Tensor:
    return torch.exp(torch.cat([z, z.sum(1, keepdim=True)], dim=1))


def doubled(metric: CentroidMetric) -> TensorMetric:
    return from_tensor(lambda z: 2 * metric.tensor(z), 2)


def field(dtype: torch.dtype, d: int) -> nn.Sequential:
    return nn.Sequential(decoder(dtype, d, 1, seed=7))


@dataclass(frozen=True)
class Case:
    """How to build a metric, its dimension, and whether it has an embedding."""

    build: Callable[[torch.dtype], object]
    d: int = 2
    embedded: bool = True


def _pullback(name: str, d: int = 2) -> Case:
    flat = name not in ("LowRank of z", "LearnedGaussian", "LearnedNegativeBinomial")
    return Case(lambda dtype: PullbackMetric(decoder(dtype, d), AMBIENTS[name]), d, flat)


def ensemble(dtype: torch.dtype, d: int, ambient: A.Euclidean | A.Poisson | None = None) -> EnsembleMetric:
    return EnsembleMetric([decoder(dtype, d, seed=k) for k in range(3)], ambient)


METRICS: dict[str, Case] = {
    "euclidean": Case(lambda dtype: EuclideanMetric(2)),
    **{f"pullback {name}": _pullback(name) for name in AMBIENTS},
    "pullback 1-d": _pullback("Euclidean", 1),
    "pullback 3-d": _pullback("Poisson", 3),
    "pullback learned 3-d": _pullback("LearnedNegativeBinomial", 3),
    "pullback of a function": Case(lambda dtype: PullbackMetric(Sphere(2).embedding)),
    "expected": Case(
        lambda dtype: ExpectedPullbackMetric(
            decoder(dtype), nn.Sequential(decoder(dtype, seed=1), nn.Softplus())
        )
    ),
    "expected of functions": Case(lambda dtype: ExpectedPullbackMetric(Sphere(2).embedding, lifted)),
    "ensemble": Case(lambda dtype: ensemble(dtype, 2)),
    "ensemble of counts 3-d": Case(lambda dtype: ensemble(dtype, 3, A.Poisson()), 3),
    "ensemble 1-d": Case(lambda dtype: ensemble(dtype, 1), 1),
    "ensemble learned": Case(
        lambda dtype: EnsembleMetric([decoder(dtype, seed=k) for k in range(2)], A.LearnedGaussian()),
        embedded=False,
    ),
    "conformal": Case(
        lambda dtype: ConformalMetric(
            PullbackMetric(decoder(dtype)), lambda z: 0.2 * torch.sin(z).square().sum(-1)
        ),
        embedded=False,
    ),
    "conformal by a module 3-d": Case(
        lambda dtype: ConformalMetric(centroids(dtype, 3, "mean"), field(dtype, 3)), 3, False
    ),
    "sum": Case(lambda dtype: PullbackMetric(decoder(dtype)) + 0.3 * EuclideanMetric(2)),
    "sum with a tensor": Case(
        lambda dtype: SumMetric([PullbackMetric(decoder(dtype)), OnlyTensor()], [0.5, 2]), embedded=False
    ),
    "multiple": Case(lambda dtype: 2.5 * PullbackMetric(decoder(dtype), A.Poisson())),
    "centroids": Case(lambda dtype: centroids(dtype, 2, "mean"), embedded=False),
    "centroids 1-d": Case(lambda dtype: centroids(dtype, 1, "sum"), 1, False),
    "centroids 3-d": Case(lambda dtype: centroids(dtype, 3, "sum"), 3, False),
    "from a function": Case(lambda dtype: from_tensor(Sphere(2).tensor, 2), embedded=False),
    "from a function of centroids": Case(lambda dtype: doubled(centroids(dtype, 2, "mean")), embedded=False),
    "only a tensor": Case(lambda dtype: OnlyTensor(), embedded=False),
}
