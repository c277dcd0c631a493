"""Geodesics of one length in all directions from a point, and how far each is a shortest path."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullback.geometry import curve_length
from pullback.geometry.exponential import Exponential, exponential_map
from pullback.plots.field import latent_tensor, light_metric, regular
from pullback.plots.plane import Plane

LEGS = 8
DETAIL = 4
RINGS = 5
TOL = 1e-5
# A leg that needs more runs where nothing can be drawn with confidence.
MOST_STEPS = 64
# A way is taken for shorter only if it is so by more than the mesh of the rays can err.
SHORTER = 0.98
LINE_NODES = 9
SAMPLE = 200
TRIANGLES = 1024


@dataclass(frozen=True)
class Rays:
    """Geodesics from one point in directions that divide the unit circle of its metric evenly.

    Attributes:
        points: nodes at equal steps of length, (directions, nodes, d); NaN from where a ray could not be
            followed, because it left the domain of the metric or ran where that is degenerate.
        radius: length of each ray.
        shortest: up to which nodes a ray is a shortest path, (directions, nodes); None in more than two
            dimensions, where the page cannot tell.
    """

    points: Float[np.ndarray, "k nodes d"]
    radius: float
    shortest: Bool[np.ndarray, "k nodes"] | None

    @property
    def lengths(self) -> Float[np.ndarray, " nodes"]:
        """Distance along a ray of each node."""
        return np.linspace(0, self.radius, self.points.shape[1])

    @property
    def stopped(self) -> int:
        """How many rays could not be followed to their end."""
        return int(np.isnan(self.points[:, -1, 0]).sum())

    def at(self, length: float) -> Float[np.ndarray, "k d"]:
        """Where the rays are after a length, between nodes on a straight line."""
        place = np.clip(length / self.radius, 0, 1) * (self.points.shape[1] - 1)
        low = min(int(place), self.points.shape[1] - 2)
        return (1 - (place - low)) * self.points[:, low] + (place - low) * self.points[:, low + 1]

    def shortest_at(self, length: float) -> Bool[np.ndarray, " k"]:
        """Whether the way there is a shortest path; True where nothing is known."""
        if self.shortest is None:
            return np.ones(len(self.points), dtype=bool)
        place = np.ceil(np.clip(length / self.radius, 0, 1) * (self.points.shape[1] - 1) - 1e-9)
        return self.shortest[:, int(place)]


def typical_length(metric: Any, point: Float[np.ndarray, " d"], codes: Float[np.ndarray, "n d"]) -> float:
    """The median length of straight lines from a point to the codes."""
    chosen = codes[:: 1 + len(codes) // SAMPLE]
    steps = np.linspace(0, 1, LINE_NODES, dtype=codes.dtype)[:, None]
    lines = latent_tensor(metric, point + steps * (chosen[:, None] - point))
    with torch.no_grad():
        lengths = curve_length(light_metric(metric), lines).double().cpu().numpy()
    lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
    return float(np.median(lengths)) if lengths.size else 1.0


def round_radii(radius: float, count: int = RINGS) -> list[float]:
    """Multiples of a round number up to ``radius``, about ``count`` of them."""
    rough = radius / count
    unit = 10.0 ** np.floor(np.log10(rough))
    step = unit * min((1.0, 2.0, 2.5, 5.0, 10.0), key=lambda m: abs(np.log(m * unit / rough)))
    return [float(f"{step * i:.6g}") for i in range(1, int(radius / step + 1e-9) + 1)]


def directions_at(g: Float[np.ndarray, "k k"], plane: Plane, count: int) -> Float[np.ndarray, "count d"]:
    """Unit vectors of the metric g of the page, evenly spaced by its angles."""
    turn = 2 * np.pi * np.arange(count) / count
    circle = np.stack([np.cos(turn), np.sin(turn)])
    return np.linalg.solve(np.linalg.cholesky(g).T, circle).T @ plane.basis


def rays_from(
    metric: Any, point: Float[np.ndarray, " d"], plane: Plane, radius: float, *, count: int = 48
) -> Rays:
    """Follow geodesics by the exponential map, leg by leg, each leg filled in by its cubic.

    Raises:
        ValueError: the metric is not positive definite at the point.
    """
    light = light_metric(metric)
    start = latent_tensor(metric, point[None])
    with torch.no_grad():
        g = plane.restrict(light.tensor(start).double().cpu().numpy())
    if not regular(g)[0]:
        raise ValueError(
            "point: expected a place where the metric is positive definite, got a degenerate one at "
            f"{np.array2string(point, precision=3)}; the decoder does not depend on some direction there"
        )
    v = radius * directions_at(g[0], plane, count)
    nodes, speeds = _legs(light, start, torch.as_tensor(v).to(start))
    points = _filled(nodes, speeds)
    shortest = shortest_nodes(plane.project(points)) if plane.exact else None
    return Rays(points, float(radius), shortest)


def _legs(metric: Any, start: Tensor, v: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities after each leg, NaN where a ray could not be followed, (k, legs + 1, d)."""
    z, w = start.expand(len(v), -1).contiguous(), v / LEGS
    kept = torch.ones(len(v), dtype=torch.bool, device=v.device)
    nodes, speeds = [z], [w]
    for _ in range(LEGS):
        with torch.no_grad():
            kept = kept & torch.as_tensor(regular(metric.tensor(z).double().cpu().numpy()), device=z.device)
            z = torch.where(kept[:, None], z, start)
            w = torch.where(kept[:, None], w, 0)
            leg = exponential_map(metric, z, w, full=True, tol=max(TOL, _floor(z)), max_steps=MOST_STEPS)
        assert isinstance(leg, Exponential)
        kept = kept & leg.converged
        z, w = leg.point, leg.velocity
        nodes.append(torch.where(kept[:, None], z, torch.nan))
        speeds.append(torch.where(kept[:, None], w, torch.nan))
    return tuple(torch.stack(part, dim=1).double().cpu().numpy() for part in (nodes, speeds))  # type: ignore[return-value]


