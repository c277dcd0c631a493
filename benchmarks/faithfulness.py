"""Do the features that an attribution names move points? Figure and table of docs/attribution.md.

    .venv/bin/python -m benchmarks.faithfulness [FIGURE]

Features of each row are set to their mean, those with the largest contributions first; how far does the row
move on the map? Beside them: the features of the largest variance, those farthest from their mean in the row
(in standard deviations), and random ones. Distances in units of the map's root mean square radius; mean over
rows and seeds.
"""

import sys
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
import numpy as np
import torch

import pullback as pb
from pullback.plots.style import MUTED, finish

SETS = {"digits": {}, "pbmc68k": {"pca_components": 50}}
COUNTS = (1, 2, 5, 10, 20)
SEEDS = 3
WAYS = ("attribution", "farthest from the mean", "variance", "random")
COLORS = ("#c0392b", "#2f6db3", "#7f8c8d", "#b9c0c4")


def rows(name: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    found = pb.data.load(name, layer="log") if name == "pbmc68k" else pb.data.load(name)
    return found.X.reshape(len(found.X), -1).astype(np.float32), found.y, tuple(found.features)


def ranked(way: str, X: np.ndarray, e: pb.Attribution, seed: int) -> np.ndarray:
    """Features of each row, the first to be deleted first."""
    if way == "attribution":
        return np.argsort(-e.values.numpy(), axis=1)
    if way == "random":
        return np.argsort(np.random.default_rng(seed).random(X.shape), axis=1)
    if way == "variance":
        return np.broadcast_to(np.argsort(-X.var(axis=0)), X.shape)
    away = np.abs(X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-6)
    return np.argsort(-away, axis=1)


def moved(model: pb.ParametricUMAP, X: np.ndarray, order: np.ndarray, count: int) -> float:
    """Mean way on the map when ``count`` features are set to their means."""
    other, first = X.copy(), order[:, :count]
    np.put_along_axis(other, first, X.mean(axis=0)[first], axis=1)
    z = model.embedding_
    radius = np.sqrt(((z - z.mean(axis=0)) ** 2).sum(axis=1).mean())
    return float(np.linalg.norm(model.transform(other) - z, axis=1).mean() / radius)


def measure(name: str) -> dict[str, list[float]]:
    """Ways by count of deleted features; prints the groups' features for cells."""
    X, y, names = rows(name)
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for seed in range(SEEDS):
        model = pb.ParametricUMAP(random_state=seed, progress=False, **SETS[name]).fit(X)
        e = pb.explain(model, X, reduction="l2")
        for way in WAYS:
            order = ranked(way, X, e, seed)
            found[way].append([moved(model, X, order, count) for count in COUNTS])
        if seed == 0 and name == "pbmc68k":
            for group in np.unique(y):
                values = e.separation(y, group).values
                print(
                    f"  {group}: {', '.join(names[j] for j in values.argsort(descending=True)[:6].tolist())}"
                )
    return {way: [mean(column) for column in zip(*runs, strict=True)] for way, runs in found.items()}


def main(figure: Path) -> None:
    torch.set_num_threads(1)
    canvas, axes = plt.subplots(1, len(SETS), figsize=(9, 3.6), layout="constrained")
    for ax, name in zip(axes, SETS, strict=True):
        print(name)
        found = measure(name)
        for way, color in zip(WAYS, COLORS, strict=True):
            print(
                f"  {way:24s} " + "  ".join(f"{k}: {v:.3f}" for k, v in zip(COUNTS, found[way], strict=True))
            )
            ax.plot(COUNTS, found[way], "o-", color=color, label=way, lw=2, ms=4)
        ax.set_xscale("log")
        ax.set_xticks(COUNTS, [str(count) for count in COUNTS])
        ax.minorticks_off()
        finish(ax, name, ("features set to their mean", "mean way on the map, in radii of the map"))
        ax.set_ylim(bottom=0)
        ax.grid(color=MUTED, alpha=0.2)
    axes[0].legend(frameon=False, title="deleted first")
    canvas.savefig(figure, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("faithfulness.png"))
