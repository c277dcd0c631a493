"""Known quantities on their way into training: read, coded, given their blocks, and what remains of them."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullback.estimators.block_sizes import Room, Seen, chosen_sizes
from pullback.estimators.kinds import Kind, kind_of, rebuilt
from pullback.estimators.known_values import check_option, known_values
from pullback.estimators.rows import read_quantities
from pullback.estimators.subspace_partition import SubspacePartition
from pullback.inputs import Table
from pullback.subspaces import PartitionLoss, SufficientStatistics
from pullback.training.batches import even_bounds
from pullback.training.partition_terms import PartitionRegularizer

STRENGTH = 2.0
"""Default strength of a partition for each feature of the data: the reconstruction is a sum over them."""


@dataclass(frozen=True, eq=False)
class Partition:
    """The blocks of a trained model, and how their quantities are coded.

    Attributes:
        loss: the blocks, with decoders.
        kinds: name -> how values become columns.
        statistics: of codes and columns of the training rows.
    """

    loss: PartitionLoss
    kinds: dict[str, Kind]
    statistics: SufficientStatistics

    def config(self) -> dict[str, Any]:
        """Plain values that make it again, with its `state`."""
        return {
            "sizes": list(self.loss.sizes.items()),
            "latent_dim": self.loss.latent_dim,
            "ridge": self.loss.ridge,
            "kinds": [[name, kind.config()] for name, kind in self.kinds.items()],
        }

    def state(self) -> dict[str, Tensor]:
        """Its tensors."""
        parts = {"loss": self.loss.state_dict(), "statistics": self.statistics.state_dict()}
        return {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}

    @staticmethod
    def restored(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> "Partition":
        """From `config` and `state`."""
        loss = PartitionLoss(config["latent_dim"], dict(config["sizes"]), ridge=config["ridge"])
        parts: dict[str, dict[str, Tensor]] = {"loss": {}, "statistics": {}}
        for key, value in state.items():
            part, _, name = key.partition(".")
            parts[part][name] = value
        loss.load_state_dict(parts["loss"])
        kinds = {name: rebuilt(kind) for name, kind in config["kinds"]}
        return Partition(loss, kinds, SufficientStatistics.from_state_dict(parts["statistics"]))


@dataclass(frozen=True, eq=False)
class Reserved:
    """Known quantities of all rows, and what they add to the objective.

    Attributes:
        columns: of all quantities side by side, NaN where missing; None where there are none.
        regularizer: for the objective.
        loss, kinds: of a `SubspacePartition`, else None.
    """

    columns: Float[Tensor, "n m"] | None
    regularizer: Any
    loss: PartitionLoss | None = None
    kinds: dict[str, Kind] | None = None

    def partition(self, embedding: np.ndarray, index: np.ndarray | slice) -> Partition | None:
        """What the trained model keeps, from the codes of all rows and the training rows among them."""
        if self.loss is None or self.kinds is None or self.columns is None:
            return None
        codes, columns = torch.from_numpy(embedding[index]), self.columns[index]
        widths = [kind.width for kind in self.kinds.values()]
        targets = dict(zip(self.kinds, columns.split(widths, dim=1), strict=True))
        missing = "raise" if bool(torch.isfinite(columns).all()) else "drop"
        statistics = SufficientStatistics.from_tensors(codes, targets, missing=missing)
        loss = self.loss.cpu()
        loss.fit_decoders(statistics)
        return Partition(loss, self.kinds, statistics)


def reserve(
    option: SubspacePartition,
    X: Any,
    table: Table,
    quantities: Mapping[str, Any] | None,
    *,
    index: np.ndarray,
    room: Room,
    seen: Seen,
    strength: float,
) -> Reserved:
    """Read the quantities of a fit and prepare its partition.

    Args:
        option: of the model.
        X: as it was given.
        table: the same, read.
        quantities: name -> values.
        index: training rows.
        room: latent coordinates of the model.
        seen: rows as the encoder sees them, by number.
        strength: of a partition that says none.
    Raises:
        TypeError, ValueError: quantities without values, of other names or constant; sizes that do not fit.
    """
    check_option(option)
    values = known_values(option, X, table, quantities)
    circular = option.circular or {}
    kinds = {
        name: kind_of(name, value, categorical=name in option.categorical, period=circular.get(name))
        for name, value in values.items()
    }
    parts = {}
    for name, kind in kinds.items():
        part = kind.columns(name, values[name])
        if len(part) != len(table):
            raise ValueError(f"quantities[{name!r}]: expected {len(table)} rows as in X, got {len(part)}")
        parts[name] = torch.from_numpy(part).to(table.dtype)
    training = {name: part[index] for name, part in parts.items()}
    sizes = chosen_sizes(option, training, kinds, seen, index, room)
    loss = PartitionLoss(room.width, sizes, ridge=option.ridge, weights=option.weights)
    loss.fit_targets(training)
    columns = torch.cat(list(parts.values()), dim=1)
    regularizer = PartitionRegularizer(loss, strength if option.strength is None else option.strength)
    return Reserved(columns, regularizer, loss, kinds)


def reserve_latents(estimator: Any, X: Any, table: Table, quantities: Mapping[str, Any] | None) -> Reserved:
    """`reserve` for an estimator with ``latent_dim``, whose scaling and training rows are known.

    A regulariser of another kind is taken as it is.
    """
    option = estimator.partition
    if not isinstance(option, SubspacePartition):
        columns = None if quantities is None else read_quantities(quantities, len(table), table.dtype)
        return Reserved(columns, copy.deepcopy(option))
    reserved = reserve(
        option,
        X,
        table,
        quantities,
        index=estimator.training_index_,
        room=Room(estimator.latent_dim),
        seen=lambda rows: estimator.scaling_.apply(table.rows(rows)),
        strength=STRENGTH * table.n_features,
    )
    for index, name in (
        (estimator.training_index_, "batch_size"),
        (estimator.validation_index_, "validation_fraction"),
    ):
        if len(index):
            smallest = min(stop - start for start, stop in even_bounds(len(index), estimator.batch_size))
            reserved.regularizer.loss.check_rows(smallest, name)
    return reserved
