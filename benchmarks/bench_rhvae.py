"""Riemannian Hamiltonian VAE beside pythae: training steps, volume sampling, memory.

Both sides take turns in one process on one thread, by process CPU time, with the same networks and batches:
forward, backward, Adam, and on our side the renewal of the metric. Ratios are smallest / median / largest
over the rounds. Tables are printed at the end; nothing is asserted about time.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from benchmarks.rhvae_peer import PythaeSide, digits, networks
from benchmarks.timing import in_turn, table, worded
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import pullback as pb
from pullback.dynamics import volume_sampler
from pullback.models import RHVAE, VAE, Bernoulli, MetricNetwork, select_centroids, training_step

ROUNDS = 15
STEPS = {("digits", 2): 3.5, ("digits", 10): 3.5, ("MNIST-sized", 2): None, ("MNIST-sized", 16): None}
"""How many times quicker than pythae's a step with exact gradients is asked to be."""
PLAIN = {("digits", 2): 8.0, ("digits", 10): 13.0}
"""Largest cost of it in steps of a plain VAE of pythae."""
VOLUME = {(2, 100): 15.0, (10, 20): 30.0}
"""Dimensions and chains, and the ratio of transitions a second that is asked for."""
CENTROIDS, LEAPFROG = 1200, 15


def ratio(rounds: list[list[float]], above: int, below: int) -> list[float]:
    """Time of one call over that of another, sorted."""
    return sorted(times[above] / times[below] for times in rounds)


@pytest.fixture(scope="module")
def lines() -> Iterator[list[str]]:
    yield from table()


@pytest.fixture(scope="module")
def pythae() -> PythaeSide:
    pytest.importorskip("pythae.models")
    return PythaeSide()


def rows(data: str) -> tuple[Tensor, Tensor, int]:
    """Data of training, a batch of 100, and the width of hidden layers."""
    if data == "digits":
        x, hidden = digits().train, 128
    else:
        draw = torch.Generator().manual_seed(0)
        x, hidden = (torch.rand(1200, 784, generator=draw) > 0.8).float(), 400
    return x, x[:100], hidden


def ours(x: Tensor, d: int, hidden: int, **options: Any) -> RHVAE:
    encoder, decoder = networks(x.shape[1], d, hidden, 0)
    metric = metric_network(x.shape[1], d, hidden)
    centroids = select_centroids(x, 64, random_state=0)
    return RHVAE(VAE(encoder, decoder, Bernoulli()), metric, centroids, **options)


def metric_network(p: int, d: int, hidden: int) -> MetricNetwork:
    """The same on both sides; from an uneven start pythae's flow now and then leaves the numbers."""
    return MetricNetwork(p, d, (hidden,), init="identity", generator=torch.Generator().manual_seed(0))


def adam(model: Any) -> torch.optim.Adam:
    """With steps so small that one batch over and over leaves every side where it was: pythae's flow would
    go astray else, and all work is the same at any rate."""
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-7)


