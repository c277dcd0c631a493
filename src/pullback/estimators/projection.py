"""Rows on their way into an encoder of an embedding: scaled, and projected on principal axes where asked."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from sklearn.decomposition import PCA
from torch import Tensor

from pullback.estimators.rows import ScaledRows
from pullback.estimators.scaling import Scaling, chunk_slices, fit_scaling
from pullback.inputs import Table
from pullback.validation import check_whole

DENSE_VALUES = 2**28
"""Numbers up to which sparse rows become dense once, 1 GiB in float32; more do so a step at a time."""


SPREAD = 2.0
"""Root mean square of what an encoder sees: weights start for less and learn faster from more (measured)."""


@dataclass(frozen=True, eq=False)
class Projection:
    """e = C ((x - offset) / scale), C orthonormal rows, or the identity.

    Attributes:
        scaling: offset and scale.
        components: C, ``(k, p)``, or None.
    """

    scaling: Scaling
    components: Float[Tensor, "k p"] | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Precision."""
        return self.scaling.dtype

    @property
    def width(self) -> int:
        """Numbers that the encoder sees of a row."""
        return len(self.scaling.offset if self.components is None else self.components)

    def apply(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n k"]:
        """Data to what the encoder sees."""
        scaled = self.scaling.apply(x)
        return scaled if self.components is None else scaled @ self.components.T

    def undo(self, e: Float[Tensor, "n k"]) -> Float[Tensor, "n p"]:
        """The data that the encoder sees so; of all those behind a projection the nearest to the mean."""
        return self.scaling.undo(e if self.components is None else e @ self.components)


def fit_projection(table: Table, *, standardize: bool, components: int | None, seed: int) -> Projection:
    """The projection of a table.

    Distances keep their proportions unless ``standardize`` gives each feature variance 1. One number brings
    what the encoder sees to a root mean square of `SPREAD`.

    Args:
        table: the data.
        standardize: divide each feature by its standard deviation.
        components: principal axes to keep, or None.
        seed: of the randomised decomposition of large tables.
    Raises:
        ValueError: images, or more axes than rows or features.
    """
    scaling = fit_scaling("standard" if standardize else "global", table, np.arange(len(table)))
    if components is None:
        return Projection(Scaling(scaling.offset, scaling.scale / SPREAD))
    check_whole("pca_components", components)
    if table.image_shape is not None:
        raise ValueError(
            f"pca_components: expected None for images {table.image_shape}, got {components}; "
            "flatten them to rows to project them"
        )
    most = min(table.shape)
    if components > most:
        raise ValueError(f"pca_components: expected at most min(n, p) = {most}, got {components}")
    axes, variance = _principal_axes(table, scaling, components, seed)
    scale = (float(np.sqrt(variance.mean())) or 1.0) / SPREAD
    return Projection(Scaling(scaling.offset, scaling.scale * scale), axes)


def _principal_axes(table: Table, scaling: Scaling, k: int, seed: int) -> tuple[Tensor, np.ndarray]:
    values = table.values
    pca = PCA(k, random_state=seed)
    if isinstance(values, np.ndarray):
        found = pca.fit(scaling.apply(table.rows(slice(None))).numpy())
    else:
        # PCA centres sparse rows without making them dense, if they are not yet centred
        weight = sparse.diags_array((1 / scaling.scale).numpy())
        found = pca.set_params(svd_solver="arpack" if k < min(table.shape) else "covariance_eigh").fit(
            sparse.csr_matrix(values @ weight)
        )
    axes = torch.from_numpy(np.ascontiguousarray(found.components_))
    return axes.to(table.dtype), found.explained_variance_


def projected_rows(table: Table, projection: Projection) -> Tensor | ScaledRows:
    """What the encoder sees of all rows: in memory, or on demand where sparse rows would fill it."""
    n, p = table.shape
    in_memory = isinstance(table.values, np.ndarray) or projection.components is not None
    if not in_memory and n * p > DENSE_VALUES:
        return ScaledRows(table, projection.scaling, np.arange(n))
    rows = torch.empty(n, projection.width, dtype=projection.dtype)
    for part in chunk_slices(n, p):
        rows[part] = projection.apply(table.rows(part))
    return rows
