"""Autoencoders trained to be isometric, beside a plain one and one with a regulariser of one random probe.

The other regulariser is the objective of Lee, Yoon, Son and Park, "Regularized autoencoders for isometric
representation learning", ICLR 2022: d E[tr G²] / E[tr G]², the traces estimated by one product with a normal
vector at each point, at mixtures of two codes with a share uniform in [-0.2, 1.2]. Networks, steps, batches
and weights are the same for all. Figures are of held-out rows; the table is printed at the end, and nothing
is asserted about it.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pullback as pb
from pullback.jets import directional_jet
from pullback.penalties import IsometryPenalty, LatentSampling, ScalarWeightSchedule

STEPS, BATCH, SEEDS = 1500, 128, (0, 1, 2)
WEIGHTS = {"digits": 40.0, "mnist_5k": 300.0, "pbmc68k": 100.0}
"""Weight of either regulariser, in nats: larger where there are more features to pay for."""
PAIRS = 200


@dataclass(frozen=True)
class Row:
    """One training."""

    data: str
    method: str
    seed: int
    condition: float
    between: float
    error: float
    correlation: float
    seconds: float


@dataclass
class OneProbe:
    """½ d (d E[tr G²] / E[tr G]² - 1), which `IsometryPenalty` is without the noise of the probe."""

    weight: Any
    seed: int = 0
    name: str = "one_probe"
    step: int = 0

    def penalize(self, decoder: nn.Module, z: Tensor) -> Tensor:
        self.step += 1
        draw = torch.Generator().manual_seed(self.seed * 100_003 + self.step)
        z = LatentSampling("mixtures").draw(z, draw)
        v = torch.randn(z.shape, generator=draw, dtype=z.dtype)
        with torch.enable_grad():
            at = z if z.requires_grad else z.detach().requires_grad_()
            along = directional_jet(decoder, at, v, order=1)
            (product,) = torch.autograd.grad(along.value, at, along.first, create_graph=True)
        d, trace = z.shape[1], along.first.square().sum(1).mean()
        ratio = d * product.square().sum(1).mean() / trace.square()
        return self.weight(self.step) * d / 2 * (ratio - 1)


def penalties(method: str, weight: float, seed: int) -> list[Any]:
    ramp = ScalarWeightSchedule(0.0, weight, "linear", steps=STEPS // 2)
    if method == "isometric":
        return [IsometryPenalty(ramp, latents="both")]
    return [OneProbe(ramp, seed)] if method == "one probe" else []


def condition(metric: pb.PullbackMetric, z: Tensor) -> float:
    values = torch.linalg.eigvalsh(metric.tensor(z).double())
    return float((values[:, -1] / values[:, 0]).mean())


def train(data: str, method: str, seed: int) -> Row:
    X = pb.data.load(data).X.astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(X))
    test, rest = X[order[: len(X) // 5]], X[order[len(X) // 5 :]]
    model = pb.Autoencoder(
        2,
        max_epochs=round(STEPS / -(-len(rest) // BATCH)),
        batch_size=BATCH,
        lr_schedule="cosine",
        validation_fraction=0.0,
        patience=None,
        penalties=penalties(method, WEIGHTS[data], seed),
        progress=False,
        random_state=seed,
    )
    began = time.process_time()
    model.fit(rest)
    seconds = time.process_time() - began
    z = torch.from_numpy(model.transform(test))
    error = float(
        ((model.inverse_transform(z.numpy()) - test) ** 2).sum() / ((test - rest.mean(0)) ** 2).sum()
    )
    metric = model.metric()
    draw = torch.Generator().manual_seed(seed)
    mixed = LatentSampling("mixtures", rows=500).draw(z, draw)
    pairs = torch.randint(len(z), (PAIRS, 2), generator=draw)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    lengths = pb.distance(metric, z[pairs[:, 0]], z[pairs[:, 1]])
    straight = (z[pairs[:, 0]] - z[pairs[:, 1]]).norm(dim=1)
    correlation = float(torch.corrcoef(torch.stack([lengths, straight.to(lengths)]))[0, 1])
    return Row(
        data, method, seed, condition(metric, z), condition(metric, mixed), error, correlation, seconds
    )


@pytest.fixture(scope="module")
def rows() -> Iterator[list[Row]]:
    """All trainings, printed at the end, and written where PULLBACK_BENCH_OUT says."""
    found: list[Row] = []
    yield found
    print("\n\n" + table(found))
    if "PULLBACK_BENCH_OUT" in os.environ:
        text = json.dumps([asdict(row) for row in found], indent=1)
        Path(os.environ["PULLBACK_BENCH_OUT"]).write_text(text + "\n")


def table(rows: list[Row]) -> str:
    """Mean ± standard deviation over the seeds; the error also over that of the plain model of the seed."""
    columns = ("condition", "between", "error", "of plain", "correlation", "seconds")
    lines = [f"{'data':10s} {'method':10s}" + "".join(f" {name:>17s}" for name in columns)]
    plain = {(row.data, row.seed): row.error for row in rows if row.method == "plain"}
    for data, method in dict.fromkeys((row.data, row.method) for row in rows):
        group = [row for row in rows if (row.data, row.method) == (data, method)]
        found = {name: [getattr(row, name) for row in group] for name in columns if name != "of plain"}
        found["of plain"] = [row.error / plain[data, row.seed] for row in group]
        cells = [f"{np.mean(found[name]):.4f} ± {np.std(found[name], ddof=1):.4f}" for name in columns]
        lines.append(f"{data:10s} {method:10s}" + "".join(f" {cell:>17s}" for cell in cells))
    return "\n".join(lines)


@pytest.mark.parametrize("method", ["plain", "isometric", "one probe"])
@pytest.mark.parametrize("data", WEIGHTS)
def test_training(rows: list[Row], data: str, method: str) -> None:
    rows += [train(data, method, seed) for seed in SEEDS]
    assert all(np.isfinite(row.error) for row in rows)
