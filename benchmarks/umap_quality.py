"""How well maps keep neighbours: ours, umap-learn 0.5.12 and glass-box-umap 0.1.0, each with its defaults.

    .venv-peers/bin/python benchmarks/umap_quality.py SET METHOD [SEEDS] [OPTION=NUMBER ...]

SET is digits, breast_cancer, mnist_5k, pbmc68k (50 axes) or blobs (20 000 x 50), METHOD ours, umap or
glassbox; options are those of `pullback.ParametricUMAP`, as ``steps=800 jitter=.5``. A line a seed:
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
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances_chunked
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.preprocessing import LabelEncoder, StandardScaler

import pullback as pb


def rows(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels: breast cancer standardised, cells on 50 principal axes, all else as it is."""
    if name == "blobs":
        X, y = make_blobs(20_000, 50, centers=20, cluster_std=3.0, random_state=0)
        return X.astype(np.float32), y
    found = pb.data.load(name)
    X = found.X if isinstance(found.X, np.ndarray) else found.X.toarray()
    X = X.reshape(len(X), -1).astype(np.float64)
    if name == "breast_cancer":
        X = StandardScaler().fit_transform(X)
    if name == "pbmc68k":
        X = PCA(50, random_state=0).fit_transform(X)
    return X.astype(np.float32), LabelEncoder().fit_transform(found.y)


def trustworthiness(X: np.ndarray, z: np.ndarray, k: int = 15) -> float:
    """That of `sklearn.manifold`, a chunk of rows at a time, so that 20 000 rows fit into memory."""
    near = NearestNeighbors(n_neighbors=k).fit(z).kneighbors(return_distance=False)
    n, begin, penalty = len(X), 0, 0
    for distances in pairwise_distances_chunked(X, working_memory=256):
        rows = np.arange(len(distances))
        distances[rows, begin + rows] = np.inf
        rank = np.empty(distances.shape, dtype=np.int32)
        np.put_along_axis(rank, distances.argsort(axis=1), np.arange(1, n + 1, dtype=np.int32)[None], axis=1)
        beyond = np.take_along_axis(rank, near[begin : begin + len(rank)], axis=1) - k
        penalty += int(beyond[beyond > 0].sum())
        begin += len(rank)
    return 1 - penalty * 2 / (n * k * (2 * n - 3 * k - 1))


def embedded(method: str, X: np.ndarray, seed: int, options: dict[str, Any]) -> np.ndarray:
    """The map of the training rows."""
    if method == "ours":
        return pb.ParametricUMAP(random_state=seed, progress=False, **options).fit_transform(X)
    if method == "umap":
        import umap

        return umap.UMAP(random_state=seed, n_jobs=1).fit_transform(X)
    import glass_box_umap
    from glass_box_umap.parametric_umap import core

    peer: Any = core
    peer.TensorBoardLogger = lambda **options: False
    return glass_box_umap.GlassBoxUMAP(random_state=seed, quiet=True).to("cpu").fit_transform(X)


def main(name: str, method: str, seeds: int, options: dict[str, Any]) -> None:
    """Print a line a seed, and the medians."""
    torch.set_num_threads(1)
    X, y = rows(name)
    told = " ".join([method, *(f"{key}={value}" for key, value in options.items())])
    found = []
    for seed in range(seeds):
        began = time.process_time()
        z = embedded(method, X, seed, options)
        spent = time.process_time() - began
        folds = StratifiedKFold(5)
        accuracy = cross_val_score(KNeighborsClassifier(15), z, y, cv=folds).mean()
        found.append((trustworthiness(X, z), accuracy, spent))
        print(
            f"{name} {told} {seed}: T {found[-1][0]:.4f}, kNN {found[-1][1]:.4f}, {spent:.1f} s", flush=True
        )
    medians = [median(column) for column in zip(*found, strict=True)]
    print(f"{name} {told} median: T {medians[0]:.4f}, kNN {medians[1]:.4f}, {medians[2]:.1f} s")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    set_name, how, *others = sys.argv[1:]
    count = [word for word in others if "=" not in word]
    pairs = (word.split("=") for word in others if "=" in word)
    numbers = {key: float(value) if "." in value else int(value) for key, value in pairs}
    main(set_name, how, int(count[0]) if count else 3, numbers)
