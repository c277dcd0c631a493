"""What a partition costs: against one solve for each pair, and as part of a training step.

Both sides take the same inputs in turn, in one process, with one torch thread, by process CPU time. "One by
one" solves Q + Q (Q - 1) + Q read-outs, each by itself, from the same formula. A training step is that of an
autoencoder with two hidden layers of 128 on digits (D = 16) and blobs (D = 10), forward, backward and Adam.
The table is printed at the end; nothing is asserted about time.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import pytest
import torch
from benchmarks.timing import ratios, table, worded
from torch import Tensor

import pullback as pb
from pullback.models import MLP
from pullback.subspaces import PartitionLoss, SufficientStatistics, loo_r2
from pullback.subspaces.leaks import implied_map

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from known_fields import blobs, digits

GROUPED, STEP = 1.4, 3.0
BATCH = 128
SIZES = {
    "digits (128, 16, 1/2/8)": (128, 16, (1, 2, 8), (1, 2, 25)),
    "blobs (128, 10, 1/2/4)": (128, 10, (1, 2, 4), (1, 2, 9)),
    "8 quantities (1024, 64, 4)": (1024, 64, (4,) * 8, (16,) * 8),
    "8 quantities (4096, 512, 32)": (4096, 512, (32,) * 8, (256,) * 8),
}


@pytest.fixture(scope="module")
def lines() -> Iterator[list[str]]:
    yield from table()


def one_by_one(partition: PartitionLoss, Y: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """The same loss, a solve for each term; regressions among quantities are known."""
    W = partition.bases
    first = next(iter(Y.values()))
    y = {q: (v - v.mean(0)) / v.std(0, correction=0) for q, v in Y.items()}
    statistics = SufficientStatistics.from_tensors(torch.zeros(len(first), 1), y)
    rest = {}
    for q, r in permutations(Y, 2):
        C = implied_map(*(statistics.block(*pair) for pair in ((r, r), (r, q), (q, q))))
        rest[q, r] = None if C is None else C.float()

    def total(z: Tensor) -> Tensor:
        blocks, free = partition.blocks(z), partition.free(z)
        fit = [1 - loo_r2(blocks[q], y[q]) for q in W]
        leak = [
            loo_r2(blocks[r], y[q] - y[r] @ C).clamp_min(0) for (q, r), C in rest.items() if C is not None
        ]
        away = [loo_r2(free, y[q]).clamp_min(0) for q in W]
        return torch.stack(fit).mean() + torch.stack(leak).mean() + torch.stack(away).mean()

    return total


@pytest.mark.parametrize("name", SIZES)
def test_grouped_solves(lines: list[str], name: str) -> None:
    B, D, sizes, widths = SIZES[name]
    g = torch.Generator().manual_seed(0)
    z = torch.randn(B, D, generator=g)
    Y = {
        f"q{i}": z @ torch.randn(D, m, generator=g) / D**0.5 + 0.3 * torch.randn(B, m, generator=g)
        for i, m in enumerate(widths)
    }
    partition = PartitionLoss(D, {f"q{i}": k for i, k in enumerate(sizes)})
    partition.fit_targets(Y)
    apart = one_by_one(partition, Y)
    torch.testing.assert_close(partition(z, Y).total, apart(z), rtol=1e-4, atol=1e-5)

    def step(loss: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def call() -> None:
            codes = z.clone().requires_grad_()
            loss(codes).backward()

        return call

    found = ratios(step(apart), step(lambda codes: partition(codes, Y).total), 5)
    lines.append(worded(f"one by one / grouped, {name}", found, GROUPED))


def test_epochs_of_an_estimator(lines: list[str]) -> None:
    fields = digits(0)
    x = fields.train.flatten(1)
    shaped = {q: (lambda rows, f=f: f(rows.reshape(-1, 1, 8, 8))) for q, f in fields.functions.items()}
    option = pb.SubspacePartition(shaped, sizes=fields.sizes)

    def fit(partition: pb.SubspacePartition | None) -> Callable[[], None]:
        settings = {"activation": "gelu", "patience": None, "validation_fraction": 0.0, "progress": False}
        model = pb.Autoencoder(16, partition=partition, max_epochs=20, random_state=0, **settings)
        return lambda: model.fit(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ratios(fit(option), fit(None), 3)
    lines.append(worded("20 epochs of pb.Autoencoder with / without, digits", found, STEP, sign="<="))


@pytest.mark.parametrize("name", ["digits", "blobs"])
def test_training_step(lines: list[str], name: str) -> None:
    fields = {"digits": digits, "blobs": blobs}[name](0)
    x = fields.train[:BATCH].flatten(1)
    Y = {q: y[:BATCH] for q, y in fields.quantities(fields.train).items()}
    partition = PartitionLoss(fields.latent_dim, fields.sizes)
    partition.fit_targets(fields.quantities(fields.train))

    def stepper(term: Callable[[Tensor], Tensor] | None) -> Callable[[], None]:
        g = torch.Generator().manual_seed(0)
        shape = {"hidden": (128, 128), "activation": "gelu", "generator": g}
        encoder = MLP(x.shape[1], fields.latent_dim, **shape)
        decoder = MLP(fields.latent_dim, x.shape[1], **shape)
        optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3, fused=True)

        def call() -> None:
            z = encoder(x)
            loss = (decoder(z) - x).square().mean()
            loss = loss if term is None else loss + term(z)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return call

    with_partition = stepper(lambda z: partition(z, Y).total)
    lines.append(
        worded(f"step with / without, {name}", ratios(with_partition, stepper(None)), STEP, sign="<=")
    )
    apart = stepper(one_by_one(partition, Y))
    lines.append(worded(f"step one by one / grouped, {name}", ratios(apart, with_partition), None))
