"""The manifold dictionary's steps: against unprojected rows, and against Adam from the same start.

CPU time on one thread, both sides in turn; each line gives the smallest, median and largest ratio of rounds.

    python benchmarks/bench_dictionary.py
"""

import sys
import time
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from planted import Planted, planted
from pullback.models.dictionary.alone import spread
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.decoder_step import gather, solve
from pullback.models.dictionary.gram import Projected, projected
from pullback.models.dictionary.iterate import SweepState
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.objective import objective
from pullback.models.dictionary.parametrization import coords_of, raw_of
from pullback.models.dictionary.softmax_step import step_softmax
from pullback.models.dictionary.sweep import alternate
from pullback.models.dictionary.sweep_options import SweepOptions
from sums import codes_of, layout_of, oracle
from timing import ratios, table, worded

ENTROPY, LAM, RATE = 0.05, 0.05, 0.05
FLAT = {"reencode_every": 999, "regauge_every": 999, "isometry": 0.0}


def wide_rows(p: int) -> tuple[Layout, torch.Tensor, torch.Tensor, Codes]:
    """The planted mixture in p features, decoders and a start."""
    rows = planted(1000, "single", seed=1)
    layout, scale = layout_of(rows.kinds), spread(rows.Z)
    B = oracle(layout, rows, scale).B
    g = torch.Generator().manual_seed(0)
    wide = torch.linalg.qr(torch.randn(p, 64, generator=g, dtype=torch.float64)).Q.mT
    return layout, rows.Z / scale @ wide, B @ wide, codes_of(layout, rows, softmax=True, noise=0.3)


def row_steps(p: int) -> list[float]:
    """Unprojected over projected time of two row steps, the projection included."""
    layout, Z, B, codes = wide_rows(p)
    return ratios(
        lambda: step_softmax(layout, Projected(Z, B), codes),
        lambda: step_softmax(layout, projected(Z, B), codes),
        rounds=3,
    )


def final_objective(rows: Planted, start: Codes, layout: Layout) -> tuple[float, list[float], list[float]]:
    """F at rest, and F and CPU seconds after each sweep."""
    times, values, began = [], [], time.process_time()

    def note(state: SweepState) -> None:
        times.append(time.process_time() - began)
        values.append(state.objective)

    options = SweepOptions(gate="softmax", entropy=ENTROPY, smoothness=LAM, max_sweeps=40, tol=1e-9, **FLAT)  # type: ignore[arg-type]
    alternate(layout, rows.Z, start, options, callback=note)
    return min(values), values, times


def by_adam(rows: Planted, start: Codes, layout: Layout, wanted: float, rate: float) -> tuple[float, int]:
    """CPU seconds and steps until F is reached, from the start with its best decoders; inf if never."""
    scale = spread(rows.Z)
    Z = rows.Z / scale
    lam = torch.full((layout.K,), LAM, dtype=torch.float64)
    rho = 1e-6 * len(Z)
    assert start.logits is not None
    began = time.process_time()
    B = solve(layout, gather(layout, start, Z), lam, rho).B.requires_grad_()
    logits = start.logits.clone().requires_grad_()
    raws = [
        raw_of(chart, start.coords[:, k, : chart.c]).requires_grad_() for k, chart in enumerate(layout.charts)
    ]
    optimiser = torch.optim.Adam([B, logits, *raws], lr=rate)
    for step in range(1500):
        parts = [coords_of(chart, raw) for chart, raw in zip(layout.charts, raws, strict=True)]
        coords = torch.stack([torch.nn.functional.pad(t, (0, 3 - t.shape[1])) for t in parts], 1)
        value = objective(layout, Z, B, Codes.softmax(logits, coords), lam=lam, rho=rho, entropy=ENTROPY)
        if value.item() * scale**2 <= wanted:
            return time.process_time() - began, step
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    return float("inf"), 1500


def against_adam(seed: int, lines: list[str], rounds: int = 5) -> None:
    """Time to 1.02 x the final objective, at the step size that serves Adam best."""
    rows = planted(1500, "single", seed=seed)
    layout = layout_of(rows.kinds)
    start = codes_of(layout, rows, softmax=True, noise=0.4)
    wanted = 1.02 * final_objective(rows, start, layout)[0]
    tried = {rate: by_adam(rows, start, layout, wanted, rate) for rate in (0.02, 0.05, 0.1, 0.2)}
    rate = min(tried, key=lambda r: tried[r][1])
    found, sweeps = [], 0
    for _ in range(rounds):
        _, values, times = final_objective(rows, start, layout)
        sweeps = next(i for i, value in enumerate(values) if value <= wanted)
        found.append(by_adam(rows, start, layout, wanted, rate)[0] / times[sweeps])
    name = f"draw {seed}: {sweeps} sweeps against {tried[rate][1]} Adam steps (rate {rate})"
    lines.append(worded(name, sorted(found), 3.0))
    print(f"median {median(found):.2f}", {r: steps for r, (_, steps) in tried.items()})


if __name__ == "__main__":
    for lines in table("Manifold dictionary, one thread: other / ours"):
        for p, asked in ((64, None), (512, 5.0), (2048, 15.0)):
            lines.append(worded(f"row steps unprojected / projected, p={p}", row_steps(p), asked))
        for seed in (0, 1):
            against_adam(seed, lines)
