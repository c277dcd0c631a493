"""A geodesic fan, and the balls of geodesic distance, as matplotlib figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from pullback.metrics import as_metric
from pullback.plots.arguments import check_array, check_dims
from pullback.plots.curved import KINKS, kinks, say
from pullback.plots.ellipses import two_digits
from pullback.plots.latent import magnification_map
from pullback.plots.plane import Plane, plane_of
from pullback.plots.rays import Rays, rays_from, round_radii, typical_length
from pullback.plots.style import FIT, GEODESIC, INK, PAPER, POINT, axes_or_new, finish
from pullback.validation import check_positive, check_whole

DIRECTIONS = 32
BALL_DIRECTIONS = 96


def geodesic_fan(
    metric: Any,
    point: Any,
    *,
    codes: Any = None,
    radius: float | None = None,
    directions: int = DIRECTIONS,
    dims: tuple[int, int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw geodesics of one length that leave a point in all directions.

    On a flat map they are straight spokes of one length. They bend towards where the decoder changes little;
    where spokes meet again, the data curve like a ball; where they spread, like a saddle. A spoke is dotted
    from where another reaches the same place by a shorter way (two dimensions).

    Args:
        metric: a `Metric`.
        point: where they start, ``(d,)``, d >= 2.
        codes: latent codes ``(n, d)``, drawn faintly; they set the page where d > 2.
        radius: length of each geodesic; None (needs ``codes``): the median straight way to the codes.
        directions: how many, evenly spaced by the angles of the metric.
        dims: of more than two dimensions, the two that span the page: the geodesics leave in its directions
            and are projected on it. None: the first two principal axes of the codes.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes; of a decoder that is linear piece by piece, with a sentence in place of geodesics.

    Raises:
        ValueError: the metric is degenerate at the point, or neither ``codes`` nor ``radius`` is given.

    Example:
        >>> import numpy as np, pullback as pb
        >>> ax = pb.plots.geodesic_fan(pb.EuclideanMetric(2), np.zeros(2), radius=1.0, directions=8)
        >>> ax.get_title(loc="left")
        'Geodesics of length 1 from one point'
    """
    check_whole("directions", directions, minimum=3)
    ax, plane, codes, problem = _page(metric, point, codes, dims, ax)
    if problem is not None:
        return finish(say(ax, KINKS), "Geodesic fan", plane.axis_names)
    start = check_array("point", point, 1, "(d,)").astype(float)
    radius = _radius(metric, start, codes, radius)
    rays = rays_from(as_metric(metric), start, plane, radius, count=directions)
    draw_rays(ax, rays, plane)
    _start(ax, plane, start, rays)
    return finish(
        ax, _title(f"Geodesics of length {radius:.3g} from one point", plane, rays), plane.axis_names
    )


