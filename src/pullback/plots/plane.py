"""How codes of any latent dimension are laid out on the two axes of a page."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Plane:
    """A flat view of a latent space: ``coordinates = (z - origin) @ basis.T``.

    One and two dimensions are shown as they are; of more, the plane of largest variance of the codes, or that
    of two chosen coordinates.
    """

    origin: np.ndarray  # (d,)
    basis: np.ndarray  # (k, d), k = min(d, 2)
    share: float  # of the codes' variance that lies in the plane
    dims: tuple[int, int] | None = None  # the coordinates that were chosen

    @property
    def exact(self) -> bool:
        """Whether nothing is projected away."""
        return self.basis.shape[0] == self.basis.shape[1]

    @property
    def axis_names(self) -> tuple[str, ...]:
        """What stands along the axes."""
        if self.exact or self.dims is not None:
            return tuple(f"latent {i + 1}" for i in self.dims or range(len(self.basis)))
        return tuple(f"principal axis {i + 1} of the codes" for i in range(len(self.basis)))

    def project(self, z: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n k"]:
        """Coordinates in the plane."""
        return (z - self.origin) @ self.basis.T

    def restrict(self, g: Float[np.ndarray, "n d d"]) -> Float[np.ndarray, "n k k"]:
        """The metric tensor among the directions of the plane."""
        return self.basis @ g @ self.basis.T


def plane_of(codes: Float[np.ndarray, "n d"], dims: tuple[int, int] | None = None) -> Plane:
    """The view for ``codes``: the identity for d <= 2, else two coordinates or two principal axes."""
    d = codes.shape[1]
    if dims is not None and d > 2:
        basis = np.eye(d, dtype=codes.dtype)[list(dims)]
        variance = codes.var(0, dtype=np.float64)
        whole = variance.sum()
        share = float(variance[list(dims)].sum() / whole) if whole > 0 else 1.0
        return Plane(np.zeros(d, codes.dtype), basis, share, dims)
    if d <= 2:
        return Plane(np.zeros(d, codes.dtype), np.eye(d, dtype=codes.dtype), 1.0)
    origin = codes.mean(0)
    covariance = np.cov(codes.T.astype(np.float64))
    values, vectors = np.linalg.eigh(covariance)
    basis = vectors[:, ::-1][:, :2].T
    # The sign of an eigenvector is arbitrary: the largest entry points up, so that the page is reproducible.
    largest = np.abs(basis).argmax(1)
    basis = basis * np.sign(basis[[0, 1], largest])[:, None]
    total = values.sum()
    share = float(values[-2:].sum() / total) if total > 0 else 1.0
    return Plane(origin, np.ascontiguousarray(basis, dtype=codes.dtype), share)
