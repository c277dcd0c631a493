"""How many latent coordinates each quantity is given."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullback.estimators.kinds import Kind, Numbers
from pullback.estimators.subspace_partition import SubspacePartition
from pullback.linalg import widened
from pullback.subspaces import k_per_q, minimal_latent_dim
from pullback.subspaces.arguments import check_size

Seen = Callable[[np.ndarray], Tensor]
ROUNDING = 8
INDEPENDENT = 1e-10
"""Relative eigenvalue of a Gram matrix in float64 below which columns depend on each other."""


class Room(NamedTuple):
    """The latent coordinates there are, by the name of the option that says so."""

    width: int
    name: str = "latent_dim"


def chosen_sizes(
    option: SubspacePartition,
    training: Mapping[str, Tensor],
    kinds: Mapping[str, Kind],
    seen: Seen,
    index: np.ndarray,
    room: Room,
) -> dict[str, int]:
    """name -> coordinates, as given or as the training rows ask for.

    Args:
        seen: rows as the encoder sees them, by number.
        index: training rows.
    Raises:
        ValueError: more coordinates than a quantity has independent columns, or than there are.
    """
    given, found = option.sizes or {}, {}
    for name, columns in training.items():
        kept = torch.isfinite(columns).all(1)
        if not bool(kept.any()):
            raise ValueError(f"quantities[{name!r}]: expected a value in some training row, got none")
        y = standardised(columns[kept])
        most = rank_of(y)
        if most == 0:
            raise ValueError(f"quantities: quantity {name!r} is constant: k = 0")
        if name in given:
            k = check_size(f"sizes[{name!r}]", given[name])
            if k > most:
                raise ValueError(f"sizes[{name!r}]: k={k} but rank of {name!r} is {most}; lower it")
        elif not isinstance(kinds[name], Numbers) or most == 1:
            k = most
        elif option.rank == "cv":
            rows = seen(index[kept.numpy()])
            k = _size(k_per_q({name: columns[kept]}, method="cv", Z=rows))
        elif option.rank == "variance":
            k = _size(k_per_q({name: y}, option.threshold))
        else:
            # their noise has one level, which scaled columns would not have
            k = _size(k_per_q({name: columns[kept]}, method=option.rank))  # type: ignore[arg-type]
        found[name] = min(max(k, 1), most)
    total = sum(found.values())
    if total > room.width:
        raise ValueError(
            f"{room.name}: expected room for {found}, got sum of sizes {total} > {room.name} {room.width}; "
            f"{room.name}={minimal_latent_dim(found)} leaves 30 % free, or give smaller sizes"
        )
    return found


def standardised(y: Float[Tensor, "n m"]) -> Float[Tensor, "n v"]:
    """Columns that vary, in units of their spread, as the loss takes them."""
    wide = widened(y)
    centred = wide - wide.mean(0)
    sd = centred.square().mean(0).sqrt()
    varies = sd > ROUNDING * torch.finfo(y.dtype).eps * wide.abs().amax(0)
    return centred[:, varies] / sd[varies]


def rank_of(y: Float[Tensor, "n m"]) -> int:
    """How many independent columns there are, from their Gram matrix: fields have many rows."""
    if y.numel() == 0:
        return 0
    values = torch.linalg.eigvalsh(y.mT @ y if y.shape[1] <= len(y) else y @ y.mT)
    return int((values > INDEPENDENT * values[-1]).sum())


def _size(found: Any) -> int:
    return next(iter(found.values()))
