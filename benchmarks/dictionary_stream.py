"""A stream of rows through a dictionary: memory, rows a second, and those of a TopK autoencoder's training.

    python -m benchmarks.dictionary_stream [ROWS] [DIMENSIONS] [ATOMS]

Rows hold one of 64 circles each, with amplitudes and noise, in 512 dimensions, and are drawn as they are
needed; a million of them by default. The first batch is fitted with its atoms known, all others pass through
`partial_fit` of 4096 rows. The autoencoder has as many latents as the basis has functions and two
active ones; a step of Adam takes 256 rows. CPU time on one thread; drawing rows is not counted.
"""

import resource
import sys
import time

import numpy as np
import torch

import pullback as pb
from pullback.models.dictionary.rivals import BATCH, fit_topk

BATCH_ROWS, SIGMA, EARLY = 4096, 0.02, 10


class Circles:
    """Rows of a dictionary of circles.

    Attributes:
        planes: two orthonormal directions and a centre of each atom, (K, 3, p).
    """

    def __init__(self, p: int, n_atoms: int):
        self.draw = np.random.default_rng(0)
        frames = self.draw.normal(size=(n_atoms, p, 3))
        self.planes = np.linalg.qr(frames)[0].transpose(0, 2, 1)

    def rows(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows (n, p) and the atom of each."""
        which, t = self.draw.integers(0, len(self.planes), n), self.draw.uniform(0, 2 * np.pi, n)
        ring = np.c_[np.cos(t), np.sin(t), np.full(n, 0.5)] * self.draw.uniform(0.6, 1.4, (n, 1))
        clean = np.einsum("nr,nrp->np", ring, self.planes[which])
        return (clean + SIGMA * self.draw.normal(size=clean.shape)).astype(np.float32), which


def peak() -> float:
    """Largest memory of the process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(total: int, p: int, n_atoms: int) -> None:
    """Print what is reached."""
    torch.set_num_threads(1)
    source = Circles(p, n_atoms)
    first, atoms = source.rows(64 * n_atoms)
    model = pb.ManifoldDictionary(
        n_atoms, "circle", init=atoms, n_active=1, n_restarts=1, max_sweeps=4, random_state=0
    )
    began = time.process_time()
    model.partial_fit(first)
    print(
        f"first {len(first)} rows: {time.process_time() - began:.1f} s, sigma {model.sigma_:.4f}", flush=True
    )
    spent, early, batches = 0.0, 0.0, -(-total // BATCH_ROWS)
    for number in range(batches):
        rows, _ = source.rows(BATCH_ROWS)
        began = time.process_time()
        model.partial_fit(rows)
        spent += time.process_time() - began
        if number + 1 == min(EARLY, batches):
            early = peak()
        if (number + 1) % max(1, batches // 5) == 0:
            seen = (number + 1) * BATCH_ROWS
            print(f"{seen} rows: {seen / spent:.0f} rows/s, peak {peak():.0f} MB", flush=True)
    print(f"memory since batch {EARLY}: {peak() - early:.0f} MB, sigma {model.sigma_:.4f} of {SIGMA}")
    rows, _ = source.rows(BATCH_ROWS)
    left = ((rows - model.inverse_transform(model.transform(rows))) ** 2).sum() / (
        (rows - rows.mean(0)) ** 2
    ).sum()
    latents = sum(atom.chart.M for atom in model.atoms_)
    began = time.process_time()
    rival = fit_topk(
        torch.from_numpy(rows), latents, 2, steps=200, generator=torch.Generator().manual_seed(0)
    )
    rate = 200 * BATCH / (time.process_time() - began)
    missed = (rival.reconstruct(torch.from_numpy(rows)).numpy() - rows) ** 2
    print(f"share of the variance left: {left:.4f}; noise is {SIGMA**2 * p / rows.var(0).sum():.4f}")
    print(f"TopK, {latents} latents, 2 active: {rate:.0f} rows/s a pass; left after 200 steps "
          f"{missed.sum() / ((rows - rows.mean(0)) ** 2).sum():.3f}")  # fmt: skip


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*given, *(1_000_000, 512, 64)[len(given) :])
