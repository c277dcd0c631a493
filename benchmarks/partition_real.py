"""Reserved quantities of real data: a batch and the cell cycle of cells, the season of winds, a warming.

    .venv/bin/python benchmarks/partition_real.py cells
    .venv/bin/python benchmarks/partition_real.py winds FILE       # monthly_navy_winds.cdf of ferret-datasets
    .venv/bin/python benchmarks/partition_real.py scenarios FOLDER # of iris-sample-data 2.5.2; needs h5py

Three seeds each. Cells: half of the 700 of data:pbmc68k are thinned to a second batch. Winds: 1982 to 1990
train, 1991 and 1992 test. Scenarios: E1 trains, A1B from 2000 on tests.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.io import netcdf_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

import pullback as pb

SEEDS = range(3)
EDITED = 20
"""Years at the ends of a scenario: those that are edited, and those that show the warming."""


def fitted(X: Any, latent_dim: int, option: Any, quantities: Any, **settings: Any) -> pb.Autoencoder:
    settings = {"patience": None, "validation_fraction": 0.0, "progress": False} | settings
    model = pb.Autoencoder(latent_dim, partition=option, **settings)
    return model.fit(X, quantities=quantities if option is not None else None)


def told(z: np.ndarray, y: Any, *, neighbours: bool) -> float:
    """Accuracy in five folds: of 15 neighbours, or of a linear classifier."""
    model = KNeighborsClassifier(15) if neighbours else LogisticRegression(max_iter=2000)
    return float(cross_val_score(model, (z - z.mean(0)) / z.std(0), y, cv=5).mean())


def thinned(counts: np.ndarray, batch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Log counts, those of the second batch at half the depth, with an efficiency for every gene."""
    efficiency = np.minimum(1, 0.5 * np.exp(0.4 * rng.normal(size=(1, counts.shape[1]))))
    kept = rng.binomial(counts.astype(int), np.where(batch[:, None] == 1, efficiency, 1.0))
    X = np.log1p(1e4 * kept / kept.sum(1, keepdims=True)).astype("float32")
    return X[:, X.std(0) > 0]


def cells() -> None:
    found = pb.data.load("pbmc68k", layer="counts")
    cycle = np.stack([found.extra["S_score"], found.extra["G2M_score"]], axis=1)
    phase, kind = found.extra["phase"], found.y
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        batch = rng.integers(0, 2, len(cycle))
        X = thinned(found.X, batch, rng)
        known = {"cycle": cycle, "batch": np.array(["first", "second"])[batch]}
        settings = {"max_epochs": 150, "validation_fraction": 0.2, "batch_size": 64, "random_state": seed}
        plain = fitted(X, 10, None, None, **settings).transform(X)
        model = fitted(X, 10, pb.SubspacePartition(dict.fromkeys(known)), known, **settings)
        z = model.transform(X)
        print(model.evaluate_quantities(X, known))
        for name, codes in (("plain", plain), ("all", z), ("erased", model.erase(z, "batch"))):
            types = told(codes, kind, neighbours=True)
            linear, near = (told(codes, batch, neighbours=near) for near in (False, True))
            print(f"{name:7s} type {types:.2f}, batch linear {linear:.2f}, by neighbours {near:.2f}")
        linear = [told(codes, phase, neighbours=False) for codes in (z[:, :2], plain)]
        print(f"phase from two coordinates {linear[0]:.2f}, from all of a plain autoencoder {linear[1]:.2f}")


