"""Training runs that are started in one process and in several, and must end with the same weights.

As a program: ``python scenarios.py OUT NAME...`` runs the named scenarios and lets process 0 write OUT/NAME.
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pullback.io import save_tensors
from pullback.models import MLP, RHVAE, VAE, Autoencoder, Bernoulli, Gaussian, MetricNetwork
from pullback.penalties import IsometryPenalty, LatentSampling, OrthogonalityPenalty
from pullback.subspaces import PartitionLoss
from pullback.training import FitResult, LinearWarmup, Objective, Paired, TrainingOptions, fit
from pullback.training.partition_terms import PartitionRegularizer


class MeanOutput:
    """weight · |mean over the batch of decoder(z)|²: its gradient needs the rows of all processes."""

    name = "mean_output"

    def __init__(self, weight: float = 0.3):
        self.weight = weight

    def penalize(self, decoder: nn.Module, z: Tensor) -> Tensor:
        return self.weight * decoder(z).mean(0).square().sum()


class Spread:
    """|mean code|² by a sum over processes, and the mean of given quantities."""

    def terms(self, model, x, z, reduce, *, quantities=None):
        rows = reduce(torch.full((1,), float(len(z))).to(z))
        return {"spread": (reduce(z.sum(0)) / rows).square().sum()}


class SpareHead(nn.Module):
    """A decoder with a parameter that takes no part in the loss."""

    def __init__(self, in_features: int, body: nn.Module):
        super().__init__()
        self.in_features, self.body = in_features, body
        self.spare = nn.Parameter(torch.zeros(3))

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z)


def rows(n: int, p: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    factor = torch.randn(3, p, generator=generator)
    return (torch.randn(n, 3, generator=generator) @ factor > 0).float()


def vae(dropout: float = 0.0) -> VAE:
    generator = torch.Generator().manual_seed(1)
    encoder = MLP(12, 4, hidden=(16,), dropout=dropout, generator=generator)
    return VAE(encoder, MLP(2, 12, hidden=(16,), generator=generator), Bernoulli())


def rhvae(dropout: float = 0.0, **options) -> RHVAE:
    """With the default step size; far larger ones do not solve the first batches and are halved."""
    model = vae(dropout)
    generator = torch.Generator().manual_seed(2)
    network = MetricNetwork(12, 2, hidden=(16,), generator=generator)
    return RHVAE(model, network, rows(15), **options)


def spare_autoencoder() -> Autoencoder:
    generator = torch.Generator().manual_seed(1)
    body = MLP(2, 12, hidden=(16,), generator=generator)
    return Autoencoder(MLP(12, 2, hidden=(16,), generator=generator), SpareHead(2, body), Gaussian())


def full() -> tuple[Objective, FitResult]:
    """Free bits, warm-up, a penalty and a regulariser; 4 epochs of 5 batches of 25 or 26 rows: 20 steps."""
    objective = Objective(
        vae(),
        weights={"kl": LinearWarmup(10, final=0.8)},
        free_bits=0.2,
        penalties=[MeanOutput()],
        partition=Spread(),
    )
    options = TrainingOptions(max_epochs=4, batch_size=26, lr=3e-3, gradient_clip=5.0, progress=False)
    return objective, fit(objective, rows(127), options, validation=rows(41), generator_seed=3)


def sparse_batches() -> tuple[Objective, FitResult]:
    """Batches of one row: the second process has none."""
    objective = Objective(vae(), free_bits=0.1, penalties=[MeanOutput()])
    options = TrainingOptions(max_epochs=2, batch_size=1, progress=False)
    return objective, fit(objective, rows(7), options, generator_seed=3)


def unused() -> tuple[Objective, FitResult]:
    """A parameter without gradient."""
    objective = Objective(spare_autoencoder())
    options = TrainingOptions(max_epochs=2, batch_size=16, progress=False)
    return objective, fit(objective, rows(40), options, generator_seed=3)


def streamed() -> tuple[Objective, FitResult]:
    """A shuffling DataLoader, which draws its order from PyTorch's default generator."""
    objective = Objective(vae())
    loader = torch.utils.data.DataLoader(rows(50), batch_size=16, shuffle=True)
    options = TrainingOptions(max_epochs=3, progress=False)
    return objective, fit(objective, loader, options, generator_seed=3)


