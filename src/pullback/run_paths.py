"""Geodesics between rows of a run: solved, and written as tables and as one figure."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import pullback as pb
from pullback.data.output import check_table_path, path_columns
from pullback.estimators.latent_metrics import metric_of
from pullback.geometry import EnergyShares, Geodesic
from pullback.io import atomic_path
from pullback.plots.shares import bars_of
from pullback.reporting.path_shares import names_of, shares_along
from pullback.reporting.write import check_writable
from pullback.run_rows import row_number, split_pair

FIGURE_ENDINGS = (".png", ".pdf", ".svg")
DRAWN = 4
STATIONS = 11
BARS = 8


@dataclass(frozen=True)
class RunPaths:
    """Geodesics of a trained model between rows that it was trained on."""

    model: Any
    names: tuple[str, ...]
    codes: np.ndarray  # (n, d)
    found: Geodesic
    shares: EnergyShares


def check_outputs(out: Path, shares: Path | None, figure: Path | None, *, overwrite: bool) -> None:
    """Find out before any work that every file can be written."""
    given = [path for path in (out, shares, figure) if path is not None]
    if len({path.absolute() for path in given}) < len(given):
        raise ValueError(f"--out, --shares and --figure: expected different files, got {given[0]} twice")
    for table in (out, shares):
        if table is not None:
            check_table_path(table, overwrite=overwrite)
    if figure is not None:
        if figure.suffix.lower() not in FIGURE_ENDINGS:
            endings = " ".join(FIGURE_ENDINGS)
            raise ValueError(f"--figure: expected a file that ends in {endings}, got {figure.name!r}")
        check_writable(figure, overwrite=overwrite)


def solve_pairs(model: Any, table: Any, pairs: list[str], nodes: int) -> RunPaths:
    """Solve all pairs at once, in double precision, where a path can be certified to 1e-6."""
    ends = [[row_number(word, table.samples) for word in split_pair(text)] for text in pairs]
    codes = torch.as_tensor(np.asarray(table.X)).double()
    start, end = (codes[[row[side] for row in ends]] for side in (0, 1))
    found = pb.geodesic(metric_of(model, dtype=torch.float64), start, end, nodes=nodes, data=codes)
    shares = shares_along(model, found, feature_names(model))
    return RunPaths(model, tuple(pairs), codes.numpy(), found, shares)


def node_columns(paths: RunPaths, *, decoded: bool) -> dict[str, Any]:
    """One row a node: where it is, and the length and certificate of its path."""
    found = paths.found
    m, nodes, _ = found.points.shape
    columns = path_columns(found.points, pairs=paths.names)
    for name in ("length", "converged", "residual", "gap"):
        columns[name] = getattr(found, name).detach().cpu().numpy().repeat(nodes)
    if decoded:
        rows = paths.model.inverse_transform(found.points.flatten(0, 1).cpu().numpy())
        columns |= feature_columns(paths.model, np.asarray(rows))
    assert len(columns["t"]) == m * nodes
    return columns


def share_columns(paths: RunPaths) -> dict[str, Any]:
    """One row a path and feature: its share of the energy, how it changes, and the way that it goes."""
    shares = paths.shares
    m, p = shares.values.shape
    names = names_of(shares)
    parts = {
        "energy": shares.values,
        "share": shares.fraction,
        "change": shares.signed,
        "total_variation": shares.total_variation,
    }
    return {
        "pair": np.repeat(np.array(paths.names), p),
        "feature": np.tile(np.array(names), m),
        **{name: part.cpu().numpy().ravel() for name, part in parts.items()},
    }


def summaries(paths: RunPaths) -> list[dict[str, Any]]:
    """Length and certificate of each path as plain values."""
    found = paths.found
    columns = zip(paths.names, found.length, found.converged, found.residual, found.gap, strict=True)
    return [
        {
            "pair": name,
            "length": float(length),
            "converged": bool(good),
            "residual": float(residual),
            "gap": float(gap),
        }
        for name, length, good, residual, gap in columns
    ]


def feature_names(model: Any) -> tuple[str, ...]:
    """Names of the features that a model was trained on."""
    known = getattr(model, "feature_names_in_", None)
    count = int(model.n_features_in_)
    return tuple(f"x{i + 1}" for i in range(count)) if known is None else tuple(str(name) for name in known)


def feature_columns(model: Any, x: Any) -> dict[str, Any]:
    """Decoded rows by feature."""
    rows = x.reshape(len(x), -1)
    return {name: rows[:, i] for i, name in enumerate(feature_names(model))}


def draw(paths: RunPaths) -> Figure:
    """The map with all paths; of the first few what is decoded along them and what makes them long."""
    shown = min(len(paths.names), DRAWN)
    shape = getattr(paths.model, "image_shape_", None)
    tall = 1.25 if shape is not None else 2.6
    figure = Figure(figsize=(10.0, 4.6 + tall * shown), layout="constrained")
    grid = figure.add_gridspec(
        shown + 1, 2, height_ratios=[4.6] + [tall] * shown, width_ratios=[6, 5] if shape is None else [3, 1]
    )
    top = figure.add_subplot(grid[0, :])
    names = [str(i + 1) for i in range(len(paths.names))]
    metric = metric_of(paths.model, dtype=torch.float64)
    pb.plots.geodesic_paths(paths.found, paths.codes, metric=metric, names=names, ax=top)
    stations = np.linspace(0, paths.found.points.shape[1] - 1, STATIONS).round().astype(int)
    for i in range(shown):
        rows = np.asarray(paths.model.inverse_transform(paths.found.points[i, stations].cpu().numpy()))
        title = f"{i + 1}   {paths.names[i].replace(':', ' → ')}"
        left, right = (figure.add_subplot(grid[i + 1, side]) for side in (0, 1))
        rows = rows.reshape(STATIONS, -1)
        labels = {"feature_names": feature_names(paths.model), "image_shape": shape}
        same = paths.shares.values.shape[1] == rows.shape[1]
        features = bars_of(paths.shares, i, BARS).index if same else None
        pb.plots.decoded_strip(rows, n_features=BARS, features=features, title=title, ax=left, **labels)
        _attribution(paths, i, shape, right)
    return figure


def _attribution(paths: RunPaths, i: int, shape: Any, ax: Any) -> None:
    fits = shape is not None and paths.shares.values.shape[1] == int(np.prod(shape))
    title = f"length {float(paths.found.length[i]):.3g}"
    title += "" if bool(paths.found.converged[i]) else ", not certified"
    if fits:
        title = f"shares in %: red rises, blue falls\n{title}" if i == 0 else title
        pb.plots.path_attribution(paths.shares, i, image_shape=shape, title=title, legend=False, ax=ax)
        return
    last = i == min(len(paths.names), DRAWN) - 1
    pb.plots.path_attribution(paths.shares, i, n_features=BARS, title=title, legend=last, ax=ax)
    if not last:
        ax.set_xlabel("")


def write_figure(path: Path, figure: Figure) -> None:
    """Save a figure, whole or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower().removeprefix("."), dpi=150)
