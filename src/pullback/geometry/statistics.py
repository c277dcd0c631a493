"""Statistics of a metric over points: how far from flat, from the ruler, from the next training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from torch import Tensor

from pullback.draws import source_of
from pullback.geometry.pairs import PairSearch
from pullback.metrics import BaseMetric, as_metric, checked_tensor
from pullback.validation import check_pair, check_points, check_positive

TENSOR_CHUNK = 2**12


@dataclass(frozen=True)
class Flatness:
    """Measures of flatness and isometry over n points; λ eigenvalues of g, Ḡ the mean of g.

    Attributes:
        condition_number: mean of λ_max/λ_min (Lee et al. 2022, IRVAE; Palma et al. 2025, FlatVI): 1 where the
            metric is a multiple of the identity at every point.
        variance: mean of Σ_a ln² λ_a(Ḡ⁻¹g): squared affine-invariant distance of g from Ḡ; unchanged by any
            linear change of the latent coordinates.
        variance_published_code: the same with singular values of Ḡ⁻¹g, as the code of those papers does; it
            depends on the coordinates: compare with their tables only.
        distortion: d E tr g² / (E tr g)² >= 1, with equality iff g = c I everywhere.
        logdet_variance: Var(ln det g); blind to anisotropy (geometric autoencoder).
        scale: E tr g / d.
        points: number of points.
    """

    condition_number: float
    variance: float
    variance_published_code: float
    distortion: float
    logdet_variance: float
    scale: float
    points: int


def flatness(
    metric: Any,
    z: Float[Tensor, "n d"],
    *,
    mix: float | int | None = None,
    generator: torch.Generator | None = None,
) -> Flatness:
    """How flat, how isometric a metric is over the points ``z``.

    Args:
        metric: any object with ``tensor``.
        z: points, (n, d).
        mix: evaluate between and around the points instead: α z_i + (1 - α) z_j for random pairs, α uniform
            on (-mix, 1 + mix).
        generator: source of the mixing; None is a fresh one with a fixed seed, so that results repeat.
    Returns: `Flatness`.
    Raises:
        ValueError: no points, or a metric that is not positive definite at one of them.
    Example:
        >>> import torch
        >>> from pullback.geometry.reference import PoincareDisk
        >>> seen = flatness(PoincareDisk(), torch.tensor([[0.0, 0.0], [0.5, 0.0]]).double())
        >>> seen.condition_number, round(seen.distortion, 4)
        (1.0, 1.0784)
    """
    known = as_metric(metric)
    check_points("z", z, known.dim)
    if len(z) == 0:
        raise ValueError("z: expected at least one point, got none")
    if mix is not None:
        check_positive("mix", mix, zero=True)
        z = _between(z, mix, source_of(generator, z.device))
    with torch.no_grad():
        g = checked_tensor(known, z).double()
        values = torch.linalg.eigvalsh(g)
        lower = torch.linalg.cholesky(g.mean(0))
        half = torch.linalg.solve_triangular(lower, g, upper=False)
        relative = torch.linalg.solve_triangular(lower, half.mT, upper=False)
        published = torch.linalg.svdvals(torch.linalg.solve(g.mean(0), g))
        logdet = values.log().sum(-1)
        trace = values.sum(-1).mean()
        d = z.shape[1]
        return Flatness(
            condition_number=float((values[:, -1] / values[:, 0]).mean()),
            variance=float(_spectrum_distance(torch.linalg.eigvalsh((relative + relative.mT) / 2))),
            variance_published_code=float(_spectrum_distance(published)),
            distortion=float(d * values.square().sum(-1).mean() / trace**2),
            logdet_variance=float(logdet.var(correction=0)),
            scale=float(trace / d),
            points=len(z),
        )


def _spectrum_distance(values: Float[Tensor, "n d"]) -> Tensor:
    return values.log().square().sum(-1).mean()


def _between(z: Tensor, mix: float | int, generator: torch.Generator) -> Tensor:
    partner = z[torch.randint(len(z), (len(z),), generator=generator, device=z.device)]
    u = torch.rand(len(z), 1, generator=generator, dtype=z.dtype, device=z.device)
    return torch.lerp(partner, z, u * (1 + 2 * mix) - mix)


@dataclass(frozen=True)
class GeodesicStress:
    """How well distances on the map, by the ruler, stand for geodesic ones.

    Attributes:
        stress: √(Σ (d - √ḡ |Δz|)² / Σ d²): 0 where the map is true to scale. Pairs that no curve inside the
            domain of the metric joins (a distance that is not finite) are left out of it and of the
            correlations; NaN if nothing is left.
        pearson, spearman: correlation of d and |Δz|, and of their ranks; NaN where either is the same for all
            pairs.
        scale: ḡ = E tr g / d over the points.
        distances: geodesic distances d, (k,).
        straight: distances |Δz| by the ruler, (k,).
        converged: whether the geodesic is certified, (k,).
    """

    stress: float
    pearson: float
    spearman: float
    scale: float
    distances: Float[Tensor, " k"]
    straight: Float[Tensor, " k"]
    converged: Bool[Tensor, " k"]


def geodesic_stress(metric: Any, z: Float[Tensor, "n d"], pairs: Any, **options: Any) -> GeodesicStress:
    """Compare geodesic distances of pairs of points with straight ones, at the mean scale of the metric.

    Args:
        metric: any object with ``tensor``.
        z: points, (n, d); the scale is a mean over all of them.
        pairs: rows to compare, whole numbers (k, 2), k >= 2.
        **options: of `geodesic`.
    Returns: `GeodesicStress`.
    Raises:
        ValueError: pairs of another shape, rows that are not there, or pairs of equal points alone.
    Example:
        >>> import torch
        >>> from pullback.metrics import EuclideanMetric
        >>> z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        >>> seen = geodesic_stress(EuclideanMetric(2), z, [(0, 1), (0, 2), (1, 2)])
        >>> round(seen.stress, 5), round(seen.pearson, 5)
        (0.0, 1.0)
    """
    known = as_metric(metric)
    check_points("z", z, known.dim)
    rows = _pairs(pairs, len(z)).to(z.device)
    with torch.no_grad():
        trace = sum(
            float(known.tensor(part).diagonal(dim1=1, dim2=2).sum(dtype=torch.float64))
            for part in z.split(TENSOR_CHUNK)
        )
    scale = trace / z.numel()
    start, end = (z[row].detach() for row in rows.T)
    search = PairSearch.over(known, torch.cat([start, end]), options)
    length, converged, _ = search.lengths(start, end)
    straight = (end - start).norm(dim=1)
    if not bool((straight > 0).any()):
        raise ValueError("pairs: expected at least one pair of different points")
    joined = torch.isfinite(length)
    d, ruler = (part[joined].double().cpu().numpy() for part in (length, straight))
    misses, size = np.square(d - math.sqrt(scale) * ruler).sum(), np.square(d).sum()
    return GeodesicStress(
        stress=math.sqrt(misses / size) if size > 0 else math.nan,
        pearson=_correlation(d, ruler),
        spearman=_correlation(rankdata(d), rankdata(ruler)),
        scale=scale,
        distances=length,
        straight=straight,
        converged=converged,
    )


def _pairs(pairs: Any, n: int) -> Tensor:
    """Rows as whole numbers (k, 2), all of them there."""
    rows = torch.as_tensor(pairs)
    if rows.ndim != 2 or rows.shape[1] != 2 or rows.is_floating_point() or rows.dtype == torch.bool:
        kind = str(rows.dtype).removeprefix("torch.")
        raise ValueError(f"pairs: expected rows (k, 2) as whole numbers, got {tuple(rows.shape)} {kind}")
    if len(rows) < 2:
        raise ValueError(f"pairs: expected at least two, got {len(rows)}")
    if int(rows.min()) < 0 or int(rows.max()) >= n:
        raise ValueError(
            f"pairs: expected rows from 0 to {n - 1}, got {int(rows.min())} to {int(rows.max())}"
        )
    return rows.long()


def _correlation(a: Float[np.ndarray, " k"], b: Float[np.ndarray, " k"]) -> float:
    if len(a) < 2:
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / size if size > 0 else math.nan


@dataclass(frozen=True)
class DistanceStability:
    """How much distances between the same data change from one training to the next.

    Attributes:
        variation: mean of ``per_pair`` over the pairs that all trainings join; NaN if there is none.
        per_pair: standard deviation (of a sample) over mean of the distance of each pair, (m,); 0 where all
            are zero, NaN where a training joins the two by no curve inside the domain of its metric.
        distances: geodesic distances, one row a training, (r, m).
        converged: whether the geodesic is certified, (r, m).
    """

    variation: float
    per_pair: Float[Tensor, " m"]
    distances: Float[Tensor, "r m"]
    converged: Bool[Tensor, "r m"]


def distance_stability(
    metrics: Sequence[Any],
    starts: Sequence[Tensor],
    ends: Sequence[Tensor],
    *,
    data: Sequence[Tensor | None] | None = None,
    **options: Any,
) -> DistanceStability:
    """Coefficient of variation of geodesic distances over trainings of a model.

    Every training has a chart of its own, so coordinates cannot be compared; distances in units of the data
    can (Syrota et al. 2024, "Decoder ensembling for learned latent geometries").

    Args:
        metrics: one for each training, at least two.
        starts, ends: codes of the same m pairs of data in each training, (m, d) each.
        data: codes of data in each training that the graphs cover.
        **options: of `geodesic`.
    Returns: `DistanceStability`.
    Raises:
        ValueError: fewer than two metrics, or other numbers of codes than metrics or pairs.
    Example:
        >>> import torch
        >>> from pullback.metrics import from_tensor
        >>> metrics = [from_tensor(lambda z, c=c: c * torch.eye(1).expand(len(z), 1, 1), 1) for c in (1, 4)]
        >>> a, b = torch.zeros(3, 1), torch.ones(3, 1)
        >>> round(distance_stability(metrics, [a, a], [b, b]).variation, 4)
        0.4714
    """
    known = [as_metric(metric) for metric in metrics]
    if len(known) < 2:
        raise ValueError(f"metrics: expected at least two trainings, got {len(known)}")
    covered = [None] * len(known) if data is None else list(data)
    for name, given in (("starts", starts), ("ends", ends), ("data", covered)):
        if len(given) != len(known):
            raise ValueError(f"{name}: expected codes for each of {len(known)} metrics, got {len(given)}")
    found = [
        _lengths(f"[{k}]", known[k], (starts[k], ends[k]), options | {"data": covered[k]})
        for k in range(len(known))
    ]
    if len({len(length) for length, _ in found}) > 1:
        raise ValueError(
            f"starts: expected the same pairs for every metric, got {[len(d) for d, _ in found]}"
        )
    distances, converged = (torch.stack(part) for part in zip(*found, strict=True))
    mean = distances.mean(0)
    per_pair = distances.std(0) / torch.where(mean == 0, 1, mean)
    return DistanceStability(float(per_pair.nanmean()), per_pair, distances, converged)


def _lengths(
    at: str, metric: BaseMetric, ends: tuple[Any, Any], options: dict[str, Any]
) -> tuple[Float[Tensor, " m"], Bool[Tensor, " m"]]:
    """Distances in one training, and their certificates."""
    start, end = check_pair((f"starts{at}", f"ends{at}"), *ends, metric.dim)
    if len(start) == 0:
        raise ValueError(f"starts{at}: expected at least one pair, got none")
    search = PairSearch.over(metric, torch.cat([start, end]), options)
    length, converged, _ = search.lengths(start.detach(), end.detach())
    return length, converged
