"""Figures of quantities in a latent space: how well they are read, where they leak, how spans settle."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from pullback.plots.arguments import check_array
from pullback.plots.style import (
    CATEGORICAL,
    FIT,
    GEODESIC,
    GROUND,
    HAIRLINE,
    INK,
    MUTED,
    PAPER,
    axes_or_new,
    finish,
    shortened,
)
from pullback.subspaces import SubspaceTable, readout_subspace, subspace_change
from pullback.subspaces.arguments import check_names, per_name
from pullback.validation import check_whole

MOST_POINTS = 5000
LEAK_SCALE = 0.3
"""Leak that has the full colour; where one should see it, it is far smaller."""


def readout_scatter(predicted: Any, actual: Any, *, name: str = "quantity", ax: Axes | None = None) -> Axes:
    """Draw what a block says of a quantity over what it is; points on the line are read without error.

    Args:
        predicted: ``(n,)`` or ``(n, k)`` values that ``model.quantities`` reads.
        actual: the true ones; rows with NaN are left out.
        name: of the quantity.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes; the title gives R², the mean over columns.

    Raises:
        ValueError: the two differ in shape, or no row is finite.

    Example:
        >>> import numpy as np, pullback as pb
        >>> mass = np.linspace(0, 1, 50)
        >>> pb.plots.readout_scatter(mass, mass, name="mass").get_title(loc="left")
        'mass: R² 1.000'
    """
    found, true = (np.asarray(values, dtype=np.float64) for values in (predicted, actual))
    if found.shape != true.shape or found.ndim == 0:
        raise ValueError(f"predicted: expected shape {true.shape} like actual, got {found.shape}")
    found, true = found.reshape(len(found), -1), true.reshape(len(true), -1)
    kept = np.isfinite(found).all(1) & np.isfinite(true).all(1)
    if kept.sum() < 2:
        raise ValueError("actual: expected two or more rows with finite values, got fewer")
    found, true = found[kept], true[kept]
    left, total = ((found - true) ** 2).sum(0), ((true - true.mean(0)) ** 2).sum(0)
    r2 = float(np.mean(1 - left[total > 0] / total[total > 0])) if (total > 0).any() else float("nan")
    ax = axes_or_new(ax)
    low, high = min(true.min(), found.min()), max(true.max(), found.max())
    ax.plot([low, high], [low, high], color=HAIRLINE, lw=1.5, zorder=0)
    step = max(1, -(-true.size // MOST_POINTS))
    for column in range(true.shape[1]):
        color = CATEGORICAL[column % len(CATEGORICAL)]
        dots: Any = {"s": 9, "color": color, "alpha": 0.6, "linewidths": 0}
        ax.scatter(true[::step, column], found[::step, column], **dots)
    return finish(ax, f"{shortened(name)}: R² {r2:.3f}", ("true", "read from its block"))


def leak_matrix(table: SubspaceTable, *, ax: Axes | None = None) -> Axes:
    """Draw how much of each quantity every block tells on held-out rows.

    A row is a quantity, a column a block, the last one the free dimensions. Its own block should say 1
    (teal). Another block should say no more than its quantity implies: the colour (orange) is the excess over
    that floor, which stands below the number, and the free dimensions should say 0.

    Args:
        table: of `pullback.subspaces.evaluate_subspaces` or ``model.evaluate_quantities``.
        ax: Axes to draw on; None makes a figure.

    Example:
        >>> import torch, pullback as pb
        >>> z = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> Y = {"mass": z[:, 0], "centre": z[:, 1]}
        >>> table = pb.subspaces.evaluate_subspaces(
        ...     {"mass": torch.eye(3)[:1], "centre": torch.eye(3)[1:2]},
        ...     Z_train=z[:150], Y_train={q: y[:150] for q, y in Y.items()},
        ...     Z_test=z[150:], Y_test={q: y[150:] for q, y in Y.items()},
        ... )
        >>> len(pb.plots.leak_matrix(table).texts)
        6
    """
    if not isinstance(table, SubspaceTable):
        raise TypeError(f"table: expected a SubspaceTable, got {type(table).__name__}; evaluate_subspaces")
    names = list(table.sizes)
    ax = axes_or_new(ax, (1.6 + 1.05 * (len(names) + 1), 1.3 + 0.75 * len(names)))
    told = LinearSegmentedColormap.from_list("pullback_told", [GROUND, FIT])
    leaked = LinearSegmentedColormap.from_list("pullback_leaked", [GROUND, GEODESIC])
    for i, q in enumerate(names):
        for j, r in enumerate([*names, None]):
            if q == r:
                value, amount, colors, below = table.own[q].value, table.own[q].value, told, "own"
            elif r is None:
                value = table.free[q].value
                amount, colors, below = value / LEAK_SCALE, leaked, ""
            else:
                value, floor = table.other[q, r].value, table.floor[q, r].value
                amount, colors = (value - floor) / LEAK_SCALE, leaked
                below = f"floor {_two_digits(floor)}"
            _cell(ax, j, i, value, amount, colors, below)
    ax.set_xlim(-0.5, len(names) + 0.5)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xticks(range(len(names) + 1), [shortened(name, 12) for name in (*names, "free")])
    ax.set_yticks(range(len(names)), [shortened(name, 12) for name in names])
    finish(ax, "R² on held-out rows", ("read from the block of", ""))
    ax.tick_params(length=0, labelcolor=INK)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


def _cell(ax: Axes, x: int, y: int, value: float, amount: float, colors: Any, below: str) -> None:
    """One number on its colour."""
    known = np.isfinite(value)
    amount = float(np.clip(amount, 0, 1)) if np.isfinite(amount) else 0.0
    face = colors(amount) if known else GROUND
    ax.fill_between([x - 0.48, x + 0.48], y - 0.46, y + 0.46, color=face, lw=0)
    dark = known and float(np.dot(face[:3], (0.299, 0.587, 0.114))) < 0.55
    text = _two_digits(value) if known else "–"
    note = f"\n{below}" if below else ""
    ax.text(x, y, text + note, ha="center", va="center", color=PAPER if dark else INK, fontsize=9)


def _two_digits(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


class SubspaceTrace:
    """A callback that follows the subspaces from which quantities are read while a model trains.

    After each epoch it encodes its rows and solves the read-out subspaces (see
    `pullback.subspaces.readout_subspace`).

    Args:
        X: rows, as for the estimator's ``transform``; a few hundred will do.
        quantities: name -> values of these rows, ``(n,)`` or ``(n, k)``.
        sizes: directions for all, or name -> directions.

    Attributes:
        bases: name -> orthonormal rows ``(k, d)`` for each epoch.

    Example:
        >>> import numpy as np, pullback as pb
        >>> X = np.random.default_rng(0).normal(size=(120, 5)).astype("float32")
        >>> trace = pb.plots.SubspaceTrace(X, {"total": X.sum(1)})
        >>> option = pb.SubspacePartition({"total": None})
        >>> model = pb.Autoencoder(2, partition=option, callbacks=trace, max_epochs=3, progress=False)
        >>> model = model.set_params(random_state=0).fit(X, quantities={"total": X.sum(1)})
        >>> np.asarray(trace.angles(model.partition_.loss.bases)["total"]).shape
        (3, 1)
    """

    def __init__(self, X: Any, quantities: Mapping[str, Any], *, sizes: int | Mapping[str, int] = 1):
        if not isinstance(quantities, Mapping) or not quantities:
            raise ValueError("quantities: expected a dict of name -> values, got none")
        self.X = X
        self.values = {
            name: torch.as_tensor(np.asarray(value, dtype=np.float64)).reshape(len(value), -1)
            for name, value in quantities.items()
        }
        self.sizes = per_name("sizes", sizes, self.values)
        self.bases: dict[str, list[torch.Tensor]] = {name: [] for name in self.values}

    def __call__(self, step: int, loss: float, estimator: Any = None) -> None:
        """Note the subspaces after an epoch; as in ``callbacks=SubspaceTrace(...)``."""
        z = torch.from_numpy(np.asarray(estimator.transform(self.X), dtype=np.float64))
        for name, part in readout_subspace(z, self.values, self.sizes).items():
            self.bases[name].append(part.W)

    def angles(self, bases: Mapping[str, Any] | None = None) -> dict[str, list[list[float]]]:
        """Principal angles in degrees, a row for each epoch: to given bases, or to those of the last epoch.

        Args:
            bases: name -> orthonormal rows, such as the blocks ``model.partition_.loss.bases``; for some of
                the quantities.
        """
        if not any(self.bases.values()):
            raise ValueError("trace: expected one or more epochs, got none; pass it as callbacks= to a model")
        wanted = {name: found[-1] for name, found in self.bases.items()} if bases is None else dict(bases)
        check_names("bases", {*wanted, *self.bases}, self.bases, "the quantities")
        return {
            name: [torch.rad2deg(subspace_change(fixed.to(W), W).angles).tolist() for W in self.bases[name]]
            for name, fixed in wanted.items()
        }


def angle_curves(angles: Mapping[str, Sequence[Any]], *, first: int = 1, ax: Axes | None = None) -> Axes:
    """Draw principal angles between subspaces over the epochs, the largest of each quantity in full colour.

    Args:
        angles: name -> a row of angles in degrees for each epoch, as `SubspaceTrace.angles` returns.
        first: number of the first epoch.
        ax: Axes to draw on; None makes a figure.

    Raises:
        ValueError: no angles, or none of an epoch.

    Example:
        >>> import pullback as pb
        >>> ax = pb.plots.angle_curves({"mass": [[80.0], [20.0]], "centre": [[70, 60], [9, 8]]})
        >>> len(ax.lines)
        3
    """
    check_whole("first", first, minimum=0)
    if not isinstance(angles, Mapping) or not any(len(rows) for rows in angles.values()):
        raise ValueError("angles: expected angles of one or more epochs, got none")
    ax = axes_or_new(ax, (6.0, 3.6))
    for i, (name, rows) in enumerate(angles.items()):
        values = check_array(f"angles[{name!r}]", rows, 2, "(epochs, k)")
        epochs, color = np.arange(first, first + len(values)), CATEGORICAL[i % len(CATEGORICAL)]
        ordered = np.sort(values, axis=1)[:, ::-1]
        for column in range(values.shape[1] - 1, -1, -1):
            look: Any = {"alpha": 1.0, "lw": 1.8} if column == 0 else {"alpha": 0.35, "lw": 1.0}
            label = shortened(name) if column == 0 else None
            ax.plot(epochs, ordered[:, column], color=color, label=label, **look)
    ax.set_ylim(0, 92)
    ax.set_yticks([0, 30, 60, 90], ["0°", "30°", "60°", "90°"])
    ax.legend(frameon=False, fontsize=9, labelcolor=MUTED)
    return finish(ax, "Where quantities are read from", ("epoch", "angle between subspaces"))
