"""Do synthetic digits help a classifier that has 50 labelled ones? Numbers of docs/measured.md.

``python -m benchmarks.augmentation 5``; the number is that of the draws of labelled rows, five a class. One
model a class is trained on its five rows, 200 digits are drawn from each, and classifiers are fitted to the
50 rows, to these and the synthetic ones, and to the synthetic ones alone. Accuracy on 597 held-out rows.

Chadebec, Thibeau-Sutre, Burgos, Allassonnière 2021, "Data augmentation in high dimensional low sample size
setting using a geometry-based variational autoencoder".
"""

import math
import sys
from typing import Any

import numpy as np
import torch
from benchmarks.rhvae_peer import digits
from benchmarks.rhvae_quality import metric_network, plain
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from pullback.dynamics import volume_sampler
from pullback.models import RHVAE, VAE, training_step

A_CLASS, SYNTHETIC, STEPS = 5, 200, 600


def labelled(labels: np.ndarray, seed: int) -> np.ndarray:
    """Five rows of each class."""
    draw = np.random.default_rng(seed)
    return np.concatenate(
        [draw.choice(np.flatnonzero(labels == k), A_CLASS, replace=False) for k in range(10)]
    )


def fit_vae(x: Tensor, seed: int) -> VAE:
    model = plain(2, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        (-model.elbo(x, torch.randn(len(x), 2)).mean()).backward()
        optimizer.step()
    return model


def fit_rhvae(x: Tensor, seed: int) -> RHVAE:
    model = RHVAE(plain(2, seed), metric_network(2, seed, "identity"), x, backprop="truncated")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(STEPS):
        training_step(model, x, optimizer)
    return model


def drawn(x: Tensor, seed: int) -> dict[str, Tensor]:
    """Binary digits of one class, by each method."""
    torch.manual_seed(seed)
    vae, model = fit_vae(x, seed), fit_rhvae(x, seed)
    prior = torch.randn(SYNTHETIC, 2)
    draw = torch.Generator().manual_seed(seed)
    volume = volume_sampler(model.metric(), SYNTHETIC, generator=draw).z
    latents = {
        "VAE, prior": (vae.decoder, prior),
        "RHVAE, prior": (model.decoder, prior),
        "RHVAE, volume": (model.decoder, volume),
    }
    with torch.no_grad():
        return {name: torch.bernoulli(torch.sigmoid(decoder(z))) for name, (decoder, z) in latents.items()}


def classifiers(seed: int) -> dict[str, Any]:
    return {
        "logistic": LogisticRegression(max_iter=5000),
        "MLP": MLPClassifier((128,), max_iter=1000, random_state=seed),
    }


def accuracies(seed: int) -> dict[tuple[str, str], float]:
    """By training set and classifier."""
    data = digits()
    chosen = labelled(data.train_labels, seed)
    x, y = data.train[chosen], data.train_labels[chosen]
    made: dict[str, list[Tensor]] = {}
    for k in range(10):
        for name, rows in drawn(x[y == k], 10 * seed + k).items():
            made.setdefault(name, []).append(rows)
    classes = np.arange(10).repeat(SYNTHETIC)
    sets = {"50 labelled digits": (x, y)}
    for name, parts in made.items():
        rows = torch.cat(parts)
        sets[f"and {name}"] = torch.cat([x, rows]), np.concatenate([y, classes])
        sets[f"{name} alone"] = rows, classes
    copies = x.repeat_interleave(SYNTHETIC // A_CLASS, 0), y.repeat(SYNTHETIC // A_CLASS)
    sets["and copies of themselves"] = copies
    found = {}
    for title, (rows, labels) in sets.items():
        for kind, classifier in classifiers(seed).items():
            fitted = classifier.fit(rows.numpy(), labels)
            found[title, kind] = float(fitted.score(data.test.numpy(), data.test_labels))
    return found


def main(seeds: int) -> None:
    """Mean accuracy with its standard error, and the mean gain over the 50 rows alone with its own."""
    runs = [accuracies(seed) for seed in range(seeds)]
    first = "50 labelled digits"
    print(f"{'':30s}{'accuracy, %':>20s}{'gain, points':>20s}")
    for title, kind in runs[0]:
        values = 100 * np.array([run[title, kind] for run in runs])
        gains = values - 100 * np.array([run[first, kind] for run in runs])
        a, b = (np.std(column, ddof=1) / math.sqrt(seeds) for column in (values, gains))
        print(f"{title:30s}{kind:10s}{values.mean():8.1f} ± {a:.1f}{gains.mean():12.1f} ± {b:.1f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]))