@pytest.mark.parametrize(("data", "d"), list(STEPS))
def test_step(lines: list[str], pythae: PythaeSide, data: str, d: int) -> None:
    x, batch, hidden = rows(data)
    theirs = [
        pythae.vae(*networks(x.shape[1], d, hidden, 0)),
        pythae.rhvae(*networks(x.shape[1], d, hidden, 0), metric_network(x.shape[1], d, hidden), eps_lf=0.01),
    ]
    calls = [partial(pythae.step, model, batch, adam(model)) for model in theirs]
    for backprop in ("exact", "truncated"):
        model = ours(x, d, hidden, backprop=backprop)
        calls.append(partial(training_step, model, batch, adam(model)))
    rounds = in_turn(*calls, rounds=ROUNDS)
    times = [sorted(column)[ROUNDS // 2] * 1e3 for column in zip(*rounds, strict=True)]
    case = f"{data}, d={d}"
    lines += [
        f"{case}: ms of pythae VAE {times[0]:.2f}, pythae RHVAE {times[1]:.1f}, ours exact {times[2]:.2f}, "
        f"truncated {times[3]:.2f}",
        worded("  pythae RHVAE / ours, exact gradients", ratio(rounds, 1, 2), STEPS[data, d]),
        worded("  pythae RHVAE / ours, truncated gradients", ratio(rounds, 1, 3), None),
        worded("  ours, exact / pythae VAE", ratio(rounds, 2, 0), PLAIN.get((data, d)), sign="<="),
        worded("  pythae RHVAE / pythae VAE", ratio(rounds, 1, 0), None),
    ]


def centroid_cloud(d: int) -> tuple[Tensor, Tensor]:
    """Standard normal centroids and factors of a metric."""
    draw = torch.Generator().manual_seed(0)
    factors = torch.eye(d) + 0.3 * torch.randn(CENTROIDS, d, d, generator=draw).tril()
    return torch.randn(CENTROIDS, d, generator=draw), factors


@pytest.mark.parametrize(("d", "chains"), list(VOLUME))
def test_volume_sampler(lines: list[str], pythae: PythaeSide, d: int, chains: int) -> None:
    """Transitions a second on one and the same metric."""
    centroids, factors = centroid_cloud(d)
    temperature = d**0.5
    metric = pb.CentroidMetric(
        centroids, factors, temperature=temperature, regularization=0.01, reduction="sum"
    )
    model = pythae.rhvae(*networks(64, d, 128, 0), metric_network(64, d, 128), temperature=temperature)
    model.M.append(factors @ factors.mT)
    model.centroids.append(centroids)
    model.update()
    few, many = 1, 100
    sampler = pythae.sampler(model, mcmc_steps_nbr=few, n_lf=LEAPFROG)
    draw = torch.Generator().manual_seed(0)
    rounds = in_turn(
        lambda: sampler.hmc_sampling(chains),
        lambda: volume_sampler(metric, chains, n_steps=many, n_leapfrog=LEAPFROG, generator=draw),
        rounds=ROUNDS,
    )
    rounds = [[theirs / few, own / many] for theirs, own in rounds]
    speeds = [chains / sorted(column)[ROUNDS // 2] for column in zip(*rounds, strict=True)]
    lines.append(
        worded(
            f"volume sampler, d={d}, {chains} chains: {speeds[0]:.0f} -> {speeds[1]:.0f} a second",
            ratio(rounds, 0, 1),
            VOLUME[d, chains],
        )
    )


def peak_megabytes(call: Callable[[], Any]) -> float:
    """Most that tensors on the CPU hold at a time above the start, by the allocator's own record."""
    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        kept = call()
    del kept
    now = most = 0
    events = record.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most / 1e6


def test_memory(lines: list[str]) -> None:
    """g⁻¹ and ∂κ/∂z of 100 points, in 16 dimensions; one array (100, 1200, 16, 16) has 123 MB."""
    centroids, factors = centroid_cloud(16)
    metric = pb.CentroidMetric(centroids, factors, temperature=4.0, regularization=0.01)
    draw = torch.Generator().manual_seed(1)
    z, rho = (torch.randn(100, 16, generator=draw) for _ in range(2))
    whole = 100 * CENTROIDS * 16 * 16 * 4 / 1e6

    def local() -> tuple[Tensor, Tensor]:
        here = metric.local(z)
        return here.inverse, here.kinetic_gradient(rho)

    def plain() -> tuple[Tensor, Tensor]:
        return metric.inverse(z), metric.kinetic_gradient(z, rho)

    found = {"metric.local(z)": peak_megabytes(local), "metric itself": peak_megabytes(plain)}
    for name, most in found.items():
        lines.append(f"inverse + kinetic_gradient, {name}: {most:.1f} MB   asked <= {whole / 10:.1f} MB")
    assert min(found.values()) <= whole / 10
