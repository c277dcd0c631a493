"""Do geodesics tell more than straight lines about real cells? Numbers of docs/measured.md.

``python benchmarks/trajectories.py hsmm 5`` and ``... pbmc 5``; the number is that of the seeds.

HSMM: myoblasts at 24 and 72 hours are joined, and the middles of the paths are asked about the cells of
48 hours, which no model has seen. PBMC: cells of different types are joined under the Fisher metric of
counts, and the nodes of the paths are compared with real cells.
"""

import math
import sys
import time

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

import pullback as pb

NODES = 65
OPTIONS = {"max_epochs": 300, "patience": None, "progress": False}


def straight(start: Tensor, end: Tensor) -> Tensor:
    """Straight lines (m, NODES, d)."""
    steps = torch.linspace(0, 1, NODES, dtype=start.dtype)[:, None]
    return start[:, None] + steps * (end - start)[:, None]


def log_likelihood(model: pb.VAE | pb.Autoencoder, cells: np.ndarray, z: Tensor) -> Tensor:
    """log p(x | z) of every cell (row) at every latent point (column), in nats and data units."""
    x = model.scaling_.apply(torch.as_tensor(cells))
    with torch.no_grad():
        params = model.module_.decode(z.float())
        columns = [model.module_.likelihood.log_prob(x, row.expand(len(x), -1)) for row in params]
    return torch.stack(columns, 1).double() - model.scaling_.log_volume()


def show(name: str, values: list[float]) -> None:
    """Mean and standard error over seeds."""
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    print(f"  {name:<52} {np.mean(values):10.3f} ± {error:.3f}", flush=True)


def show_all(results: list[dict[str, float]]) -> None:
    for name in results[0]:
        show(name, [result[name] for result in results])


