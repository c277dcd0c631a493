"""Figures of one atom of a manifold dictionary: where it lies, what its coordinate says, how even it is."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

from pullback.estimators.manifold_dictionary import ManifoldDictionary
from pullback.models.dictionary.atoms import Atom
from pullback.models.dictionary.codes import SparseCodes
from pullback.models.dictionary.scores import coordinate_score
from pullback.models.dictionary.topology import largest_gap
from pullback.plots.arguments import check_labels
from pullback.plots.labels import Labels, read_labels
from pullback.plots.latent import draw_points
from pullback.plots.style import (
    FIT,
    GEODESIC,
    HAIRLINE,
    INK,
    MUTED,
    POINT,
    axes_or_new,
    finish,
    numeric_colormap,
)

TURN = 2 * np.pi
CURVE_POINTS, SURFACE_POINTS = 400, 900
OWN_SHARE = 0.25
"""Share of a row's largest weight above which a row counts as one of the atom's."""
CYCLIC = "twilight_shifted"
BINS = 36


def plot_atom(
    model: ManifoldDictionary, atom: int, Z: Any = None, *, labels: Any = None, ax: Axes | None = None
) -> Axes:
    """Draw an atom in the plane that holds most of it, with the rows that use it.

    A row z that uses the atom with weight a lies at g(t) + (z - ẑ)/a: on the atom, but for what the model
    does not explain. Colours are coordinates (cyclic for circles), or labels.

    Args:
        model: a fitted dictionary.
        atom: its number.
        Z: rows ``(n, p)``; None draws the atom alone.
        labels: ``(n,)`` of the rows, categories or numbers.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes. Both axes have the units of the data and one scale.

    Raises:
        ValueError: there is no such atom; labels without rows, or of another length.

    Example:
        >>> import numpy as np, pullback as pb
        >>> t = np.random.default_rng(0).uniform(0, 6.283, 200)
        >>> Z = np.c_[np.cos(t), np.sin(t), 0 * t]
        >>> model = pb.ManifoldDictionary(1, "circle", gate="softmax", random_state=0).fit(Z)
        >>> pb.plots.plot_atom(model, 0, Z).get_title(loc="left")
        'atom 0: circle'
    """
    known = own_atom(model, atom)
    if labels is not None and Z is None:
        raise ValueError("labels: expected rows Z that they belong to, got Z=None")
    shape, closed = _shape(known)
    centre = shape.mean(0)
    _, _, axes = np.linalg.svd(np.concatenate([shape - centre, np.zeros((2, shape.shape[1]))]))
    plane = axes[:2]
    ax = axes_or_new(ax, (4.6, 4.2))
    drawn = (shape - centre) @ plane.T
    if known.chart.d == 1:
        line = np.concatenate([drawn, drawn[:1]]) if closed else drawn
        ax.plot(*line.T, color=INK, lw=1.8, zorder=3)
    elif known.chart.d == 2:
        ax.scatter(*drawn.T, s=5, color=HAIRLINE, linewidths=0, zorder=1)
    else:
        ax.scatter(*drawn.T, s=90, marker="*", color=GEODESIC, linewidths=0, zorder=3)
    if Z is not None:
        rows, t, near = _rows_of(model, known, Z)
        given = None if labels is None else read_labels(check_labels(labels, len(np.asarray(Z))))
        _draw_rows(ax, (near - centre) @ plane.T, known, t, None if given is None else given.take(rows))
    ax.set_aspect("equal", "datalim")
    return finish(ax, f"atom {atom}: {named(known)}", ("first axis of the atom", "second axis"))


def atom_gallery(
    model: ManifoldDictionary, Z: Any = None, *, labels: Any = None, columns: int = 4, axes: Any = None
) -> np.ndarray:
    """Draw all atoms, see `plot_atom`.

    Args:
        model: a fitted dictionary.
        Z: rows ``(n, p)``.
        labels: ``(n,)`` of the rows.
        columns: atoms in a row of the figure.
        axes: K Axes to draw on; None makes a figure.

    Returns:
        The Axes, ``(K,)``.
    """
    own_atom(model, 0)
    K = len(model.atoms_)
    if axes is None:
        columns = min(columns, K)
        height = -(-K // columns)
        size = (3.6 * columns, 3.3 * height)
        figure, grid = plt.subplots(height, columns, figsize=size, layout="constrained", squeeze=False)
        axes = grid.ravel()[:K]
        for spare in grid.ravel()[K:]:
            figure.delaxes(spare)
    axes = np.asarray(axes, dtype=object).ravel()
    if len(axes) != K:
        raise ValueError(f"axes: expected {K}, one for each atom, got {len(axes)}")
    for k, ax in enumerate(axes):
        plot_atom(model, k, Z, labels=labels, ax=ax)
        ax.set(xlabel="", ylabel="")
    return axes


def coordinate_dial(
    model: ManifoldDictionary, atom: int, Z: Any, values: Any, *, ax: Axes | None = None
) -> Axes:
    """Draw the coordinate of a circle or an interval over known values of the rows.

    Values of a circle are angles in [0, 2π), or whole numbers 0 .. n - 1 that go round once. The score in the
    title is that of `pullback.models.dictionary.scores.coordinate_score`: 1 where one is the other but for
    where it begins and which way it runs.

    Args:
        model: a fitted dictionary.
        atom: its number.
        Z: rows ``(n, p)``.
        values: ``(n,)``; NaN where unknown.
        ax: Axes to draw on; None makes a figure.

    Raises:
        ValueError: the atom is no circle and no interval; values of another length; fewer than three rows
            that use the atom have a value.
    """
    known = own_atom(model, atom, curve=True)
    given = np.asarray(check_labels(values, len(np.asarray(Z)), "values"), dtype=np.float64)
    rows, t, _ = _rows_of(model, known, Z)
    kept = np.isfinite(given[rows])
    rows, t, truth = rows[kept], t[kept, 0], given[rows[kept]]
    if len(rows) < 3:
        raise ValueError(f"values: expected three or more rows of atom {atom} with a value, got {len(rows)}")
    cyclic = known.chart.name == "circle"
    if cyclic and (truth == np.round(truth)).all() and truth.max() > TURN:
        truth = truth * TURN / (np.nanmax(given) + 1)
    score = coordinate_score(
        known.chart.name, torch.from_numpy(truth[:, None]), torch.from_numpy(t[:, None].astype(np.float64))
    )
    ax = axes_or_new(ax, (4.6, 4.2))
    ax.scatter(truth, t, s=12, color=FIT, alpha=0.6, linewidths=0)
    if cyclic:
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_ticks([0, np.pi, TURN], ["0", "π", "2π"])
    return finish(ax, f"atom {atom}: score {score:.3f}", ("known value", "coordinate"))


def speed_curve(model: ManifoldDictionary, atom: int, *, ax: Axes | None = None) -> Axes:
    """Draw how fast a circle or an interval is passed, how it bends, and how sure its coordinates are.

    Speed is |g'| over its mean: level where equal steps of the coordinate are equal ways in the data.
    Curvature is that of the curve in data space times its length over 2π, so that a round circle has 1
    everywhere. The ribbon around the speed is ten standard deviations of the coordinates of the training rows
    there, as a share of the chart.

    Args:
        model: a fitted dictionary.
        atom: its number.
        ax: Axes to draw on; None makes a figure.

    Raises:
        ValueError: the atom is no circle and no interval.
    """
    known = own_atom(model, atom, curve=True)
    low, high = known.chart.span  # type: ignore[attr-defined]
    t = torch.linspace(low, high, CURVE_POINTS, dtype=torch.float64)
    jet = known.chart.jet(t[:, None], 2)
    B = known.decoder.double()
    slope, bend = jet.jacobian[:, :, 0] @ B, jet.hessian[:, :, 0, 0] @ B
    speed = slope.norm(dim=1)
    along = (slope * bend).sum(1) / speed.square().clamp_min(1e-300)
    curvature = (bend - along[:, None] * slope).norm(dim=1) / speed.square().clamp_min(1e-300)
    length = float(torch.trapezoid(speed, t))
    ax = axes_or_new(ax, (5.4, 3.4))
    level = (speed / speed.mean()).numpy()
    where, spread = _deviations(model, known)
    if len(where):
        width = 10 * np.interp(t.numpy(), where, spread) / (high - low)
        ax.fill_between(
            t.numpy(), level - width, level + width, color=FIT, alpha=0.18, linewidth=0,
            label="±10 sd of a coordinate",
        )  # fmt: skip
    ax.plot(t, level, color=FIT, lw=1.8, label="speed over its mean")
    ax.plot(t, (curvature * length / TURN).numpy(), color=GEODESIC, lw=1.4, label="curvature × length / 2π")
    ax.set_ylim(bottom=0)
    _ticks(ax, known)
    ax.legend(frameon=False, fontsize=8)
    variation = float(speed.std(correction=0) / speed.mean())
    return finish(ax, f"atom {atom}: speed varies by {variation:.1%}", ("coordinate", ""))


def coverage(model: ManifoldDictionary, atom: int, Z: Any = None, *, ax: Axes | None = None) -> Axes:
    """Draw which parts of a circle or an interval rows use, and the largest part that none does.

    Args:
        model: a fitted dictionary.
        atom: its number.
        Z: rows ``(n, p)``; None takes those of the fit.
        ax: Axes to draw on; None makes a figure.

    Raises:
        ValueError: the atom is no circle and no interval, or no row uses it.
    """
    known = own_atom(model, atom, curve=True)
    codes = model.codes_ if Z is None else model.transform(Z)
    _, t, _ = _used(codes, known)
    if not len(t):
        raise ValueError(f"Z: expected rows that use atom {atom}, got none")
    low, high = known.chart.span  # type: ignore[attr-defined]
    ax = axes_or_new(ax, (5.4, 3.0))
    ax.hist(t[:, 0], bins=BINS, range=(low, high), color=POINT, linewidth=0)
    begin, width = _gap(t[:, 0], cyclic=known.chart.name == "circle", ends=(low, high))
    for start, stop in _pieces(begin, width, low, high):
        ax.axvspan(start, stop, color=GEODESIC, alpha=0.2, linewidth=0)
    _ticks(ax, known)
    share = width / (high - low)
    return finish(ax, f"atom {atom}: {len(t)} rows, largest gap {share:.1%} of it", ("coordinate", "rows"))


# --- shared ------------------------------------------------------------------------------------------------


def own_atom(model: Any, atom: int, *, curve: bool = False) -> Atom:
    """The atom of that number, or an error that says which there are."""
    if not isinstance(model, ManifoldDictionary):
        raise TypeError(f"model: expected a fitted ManifoldDictionary, got {type(model).__name__}")
    if not hasattr(model, "atoms_"):
        raise ValueError("model: expected a fitted ManifoldDictionary; call fit first")
    if isinstance(atom, bool) or not isinstance(atom, int | np.integer) or not 0 <= atom < len(model.atoms_):
        raise ValueError(f"atom: expected a number from 0 to {len(model.atoms_) - 1}, got {atom!r}")
    known = model.atoms_[int(atom)]
    if curve and not hasattr(known.chart, "span"):
        raise ValueError(f"atom {atom} is a {known.chart.name}: expected a circle or an interval")
    return known


def named(atom: Atom) -> str:
    """What an atom is called on a figure."""
    return f"{atom.chart.M} points" if atom.chart.name == "points" else atom.chart.name


def _shape(atom: Atom) -> tuple[np.ndarray, bool]:
    """Points that show the atom, and whether the last meets the first."""
    chart = atom.chart
    if chart.name == "line":
        return np.stack([np.zeros(atom.decoder.shape[1]), atom.decoder[0].double().cpu().numpy()]), False
    count = {0: None, 1: CURVE_POINTS}.get(chart.d, SURFACE_POINTS)
    if chart.d == 2 and chart.name in ("plane", "torus"):
        count = int(SURFACE_POINTS**0.5)
    points = atom.decode(chart.grid(count).to(atom.decoder.device))
    return torch.as_tensor(points).double().cpu().numpy(), chart.name == "circle"


def _own(codes: SparseCodes, atom: Atom) -> tuple[np.ndarray, np.ndarray]:
    """Rows that use an atom enough for its coordinate to mean something, and its place in them."""
    weights = np.asarray(codes.weights)
    floor = OWN_SHARE * weights.max(axis=1, keepdims=True, initial=0)
    row, slot = np.nonzero((np.asarray(codes.indices) == atom.index) & (weights > floor))
    return row, slot


def _used(codes: SparseCodes, atom: Atom) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """These rows, their coordinates on the atom, and its weights."""
    plain = codes.numpy()
    row, slot = _own(plain, atom)
    return row, np.asarray(plain.coords)[row, slot, : atom.chart.c], np.asarray(plain.weights)[row, slot]


def _rows_of(model: ManifoldDictionary, atom: Atom, Z: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the atom, their coordinates, and where they lie around it."""
    codes = model.transform(Z)
    rows, t, a = _used(codes, atom)
    table = np.asarray(Z, dtype=np.float64)
    left = table[rows] - np.asarray(torch.as_tensor(model.inverse_transform(codes)), dtype=np.float64)[rows]
    own = np.asarray(atom.decode(t.astype(np.float64)), dtype=np.float64)
    return rows, t, own + left / a[:, None]


