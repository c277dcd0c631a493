"""The fuzzy graph of a table beside umap-learn's: CPU time, one thread, in turn; docs/umap_measured.md.

``.venv-peers/bin/python -m benchmarks.umap_graph 3``; the number is that of the rounds. umap-learn is called
once before, so that its compilation is not counted. Beside the time: the share of true neighbours found.
"""

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits, make_blobs
from umap.umap_ import fuzzy_simplicial_set, nearest_neighbors

from pullback.models.umap import fuzzy_graph, graph_of, nearest

NEIGHBOURS = 15


def tables() -> dict[str, np.ndarray]:
    blobs = make_blobs(20_000, 50, centers=20, cluster_std=3.0, random_state=0)[0]
    return {"digits 1797 x 64": load_digits().data, "blobs 20000 x 50": blobs}


def peer(X: np.ndarray) -> Any:
    return fuzzy_simplicial_set(X, NEIGHBOURS, np.random.RandomState(0), "euclidean")[0]


def seconds(function: Callable[[np.ndarray], Any], X: np.ndarray) -> float:
    start = time.process_time()
    function(X)
    return time.process_time() - start


def main(rounds: int) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for name, X in tables().items():
        X = X.astype(np.float32)
        peer(X)
        pairs = np.array([(seconds(peer, X), seconds(fuzzy_graph, X)) for _ in range(rounds)])
        theirs, ours = np.median(pairs, axis=0)
        ratio = np.median(pairs[:, 0] / pairs[:, 1])
        index, distance = nearest(X, NEIGHBOURS)
        found = nearest_neighbors(X, NEIGHBOURS, "euclidean", {}, False, np.random.RandomState(0))[0]
        recall = np.mean([len(set(a) & set(b)) for a, b in zip(found, index, strict=True)]) / NEIGHBOURS
        same = graph_of(index, distance)
        print(f"{name}: umap-learn {theirs:.2f} s, ours {ours:.2f} s, ratio {ratio:.2f}, ", end="")
        print(f"its recall {recall:.4f}, edges {same.nnz}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
