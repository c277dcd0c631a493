"""How well an encoder places rows it has not seen: tables of docs/umap_measured.md.

``python -m benchmarks.umap_unseen digits 5``; the number is that of the splits, 70 % for training.
Trustworthiness of 15 neighbours and accuracy of a 15-neighbour vote, on the rows for training and on the
others: medians.
"""

import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.manifold import trustworthiness
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pullback.models.encoders import create_encoder
from pullback.models.umap import (
    EdgeSampler,
    UMAPModule,
    curve_parameters,
    fuzzy_graph,
    jitter_scale,
    umap_loss_at,
)

NEIGHBOURS, BATCH, RATE = 15, 10_000, 5


@dataclass(frozen=True)
class Options:
    """What is done against overfitting.

    Attributes:
        jitter: noise in units of the way to the nearest row.
        dropout: probability of dropping a hidden unit.
        mix: a row is moved towards a neighbour by up to this part of the way.
        weight_decay: of AdamW.
    """

    jitter: float = 0.0
    dropout: float = 0.0
    mix: float = 0.0
    weight_decay: float = 0.0
    steps: int = 800


CASES = {
    "nothing": Options(),
    "dropout 0.1": Options(dropout=0.1),
    "dropout 0.1, 2000 steps": Options(dropout=0.1, steps=2000),
    "dropout 0.3": Options(dropout=0.3),
    "mix 0.5": Options(mix=0.5),
    "mix 1": Options(mix=1.0),
    "weight decay 1": Options(weight_decay=1.0),
    "jitter 0.5": Options(jitter=0.5),
    "jitter 1": Options(jitter=1.0),
    "jitter 1.5": Options(jitter=1.5),
    "jitter 1, dropout 0.05": Options(jitter=1.0, dropout=0.05),
    "jitter 0.7, 2000 steps": Options(jitter=0.7, steps=2000),
    "jitter 0.5, 2000 steps": Options(jitter=0.5, steps=2000),
}


def table(name: str) -> tuple[np.ndarray, np.ndarray]:
    X, y = (load_digits if name == "digits" else load_breast_cancer)(return_X_y=True)
    return (X if name == "digits" else StandardScaler().fit_transform(X)).astype(np.float32), y


def train(x: Tensor, options: Options, seed: int) -> UMAPModule:
    graph = fuzzy_graph(x)
    draw = torch.Generator().manual_seed(seed)
    sampler = EdgeSampler(graph, BATCH, draw, negative_sample_rate=RATE)
    net = create_encoder("default", x.shape[1], 2, generator=draw, dropout_rate=options.dropout)
    module = UMAPModule(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=options.weight_decay, fused=True)
    sigma, (a, b) = options.jitter * jitter_scale(x), curve_parameters(0.1, 1.0)
    weights = torch.from_numpy(graph.toarray())
    for _ in range(options.steps):
        shown = x
        if options.mix:
            other = torch.multinomial(weights, 1, generator=draw)[:, 0]
            shown = torch.lerp(x, x[other], options.mix * torch.rand(len(x), 1, generator=draw))
        if sigma:
            shown = shown + sigma * torch.randn(x.shape, generator=draw)
        edges = sampler.draw()
        tails = torch.cat([edges.tail, edges.negative_tail])
        places = torch.stack([edges.head.repeat(RATE + 1), tails])
        optimizer.zero_grad()
        umap_loss_at(module.encode(shown), places, BATCH, a, b).backward()
        optimizer.step()
    return module.eval()


def measured(name: str, options: Options, seed: int) -> tuple[float, ...]:
    X, y = table(name)
    x, new, labels, new_labels = train_test_split(X, y, test_size=0.3, stratify=y, random_state=seed)
    mean, scale = x.mean(0), np.sqrt(x.var(0).mean())
    x, new = torch.from_numpy((x - mean) / scale), torch.from_numpy((new - mean) / scale)
    torch.manual_seed(seed)  # of dropout
    start = time.process_time()
    module = train(x, options, seed)
    spent = time.process_time() - start
    with torch.no_grad():
        z, unseen = module.encode(x).numpy(), module.encode(new).numpy()
    vote = KNeighborsClassifier(NEIGHBOURS).fit(z, labels)
    return (
        trustworthiness(x, z, n_neighbors=NEIGHBOURS),
        vote.score(z, labels),
        trustworthiness(new, unseen, n_neighbors=NEIGHBOURS),
        vote.score(unseen, new_labels),
        spent,
    )


def main(name: str, splits: int, *cases: str) -> None:
    torch.set_num_threads(1)
    print(f"{name:26s}{'T':>8s}{'kNN':>8s}{'T new':>8s}{'kNN new':>8s}{'s':>8s}")
    for title in cases or CASES:
        values = np.median([measured(name, CASES[title], seed) for seed in range(splits)], axis=0)
        print(f"{title:26s}" + "".join(f"{value:8.3f}" for value in values), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