def distance_balls(
    metric: Any,
    point: Any,
    *,
    codes: Any = None,
    radii: Sequence[float] | float | None = None,
    directions: int = BALL_DIRECTIONS,
    dims: tuple[int, int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the lines of equal geodesic distance from a point: the ends of geodesics of these lengths.

    On a flat map they are circles at even distances. Where they crowd a short way on the map is long in the
    data. The parts of a line to which another geodesic is shorter, so that the distance is less than the
    line's, are dotted (two dimensions).

    Args:
        metric: a `Metric`.
        point: the centre, ``(d,)``, d >= 2.
        codes: latent codes ``(n, d)``, drawn faintly; they set the page where d > 2.
        radii: the distances; None (needs ``codes``): about five round ones up to the median straight way to
            the codes.
        directions: geodesics that are followed.
        dims: as for `geodesic_fan`; in more than two dimensions a line is what geodesics reach that leave in
            the directions of the page, projected on it.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes; of a decoder that is linear piece by piece, with a sentence in place of lines.

    Raises:
        ValueError: the metric is degenerate at the point, or neither ``codes`` nor ``radii`` is given.

    Example:
        >>> import numpy as np, pullback as pb
        >>> ax = pb.plots.distance_balls(pb.EuclideanMetric(2), np.zeros(2), radii=[1.0, 2.0])
        >>> [text.get_text() for text in ax.texts]
        ['2', '1']
    """
    check_whole("directions", directions, minimum=8)
    given = None if radii is None else np.atleast_1d(np.asarray(radii, dtype=float))
    if given is not None and (given.ndim != 1 or len(given) == 0 or not (given > 0).all()):
        raise ValueError(f"radii: expected positive distances, got {radii!r}")
    ax, plane, codes, problem = _page(metric, point, codes, dims, ax)
    if problem is not None:
        return finish(say(ax, KINKS), "Equal distances", plane.axis_names)
    start = check_array("point", point, 1, "(d,)").astype(float)
    radius = _radius(metric, start, codes, None if given is None else float(given.max()), name="radii")
    rings = round_radii(radius) if given is None else sorted(given.tolist())
    rays = rays_from(as_metric(metric), start, plane, max(rings), count=directions)
    draw_rings(ax, rays, plane, rings)
    _start(ax, plane, start, rays)
    return finish(ax, _title("Equal geodesic distances from one point", plane, rays), plane.axis_names)


def _page(
    metric: Any, point: Any, codes: Any, dims: Any, ax: Axes | None
) -> tuple[Axes, Plane, np.ndarray | None, str | None]:
    """Axes with the codes on them, the page, the codes, and what is wrong with the decoder."""
    known = as_metric(metric)
    start = check_array("point", point, 1, "(d,)")
    d = len(start)
    dims = check_dims(dims, d, name="point")
    if codes is not None:
        codes = check_array("codes", codes, 2, f"(n, {d})")
        if codes.shape[1] != d:
            raise ValueError(f"codes: expected (n, {d}) like point, got {codes.shape}")
    reference = start[None] if codes is None else codes
    plane = plane_of(reference, (0, 1) if codes is None and dims is None else dims)
    ax = axes_or_new(ax, (6.0, 5.0))
    problem = kinks(known)
    if problem is not None:
        return ax, plane, codes, problem
    if codes is not None and d == 2:
        magnification_map(known, codes, ax=ax)
    if codes is not None:
        ax.scatter(*plane.project(codes).T, s=3, color=POINT, alpha=0.3, linewidths=0, zorder=1)
    ax.set_aspect("equal", adjustable="datalim")
    return ax, plane, codes, None


def _radius(
    metric: Any, start: np.ndarray, codes: np.ndarray | None, radius: float | None, name: str = "radius"
) -> float:
    if radius is not None:
        check_positive(name, radius)
        return float(radius)
    if codes is None:
        raise ValueError(f"{name}: expected a length where no codes are given, got None")
    return two_digits(typical_length(as_metric(metric), start.astype(codes.dtype), codes))


def draw_rays(ax: Axes, rays: Rays, plane: Plane) -> None:
    """The geodesics, solid as long as they are shortest paths, dotted beyond."""
    page = plane.project(rays.points)
    shortest = np.isfinite(page[..., 0]) if rays.shortest is None else rays.shortest
    for line, good in zip(page, shortest, strict=True):
        last = int(good.sum())
        ax.plot(*line[:last].T, color=GEODESIC, lw=1.1, zorder=4)
        if last < len(line):
            ax.plot(*line[max(last - 1, 0) :].T, color=GEODESIC, lw=0.9, ls=":", alpha=0.7, zorder=3)


def ring_parts(
    rays: Rays, plane: Plane, length: float
) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, "k 2"]]:
    """A closed line of equal length on the page: the part that is the distance, and the part beyond it."""
    page, good = plane.project(rays.at(length)), rays.shortest_at(length)
    page, good = np.concatenate([page, page[:1]]), np.concatenate([good, good[:1]])
    # A gap between two good ends belongs to neither, so that the dotted part joins the solid one.
    solid = np.where(good[:, None], page, np.nan)
    edge = ~good | np.roll(~good, 1) | np.roll(~good, -1)
    return solid, np.where(edge[:, None], page, np.nan)


def draw_rings(ax: Axes, rays: Rays, plane: Plane, rings: Sequence[float]) -> None:
    """The lines of equal distance with their lengths."""
    for length in rings:
        solid, beyond = ring_parts(rays, plane, length)
        ax.plot(*solid.T, color=FIT, lw=1.4, zorder=4)
        ax.plot(*beyond.T, color=FIT, lw=1.0, ls=":", alpha=0.8, zorder=3)
    room = 0.06 * np.ptp(ax.get_xlim())
    written: list[np.ndarray] = []
    for length, place in reversed(ring_labels(rays, plane, rings)):
        if any(np.linalg.norm(place - other) < room for other in written):
            continue
        written.append(place)
        ax.annotate(
            f"{length:g}", (float(place[0]), float(place[1])), color=FIT, fontsize=8, ha="center",
            va="center", zorder=6, bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
        )  # fmt: skip


def ring_labels(
    rays: Rays, plane: Plane, rings: Sequence[float]
) -> list[tuple[float, Float[np.ndarray, " 2"]]]:
    """Lengths and where to write them: along the ray that goes farthest on the page."""
    page = np.stack([plane.project(rays.at(length)) for length in rings])
    far = np.linalg.norm(page[-1] - plane.project(rays.points[:, 0]), axis=1)
    good = np.isfinite(far) & rays.shortest_at(max(rings))
    if not np.isfinite(far).any():
        return []
    best = int(np.where(good if good.any() else np.isfinite(far), far, -1.0).argmax())
    return [(length, place) for length, place in zip(rings, page[:, best], strict=True)]


def _start(ax: Axes, plane: Plane, start: np.ndarray, rays: Rays) -> None:
    ax.scatter(*plane.project(start[None]).T, s=34, color=INK, edgecolors=PAPER, linewidths=1.0, zorder=7)


def _title(text: str, plane: Plane, rays: Rays) -> str:
    notes = []
    if not plane.exact:
        notes.append("leaving in the plane of the page, projected on it")
    elif rays.shortest is not None and not rays.shortest[np.isfinite(rays.points[..., 0])].all():
        notes.append("dotted: another way is shorter")
    if rays.stopped:
        notes.append(f"{rays.stopped} of {len(rays.points)} could not be followed to their end")
    return "\n".join([text, *notes])
