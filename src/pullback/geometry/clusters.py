"""Clusters of points under a metric: k-means with geodesic distances and Fréchet means."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullback.draws import source_of
from pullback.geometry.centring import Centring, Groups, fan_of, pursue, tensor_of
from pullback.geometry.geodesics import Geodesic
from pullback.geometry.matrices import finite_squares, graph_distances
from pullback.geometry.means import (
    PATH_STEPS,
    TOL,
    TOL_LOW,
    checked_weights,
    path_options,
    paths_from,
    precise,
)
from pullback.geometry.neighbours import Neighbours, nearest_neighbours
from pullback.geometry.pairs import PairSearch, Progress, check_progress
from pullback.geometry.route import Points
from pullback.metrics import BaseMetric, as_metric, checked_tensor
from pullback.validation import check_points, check_positive, check_whole

SEED_POINTS = 1024
SEED_ROUNDS = 50
MEAN_STEPS = 50


@dataclass(frozen=True)
class GeodesicKMeans:
    """k clusters of n points.

    Attributes:
        labels: number of each point's cluster, (n,).
        centres: the Fréchet means of the clusters, (k, d).
        distances: from each point to its centre, (n,); infinite for a point that reaches no centre, which
            does not move the centre of its label.
        inertia: Σ w_i d²(z_i, centre of z_i); the weights as given, 1 without.
        sizes: points of each cluster, (k,).
        residual: of each centre, as in `FrechetMean`, (k,).
        converged: the labels came back the same, every centre is a mean and every distance is certified.
        iterations: rounds of assignment and means.
        history: the inertia of every round's assignment, never rising but for refilled clusters.
        seed_inertias: of each of the ``n_init`` starts, in graph distances; empty where ``start`` was given.
        message: what failed and what to change, or "converged".
    """

    labels: Int[Tensor, " n"]
    centres: Float[Tensor, "k d"]
    distances: Float[Tensor, " n"]
    inertia: Float[Tensor, ""]
    sizes: Int[Tensor, " k"]
    residual: Float[Tensor, " k"]
    converged: bool
    iterations: int
    history: tuple[float, ...]
    seed_inertias: Float[Tensor, " s"]
    message: str


def geodesic_kmeans(
    metric: Any,
    z: Tensor,
    n_clusters: int,
    *,
    weights: Tensor | None = None,
    n_init: int = 10,
    start: Tensor | None = None,
    max_iter: int = 50,
    tol: float | int | None = None,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
    path_tol: float | int | None = None,
    path_max_iter: int = PATH_STEPS,
    **options: Any,
) -> GeodesicKMeans:
    """k clusters of least Σ w_i d²(z_i, centre): Lloyd's algorithm with geodesics and Fréchet means.

    The ``n_init`` starts are drawn by k-means++ on graph distances and descend there as k-medoids, which
    takes no geodesic; the best goes on. Each round assigns every point to its nearest centre, most of the
    pairs ruled out by a bound, and moves the centres of the clusters that changed to their means, all in one
    batched Newton iteration. A cluster left without points restarts at the point farthest from its centre.

    Lloyd 1982, "Least squares quantization in PCM"; Arthur and Vassilvitskii 2007, "k-means++".

    Args:
        metric: any object with ``tensor``.
        z: points, (n, d).
        n_clusters: k, at most the number of distinct points.
        weights: (n,), not negative. None weighs all alike.
        n_init: starts; of more than 1024 points, the starts see 1024.
        start: centres to start from, (k, d), instead.
        max_iter: most rounds.
        tol: bound on the residual of the centres; None is 1e-6 in float64 and 1e-3 in float32.
        generator: source of the starts; None is a fresh one with a fixed seed, so that results repeat.
        progress: called with the round and ``max_iter`` after every round.
        path_tol, path_max_iter: ``tol`` and ``max_iter`` of the geodesics.
        **options: the others of `geodesic`.
    Returns: a `GeodesicKMeans`; detached. For new points: ``nearest_neighbours(metric, new, centres, k=1)``.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value.
    Example:
        >>> import torch
        >>> from pullback.geometry.reference import PoincareDisk
        >>> z = torch.tensor([[0.5, 0.0], [0.6, 0.1], [-0.5, 0.0], [-0.6, 0.1]], dtype=torch.float64)
        >>> found = geodesic_kmeans(PoincareDisk(), z, 2)
        >>> (found.labels == found.labels[0]).tolist(), found.converged
        ([True, True, False, False], True)
    """
    known = as_metric(metric)
    z = check_points("z", z, known.dim).detach()
    check_whole("n_clusters", n_clusters)
    for name, number in (("n_init", n_init), ("max_iter", max_iter)):
        check_whole(name, number)
    check_progress(progress)
    options = path_options(options, path_tol, path_max_iter)
    shares = checked_weights(z, weights)
    mass = torch.ones_like(shares) if weights is None else weights.detach().to(z)
    k = int(n_clusters)
    distinct = len(torch.unique(z[shares > 0], dim=0))
    if k > distinct:
        raise ValueError(f"n_clusters: expected at most the {distinct} distinct points, got {k}")
    tol = TOL.get(z.dtype, TOL_LOW) if tol is None else float(tol)
    check_positive("tol", tol)
    if start is not None and tuple(check_points("start", start, z.shape[1]).shape) != (k, z.shape[1]):
        raise ValueError(f"start: expected ({k}, {z.shape[1]}), got {tuple(start.shape)}")
    with torch.no_grad():
        checked_tensor(known, z)
        seeds = z[:0, 0]
        if start is None:
            centres, seeds = _seeded(known, z, shares, k, int(n_init), generator, options.get("data"))
        else:
            centres = start.detach().to(z).clone()
            checked_tensor(known, centres)
        search = PairSearch.over(known, torch.cat([z, centres]), options)
        lloyd = _Lloyd(search, z, shares, centres, float(tol))
        lloyd.run(int(max_iter), progress)
        return lloyd.result(mass, seeds, int(max_iter))


def _seeded(
    metric: BaseMetric,
    z: Points,
    weights: Float[Tensor, " n"],
    k: int,
    n_init: int,
    generator: torch.Generator | None,
    data: Tensor | None,
) -> tuple[Float[Tensor, "k d"], Float[Tensor, " s"]]:
    """The best centres of ``n_init`` starts among the points, and the inertias of all starts."""
    rows = (weights > 0).nonzero().squeeze(1)
    rows = rows[:: -(-len(rows) // max(SEED_POINTS, k))]
    if len(torch.unique(z[rows], dim=0)) < k:
        rows = (weights > 0).nonzero().squeeze(1)
    points, share = z[rows], weights[rows]
    distances = graph_distances(metric, points, data=data)
    square, generator = finite_squares(distances), source_of(generator, z.device)
    best, inertias, least = torch.zeros(k, dtype=torch.long, device=z.device), [], torch.inf
    for _ in range(n_init):
        medoids = _medoids(square, share, _plus_plus(square, share, k, generator))
        inertia = float((square[:, medoids].amin(1) * share).sum())
        if inertia <= least:
            best, least = medoids, inertia
        inertias.append(float((distances[:, medoids].amin(1).square() * share).sum()))
    return points[best].clone(), torch.tensor(inertias, dtype=z.dtype, device=z.device)


def _plus_plus(
    square: Float[Tensor, "n n"], weights: Float[Tensor, " n"], k: int, generator: torch.Generator
) -> Int[Tensor, " k"]:
    """Numbers of k points, each drawn in proportion to its squared distance from those before."""
    chosen = torch.multinomial(weights, 1, generator=generator)
    for _ in range(k - 1):
        odds = weights * square[:, chosen].amin(1)
        odds[chosen] = 0
        drawn = torch.multinomial(odds if bool(odds.sum() > 0) else weights, 1, generator=generator)
        chosen = torch.cat([chosen, drawn])
    return chosen


def _medoids(
    square: Float[Tensor, "n n"], weights: Float[Tensor, " n"], medoids: Int[Tensor, " k"]
) -> Int[Tensor, " k"]:
    """k-medoids from a start: the point of each cluster from which the sum of squares is least, in turns."""
    for _ in range(SEED_ROUNDS):
        label = square[:, medoids].argmin(1)
        member = torch.zeros_like(square[:, medoids]).scatter_(1, label[:, None], weights[:, None])
        cost = square @ member
        cost.masked_fill_(member == 0, torch.inf)
        least, place = cost.min(0)
        moved = torch.where(torch.isfinite(least), place, medoids)
        if torch.equal(moved, medoids):
            break
        medoids = moved
    return medoids


class _Lloyd:
    """Assignment and means in turns.

    Attributes:
        labels, distances: of the last assignment.
        centres: of the last means, to which ``labels`` refer.
        residual: of the centres, infinite before their first means.
    """

    def __init__(
        self,
        search: PairSearch,
        z: Points,
        weights: Float[Tensor, " n"],
        centres: Float[Tensor, "k d"],
        tol: float,
    ):
        self.search, self.z, self.weights, self.centres, self.tol = search, z, weights, centres, tol
        self.route, self.dtype = precise(search.metric, z.dtype)
        self.residual = torch.full_like(centres[:, 0], torch.inf)
        self.settled, self.rounds, self.history = False, 0, []
        self.near = self._assign()

    def _assign(self) -> Neighbours:
        options: dict[str, Any] = self.search.options | {"chunk_size": self.search.size}
        self.near = nearest_neighbours(self.search.metric, self.z, self.centres, k=1, **options)
        self.labels, self.distances = self.near.index[:, 0], self.near.distance[:, 0]
        return self.near

    def run(self, max_iter: int, progress: Callable[[int, int], Any] | None) -> None:
        """Rounds until the labels stay."""
        changed = torch.ones_like(self.residual, dtype=torch.bool)
        while self.rounds < max_iter:
            self.rounds += 1
            changed |= self._refilled()
            self._centre(changed)
            before = self.labels
            self._assign()
            self.history.append(self._inertia(self.weights))
            if progress is not None:
                progress(self.rounds, max_iter)
            moved = before != self.labels
            empty = self._sizes() == 0
            self.settled = not bool(moved.any() | empty.any())
            if self.settled:
                return
            changed = torch.zeros_like(changed)
            changed[before[moved]] = True
            changed[self.labels[moved]] = True
            changed |= empty

    @property
    def _members(self) -> Bool[Tensor, " n"]:
        """Points that count in the mean of their cluster."""
        return (self.weights > 0) & torch.isfinite(self.distances)

    def _sizes(self) -> Float[Tensor, " k"]:
        mass = torch.where(self._members, self.weights, 0)
        return mass.new_zeros(len(self.centres)).index_add(0, self.labels, mass)

    def _inertia(self, weights: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        return torch.where(weights > 0, weights * self.distances.square(), 0).sum()

    def _refilled(self) -> Bool[Tensor, " k"]:
        """Give every empty cluster the point that is farthest from its centre; which clusters changed."""
        changed = torch.zeros_like(self.residual, dtype=torch.bool)
        for cluster in (self._sizes() == 0).nonzero().squeeze(1).tolist():
            row = int(torch.where(self.weights > 0, self.weights * self.distances.square(), -1).argmax())
            changed[self.labels[row]] = changed[cluster] = True
            self.labels, self.distances = self.labels.clone(), self.distances.clone()
            self.labels[row], self.distances[row] = cluster, 0
            self.centres[cluster] = self.z[row]
        return changed

    def _centre(self, which: Bool[Tensor, " k"]) -> None:
        """Move the centres of some clusters to the means of their points, all in one batch."""
        which = which & (self._sizes() > 0)
        numbers = which.nonzero().squeeze(1)
        if len(numbers) == 0:
            return
        place = torch.zeros_like(which, dtype=torch.long)
        place[numbers] = torch.arange(len(numbers), device=place.device)
        rows = (which[self.labels] & self._members).nonzero().squeeze(1)
        of, share = place[self.labels[rows]], self.weights[rows].to(self.dtype)
        share = share / share.new_zeros(len(numbers)).index_add(0, of, share)[of]
        groups = Groups(of, share, len(numbers))
        start = self.centres[numbers]
        path: Geodesic = paths_from(self.search, start[of], self.z[rows])
        fan = fan_of(self.route, path, self.dtype)
        state = Centring.at(self.route, start.to(self.dtype), fan, groups)
        pursue(self.route, state, tol=self.tol / 2, max_iter=MEAN_STEPS)
        shape = state.shape(tensor_of(self.route))
        self.centres[numbers] = state.centres.to(self.z)
        self.residual[numbers] = shape.residual.to(self.z)

    def result(self, mass: Float[Tensor, " n"], seeds: Float[Tensor, " s"], max_iter: int) -> GeodesicKMeans:
        """What came out, with its verdict."""
        parts = []
        if not self.settled:
            parts.append(f"labels still change after {self.rounds} rounds: raise max_iter ({max_iter})")
        worst = float(self.residual.max())
        if not worst <= self.tol:
            parts.append(f"a centre's residual is {worst:.2g} > tol {self.tol:g}: raise tol or n_init")
        lost = int(((self.weights > 0) & ~self._members).sum())
        if lost:
            parts.append(f"{lost} points reach no centre by a curve that was found: raise n_clusters")
        open_ = int((self._members & ~self.near.converged[:, 0] & (self.distances > 0)).sum())
        if open_:
            parts.append(f"{open_} distances are not certified: raise max_nodes, path_max_iter or path_tol")
        scale = float(mass.sum() / self.weights.sum())
        return GeodesicKMeans(
            self.labels,
            self.centres,
            self.distances,
            self._inertia(mass),
            torch.bincount(self.labels, minlength=len(self.centres)),
            self.residual,
            not parts,
            self.rounds,
            tuple(scale * float(value) for value in self.history),
            scale * seeds,
            "not converged: " + "; ".join(parts) if parts else "converged",
        )