def gauged() -> tuple[Objective, FitResult]:
    """Two gauges, one with a ramp at points in unequal shares, and a penalty of codes."""
    penalties = [
        IsometryPenalty(LinearWarmup(5, 0.5), latents=LatentSampling("both", rows=11)),
        IsometryPenalty(0.1, estimator="exact", name="at_codes"),
        OrthogonalityPenalty(0.1),
    ]
    objective = Objective(vae(), penalties=penalties)
    options = TrainingOptions(max_epochs=4, batch_size=16, progress=False)
    return objective, fit(objective, rows(80), options, validation=rows(20), generator_seed=3)


def partitioned() -> tuple[Objective, FitResult]:
    """Two quantities in blocks of their own, one with gaps; R² of the batch of all processes."""
    x, held_out = rows(127), rows(41)
    known, fresh = (torch.stack([r[:, :3].sum(1), r[:, 4] - r[:, 5]], dim=1) for r in (x, held_out))
    known[::7, 1] = float("nan")
    loss = PartitionLoss(3, {"a": 1, "b": 1}, weights={"leak": LinearWarmup(5), "isotropy": 0.1})
    loss.fit_targets({"a": known[:, :1], "b": known[:, 1:]})
    generator = torch.Generator().manual_seed(1)
    encoder = MLP(12, 3, hidden=(16,), generator=generator)
    model = Autoencoder(encoder, MLP(3, 12, hidden=(16,), generator=generator), Bernoulli())
    objective = Objective(model, partition=PartitionRegularizer(loss, 5.0))
    options = TrainingOptions(max_epochs=4, batch_size=26, lr=3e-3, progress=False)
    data, validation = Paired(x, known), Paired(held_out, fresh)
    return objective, fit(objective, data, options, validation=validation, generator_seed=3)


def riemannian() -> tuple[Objective, FitResult]:
    """A flow on a learned metric whose first step size is refused; 20 steps."""
    objective = Objective(rhvae(step_size=2.0), free_bits=0.2)
    options = TrainingOptions(max_epochs=4, batch_size=26, lr=3e-3, progress=False)
    return objective, fit(objective, rows(127), options, validation=rows(41), generator_seed=3)


def lone_rows() -> tuple[Objective, FitResult]:
    """Batches of one row, each looked at by the residual rule: the second process has none."""
    objective = Objective(rhvae(step_size=2.0))
    options = TrainingOptions(max_epochs=2, batch_size=1, progress=False)
    return objective, fit(objective, rows(7), options, generator_seed=3)


def stopped() -> tuple[Objective, FitResult]:
    """One process alone is interrupted; all of them end at the same step."""
    objective = Objective(vae())
    calls = []

    def interrupt(summary):
        calls.append(summary.epoch)
        if summary.epoch == 3 and os.environ.get("RANK", "0") == "0":
            os.kill(os.getpid(), 2)

    options = TrainingOptions(max_epochs=100, batch_size=16, progress=False)
    return objective, fit(objective, rows(80), options, generator_seed=3, callbacks=[interrupt])


def killable(folder: Path, *, pause: float = 0.0, resume: bool = False) -> tuple[Objective, FitResult]:
    """Dropout, mid-epoch checkpoints; with a pause after each epoch, so that somebody can kill it."""
    objective = Objective(vae(dropout=0.2), weights={"kl": LinearWarmup(30)})
    options = TrainingOptions(
        max_epochs=30, batch_size=32, lr=3e-3, checkpoint_every=3, checkpoint_dir=folder, resume=resume
    )
    return objective, fit(
        objective,
        rows(120),
        replace(options, progress=False),
        validation=rows(30),
        generator_seed=5,
        callbacks=[lambda summary: time.sleep(pause)],
    )


SCENARIOS = {
    f.__name__: f
    for f in (full, sparse_batches, unused, streamed, gauged, partitioned, riemannian, lone_rows, stopped)
}


def main(out: Path, names: list[str]) -> None:
    for name in names:
        if name == "killable":
            killable(out, pause=0.3)
            continue
        objective, result = SCENARIOS[name]()
        if os.environ.get("RANK", "0") == "0":
            facts = {"history": result.history, "message": result.message, "steps": result.steps}
            save_tensors(out / name, objective.state_dict(), facts)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
