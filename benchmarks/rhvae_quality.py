"""Are the Riemannian models good on binarised digits, and do they stay finite? Numbers of docs/measured.md.

``python -m benchmarks.rhvae_quality likelihood 5``, ``... stability 3`` and ``... failing 3``; the number is
that of the initialisations. pythae's model takes part where it is installed (``make bench`` installs it).

Likelihood: log p(x) of 597 test rows by exact quadrature, models with d = 2 after 60 epochs, and the Fréchet
distance of decoded samples to the training rows on 20 principal components. Stability: d = 10, step 0.05, 600
rows, 20 epochs. Failing: steps and inverse temperatures with which the flow goes astray unless the step is
halved when a fixed point has not converged.
"""

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benchmarks.rhvae_peer import EPOCHS, Digits, PythaeSide, batches, digits, frechet, networks, quadrature
from sklearn.decomposition import PCA
from torch import Tensor, nn

from pullback.dynamics import volume_sampler
from pullback.models import HVAE, RHVAE, VAE, Bernoulli, MetricNetwork, select_centroids, training_step

SAMPLES = 2000
TRANSITIONS = 100


def plain(d: int, seed: int, p: int = 64, hidden: int = 128) -> VAE:
    return VAE(*networks(p, d, hidden, seed), Bernoulli())


def metric_network(d: int, seed: int, init: Any = "glorot") -> MetricNetwork:
    return MetricNetwork(64, d, init=init, generator=torch.Generator().manual_seed(seed))


def riemannian(x: Tensor, d: int, seed: int, **options: Any) -> RHVAE:
    centroids = select_centroids(x, 64, random_state=seed)
    return RHVAE(plain(d, seed), metric_network(d, seed, "identity"), centroids, **options)


def plain_step(model: VAE, x: Tensor, optimizer: torch.optim.Optimizer) -> Any:
    """For a model without a metric."""
    terms = model.evaluate(x, torch.randn(len(x), model.noise_features)).terms
    optimizer.zero_grad(set_to_none=True)
    torch.stack([term.sum() for term in terms.values()]).sum().div(len(x)).backward()
    optimizer.step()


