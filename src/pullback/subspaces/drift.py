"""How subspaces move from one solution to the next."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import principal_angles, widened
from pullback.subspaces.arguments import (
    check_bases,
    check_basis,
    check_mapping,
    check_names,
    check_stack,
    result_dtype,
)
from pullback.subspaces.projection import Projection
from pullback.validation import check_tensor


@dataclass(frozen=True, eq=False)
class SubspaceChange:
    """Principal angles between an old and a new subspace, and how to turn one basis into the other.

    Attributes:
        angles: radians, ascending, (min k,).
        cosines: of the angles.
        chordal2: Σ sin², 0 for the same span, min k for orthogonal ones.
        max_angle_deg, mean_angle_deg: in degrees.
        dim_old, dim_new: directions.
        similarity_matrix: |W_old W_newᵀ|, (k_old, k_new); depends on the bases.
        rotation: orthogonal matrix that brings W_new nearest to W_old, ``rotation @ W_new``; decoders turn
            with it. None where the sizes differ.
    """

    angles: Float[Tensor, " s"]
    cosines: Float[Tensor, " s"]
    chordal2: Float[Tensor, ""]
    max_angle_deg: float
    mean_angle_deg: float
    dim_old: int
    dim_new: int
    similarity_matrix: Float[Tensor, "k l"]
    rotation: Float[Tensor, "k k"] | None


@overload
def subspace_change(W_old: Tensor, W_new: Tensor) -> SubspaceChange: ...
@overload
def subspace_change(
    W_old: Mapping[str, Tensor], W_new: Mapping[str, Tensor]
) -> dict[str, SubspaceChange]: ...
def subspace_change(
    W_old: Tensor | Mapping[str, Tensor], W_new: Tensor | Mapping[str, Tensor]
) -> SubspaceChange | dict[str, SubspaceChange]:
    """How far a subspace has moved, whatever its bases.

    Args:
        W_old, W_new: orthonormal rows, (k, D) and (l, D); or name -> rows, with the same names.
    Returns: a `SubspaceChange`, or one for each name; detached.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; names that differ.
    Example:
        >>> import torch
        >>> half = torch.tensor([[0.5**0.5, 0.5**0.5, 0.0], [0.5**0.5, -(0.5**0.5), 0.0]])
        >>> found = subspace_change(torch.eye(3)[:2], half)
        >>> round(found.max_angle_deg, 3), found.dim_new
        (0.0, 2)
    """
    if isinstance(W_old, Mapping) and isinstance(W_new, Mapping):
        old, new = check_bases(W_old, None, "W_old"), check_bases(W_new, None, "W_new")
        check_names("W_new", new, old, "W_old")
        return {q: _change(old[q], new[q], f"W_new[{q!r}]") for q in old}
    if isinstance(W_old, Mapping) or isinstance(W_new, Mapping):
        raise TypeError("W_old, W_new: expected two tensors or two dicts, got one of each")
    return _change(check_basis("W_old", W_old, None), check_basis("W_new", W_new, None), "W_new")


def stability_loss(W: Mapping[str, Tensor], W_prev: Mapping[str, Tensor]) -> Float[Tensor, ""]:
    """Share of each subspace that has left its previous span, mean over quantities.

        mean_q (k_q - ‖W_q W_prev,qᵀ‖²)/k_q

    It moves nothing unless W carries gradients; `subspace_change` says more about solutions without.

    Args:
        W, W_prev: name -> orthonormal rows (k, D), the same names and sizes.
    Returns: a scalar in [0, 1].
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; names or sizes that differ.
    Example:
        >>> import torch
        >>> stability_loss({"a": torch.eye(3)[:2]}, {"a": torch.eye(3)[1:]})
        tensor(0.5000)
    """
    bases = check_bases(W, None)
    sizes = tuple(len(basis) for basis in bases.values())
    return _left(torch.cat(list(bases.values())), tuple(bases), sizes, W_prev)


def stability(projection: Projection, W_prev: Mapping[str, Tensor]) -> Tensor:
    """`stability_loss` of checked bases."""
    return _left(projection.stack, projection.names, projection.sizes, W_prev)


def _left(
    stack: Float[Tensor, "k d"], names: tuple[str, ...], sizes: tuple[int, ...], W_prev: Mapping[str, Tensor]
) -> Tensor:
    """Mean share of every block of a stack that is outside the previous span."""
    check_names("W_prev", check_mapping("W_prev", W_prev), names, "W")
    blocks = stack.split(sizes)
    before = []
    for q, now in zip(names, blocks, strict=True):
        label = f"W_prev[{q!r}]"
        old = check_tensor(label, W_prev[q])
        if old.shape != now.shape:
            raise ValueError(f"{label}: expected shape {tuple(now.shape)}, got {tuple(old.shape)}")
        old = old.to(result_dtype(old.dtype))
        if old.dtype != now.dtype:
            raise TypeError(f"{label}: expected {now.dtype} like W, got {old.dtype}; convert one")
        before.append(old)
    check_stack("W_prev", torch.cat(before), names, sizes)
    # what is left of W outside the old span is small where the spans agree, and its square does not cancel
    if len(set(sizes)) == 1:
        now, old = torch.stack(blocks), torch.stack(before)
        return (now - (now @ old.mT) @ old).square().sum() / stack.shape[0]
    shares = [
        (now - (now @ old.mT) @ old).square().sum() / len(now)
        for now, old in zip(blocks, before, strict=True)
    ]
    return torch.stack(shares).mean()


def _change(old: Tensor, new: Tensor, label: str) -> SubspaceChange:
    if old.shape[1] != new.shape[1]:
        raise ValueError(f"{label}: expected (k, {old.shape[1]}) like W_old, got {tuple(new.shape)}")
    dtype = torch.promote_types(old.dtype, new.dtype)
    first, second = widened(old.detach()), widened(new.detach())
    angles = principal_angles(first.mT, second.mT)
    degrees = torch.rad2deg(angles)
    cross = first @ second.mT
    rotation = None
    if len(old) == len(new):
        left, _, right = torch.linalg.svd(cross)
        rotation = (left @ right).to(dtype)
    return SubspaceChange(
        angles.to(dtype),
        angles.cos().to(dtype),
        angles.sin().square().sum().to(dtype),
        float(degrees.max()),
        float(degrees.mean()),
        len(old),
        len(new),
        cross.abs().to(dtype),
        rotation,
    )
