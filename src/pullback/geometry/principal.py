"""Principal directions at a mean: where points spread to, along geodesics."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.geometry.exponential import exponential_map
from pullback.geometry.logarithm import logarithm_map
from pullback.geometry.means import PATH_STEPS, FrechetMean, checked_weights, frechet_mean, path_options
from pullback.metrics import BaseMetric, as_metric, checked_tensor
from pullback.validation import check_points, check_whole

MEAN_OPTIONS = ("tol", "max_iter", "start")


@dataclass(frozen=True)
class TangentPCA:
    """Principal components of points in the tangent space at a mean.

    Attributes:
        mean: (d,).
        components: tangent vectors at the mean in latent coordinates, orthonormal with respect to g there,
            (k, d); the largest entry of each is positive.
        variances: Σ w_i <log z_i, component>_g², falling, (k,).
        explained: each variance as a part of the sum over all d, (k,).
        scores: <log z_i, component>_g, (n, k); NaN for points that no curve reaches, which do not count.
        converged, message: of the mean and its geodesics.
        metric: whose geometry this is.
        options: of the geodesics.
    """

    mean: Float[Tensor, " d"]
    components: Float[Tensor, "k d"]
    variances: Float[Tensor, " k"]
    explained: Float[Tensor, " k"]
    scores: Float[Tensor, "n k"]
    converged: bool
    message: str
    metric: BaseMetric = field(repr=False)
    options: dict[str, Any] = field(repr=False)

    def transform(self, z: Tensor) -> Float[Tensor, "n k"]:
        """Scores of points, (n, d)."""
        z = check_points("z", z, len(self.mean))
        with torch.no_grad():
            vectors = logarithm_map(self.metric, self.mean, z, **self.options)
            assert isinstance(vectors, Tensor)
            g = self.metric.tensor(self.mean.unsqueeze(0))[0]
            return vectors @ g @ self.components.mT

    def inverse(self, scores: Tensor) -> Float[Tensor, "n d"]:
        """Points with given scores, (n, k): exp of the sum of components."""
        scores = check_points("scores", scores, len(self.components))
        with torch.no_grad():
            points = exponential_map(self.metric, self.mean, scores @ self.components)
            assert isinstance(points, Tensor)
            return points


def tangent_pca(
    metric: Any,
    z: Tensor,
    weights: Tensor | None = None,
    *,
    n_components: int | None = None,
    mean: Tensor | FrechetMean | None = None,
    path_tol: float | int | None = None,
    path_max_iter: int = PATH_STEPS,
    **options: Any,
) -> TangentPCA:
    """Principal component analysis of log_mean(z_i) in an orthonormal frame at the mean.

    With g = LLᵀ at the mean and u_i = Lᵀ log_mean(z_i), the components are L⁻ᵀ times the eigenvectors of
    Σ w_i u_i u_iᵀ. In flat space this is ordinary principal component analysis (with variances divided by n).

    Fletcher, Lu, Pizer, Joshi 2004, "Principal geodesic analysis for the study of nonlinear statistics of
    shape".

    Args:
        metric: any object with ``tensor``.
        z: points, (n, d).
        weights: (n,), not negative; they are divided by their sum. None weighs all alike.
        n_components: k, at most d; None takes all d.
        mean: a point (d,), or the result of `frechet_mean` for the same points and weights; None computes it.
            Products of logarithms are taken about this point, whether it is a mean or not.
        path_tol, path_max_iter: ``tol`` and ``max_iter`` of the geodesics.
        **options: ``tol``, ``max_iter`` and ``start`` of `frechet_mean`, where it computes the mean, and the
            others of `geodesic`.
    Returns: a `TangentPCA`; detached.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value.
    Example:
        >>> import torch
        >>> from pullback.geometry.reference import PoincareDisk
        >>> z = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.3], [0.0, -0.3]], dtype=torch.float64)
        >>> found = tangent_pca(PoincareDisk(), z, n_components=1)
        >>> found.components.abs().round(decimals=4), found.explained.round(decimals=4)
        (tensor([[0.5000, 0.0000]], dtype=torch.float64), tensor([0.7590], dtype=torch.float64))
    """
    known = as_metric(metric)
    z = check_points("z", z, known.dim).detach()
    weights = checked_weights(z, weights)
    d = z.shape[1]
    if n_components is not None:
        check_whole("n_components", n_components)
        if n_components > d:
            raise ValueError(f"n_components: expected at most d = {d}, got {n_components}")
    k = d if n_components is None else int(n_components)
    own = {name: options.pop(name) for name in MEAN_OPTIONS if name in options}
    if own and mean is not None:
        raise ValueError(f"{next(iter(own))}: expected mean=None with this argument, got a mean")
    paths = path_options(options, path_tol, path_max_iter)
    with torch.no_grad():
        if mean is None:
            own |= {"path_tol": path_tol, "path_max_iter": path_max_iter}
            mean = frechet_mean(known, z, weights, **own, **options)
        centre, vectors, converged, message = _logarithms(known, z, weights, mean, paths)
        g = checked_tensor(known, centre.unsqueeze(0))[0]
        factor = torch.linalg.cholesky(g)
        frame = vectors @ factor
        spread = torch.where(torch.isfinite(frame), weights.sqrt()[:, None] * frame, 0)
        _, size, axes = torch.linalg.svd(torch.cat([spread, spread.new_zeros(d, d)]), full_matrices=False)
        components = torch.linalg.solve_triangular(factor.mT, axes.mT, upper=True).mT
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        sign = torch.where(largest < 0, -1, 1).to(z)
        total = size.square().sum()
        variances = size.square()
        return TangentPCA(
            centre,
            (sign * components)[:k],
            variances[:k],
            (variances / torch.where(total > 0, total, 1))[:k],
            (frame @ (sign * axes).mT)[:, :k],
            converged,
            message,
            known,
            paths,
        )


def _logarithms(
    metric: BaseMetric,
    z: Float[Tensor, "n d"],
    weights: Float[Tensor, " n"],
    mean: Any,
    options: dict[str, Any],
) -> tuple[Float[Tensor, " d"], Float[Tensor, "n d"], bool, str]:
    """The mean, the logarithms of all points there, and whether both are certified."""
    if isinstance(mean, FrechetMean):
        if mean.logarithms.shape != z.shape:
            raise ValueError(
                f"mean: expected a mean of the {len(z)} points z, got one of {len(mean.logarithms)}"
            )
        return mean.point, mean.logarithms, mean.converged, mean.message
    if not isinstance(mean, Tensor):
        raise TypeError(f"mean: expected a torch.Tensor (d,) or a FrechetMean, got {type(mean).__name__}")
    centre = check_points("mean", mean.detach().unsqueeze(0), z.shape[1])[0]
    found = logarithm_map(metric, centre, z, full=True, **options)
    assert not isinstance(found, Tensor)
    counted = bool(found.converged[weights > 0].all())
    return centre, found.vector, counted, found.message