def train(
    model: nn.Module, x: Tensor, seed: int, step: Callable[..., Any], epochs: int = EPOCHS
) -> list[Any]:
    """What each step returned."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    return [step(model, rows, optimizer) for epoch in batches(x, seed, epochs) for rows in epoch]


def show(name: str, values: list[float], digits: int = 2) -> None:
    """Each initialisation, then mean and standard error."""
    error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    each = " ".join(f"{value:8.{digits}f}" for value in values)
    print(f"{name:34s} {each}   mean {np.mean(values):.{digits}f} ± {error:.{digits}f}", flush=True)


@torch.no_grad()
def distances(decoder: nn.Module, latents: dict[str, Tensor], data: Digits, pca: PCA) -> dict[str, float]:
    """Fréchet distance to the training rows, of decoder means and of binary draws."""
    found = {}
    for name, z in latents.items():
        means = torch.sigmoid(decoder(z))
        found[f"{name}, means"] = frechet(data.train, means, pca)
        found[f"{name}, binary draws"] = frechet(data.train, torch.bernoulli(means), pca)
    return found


def prior_draws(seed: int) -> Tensor:
    return torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(seed))


def volume_draws(model: RHVAE, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return volume_sampler(model.metric(), SAMPLES, n_steps=TRANSITIONS, generator=draw).z


def likelihood(seeds: int) -> None:
    """Models with d = 2."""
    data = digits()
    pca = PCA(20).fit(data.train.numpy())
    print(f"Fréchet distance of test to training rows {frechet(data.train, data.test, pca):.3f}")
    scores: dict[str, list[float]] = {}
    gaps: dict[str, dict[str, list[float]]] = {}

    def note(name: str, decoder: nn.Module, latents: dict[str, Tensor]) -> None:
        scores.setdefault(name, []).append(float(quadrature(decoder, data.test).mean()))
        for kind, value in distances(decoder, latents, data, pca).items():
            gaps.setdefault(name, {}).setdefault(kind, []).append(value)

    for seed in range(seeds):
        prior = prior_draws(seed)
        vae = plain(2, seed)
        train(vae, data.train, seed, plain_step)
        note("VAE", vae.decoder, {"prior": prior})
        hvae = HVAE(plain(2, seed))
        train(hvae, data.train, seed, plain_step)
        note("HVAE", hvae.decoder, {"prior": prior})
        for backprop in ("exact", "truncated"):
            model = riemannian(data.train, 2, seed, backprop=backprop)
            train(model, data.train, seed, training_step)
            note(
                f"RHVAE, {backprop} gradients",
                model.decoder,
                {"prior": prior, "volume": volume_draws(model, seed)},
            )
        try:
            pythae = PythaeSide()
        except ImportError:
            continue
        for step_size in (0.01, 0.001):
            peer = pythae.rhvae(*networks(64, 2, 128, seed), metric_network(2, seed), eps_lf=step_size)
            pythae.fit(peer, data.train, seed)
            note(f"pythae RHVAE, step {step_size:g}", peer.decoder.net, {"prior": prior})
    print("log p(x) of test rows, nats")
    for name, values in scores.items():
        show(name, values)
    print("Fréchet distance to training rows")
    for name, kinds in gaps.items():
        for kind, values in kinds.items():
            show(f"{name}: {kind}", values)


@torch.no_grad()
def negative_elbo(model: VAE, x: Tensor, draws: int = 10) -> float:
    """Mean over rows and draws."""
    draw = torch.Generator().manual_seed(0)
    bounds = [
        model.elbo(x, torch.randn(len(x), model.noise_features, generator=draw)).mean() for _ in range(draws)
    ]
    return -float(torch.stack(bounds).mean())


def stability(seeds: int) -> None:
    """A long step in ten dimensions."""
    x = digits().train[:600]
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        vae = plain(10, seed)
        train(vae, x, seed, plain_step, epochs=20)
        found.setdefault("VAE, -ELBO", []).append(negative_elbo(vae, x))
        for backprop in ("exact", "truncated"):
            model = riemannian(x, 10, seed, step_size=0.05, backprop=backprop)
            steps = train(model, x, seed, training_step, epochs=20)
            told = {
                "-ELBO": negative_elbo(model, x),
                "largest residual": max(float(s.residual) for s in steps),
                "step size at the end": float(steps[-1].step_size),
                "losses that are not finite": sum(not math.isfinite(float(s.loss)) for s in steps),
            }
            for what, value in told.items():
                found.setdefault(f"RHVAE, {backprop}: {what}", []).append(value)
        try:
            pythae = PythaeSide()
        except ImportError:
            continue
        peer = pythae.rhvae(*networks(64, 10, 128, seed), metric_network(10, seed), eps_lf=0.05)
        losses = pythae.fit(peer, x, seed, 20)
        found.setdefault("pythae RHVAE, loss of last epoch", []).append(losses[-1])
        found.setdefault("  epochs", []).append(len(losses))
    for name, values in found.items():
        show(name, values, 4)


FAILING: dict[str, dict[str, Any]] = {
    "step 0.01, sum": {"step_size": 0.01, "reduction": "sum"},
    "step 0.05, sum": {"step_size": 0.05, "reduction": "sum"},
    "step 0.05, mean": {"step_size": 0.05},
    "step 0.1, mean": {"step_size": 0.1},
    "step 0.05, beta0 = 1": {"step_size": 0.05, "beta0": 1.0},
}


def failing(seeds: int) -> None:
    """With and without the rule that halves the step."""
    data = digits()
    for name, options in FAILING.items():
        for rule in (False, True):
            scores, residuals, sizes = [], [], []
            for seed in range(seeds):
                model = riemannian(data.train, 2, seed, adapt_step_size=rule, **options)
                steps = train(model, data.train, seed, training_step)
                scores.append(float(quadrature(model.decoder, data.test).mean()))
                residuals.append(max(float(s.residual) for s in steps))
                sizes.append(float(steps[-1].step_size))
            title = f"{name}, {'with' if rule else 'without'} the rule"
            show(f"{title}", scores)
            show("  largest residual", residuals, 4)
            show("  step size at the end", sizes, 5)


if __name__ == "__main__":
    torch.set_num_threads(1)
    jobs = {"likelihood": likelihood, "stability": stability, "failing": failing}
    jobs[sys.argv[1]](int(sys.argv[2]))
