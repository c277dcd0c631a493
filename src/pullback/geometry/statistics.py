"""Statistics of a metric over points: how far it is from flat, and from the same everywhere."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.metrics import as_metric, checked_tensor
from pullback.validation import check_points, check_positive


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
        generator: source of the mixing.
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
        z = _between(z, mix, generator)
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


def _between(z: Tensor, mix: float | int, generator: torch.Generator | None) -> Tensor:
    partner = z[torch.randint(len(z), (len(z),), generator=generator, device=z.device)]
    u = torch.rand(len(z), 1, generator=generator, dtype=z.dtype, device=z.device)
    return torch.lerp(partner, z, u * (1 + 2 * mix) - mix)
