"""How many latent coordinates each quantity is given."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pullback.estimators.kinds import Kind, Numbers
from pullback.estimators.scaling import Scaling
from pullback.estimators.subspace_partition import SubspacePartition
from pullback.inputs import Table
from pullback.subspaces import k_per_q, minimal_latent_dim
from pullback.subspaces.arguments import check_size


def chosen_sizes(
    option: SubspacePartition,
    training: Mapping[str, Tensor],
    kinds: Mapping[str, Kind],
    table: Table,
    scaling: Scaling,
    index: np.ndarray,
    latent_dim: int,
) -> dict[str, int]:
    """name -> coordinates, as given or as the training rows ask for.

    Raises:
        ValueError: more coordinates than a quantity has independent columns, or than there are.
    """
    given, found = option.sizes or {}, {}
    for name, columns in training.items():
        kept = torch.isfinite(columns).all(1)
        y = columns[kept]
        if len(y) == 0:
            raise ValueError(f"quantities[{name!r}]: expected a value in some training row, got none")
        most = _size(k_per_q({name: y}, 1.0))
        if most == 0:
            raise ValueError(f"quantities: quantity {name!r} is constant: k = 0")
        if name in given:
            k = check_size(f"sizes[{name!r}]", given[name])
            if k > most:
                raise ValueError(f"sizes[{name!r}]: k={k} but rank of {name!r} is {most}; lower it")
        elif not isinstance(kinds[name], Numbers) or most == 1:
            k = most
        elif option.rank == "cv":
            rows = scaling.apply(table.rows(index[kept.numpy()]))
            k = _size(k_per_q({name: y}, method="cv", Z=rows))
        elif option.rank == "variance":
            k = _size(k_per_q({name: y}, option.threshold))
        else:
            k = _size(k_per_q({name: y}, method=option.rank))  # type: ignore[arg-type]
        found[name] = min(max(k, 1), most)
    total = sum(found.values())
    if total > latent_dim:
        raise ValueError(
            f"latent_dim: expected room for {found}, got sum of sizes {total} > latent_dim {latent_dim}; "
            f"latent_dim={minimal_latent_dim(found)} leaves 30 % free, or give smaller sizes"
        )
    return found


def _size(found: Any) -> int:
    return next(iter(found.values()))
