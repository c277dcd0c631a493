"""A training step of parametric UMAP beside glass-box-umap 0.1.0: CPU time a step, on the same graph.

Both sides train whole models of their defaults in turn, in one process, with one torch thread; a step costs
what a longer training takes more than a shorter one, so that graph, model and start do not count. Edges a
step are the same within rounding (10 000 at most). Asked: at least 12 times less time on the digits and 2.5
times less on 20 000 rows.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.timing import table
from sklearn.datasets import load_digits, make_blobs

import pullback as pb
from pullback.models.umap import fuzzy_graph

ROUNDS = 3
CASES = {
    "digits 1797 x 64": (None, (2, 8), 12.0, {}),
    "blobs 20000 x 50": (8, (1, 3), 2.5, {}),
    "blobs, 4000 rows a step": (8, (1, 3), 10.0, {"nodes_per_step": 4000}),
}
"""Steps of an epoch (None: what the edges ask for), epochs of the two trainings, ratio asked, options."""


def rows(name: str) -> np.ndarray:
    if name.startswith("digits"):
        return load_digits().data.astype(np.float32)
    return make_blobs(20_000, 50, centers=20, cluster_std=3.0, random_state=0)[0].astype(np.float32)


@pytest.fixture(scope="module")
def peer() -> Any:
    """The other package, or none."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("glass_box_umap")


@pytest.fixture(scope="module")
def lines() -> Iterator[list[str]]:
    head = "smallest / median / largest"
    yield from table(f"\n{'':24s}{'ours, ms':>10s}{'theirs, ms':>12s}   ratio: {head}")


def step_time(fit: Callable[[int], int], epochs: tuple[int, int]) -> float:
    """CPU seconds a step; ``fit`` trains for some epochs and returns the number of steps."""
    spent, steps = [], []
    for count in epochs:
        began = time.process_time()
        steps.append(fit(count))
        spent.append(time.process_time() - began)
    return (spent[1] - spent[0]) / (steps[1] - steps[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_step(name: str, peer: Any, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    most, epochs, asked, more = CASES[name]
    X = rows(name)
    graph = fuzzy_graph(X)
    core = peer.parametric_umap.core
    monkeypatch.setattr(core, "get_umap_graph", lambda *args, **options: graph.astype(np.float32))
    monkeypatch.setattr(core, "TensorBoardLogger", lambda **options: False)  # spares it the log files

    def ours(count: int) -> int:
        options = {"num_batches": most, "random_state": 0, "progress": False} | more
        return pb.ParametricUMAP(epochs=count, **options).fit(X, graph=graph).n_steps_

    def theirs(count: int) -> int:
        model = peer.GlassBoxUMAP(epochs=count, num_batches=most, random_state=0, quiet=True)
        model.to("cpu").fit(X)
        edges = core.UMAPDataset(X, graph).num_edges
        return count * min(-(-edges // model.batch_size), most or edges)

    ours(1), theirs(1)
    own_epochs = (epochs[0], epochs[0] + 10 * (epochs[1] - epochs[0])) if most is None else epochs
    pairs = [(step_time(ours, own_epochs), step_time(theirs, epochs)) for _ in range(ROUNDS)]
    ratios = sorted(other / own for own, other in pairs)
    own, other = (1e3 * median(pair[k] for pair in pairs) for k in range(2))
    spread = f"{ratios[0]:.1f} / {median(ratios):.1f} / {ratios[-1]:.1f} (asked {asked})"
    lines.append(f"{name:24s}{own:10.1f}{other:12.1f}{spread:>38s}")
    assert median(ratios) > 1
