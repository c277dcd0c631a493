"""The numbers of a diagnosis, as functions of arrays."""

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from pullback.plots.field import off_data_share
from pullback.plots.plane import plane_of

ACTIVE_SHARE = 0.01
NEIGHBOURHOOD_ROWS = 2000


def unexplained_share(
    x: Float[np.ndarray, "n p"], y: Float[np.ndarray, "n p"], centre: Float[np.ndarray, " p"] | None = None
) -> float:
    """Share of the variance of x that y misses: sum (x - y)^2 / sum (x - mean)^2."""
    centre = x.mean(0) if centre is None else centre
    total = float(((x - centre) ** 2).sum(dtype=np.float64))
    lost = float(((x - y) ** 2).sum(dtype=np.float64))
    return lost / total if total > 0 else float(lost > 0)


def pca_unexplained_share(x: Float[np.ndarray, "n p"], d: int, *, random_state: int = 0) -> float:
    """`unexplained_share` of a PCA with d dimensions fitted to the same rows."""
    if d >= min(x.shape):
        return 0.0
    pca = PCA(n_components=d, random_state=random_state).fit(x)
    return unexplained_share(x, pca.inverse_transform(pca.transform(x)))


def neighbourhoods(
    x: Float[np.ndarray, "n p"], z: Float[np.ndarray, "n d"], neighbours: int = 10
) -> tuple[float | None, float | None, int]:
    """Trustworthiness, continuity (the same with the spaces exchanged) and the number of neighbours used.

    Venna & Kaski, Neural Networks 19 (2006) 889. None where there are fewer than five rows.
    """
    used = min(neighbours, (len(x) - 1) // 2)
    if used < 2:
        return None, None, used
    return (
        float(trustworthiness(x, z, n_neighbors=used)),
        float(trustworthiness(z, x, n_neighbors=used)),
        used,
    )


def coverage(codes: Float[np.ndarray, "n d"]) -> float:
    """Share of the codes' box that lies off the data; beyond two dimensions in their principal plane."""
    return off_data_share(plane_of(codes).project(codes))


def active_dims(codes: Float[np.ndarray, "n d"], *, has_prior: bool) -> int:
    """How many dimensions vary over the data: variance above 1 % of the largest.

    With a standard normal prior the largest counts as at least 1, so that a collapsed posterior shows
    (Burda, Grosse, Salakhutdinov, arXiv:1509.00519).
    """
    variance = codes.astype(np.float64).var(0)
    largest = max(float(variance.max()), 1.0 if has_prior else 0.0)
    return int((variance > ACTIVE_SHARE * largest).sum())
