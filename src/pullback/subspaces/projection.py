"""A batch of codes in the coordinates of all subspaces at once: what the losses share."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.subspaces.arguments import (
    check_codes,
    check_mapping,
    check_names,
    check_quantities,
    check_same_dtype,
    check_stack,
    check_tensor,
    result_dtype,
)


@dataclass(frozen=True, eq=False)
class Projection:
    """Centred codes and their coordinates in every subspace.

    Attributes:
        codes: Z less its mean, (B, D).
        stack: all bases, (K, D).
        coordinates: codes stackᵀ, (B, K), one product for all subspaces.
        names, sizes: of the subspaces.
        mean: what was subtracted, (D,).
    """

    codes: Float[Tensor, "b d"]
    stack: Float[Tensor, "k d"]
    coordinates: Float[Tensor, "b k"]
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    mean: Float[Tensor, " d"]

    @property
    def rows(self) -> int:
        """B."""
        return len(self.codes)

    def blocks(self) -> dict[str, Tensor]:
        """Coordinates of each subspace, (B, k)."""
        return dict(zip(self.names, self.coordinates.split(self.sizes, dim=1), strict=True))


def project(Z: Float[Tensor, "b d"], W: Mapping[str, Tensor], mean: Tensor | None = None) -> Projection:
    """Checked codes and bases as a `Projection`, about the mean of the batch or a given one."""
    codes = check_codes(Z)
    dim = codes.shape[1]
    bases = {}
    for q, value in check_mapping("W", W).items():
        label = f"W[{q!r}]"
        basis = check_tensor(label, value)
        if not basis.is_floating_point():
            raise TypeError(f"{label}: expected floating point, got {basis.dtype}")
        if basis.ndim != 2 or len(basis) == 0 or basis.shape[1] != dim:
            raise ValueError(
                f"{label}: expected orthonormal rows (k, {dim}); got {tuple(basis.shape)}; "
                "got (D, k)? transpose"
            )
        bases[q] = basis.to(result_dtype(basis.dtype))
    check_same_dtype(codes, bases, "W")
    stack = torch.cat(list(bases.values()))
    sizes = tuple(len(basis) for basis in bases.values())
    check_stack("W", stack, tuple(bases), sizes)
    mean = codes.mean(0) if mean is None else mean
    centred = codes - mean
    return Projection(centred, stack, centred @ stack.mT, tuple(bases), sizes, mean)


def aligned_targets(Y: Mapping[str, Tensor], projection: Projection) -> dict[str, Tensor]:
    """Quantities (B, m) in the order of the subspaces, in their dtype."""
    targets = check_quantities(Y, projection.rows)
    check_names("Y", targets, projection.names, "W")
    check_same_dtype(projection.codes, targets, "Y")
    return {q: targets[q] for q in projection.names}