def _floor(z: Tensor) -> float:
    return 1e-4 if z.dtype != torch.float64 else 0.0


def _filled(nodes: np.ndarray, speeds: np.ndarray) -> np.ndarray:
    """Cubic Hermite interpolation inside each leg."""
    t = (np.arange(DETAIL) / DETAIL)[:, None]
    a, b, va, vb = (part[:, :, None] for part in (nodes[:, :-1], nodes[:, 1:], speeds[:, :-1], speeds[:, 1:]))
    inside = (1 + 2 * t) * (1 - t) ** 2 * a + t**2 * (3 - 2 * t) * b
    inside = inside + t * (1 - t) ** 2 * va - t**2 * (1 - t) * vb
    inside[:, :, 0] = nodes[:, :-1]  # known even where the leg that begins there is not
    return np.concatenate([inside.reshape(len(nodes), -1, nodes.shape[2]), nodes[:, -1:]], axis=1)


def shortest_nodes(page: Float[np.ndarray, "k nodes 2"]) -> Bool[np.ndarray, "k nodes"]:
    """Which nodes no other ray reaches by a shorter way.

    The rays and their nodes make a mesh that covers what lies within their length. Where it covers a place
    twice, the smaller length, interpolated on its triangles, is the distance; a ray stays behind once it is
    overtaken (it has passed its cut point).
    """
    lengths = np.linspace(0, 1, page.shape[1])
    best = np.full(page.shape[:2], np.inf)
    flat, least = page.reshape(-1, 2), best.reshape(-1)
    for corners, at in _triangles(page, lengths):
        np.minimum(least, _lowest(flat, corners, at), out=least)
    overtaken = best < SHORTER * lengths
    return ~np.maximum.accumulate(overtaken, axis=1) & np.isfinite(page[..., 0])


def _triangles(page: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Corners (t, 3, 2) of the triangles of the mesh and their lengths (t, 3), some at a time."""
    k, n = page.shape[:2]
    after = np.roll(page, -1, axis=0)
    a, b, c, d = page[:, :-1], page[:, 1:], after[:, :-1], after[:, 1:]
    low, high = np.broadcast_to(lengths[:-1], (k, n - 1)), np.broadcast_to(lengths[1:], (k, n - 1))
    corners = np.concatenate(
        [np.stack([a, b, d], 2).reshape(-1, 3, 2), np.stack([a, d, c], 2).reshape(-1, 3, 2)]
    )
    at = np.concatenate(
        [np.stack([low, high, high], 2).reshape(-1, 3), np.stack([low, high, low], 2).reshape(-1, 3)]
    )
    kept = np.isfinite(corners).all((1, 2))
    corners, at = corners[kept], at[kept]
    for i in range(0, len(corners), TRIANGLES):
        yield corners[i : i + TRIANGLES], at[i : i + TRIANGLES]


def _lowest(points: np.ndarray, corners: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The smallest interpolated length at each point among the triangles that hold it."""
    origin, first, second = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = (points[:, None, i] - origin[:, i] for i in (0, 1))
        u = (x * second[:, 1] - y * second[:, 0]) / area
        v = (first[:, 0] * y - first[:, 1] * x) / area
        inside = (u >= 0) & (v >= 0) & (u + v <= 1)
        length = at[:, 0] + u * (at[:, 1] - at[:, 0]) + v * (at[:, 2] - at[:, 0])
    return np.where(inside, length, np.inf).min(1, initial=np.inf)
