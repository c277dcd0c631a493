"""How well maps keep neighbours: ours, umap-learn 0.5.12 and glass-box-umap 0.1.0, each with its defaults.

    .venv-peers/bin/python benchmarks/umap_quality.py SET METHOD [SEEDS]

SET is digits, breast_cancer, mnist_5k or pbmc68k (50 axes), METHOD ours, umap or glassbox. A line a seed:
trustworthiness with 15 neighbours, accuracy of 15 nearest neighbours on the map (5 folds, stratified, not
shuffled), CPU seconds. Asked of ours on the rows that it was trained on: at least umap-learn's less .01.
"""

import sys
import time
import warnings
from statistics import median
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import LabelEncoder, StandardScaler

import pullback as pb


def rows(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels: breast cancer standardised, cells on 50 principal axes, all else as it is."""
    found = pb.data.load(name)
    X = found.X if isinstance(found.X, np.ndarray) else found.X.toarray()
    X = X.reshape(len(X), -1).astype(np.float64)
    if name == "breast_cancer":
        X = StandardScaler().fit_transform(X)
    if name == "pbmc68k":
        X = PCA(50, random_state=0).fit_transform(X)
    return X.astype(np.float32), LabelEncoder().fit_transform(found.y)


def embedded(method: str, X: np.ndarray, seed: int) -> np.ndarray:
    """The map of the training rows."""
    if method == "ours":
        return pb.ParametricUMAP(random_state=seed, progress=False).fit_transform(X)
    if method == "umap":
        import umap

        return umap.UMAP(random_state=seed, n_jobs=1).fit_transform(X)
    import glass_box_umap
    from glass_box_umap.parametric_umap import core

    peer: Any = core
    peer.TensorBoardLogger = lambda **options: False
    return glass_box_umap.GlassBoxUMAP(random_state=seed, quiet=True).to("cpu").fit_transform(X)


def main(name: str, method: str, seeds: int) -> None:
    """Print a line a seed, and the medians."""
    torch.set_num_threads(1)
    X, y = rows(name)
    found = []
    for seed in range(seeds):
        began = time.process_time()
        z = embedded(method, X, seed)
        spent = time.process_time() - began
        folds = StratifiedKFold(5)
        accuracy = cross_val_score(KNeighborsClassifier(15), z, y, cv=folds).mean()
        found.append((trustworthiness(X, z, n_neighbors=15), accuracy, spent))
        print(
            f"{name} {method} {seed}: T {found[-1][0]:.4f}, kNN {found[-1][1]:.4f}, {spent:.1f} s", flush=True
        )
    medians = [median(column) for column in zip(*found, strict=True)]
    print(f"{name} {method} median: T {medians[0]:.4f}, kNN {medians[1]:.4f}, {medians[2]:.1f} s")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 3)
