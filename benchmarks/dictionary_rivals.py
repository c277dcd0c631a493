"""Error on rows without their noise, at about two numbers a row: a dictionary beside TopK autoencoders.

    python -m benchmarks.dictionary_rivals

Rows of tests/planted.py, each of one of six atoms: 2000 to fit and 2000 to judge, 64 dimensions, noise .05.
The dictionary chooses its charts by evidence; autoencoders have two active latents of 32, 128 or 512. Asked:
at least four times less of the variance of the clean rows left.
"""

import logging
import sys
from pathlib import Path

import torch

import pullback as pb
from pullback.models.dictionary.rivals import active_scalars, fit_topk
from pullback.models.dictionary.scores import fraction_unexplained

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from planted import SIX, planted

LATENTS, ACTIVE = (32, 128, 512), 2


def main() -> None:
    """Print a line a model: share of the variance of test rows left, with and without their noise."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    draw = planted(4000, "single", kinds=SIX, seed=0)
    train, test, clean = draw.Z[:2000], draw.Z[2000:], draw.clean[2000:]

    def told(name: str, rebuilt: torch.Tensor, scalars: float) -> float:
        left = float((clean - rebuilt).square().sum() / (clean - clean.mean(0)).square().sum())
        print(f"{name:24s}{scalars:8.2f}{fraction_unexplained(test, rebuilt):10.4f}{left:10.4f}", flush=True)
        return left

    print(f"{'model':24s}{'scalars':>8s}{'FVU':>10s}{'clean':>10s}")
    model = pb.ManifoldDictionary(6, gate="softmax", random_state=0).fit(train)
    codes = model.transform(test)
    scalars = active_scalars([atom.chart for atom in model.atoms_], codes)
    ours = told("dictionary", model.inverse_transform(codes), scalars)
    g = torch.Generator().manual_seed(0)
    rivals = {n: fit_topk(train, n, ACTIVE, generator=g).reconstruct(test) for n in LATENTS}
    left = min(told(f"TopK, {n} latents", rebuilt, ACTIVE) for n, rebuilt in rivals.items())
    print(f"the best of these leaves {left / ours:.1f} times as much of the clean rows (asked 4)")


if __name__ == "__main__":
    main()
