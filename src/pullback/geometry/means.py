"""The Fréchet mean: the point from which the sum of squared distances to all others is least."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullback.geometry.centring import (
    LEAST_CONVEXITY,
    Centring,
    Fan,
    Groups,
    Shape,
    fan_of,
    pursue,
    tensor_of,
)
from pullback.geometry.geodesics import Geodesic, geodesic
from pullback.geometry.matrices import finite_squares, graph_distances
from pullback.geometry.pairs import PairSearch
from pullback.geometry.route import Points, Route, in_precision, route_of
from pullback.metrics import BaseMetric, as_metric, checked_tensor
from pullback.validation import check_finite, check_points, check_positive, check_whole

TOL = {torch.float64: 1e-6}
TOL_LOW = 1e-3
ROUNDS = 6
PATH_STEPS = 60
MEDOID_CANDIDATES = 256
# Curvatures of a squared distance, 1 in flat space, up to which its point counts as far.
FLAT = 1e-3


@dataclass(frozen=True)
class FrechetMean:
    """A Fréchet mean of n points, with the checks that say how far to trust it.

    Attributes:
        point: the mean, (d,).
        variance: Σ w_i d²(point, z_i), the weights summing to 1; infinite if a point cannot be reached.
        residual: |Σ w_i log_point(z_i)|_g / √variance, zero at a mean; free of units and chart; infinite with
            the variance.
        converged: ``residual`` <= tol at a firm minimum, and every geodesic that matters is certified.
        iterations: steps of the mean.
        distances: from the mean to every point, (n,).
        logarithms: log_point(z_i), velocities in latent coordinates, (n, d); NaN to points out of reach.
        convexity: smallest eigenvalue of the second derivative of ½ Σ w_i d²(·, z_i) in units of g: 1 in flat
            space, more where curvature is negative, less where it is positive; at most 0 at no minimum.
        far: points whose own squared distance is not convex at the mean, (n,). If there are any, the points
            are spread too wide for the mean to be certainly the only one.
        message: what failed and what to change, or "converged", and whether the mean may be one of several.
    """

    point: Float[Tensor, " d"]
    variance: Float[Tensor, ""]
    residual: Float[Tensor, ""]
    converged: bool
    iterations: int
    distances: Float[Tensor, " n"]
    logarithms: Float[Tensor, "n d"]
    convexity: Float[Tensor, ""]
    far: Bool[Tensor, " n"]
    message: str


def frechet_mean(
    metric: Any,
    z: Tensor,
    weights: Tensor | None = None,
    *,
    tol: float | int | None = None,
    max_iter: int = 50,
    start: Tensor | None = None,
    path_tol: float | int | None = None,
    path_max_iter: int = PATH_STEPS,
    **options: Any,
) -> FrechetMean:
    """min_x Σ w_i d²(x, z_i): the mean of points under a metric.

    Alternates all geodesics x -> z_i, each warm-started from the last, with a Newton step of x on the exact
    second derivative of Σ w_i E_i, from which the curves' nodes are eliminated; where that is not positive
    definite, or the sum rises, a step along Σ w_i log_x(z_i) that is halved until it falls. Discretisation
    errors of order 1/n² are extrapolated away. In the end all geodesics are sought afresh from x; should
    shorter ones have appeared, the mean moves on with them.

    Karcher 1977, "Riemannian center of mass and mollifier smoothing"; Afsari 2011, "Riemannian L^p center of
    mass: existence, uniqueness, and convexity".

    Args:
        metric: any object with ``tensor``.
        z: points, (n, d).
        weights: (n,), not negative; they are divided by their sum. None weighs all alike.
        tol: bound on `FrechetMean.residual`; None is 1e-6 in float64 and 1e-3 in float32.
        max_iter: most steps of the mean between two searches for geodesics.
        start: where to begin, (d,), or several places (s, d), of whose means the one of least variance is
            returned. None begins at the point of least sum of squared graph distances and, if that fails, at
            the average of the coordinates.
        path_tol, path_max_iter: ``tol`` and ``max_iter`` of the geodesics.
        **options: the others of `geodesic`.
    Returns: a `FrechetMean`; detached.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; weights that are negative, not
            finite or all zero.
    Gotchas:
        The mean is a local one. It is unique only among points in a small enough ball (none too large where
        no sectional curvature is positive): `FrechetMean.far` and the message tell.
    Example:
        >>> import torch
        >>> from pullback.geometry.reference import PoincareDisk
        >>> z = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.3], [0.0, -0.3]], dtype=torch.float64)
        >>> mean = frechet_mean(PoincareDisk(), z)
        >>> mean.converged, mean.point.abs().max().item() < 1e-9, round(mean.variance.item(), 6)
        (True, True, 0.795079)
    """
    known = as_metric(metric)
    z = check_points("z", z, known.dim).detach()
    weights = checked_weights(z, weights)
    tol = TOL.get(z.dtype, TOL_LOW) if tol is None else float(tol)
    check_positive("tol", tol)
    check_whole("max_iter", max_iter)
    options = path_options(options, path_tol, path_max_iter)
    places = _places(start, z)
    with torch.no_grad():
        checked_tensor(known, z)
        counted = weights > 0
        if places is None:
            places = medoid(known, z[counted], weights[counted], data=options.get("data"))
        checked_tensor(known, places)
        search = PairSearch.over(known, torch.cat([z, places]), options)
        tries = [_from(search, z, weights, place, tol, int(max_iter)) for place in places]
        average = (weights @ z).unsqueeze(0)
        if start is None and not tries[0].converged and _usable(known, average):
            tries.append(_from(search, z, weights, average[0], tol, int(max_iter)))
        best = min(tries, key=_rank)
        return replace(best, message=best.message + _others(known, tries, best, tol))


def path_options(options: dict[str, Any], tol: float | int | None, max_iter: Any) -> dict[str, Any]:
    """Options of the geodesics of something with a ``tol`` and ``max_iter`` of its own."""
    if tol is not None:
        check_positive("path_tol", tol)
    check_whole("path_max_iter", max_iter)
    return options | {"tol": tol, "max_iter": max_iter}


def checked_weights(z: Points, weights: Any) -> Float[Tensor, " n"]:
    """Weights of n points that sum to 1.

    Raises:
        TypeError, ValueError: no tensor (n,), or numbers that are negative, not finite or all zero.
    """
    if len(z) == 0:
        raise ValueError("z: expected at least one point, got shape " + str(tuple(z.shape)))
    if weights is None:
        return torch.full_like(z[:, 0], 1 / len(z))
    if not isinstance(weights, Tensor):
        raise TypeError(f"weights: expected a torch.Tensor, got {type(weights).__name__}")
    if tuple(weights.shape) != (len(z),):
        raise ValueError(f"weights: expected ({len(z)},), one for each point, got {tuple(weights.shape)}")
    weights = weights.detach().to(z)
    check_finite("weights", weights)
    if bool((weights < 0).any()):
        row = int((weights < 0).nonzero()[0])
        raise ValueError(f"weights: expected numbers >= 0, got {weights[row].item():g} at row {row}")
    if not bool((weights > 0).any()):
        raise ValueError("weights: expected at least one above zero, got only zeros")
    # Divided by the largest first: their sum may overflow.
    weights = weights / weights.max()
    return weights / weights.sum()


def _places(start: Any, z: Points) -> Float[Tensor, "s d"] | None:
    if start is None:
        return None
    places = start.unsqueeze(0) if isinstance(start, Tensor) and start.ndim == 1 else start
    places = check_points("start", places, z.shape[1]).detach()
    if len(places) == 0:
        raise ValueError(f"start: expected at least one place, got shape {tuple(places.shape)}")
    if places.dtype != z.dtype:
        raise ValueError(f"start: expected {z.dtype} like z, got {places.dtype}")
    return places


def medoid(
    metric: BaseMetric, z: Points, weights: Float[Tensor, " n"], *, data: Tensor | None = None
) -> Float[Tensor, "1 d"]:
    """The point of least weighted sum of squared graph distances, among at most 256 evenly chosen ones."""
    candidates = z[:: -(-len(z) // MEDOID_CANDIDATES)]
    if bool((candidates == candidates[:1]).all()):
        return candidates[:1].clone()
    square = finite_squares(graph_distances(metric, candidates, z, data=data))
    return candidates[(square @ weights).argmin()].unsqueeze(0)


def precise(metric: BaseMetric, dtype: torch.dtype) -> tuple[Route, torch.dtype]:
    """The metric's geometry in double precision where a copy can be made for it, and the precision to use."""
    return in_precision(route_of(metric), torch.float64, dtype)