def _draw_rows(ax: Axes, points: np.ndarray, atom: Atom, t: np.ndarray, labels: Labels | None) -> None:
    if labels is not None or not t.shape[1]:
        draw_points(ax, points, labels, size=9.0)
        return
    cyclic = atom.chart.name in ("circle", "torus")
    tone = t[:, -1] if atom.chart.name == "sphere" else t[:, 0]
    ends = (0, TURN) if cyclic else (None, None)
    colors = CYCLIC if cyclic else numeric_colormap()
    ax.scatter(
        *points.T, c=tone, cmap=colors, vmin=ends[0], vmax=ends[1], s=9, linewidths=0, zorder=2, alpha=0.85
    )


def _deviations(model: ManifoldDictionary, atom: Atom) -> tuple[np.ndarray, np.ndarray]:
    """Median standard deviation of a coordinate along a curve: places and deviations."""
    codes = model.codes_.numpy()
    row, slot = _own(codes, atom)
    t, sd = np.asarray(codes.coords)[row, slot, 0], np.asarray(codes.coord_sd)[row, slot, 0]
    low, high = atom.chart.span  # type: ignore[attr-defined]
    place = np.clip(((t - low) / (high - low) * BINS).astype(int), 0, BINS - 1)
    kept = [b for b in range(BINS) if np.isfinite(sd[place == b]).any()]
    middle = low + (np.array(kept) + 0.5) * (high - low) / BINS
    return middle, np.array([np.nanmedian(sd[place == b]) for b in kept])


def _gap(t: np.ndarray, *, cyclic: bool, ends: tuple[float, float]) -> tuple[float, float]:
    """Where the largest gap begins, and how wide it is."""
    ordered = np.sort(t)
    if cyclic:
        between = np.append(np.diff(ordered), ordered[0] + TURN - ordered[-1])
        place = int(between.argmax())
        return float(ordered[place]), largest_gap(torch.from_numpy(ordered.astype(np.float64)))
    whole = np.concatenate([[ends[0]], ordered, [ends[1]]])
    between = np.diff(whole)
    place = int(between.argmax())
    return float(whole[place]), float(between[place])


def _pieces(begin: float, width: float, low: float, high: float) -> list[tuple[float, float]]:
    end = begin + width
    return [(begin, end)] if end <= high else [(begin, high), (low, low + end - high)]


def _ticks(ax: Axes, atom: Atom) -> None:
    if atom.chart.name == "circle":
        ax.set_xticks([0, np.pi / 2, np.pi, 3 * np.pi / 2, TURN], ["0", "π/2", "π", "3π/2", "2π"])
    ax.tick_params(colors=MUTED)