def winds(path: str) -> None:
    file = netcdf_file(path, mmap=False)
    field = np.stack([file.variables[name].data for name in ("UWND", "VWND")], axis=1).astype("float32")
    weight = np.sqrt(np.clip(np.cos(np.deg2rad(np.linspace(-90, 90, 73))), 0, None))
    field = field * weight[:, None].astype("float32")
    x = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(field), (18, 36)).numpy()
    month, speed = np.arange(len(x)) % 12, np.sqrt((field**2).mean((1, 2, 3)))
    train, test = slice(0, 108), slice(108, 132)
    climate = np.stack([x[train][month[train] == k].mean(0) for k in range(12)]) - x[train].mean(0)
    for seed in SEEDS:
        known = {"month": month[train], "speed": speed[train]}
        option = pb.SubspacePartition(dict.fromkeys(known), circular={"month": 12})
        for partition in (None, option):
            settings = {"max_epochs": 400, "batch_size": 36, "random_state": seed}
            model = fitted(x[train], 8, partition, known, **settings)
            left = np.square(model.inverse_transform(model.transform(x[test])) - x[test]).sum()
            left /= np.square(x[test] - x[train].mean(0)).sum()
            print(f"seed {seed}, partition {partition is not None}: not reconstructed {left:.2f}")
        rows = {
            "Y_train": model.known_columns(x[train], known),
            "Y_test": model.known_columns(x[test], {"month": month[test], "speed": speed[test]}),
        }
        codes = {
            f"Z_{name}": torch.from_numpy(model.transform(x[part]))
            for name, part in (("train", train), ("test", test))
        }
        print(pb.subspaces.evaluate_subspaces(model.partition_.loss, **codes, **rows))
        off = np.abs((model.quantities(x[test])["month"] - month[test] + 6) % 12 - 6)
        january = x[test][month[test] == 0]
        moved = model.edit(january, month=6).x.mean(0) - x[train].mean(0)
        before = january.mean(0) - x[train].mean(0)
        alike = [np.corrcoef(values.ravel(), climate[6].ravel())[0, 1] for values in (moved, before)]
        print(
            f"month off by {off.mean():.2f}, at most {off.max():.2f}; January as July "
            f"{alike[0]:.2f}, before {alike[1]:.2f}"
        )


def scenarios(folder: str) -> None:
    import h5py

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        with h5py.File(Path(folder) / f"{name}_north_america.nc") as file:
            return file["air_temperature"][:].astype("float32"), file["latitude"][:]

    (first, latitude), (second, _) = read("E1"), read("A1B")
    share = np.cos(np.deg2rad(latitude))[:, None]
    share = (share / share.sum()).astype("float32")
    scale = np.sqrt(share * len(share))

    def of(t: np.ndarray) -> dict[str, np.ndarray]:
        profile = (t * share).sum(1)
        return {"mean": profile.mean(1), "contrast": profile[:, :24].mean(1) - profile[:, 25:].mean(1)}

    def rows(t: np.ndarray) -> np.ndarray:
        return (t * scale).reshape(len(t), -1)

    later, pattern = second[140:], first[-EDITED:].mean(0) - first[:EDITED].mean(0)
    for seed in SEEDS:
        option = pb.SubspacePartition({"mean": None, "contrast": None})
        model = fitted(rows(first), 6, option, of(first), max_epochs=400, batch_size=48, random_state=seed)
        for name, read_off in model.quantities(rows(later)).items():
            true = of(later)[name]
            left = np.square(read_off - true)
            r2 = 1 - left.sum() / np.square(true - true.mean()).sum()
            print(f"seed {seed}: {name} R² {r2:.3f}, off by {np.sqrt(left.mean()):.2f} K")
        early = rows(first[:EDITED])
        edited = model.edit(early, mean=float(of(first[:EDITED])["mean"].mean()) + 2)
        after, before = (
            values.reshape(-1, *first.shape[1:]) / scale
            for values in (edited.x, model.inverse_transform(model.transform(early)))
        )
        change = {name: (of(after)[name] - of(before)[name]).mean() for name in of(after)}
        alike = np.corrcoef((after - before).mean(0).ravel(), pattern.ravel())[0, 1]
        print(
            f"edited by 2 K: mean {change['mean']:.2f}, contrast {change['contrast']:.2f}, "
            f"pattern {alike:.2f}"
        )


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    {"cells": cells, "winds": winds, "scenarios": scenarios}[sys.argv[1]](*sys.argv[2:])