def joined_cells(X: np.ndarray, hours: np.ndarray, pairing: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows at 24 and at 72 hours: 200 pairs at random, or one to one by optimal transport of the data."""
    early, late = np.flatnonzero(hours == 24), np.flatnonzero(hours == 72)
    if pairing == "random":
        draw = np.random.default_rng(seed)
        return draw.choice(early, 200), draw.choice(late, 200)
    a, b = linear_sum_assignment(cdist(X[early], X[late]))
    return early[a], late[b]


def middles(model: pb.VAE | pb.Autoencoder, held: np.ndarray, z: Tensor) -> tuple[float, float]:
    """How well decoded points explain held-out cells: mean log-likelihood of their mixture, mean distance."""
    mixture = torch.logsumexp(log_likelihood(model, held, z), 1) - math.log(len(z))
    distances = cdist(held, model.inverse_transform(z.float().numpy()))
    return float(mixture.mean()), float(distances.min(1).mean())


def hsmm(seeds: int) -> None:
    """Leave 48 hours out."""
    data = pb.data.load("hsmm", layer="log", genes=2000)
    X, known = data.X.astype("float32"), data.y != 48
    seen, hours, held = X[known], data.y[known], X[~known]
    for model_class, d in ((pb.VAE, 2), (pb.Autoencoder, 5)):
        found: dict[str, list[dict[str, float]]] = {"random": [], "transport": []}
        for seed in range(seeds):
            model = model_class(d, random_state=seed, **OPTIONS).fit(seen)
            z = torch.as_tensor(model.embedding_).double()
            metric = model.metric(dtype=torch.float64)
            own, _ = middles(model, held, torch.as_tensor(model.transform(held)).double())
            for pairing, results in found.items():
                a, b = joined_cells(seen, hours, pairing, seed)
                paths = pb.geodesic(metric, z[a], z[b], data=z)
                lines = straight(z[a], z[b])
                ends, _ = middles(model, held, torch.cat([z[a], z[b]]))
                line, line_distance = middles(model, held, lines[:, NODES // 2])
                path, path_distance = middles(model, held, paths.points[:, NODES // 2])
                results.append(
                    {
                        "pairs certified": float(paths.converged.double().mean()),
                        "length, line over geodesic (median)": float(
                            (pb.curve_length(metric, lines) / paths.length).median()
                        ),
                        "log p(48 h), middles of lines": line,
                        "    middles of geodesics, more than lines": path - line,
                        "    both ends, more than lines": ends - line,
                        "    the cells' own codes, more than lines": own - line,
                        "distance to nearest decoded middle, lines": line_distance,
                        "    geodesics, more than lines": path_distance - line_distance,
                    }
                )
        for pairing, results in found.items():
            print(f"HSMM, {model_class.__name__}({d}), pairs by {pairing}, {seeds} seeds")
            show_all(results)


def implausibility(model: pb.VAE, counts: np.ndarray, curves: Tensor, best: Tensor) -> float:
    """Nats by which the nodes of curves miss real cells: least best(x) - log p(x | node) over the cells x."""
    nodes = curves[:40, NODES // 6 :: NODES // 6][:, :5].flatten(0, 1)
    return float((best[:, None] - log_likelihood(model, counts, nodes)).amin(0).mean())


def types_joined(data: pb.data.Dataset, likelihood: str, d: int, seed: int) -> dict[str, float]:
    """100 random pairs of cells of different types."""
    model = pb.VAE(d, likelihood=likelihood, random_state=seed, **OPTIONS).fit(data.X)
    z = torch.as_tensor(model.embedding_).double()
    metric = model.metric(dtype=torch.float64)
    a, b = np.random.default_rng(seed).integers(len(z), size=(2, 400))
    apart = np.flatnonzero(data.y[a] != data.y[b])[:100]
    a, b = a[apart], b[apart]
    begun = time.process_time()
    paths = pb.geodesic(metric, z[a], z[b], data=z)
    spent = time.process_time() - begun
    lines = straight(z[a], z[b])
    length = pb.curve_length(metric, lines) / paths.length
    energy = pb.curve_energy(metric, lines) / paths.energy
    best = log_likelihood(model, data.X, z).amax(1)
    bent = length > 1.1
    result = {
        "pairs certified": float(paths.converged.double().mean()),
        "seconds for 100 pairs": spent,
        "length, line over geodesic: median": float(length.median()),
        "length, line over geodesic: 90 % quantile": float(length.quantile(0.9)),
        "energy, line over geodesic: mean": float(energy.mean()),
        "pairs whose line is 10 % longer": float(bent.double().mean()),
        "nats from the nearest cell, lines": implausibility(model, data.X, lines, best),
        "    geodesics": implausibility(model, data.X, paths.points, best),
    }
    if bent.any():
        result["    of those pairs, lines"] = implausibility(model, data.X, lines[bent], best)
        result["    of those pairs, geodesics"] = implausibility(model, data.X, paths.points[bent], best)
    return result


PLASMA = ("IGLL5", "IGJ")


def from_b_to_t(data: pb.data.Dataset, seed: int) -> dict[str, float]:
    """The middle B cell to that of each kind of T cell: what the geodesic saves, and on which genes."""
    model = pb.VAE(2, likelihood="poisson", random_state=seed, **OPTIONS).fit(data.X)
    z = torch.as_tensor(model.embedding_).double()
    metric = model.metric(dtype=torch.float64)
    names = [name for name in np.unique(data.y) if (data.y == name).sum() >= 40]
    middle = {}
    for name in names:
        members = z[data.y == name]
        middle[name] = members[torch.cdist(members, members).sum(1).argmin()]
    b = middle["CD19+ B"]
    ends = torch.stack([middle[name] for name in names if name.startswith(("CD4+", "CD8+"))])
    start = b.expand_as(ends)
    paths, lines = pb.geodesic(metric, start, ends, data=z), straight(start, ends)
    saved = pb.shares_of_difference(metric, lines, paths.points, feature_names=data.features.tolist())
    genes = [data.features.tolist().index(name) for name in PLASMA]
    longer = pb.curve_length(metric, lines) / paths.length - 1
    return {
        "pairs certified": float(paths.converged.double().mean()),
        "line longer by, least of the pairs": float(longer.min()),
        "    most": float(longer.max()),
        f"part of what is saved on {' and '.join(PLASMA)}": float(saved.fraction[:, genes].sum(1).mean()),
    }


def pbmc(seeds: int) -> None:
    """Cells of different types."""
    data = pb.data.load("pbmc68k")
    for seed in range(seeds):
        print(f"PBMC, poisson, d = 2, from B to T cells, seed {seed}")
        for name, value in from_b_to_t(data, seed).items():
            print(f"  {name:<52} {value:10.3f}", flush=True)
    for likelihood, d in (("poisson", 2), ("poisson", 5), ("negative_binomial", 2)):
        results = [types_joined(data, likelihood, d, seed) for seed in range(seeds)]
        print(f"PBMC, {likelihood}, d = {d}, {seeds} seeds")
        common = [name for name in results[0] if all(name in result for result in results)]
        show_all([{name: result[name] for name in common} for result in results])


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"hsmm": hsmm, "pbmc": pbmc}[sys.argv[1]](int(sys.argv[2]))
