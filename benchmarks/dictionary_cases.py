"""Small curves and sheets: our dictionary's fit, and what gamfit 0.1.274 makes of the same rows in a time.

    .venv-peers/bin/python benchmarks/dictionary_cases.py [SECONDS]

The rows of tests/single_atoms.py. gamfit is told the topology and runs in a process of its own, which is
ended after SECONDS (60 by default) by the clock; ours chooses kinds by evidence.
"""

import logging
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from single_atoms import CASES, Case

TOPOLOGY = {
    "circle": (1, "circle"),
    "interval": (1, "euclidean"),
    "plane": (2, "euclidean"),
    "any": (1, "circle"),
}


def theirs(name: str, answers: Any) -> None:
    """What gamfit returns or raises, put on a queue."""
    from gamfit.sae import sae_manifold_fit

    case = CASES[name]()
    d, topology = TOPOLOGY[case.kinds[0]]
    try:
        found = sae_manifold_fit(case.rows, case.n_atoms, d_atom=d, atom_topology=topology)
        answers.put(f"{type(found).__name__}")
    except Exception as error:
        answers.put(f"{type(error).__name__}: {str(error).splitlines()[0][:60]}")


def within(name: str, seconds: float) -> str:
    """The answer, or that there was none."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=theirs, args=(name, answers))
    began = time.monotonic()
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        return f"no answer in {seconds:.0f} s"
    told = answers.get() if not answers.empty() else f"ended with {process.exitcode}"
    return f"{told} after {time.monotonic() - began:.0f} s"


def ours(case: Case) -> str:
    """Kinds, share of the variance explained, seconds."""
    import pullback as pb

    began = time.monotonic()
    model = pb.ManifoldDictionary(case.n_atoms, gate="softmax", random_state=0).fit(case.rows)
    seconds = time.monotonic() - began
    left = np.square(case.rows - model.inverse_transform(model.transform(case.rows))).sum()
    share = 1 - left / np.square(case.rows - case.rows.mean(0)).sum()
    undecided = any(alarm.code == "topology_undecided" for alarm in model.diagnostics_.alarms)
    kinds = ", ".join(atom.chart.name for atom in model.atoms_) + (", undecided" if undecided else "")
    return f"{kinds}: {share:.4f} in {seconds:.1f} s"


def main(seconds: float) -> None:
    """Print a line a case."""
    logging.disable(logging.WARNING)
    for name, make in CASES.items():
        print(f"{name:34s}{ours(make()):50s} gamfit: {within(name, seconds)}", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
