"""Does the manifold dictionary find what was planted? Numbers of docs/manifold_dictionary_measured.md.

``python -m benchmarks.dictionary_quality sums given 2500 5`` (or ``blind``; rows, draws): sums of 1 to 3 of
six atoms. ``... cones 2500 5``: how pure the rows are that atoms are started from. ``... golden``: recorded
rows. ``... topology 400 0.15``: charts by evidence on single manifolds (rows, noise).
"""

import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from tests.planted import SIX, Golden, Planted, by_truth, planted, scores_of
from torch import Tensor
from torch.nn.functional import one_hot

from pullback.models.dictionary.alarms import fit_alarms
from pullback.models.dictionary.cluster_start import cluster_start
from pullback.models.dictionary.cones import find_cones
from pullback.models.dictionary.encoding import encode_softmax
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.noise import noise_level
from pullback.models.dictionary.pure_fit import fit_pure
from pullback.models.dictionary.pure_start import direction_clusters, pure_rows, pure_start
from pullback.models.dictionary.scores import match_atoms, support_f1
from pullback.models.dictionary.sweep import alternate
from pullback.models.dictionary.sweep_options import SweepOptions
from pullback.models.dictionary.topology import CANDIDATES, choose_topology

OPTIONS = SweepOptions(n_active=3, max_sweeps=24)
GOOD = 0.9


def good(values: Sequence[float]) -> int:
    return sum(value > GOOD for value in values)


def recovered(name: str, draw: Planted, blind: bool) -> tuple[int, int]:
    """One fit of sums, its line printed."""
    began = time.perf_counter()
    start = pure_start(draw.Z, 6, "auto" if blind else by_truth(draw.A, draw.kinds))
    pure = fit_pure(draw.Z, start, OPTIONS, choose=blind)
    seconds = time.perf_counter() - began
    scores = scores_of(pure.fit, draw)
    alarms = fit_alarms(
        pure.fit,
        sigma_noise=start.sigma,
        topologies=pure.topologies,
        pure=pure.pure,
        found=start.found,
    )
    told = sorted({alarm.code for alarm in alarms if alarm.code != "not_converged"})
    found = good(scores.coordinates), good(scores.contributions)
    kinds = [chart.name for chart in pure.fit.layout.charts]
    ratio = pure.fit.s2 / (start.sigma or 1) ** 2
    parts = [
        f"scores {found[0]}, R2 {found[1]}, F1 {scores.support_f1:.4f}, clean FVU {scores.clean_fvu:.4f}",
        f"FVU {scores.fvu:.4f}, s2 ratio {ratio:.3f}, rounds {len(pure.ratios) - 1}, {seconds:.0f} s",
        f"alarms {told}, {kinds} {[round(x, 3) for x in scores.coordinates]}",
    ]
    print(f"{name}: {', '.join(parts)}", flush=True)
    return found


def sums(which: str, n: int, draws: int) -> None:
    found = [
        recovered(f"{which} {n} draw {seed}", planted(n, "additive", seed=seed), which == "blind")
        for seed in range(draws)
    ]
    means = np.mean(found, 0)
    print(f"{which} {n}: mean scores above .9 {means[0]:.1f}, contributions {means[1]:.1f}")


def cones(n: int, draws: int) -> None:
    """Purity of the rows that atoms start from: cones, and clusters of the densest directions."""
    for seed in range(draws):
        draw = planted(n, "additive", seed=seed)
        level = noise_level(draw.Z)
        Y = draw.Z @ torch.linalg.svd(draw.Z, full_matrices=False).Vh[: level.rank].mT
        alone = (draw.A > 0).sum(1) == 1
        began = time.perf_counter()
        groups = [cone.rows for cone in find_cones(Y, level.sigma or 1.0, most=6)]
        seconds = time.perf_counter() - began
        dense = pure_rows(Y, 0.25)
        labels = direction_clusters(Y[dense], 6).labels
        clusters = [dense[labels == c] for c in range(6)]
        print(f"{n} draw {seed}: cones {_groups(groups, draw, alone)} ({seconds:.1f} s)")
        print(f"    clusters {_groups(clusters, draw, alone)}")


def _groups(groups: Sequence[Tensor], draw: Planted, alone: Tensor) -> str:
    """Atoms with a group of their own, share of right rows in groups, share of pure rows that are in one."""
    owner = [int(draw.A[rows].sum(0).argmax()) for rows in groups]
    right = sum(
        int((alone[rows] & (draw.A[rows, k] > 0)).sum()) for rows, k in zip(groups, owner, strict=True)
    )
    size = sum(len(rows) for rows in groups)
    return f"atoms {len(set(owner))}/6, right {right / size:.3f}, of pure rows {right / int(alone.sum()):.2f}"


def golden() -> None:
    """Kinds blind on the recorded rows."""
    recorded = Golden()
    for name in ("add_train", "simplex_train"):
        A, t = recorded[f"{name}_A"], recorded.coordinates(name)
        Z = recorded[f"{name}_Z"]
        draw = Planted(Z, Z, A, t, (), recorded.kinds(name.split("_")[0]), torch.empty(0))
        for blind in (False, True):
            recovered(f"{name} {'blind' if blind else 'given'}", draw, blind)
    Z = recorded["mix_train_Z"]
    start = cluster_start(Z, 6)
    fit = alternate(Layout(start.charts), Z, start.codes, SweepOptions(gate="softmax"))
    for part, codes in (
        ("train", fit.codes),
        ("test", encode_softmax(fit.layout, recorded["mix_test_Z"] / fit.scale, fit.B / fit.scale).codes),
    ):
        A = recorded[f"mix_{part}_A"]
        usage = one_hot(codes.weights.argmax(1), 6).double()
        print(f"mix {part}: F1 {support_f1(A, usage):.4f}, atoms {match_atoms(A, usage).tolist()}")
    print(f"mix: sigma {fit.s2**0.5:.4f}, charts {[chart.name for chart in start.charts]} of {SIX}")


def topology(n: int, sigma: float) -> None:
    right = 0
    for kind in CANDIDATES:
        for seed in (1, 2):
            draw = planted(n, kinds=(kind,), p=32, sigma=sigma, centre=1.0, seed=seed)
            found = choose_topology(draw.Z)
            right += found.winner == kind
            print(f"{kind} {seed}: {found.winner}, {found.verdict}, margin {found.margin:.0f}")
    print(f"N {n}, sigma {sigma}: {right} of 10")


def main() -> None:
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["sums", which, n, draws]:
            sums(which, int(n), int(draws))
        case ["cones", n, draws]:
            cones(int(n), int(draws))
        case ["golden"]:
            golden()
        case ["topology", n, sigma]:
            topology(int(n), float(sigma))
        case _:
            print(__doc__)


if __name__ == "__main__":
    main()
