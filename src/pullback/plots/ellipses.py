"""Indicatrices: what steps of equal length look like on the latent map."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from pullback.metrics import as_metric
from pullback.plots.arguments import check_array, check_dims
from pullback.plots.field import grid_points, latent_box, regular, remoteness, tensor_at
from pullback.plots.latent import magnification_map
from pullback.plots.plane import Plane, plane_of
from pullback.plots.style import FIT, INK, POINT, axes_or_new, finish
from pullback.validation import check_positive, check_whole

NUMBER = 14
# A larger ellipse would hide its neighbours.
LARGEST = 0.7
QUANTILE = 0.9


@dataclass(frozen=True)
class Ellipses:
    """{c : cᵀ g c <= radius²} around k points of the page.

    Attributes:
        centres: on the page, (k, 2).
        axes: long and short semi-axis as vectors of the page, (k, 2, 2).
        shrunk: drawn smaller than they are, because they would cover their neighbours, (k,).
        radius: length of the step, in the units of the metric.
        singular: how many places were left out, since the metric is degenerate there.
    """

    centres: Float[np.ndarray, "k 2"]
    axes: Float[np.ndarray, "k 2 2"]
    shrunk: Bool[np.ndarray, " k"]
    radius: float
    singular: int

    def outlines(self, count: int = 40) -> Float[np.ndarray, "k count 2"]:
        """Points along each ellipse."""
        turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
        circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        return self.centres[:, None] + circle @ self.axes


def two_digits(value: float) -> float:
    """The value rounded down to two significant digits."""
    if not 0 < value < np.inf:
        return 1.0
    unit = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(f"{np.floor(value / unit + 1e-9) * unit:.2g}")


def places(
    codes: Float[np.ndarray, "n d"], plane: Plane, number: int
) -> tuple[Float[np.ndarray, "k d"], float]:
    """Where to draw, and the room each place has.

    Two dimensions: a square grid where there are data; more: in every cell of such a grid on the page the
    code nearest to its middle, since between codes a slice through many dimensions lies off the data.
    """
    page = plane.project(codes)
    box = latent_box(page)
    room = float((box[:, 1] - box[:, 0]).max() / number)
    middle = box.mean(1)
    square = np.stack([middle - number * room / 2, middle + number * room / 2], axis=1).astype(codes.dtype)
    grid = grid_points(square, number)
    if plane.exact:
        return grid[remoteness(grid, codes) <= 1], room
    cells = np.floor((page - square[:, 0]) / room).astype(int)
    gaps = np.linalg.norm(page - (square[:, 0] + (cells + 0.5) * room), axis=1)
    order = np.argsort(gaps, kind="stable")
    nearest = order[np.sort(np.unique(cells[order], axis=0, return_index=True)[1])]
    chosen: list[int] = []
    for row in nearest:
        if not chosen or np.linalg.norm(page[chosen] - page[row], axis=1).min() >= LARGEST * room:
            chosen.append(int(row))
    return codes[chosen], room


def ellipses_at(
    metric: Any, z: Float[np.ndarray, "n d"], plane: Plane, room: float, radius: float | None = None
) -> Ellipses:
    """Ellipses of steps of one length, chosen so that nine of ten fit their room where ``radius`` is None."""
    g = plane.restrict(tensor_at(metric, z))
    good = regular(g)
    values, vectors = np.linalg.eigh(g[good])
    semi = 1 / np.sqrt(values)  # the long one first
    if radius is None:
        radius = two_digits(0.48 * room / np.quantile(semi[:, 0], QUANTILE)) if good.any() else 1.0
    longest = radius * semi[:, 0]
    shrunk = longest > LARGEST * room
    scale = np.where(shrunk, LARGEST * room / longest, 1.0) * radius
    axes = np.swapaxes(vectors, 1, 2) * (scale[:, None] * semi)[:, :, None]
    return Ellipses(plane.project(z[good]), axes, shrunk, float(radius), int((~good).sum()))


def indicatrices(
    metric: Any,
    codes: Any,
    *,
    at: Any = None,
    number: int = NUMBER,
    radius: float | None = None,
    field: bool = True,
    dims: tuple[int, int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw Tissot's indicatrices: around each place the steps that are equally long in the data.

    An ellipse holds the steps v with vᵀ g v <= radius². A large one: the decoder hardly changes there; a
    small one: a short step changes much; a long one: directions differ. Where all are circles of one size,
    distances on the map are distances in the data. Those that would cover their neighbours are drawn smaller,
    dashed.

    Two dimensions: a grid where there are codes. More: at codes, the slice of the ball with the page.

    Tissot 1881, "Mémoire sur la représentation des surfaces".

    Args:
        metric: a `Metric`.
        codes: latent codes ``(n, d)``, d >= 2.
        at: latent points ``(k, d)`` to draw at instead.
        number: ellipses along the longer side of the map.
        radius: length of the step; None: such that nine of ten fit, and the title says which.
        field: draw the magnification behind (d = 2).
        dims: of more than two dimensions, the two that span the page; None: the plane of the codes' first two
            principal axes.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes.

    Example:
        >>> import numpy as np, pullback as pb
        >>> codes = np.random.default_rng(0).uniform(size=(400, 2))
        >>> pb.plots.indicatrices(pb.EuclideanMetric(2), codes, radius=0.03).get_title(loc="left")
        'Indicatrices: steps of length 0.03'
    """
    metric = as_metric(metric)
    codes = check_array("codes", codes, 2, "(n, d)")
    dims = check_dims(dims, codes.shape[1])
    check_whole("number", number)
    if radius is not None:
        check_positive("radius", radius)
    plane = plane_of(codes, dims)
    z, room = places(codes, plane, number)
    if at is not None:
        z = check_array("at", at, 2, f"(k, {codes.shape[1]})").astype(codes.dtype)
        if z.shape[1] != codes.shape[1]:
            raise ValueError(f"at: expected (k, {codes.shape[1]}) like codes, got {z.shape}")
    found = ellipses_at(metric, z, plane, room, radius)
    ax = axes_or_new(ax, (6.0, 5.0))
    if field and codes.shape[1] == 2:
        magnification_map(metric, codes, ax=ax)
    ax.scatter(*plane.project(codes).T, s=3, color=POINT, alpha=0.3, linewidths=0, zorder=1)
    outlines = found.outlines()
    for drawn, style in ((~found.shrunk, "solid"), (found.shrunk, "dashed")):
        shapes = PolyCollection(
            list(outlines[drawn]), facecolor=(FIT, 0.22), edgecolor=FIT, lw=1.0, ls=style, zorder=3
        )
        ax.add_collection(shapes)
    ax.scatter(*found.centres.T, s=2, color=INK, linewidths=0, zorder=4)
    ax.set_aspect("equal", adjustable="datalim")
    title = f"Indicatrices: steps of length {found.radius:g}"
    if not plane.exact:
        title += ", in the plane of the page"
    if found.shrunk.any():
        title += "\n(dashed: larger than drawn)"
    return finish(ax, title, plane.axis_names)
