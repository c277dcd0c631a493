"""How probable rows are under a chart: Laplace evidence, and the exact one of a handful of points."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from torch import Tensor

from pullback.linalg import widened
from pullback.models.dictionary.clustering import seed_of
from pullback.typing import Chart
from pullback.validation import check_points, check_positive, check_whole

RIDGE = 1e-6
"""Prior precision of every basis function, per row and in units of 1/σ²; the same for all candidates."""
FLAT = 1e-9
KMEANS_STARTS = 10


@dataclass(frozen=True)
class Evidence:
    """Evidence of one explanation of N rows.

    Attributes:
        nats: E, minus the log marginal likelihood: lower is better.
        bic: N p ln(RSS/N p) + p edf ln(N p) + N d ln p, for comparison.
        residual: RSS.
        edf: effective number of basis functions.
        variance: s², of the noise.
    """

    nats: float
    bic: float
    residual: float
    edf: float
    variance: float


@dataclass(frozen=True)
class PointsFit:
    """Rows explained by n points.

    Attributes:
        centres: (n, p).
        labels: nearest centre of each row, (N,).
        evidence: with the labels summed out.
    """

    centres: Float[Tensor, "c p"]
    labels: Int[Tensor, " n"]
    evidence: Evidence


def chart_evidence(
    chart: Chart,
    Z: Float[Tensor, "n p"],
    t: Float[Tensor, "n c"],
    smoothness: float,
    *,
    amplitudes: Float[Tensor, " n"] | None = None,
) -> Evidence:
    """Laplace evidence of rows z_i = a_i Φ(t_i) B + noise on a chart with coordinates at their optimum.

    E = N p/2 ln 2πs² + RSS/2s² + Σ_i [½ ln|D_i D_iᵀ/s²| - d/2 ln 2π + ln Vol] + p/2 (ln|A| - ln|S_λ|) + tr(Bᵀ
    S_λ B)/2s²

    with S_λ = λ S + ρ I the prior precision of B over σ², A = ΦᵀΦ + S_λ, B = A⁻¹ΦᵀZ, D = dΦ B, a uniform
    prior of t, and s² = RSS/(N p - p edf - N d). Amplitudes that were estimated are coordinates, too: D gets
    the row g = Φ(t) B, its other rows the factor a, and the prior of a is uniform up to the largest |z|. B is
    integrated out exactly given t, t by Laplace's method given B; what couples the two is neglected.

    Wood 2011, "Fast stable restricted maximum likelihood and marginal likelihood estimation of semiparametric
    generalized linear models"; Tierney and Kadane 1986 for Laplace's method.

    Args:
        chart: of the rows; not `points`, see `points_evidence`.
        Z: rows of one atom, (n, p).
        t: coordinates, (n, c).
        smoothness: λ.
        amplitudes: a, (n,), for the normalisation of B that belongs to λ; None for 1.
    Raises:
        TypeError, ValueError: no table of finite numbers, coordinates of another length, λ below 0.
    Example:
        >>> import math, torch
        >>> from pullback.charts import circle, interval
        >>> t = torch.arange(50, dtype=torch.float64).unsqueeze(1) * 2 * math.pi / 50
        >>> g = torch.Generator().manual_seed(0)
        >>> noise = 0.1 * torch.randn(50, 2, generator=g, dtype=torch.float64)
        >>> Z = torch.cat([t.cos(), t.sin()], 1) + noise
        >>> closed = chart_evidence(circle(), Z, t, 1e-3)
        >>> opened = chart_evidence(interval(), Z, t / math.pi - 1, 1e-3)
        >>> closed.nats < opened.nats
        True
    """
    wide = widened(check_points("Z", Z))
    if len(t) != len(Z):
        raise ValueError(f"t: expected {len(Z)} rows as Z, got {len(t)}")
    check_positive("smoothness", smoothness, zero=True)
    n, p = wide.shape
    jet = chart.jet(widened(t), 1)
    X, slope = jet.value, jet.jacobian
    if amplitudes is not None:
        scale = widened(amplitudes)
        shape, X, slope = X, scale[:, None] * X, scale[:, None, None] * slope
    S = smoothness * chart.roughness.to(wide) + RIDGE * n * torch.eye(X.shape[1]).to(wide)
    gram = X.mT @ X
    factor = torch.linalg.cholesky(gram + S)
    B = torch.cholesky_solve(X.mT @ wide, factor)
    edf = float(torch.cholesky_solve(gram, factor).trace())
    residual = float((wide - X @ B).square().sum())
    d = chart.d + (amplitudes is not None)
    variance = _variance(residual, n * p - p * edf - n * d, wide)
    prior = float((B * (S @ B)).sum())
    volume = 2 * factor.diagonal().log().sum() - torch.linalg.slogdet(S).logabsdet
    nats = n * p / 2 * math.log(2 * math.pi * variance) + (residual + prior) / (2 * variance)
    nats += float(p / 2 * volume) + n * (math.log(chart.volume) - d / 2 * math.log(2 * math.pi))
    if d:
        D = torch.einsum("nmd,mp->ndp", slope, B)
        if amplitudes is not None:
            D = torch.cat([(shape @ B).unsqueeze(1), D], 1)
            nats += n * _log_longest(wide)
        metric = D @ D.mT / variance + FLAT * torch.eye(d).to(wide)
        nats += float(torch.linalg.slogdet(metric).logabsdet.sum() / 2)
    return Evidence(nats, _bic(residual, edf, n, p, d), residual, edf, variance)


def points_evidence(
    Z: Float[Tensor, "n p"], centres: Float[Tensor, "c p"], *, rays: bool = False
) -> Evidence:
    """Evidence of rows scattered about c points, all labels summed out.

    E = -Σ_i ln[1/c Σ_j N(z_i; b_j, s² I)] + p/2 Σ_j (ln(N_j + ρ) - ln ρ) + ρ |B|²/2s²

    N_j rows being nearest to centre j, the prior precision ρ that of `chart_evidence`, and s² = RSS/(N p - p
    edf). The null of every curve: values that a curve may well thread, but that fill no curve. Rays through
    the points, for rows with amplitudes, have the distance to the ray and a Laplace integral over the
    amplitude.

    Args:
        Z: rows, (n, p).
        centres: b, (c, p).
        rays: whether rows have amplitudes of their own.
    Example:
        >>> import torch
        >>> Z = torch.tensor([[0.0], [0.1], [5.0], [5.1]], dtype=torch.float64)
        >>> two = points_evidence(Z, torch.tensor([[0.05], [5.05]], dtype=torch.float64))
        >>> one = points_evidence(Z, torch.tensor([[2.55]], dtype=torch.float64))
        >>> two.residual < one.residual
        True
    """
    wide, B = widened(check_points("Z", Z)), widened(check_points("centres", centres, Z.shape[1]))
    n, p = wide.shape
    rho = RIDGE * n
    if rays:
        size = B.norm(dim=1).clamp_min(torch.finfo(B.dtype).tiny)
        along = (wide @ B.mT / size).clamp_min(0)
        distance = wide.square().sum(1, keepdim=True) - along.square()
    else:
        distance = torch.cdist(wide, B, compute_mode="donot_use_mm_for_euclid_dist").square()
    nearest, labels = distance.min(1)
    counts = torch.bincount(labels, minlength=len(B)).to(wide)
    edf = float((counts / (counts + rho)).sum())
    residual = float(nearest.sum())
    variance = _variance(residual, n * p - p * edf - n * rays, wide)
    exponent = -distance / (2 * variance)
    if rays:
        exponent = exponent + math.log(2 * math.pi * variance) / 2 - size.log() - _log_longest(wide)
    density = torch.logsumexp(exponent, 1) - math.log(len(B))
    nats = n * p / 2 * math.log(2 * math.pi * variance) - float(density.sum())
    nats += p / 2 * float((torch.log(counts + rho) - math.log(rho)).sum())
    nats += rho * float(B.square().sum()) / (2 * variance)
    return Evidence(nats, _bic(residual, edf, n, p, int(rays)), residual, edf, variance)


def fit_points(
    Z: Float[Tensor, "n p"],
    count: int,
    *,
    rays: bool = False,
    generator: torch.Generator | None = None,
) -> PointsFit:
    """Rows as points: the best of 10 starts of k-means, on directions where rows have amplitudes.

    Args:
        Z: rows, (n, p).
        count: number of points, at most n.
        rays: whether rows have amplitudes of their own.
        generator: of the starts.
    Raises:
        TypeError, ValueError: no table of finite numbers, more points than rows.
    Example:
        >>> import torch
        >>> fit_points(torch.tensor([[0.0], [1.0], [9.0]]), 2).centres.sort(0).values.flatten().tolist()
        [0.5, 9.0]
    """
    check_points("Z", Z)
    check_whole("count", count)
    if count > len(Z):
        raise ValueError(f"count: expected at most the {len(Z)} rows, got {count}")
    cloud = torch.nn.functional.normalize(Z, dim=1) if rays else Z
    # k-means warns where fewer places than points differ
    places = int(torch.unique(cloud, dim=0).shape[0])
    means = KMeans(min(count, places), n_init=KMEANS_STARTS, random_state=seed_of(generator))  # type: ignore[arg-type]
    means.fit(cloud.detach().cpu().double().numpy())
    centres = torch.from_numpy(means.cluster_centers_).to(Z)
    labels = torch.as_tensor(means.labels_, dtype=torch.long).to(Z.device)
    return PointsFit(centres, labels, points_evidence(Z, centres, rays=rays))


def _log_longest(Z: Tensor) -> float:
    """Logarithm of the range of amplitudes, in units of the unit atom."""
    return float(Z.norm(dim=1).max().clamp_min(1e-300).log())


def _variance(residual: float, freedom: float, Z: Tensor) -> float:
    """RSS per degree of freedom, away from zero where the fit is exact."""
    floor = torch.finfo(torch.float32).eps ** 2 * float(Z.square().mean()) + torch.finfo(Z.dtype).tiny
    return max(residual / max(freedom, 1.0), floor)


def _bic(residual: float, edf: float, n: int, p: int, d: int) -> float:
    size = n * p
    return size * math.log(max(residual, 1e-300) / size) + p * edf * math.log(size) + n * d * math.log(p)