def paths_from(
    search: PairSearch, centres: Float[Tensor, "n d"], z: Points, given: Float[Tensor, "n N d"] | None = None
) -> Geodesic:
    """The geodesics from centres to points, from all starts, those ``given`` among them."""
    kinds = search.options["starts"] if given is None else [*search.options["starts"], given]
    options = search.options | {"starts": kinds, "chunk_size": search.size}
    return geodesic(search.metric, centres, z, **options)


def given_by(fan: Fan, nodes: int) -> Float[Tensor, "n N d"]:
    """The finest curves of a fan, each thinned out to ``nodes``."""
    n, d = fan.gradient.shape
    curves = fan.gradient.new_empty(n, nodes, d)
    for sheaf in fan.sheaves:
        curves[sheaf.row] = sheaf.points[:, :: (sheaf.points.shape[1] - 1) // (nodes - 1)]
    return curves


def _from(
    search: PairSearch,
    z: Points,
    weights: Float[Tensor, " n"],
    place: Float[Tensor, " d"],
    tol: float,
    max_iter: int,
) -> FrechetMean:
    """The mean that one place leads to."""
    route, dtype = precise(search.metric, z.dtype)
    groups = Groups(torch.zeros(len(z), dtype=torch.long, device=z.device), weights.to(dtype), 1)
    x, steps, given = place.unsqueeze(0), 0, None
    seen: list[FrechetMean] = []
    while True:
        path = paths_from(search, x.expand(len(z), -1), z, given)
        state = Centring.at(route, x.to(dtype), fan_of(route, path, dtype), groups)
        shape = state.shape(tensor_of(route))
        seen.append(_judged(x[0], path, state, shape, weights, steps, tol, max_iter))
        settled = len(seen) > 1 and bool((shape.residual <= tol) & ~shape.saddle)
        astray = len(seen) > 1 and not bool(seen[-1].variance <= 1.01 * seen[-2].variance)
        if settled or astray or len(seen) > ROUNDS:
            break
        pursue(route, state, tol=tol / 2, max_iter=max_iter)
        if int(state.steps) == 0:
            break
        given = given_by(state.fan, path.points.shape[1]).to(z)
        x, steps = state.centres.to(z), steps + int(state.steps)
    # A mean that ran out of the chart is worth less than where it came from.
    return min(seen, key=_rank)


def _usable(metric: BaseMetric, z: Points) -> bool:
    g = metric.tensor(z)
    return bool(torch.isfinite(g).all()) and not bool(torch.linalg.cholesky_ex(g)[1].any())


def _rank(mean: FrechetMean) -> tuple[bool, float]:
    return not mean.converged, float(mean.variance.nan_to_num(nan=torch.inf))


def _judged(
    x: Float[Tensor, " d"],
    path: Geodesic,
    state: Centring,
    shape: Shape,
    weights: Float[Tensor, " n"],
    steps: int,
    tol: float,
    max_iter: int,
) -> FrechetMean:
    """The result at x, with its verdict."""
    distances = path.length.nan_to_num(nan=torch.inf)
    counted, reached = weights > 0, torch.isfinite(distances)
    variance = torch.where(counted, weights * distances.square(), 0).sum()
    frame, fan = shape.frame[0], state.fan
    logarithms = -(fan.gradient + state.bias) @ frame @ frame.mT / 2
    logarithms[~reached] = torch.nan
    bends = torch.linalg.eigvalsh(frame.mT @ fan.hessian @ frame / 2)[:, 0]
    far = counted & ((bends <= FLAT) | torch.isinf(fan.energy))
    convexity = shape.convexity[0, 0]
    residual = torch.where(torch.isfinite(variance), shape.residual[0], torch.inf)
    parts = []
    lost = int((counted & ~reached).sum())
    if lost:
        parts.append(f"{lost} points are reached by no curve that was found: give data, or leave them out")
    elif not bool(residual <= tol):
        parts.append(f"residual {float(residual):.2g} > tol {tol:g}: raise max_iter ({max_iter}) or tol")
    firm = bool((convexity > LEAST_CONVEXITY) | (shape.value[0] <= 0))
    if not firm:
        parts.append(f"no firm minimum (convexity {float(convexity):.2g}): give another start")
    open_ = counted & reached & ~path.converged & (distances > 0)
    # Geodesics that together add less than tol to the residual cannot spoil it.
    spread = (weights * distances.square())[reached].sum().sqrt()
    if not bool((weights * distances)[open_].sum() <= tol * spread):
        parts.append(
            f"{int(open_.sum())} geodesics that matter are not certified: raise max_nodes, path_max_iter or "
            "path_tol"
        )
    message = "not converged: " + "; ".join(parts) if parts else "converged"
    wide = far & reached
    if bool(wide.any()):
        message += (
            f"; the squared distances to {int(wide.sum())} of {int(counted.sum())} points are not convex, "
            "so the mean may be one of several: compare other places as start"
        )
    return FrechetMean(
        x,
        variance,
        residual.to(x),
        not parts,
        steps,
        distances,
        logarithms.to(x),
        convexity.to(x),
        far,
        message,
    )


def _others(metric: BaseMetric, tries: list[FrechetMean], best: FrechetMean, tol: float) -> str:
    """How many of the tries ended elsewhere."""
    away = torch.stack([each.point for each in tries]) - best.point
    g = metric.tensor(best.point.unsqueeze(0))[0]
    apart = torch.einsum("sa,ab,sb->s", away, g, away).sqrt() > tol**0.5 * best.variance.sqrt()
    apart &= torch.tensor([each.converged for each in tries], device=apart.device)
    if not bool(apart.any()):
        return ""
    least = min(float(each.variance) for each, other in zip(tries, apart, strict=True) if other)
    return (
        f"; {int(apart.sum())} of {len(tries)} starts led to other means, of variance {least:.6g} at least "
        f"(here {float(best.variance):.6g})"
    )
