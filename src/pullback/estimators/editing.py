"""Reading, changing and removing the quantities that a model has reserved room for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from pullback.estimators.known_values import known_values
from pullback.estimators.reserving import Partition
from pullback.inputs import read_input
from pullback.subspaces import Eraser, SubspaceTable, erase, evaluate_subspaces


@dataclass(frozen=True)
class Edited:
    """Rows with other values of some quantities; ``np.asarray(edited)`` is ``edited.x``.

    Attributes:
        x: decoded rows in data units, ``(n, p)`` or ``(n, channels, height, width)``.
        z: their codes ``(n, d)``.
        before: codes before the change ``(n, d)``.
        residual: quantity -> largest difference of a row's decoded columns from what was asked for ``(n,)``;
            far from 0 where a block cannot give the value.
    """

    x: np.ndarray
    z: np.ndarray
    before: np.ndarray
    residual: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.x, dtype=dtype, copy=copy)


class Quantities:
    """What estimators can do whose ``partition`` is a `SubspacePartition`."""

    partition_: Partition | None

    def quantities(self, X: Any) -> dict[str, np.ndarray]:
        """Quantities of data, read from the codes by the linear decoder of each block.

        Args:
            X: data of the same features, in any form that `fit` takes.

        Returns:
            name -> ``(n, ...)`` as in ``fit``: numbers, categories, or positions on a circle.

        Raises:
            ValueError: the model was fitted without a `SubspacePartition`.
        """
        partition = self._reserved()
        codes = torch.from_numpy(self.transform(X))  # type: ignore[attr-defined]
        found = partition.loss.predict(codes)
        return {name: partition.kinds[name].values(y.numpy()) for name, y in found.items()}

    def evaluate_quantities(
        self,
        X: Any,
        quantities: Mapping[str, Any] | None = None,
        *,
        held_out: Any = None,
        held_out_quantities: Mapping[str, Any] | None = None,
        bootstraps: int = 200,
    ) -> SubspaceTable:
        """What can be read from where on rows that were held out, by probes fitted to others.

        Args:
            X: rows for the probes. Without ``held_out`` the data of ``fit``, in the same order: those of its
                rows that trained serve for the probes, and it is measured on the others.
            quantities: values of those that the partition does not compute, as in ``fit``.
            held_out: other rows to measure on, which a model needs that holds none out itself.
            held_out_quantities: their values.
            bootstraps: resamples of the held-out rows, for intervals.

        Returns:
            `pullback.subspaces.SubspaceTable`: R² of each quantity from all codes, its own block, the others
            and the free coordinates, beside what the quantities tell of each other.

        Raises:
            ValueError: the model was fitted without a `SubspacePartition`, on other rows, or held none out; a
                quantity has no values.
        """
        partition = self._reserved()
        model: Any = self
        Z, Y = self._codes(X), self.known_columns(X, quantities)
        if held_out is not None:
            Z_test, Y_test = self._codes(held_out), self.known_columns(held_out, held_out_quantities)
        else:
            if not len(test := getattr(model, "validation_index_", ())):
                raise ValueError(
                    "held_out: expected rows that the model has not seen, to measure on, got none"
                )
            if len(Z) != len(model.embedding_):
                raise ValueError(f"X: expected the {len(model.embedding_)} rows of fit, got {len(Z)}")
            Z_test, Y_test = Z[test], {name: y[test] for name, y in Y.items()}
            train = model.training_index_
            Z, Y = Z[train], {name: y[train] for name, y in Y.items()}
        return evaluate_subspaces(
            partition.loss, Z_train=Z, Y_train=Y, Z_test=Z_test, Y_test=Y_test, bootstraps=bootstraps
        )

    def _codes(self, X: Any) -> torch.Tensor:
        model: Any = self
        return torch.from_numpy(model._encode(model._read(X, reset=False)))

    def known_columns(self, X: Any, quantities: Mapping[str, Any] | None = None) -> dict[str, torch.Tensor]:
        """Known quantities of rows as the columns that the blocks are read to, NaN where missing.

        Args:
            X: data of the same features.
            quantities: values of those that the partition does not compute, as in ``fit``.

        Returns:
            name -> ``(n, m)``.
        """
        partition = self._reserved()
        model: Any = self
        table = model._read(X, reset=False)
        values = known_values(model.partition, X, table, quantities)
        found = {}
        for name, kind in partition.kinds.items():
            found[name] = torch.from_numpy(kind.columns(name, values[name]))
            if len(found[name]) != len(table):
                raise ValueError(f"quantities[{name!r}]: expected {len(table)} rows, got {len(found[name])}")
        return found

    def edit(self, X: Any, /, **values: Any) -> Edited:
        """Data with other values of some quantities, all else kept.

        The code moves in the blocks of these quantities alone, by the least step after which their decoders
        give the values, z' = z + (y - ŷ(z)) A⁺ W; then it is decoded.

        Args:
            X: data of the same features, in any form that `fit` takes.
            values: quantity -> one value for all rows, or one a row.

        Returns:
            `Edited`; as an array it is the decoded data.

        Raises:
            ValueError: the model was fitted without a `SubspacePartition`, or with other quantities.
            AttributeError: it has no decoder.
        """
        partition = self._reserved()
        decodes: Any = self
        decodes.inverse_transform  # noqa: B018  a model without a decoder says here what to do
        if not values:
            raise ValueError(f"values: expected some of {_listed(partition)}, got none")
        before = torch.from_numpy(self.transform(X))  # type: ignore[attr-defined]
        wanted = {}
        for name, value in values.items():
            _check_known(partition, name)
            columns = torch.from_numpy(partition.kinds[name].columns(name, value)).to(before)
            if len(columns) not in (1, len(before)):
                raise ValueError(f"{name}: expected one value or {len(before)}, got {len(columns)}")
            wanted[name] = columns
        z = partition.loss.steer(before, wanted)
        reached = partition.loss.predict(z)
        residual = {name: (reached[name] - y).abs().amax(1).numpy() for name, y in wanted.items()}
        x = self._decode(z)  # type: ignore[attr-defined]
        return Edited(x, z.numpy(), before.numpy(), residual)

    def erase(self, Z: Any, /, *names: str) -> np.ndarray:
        """Codes without linear information of some quantities, moved as little as that allows.

        The map (LEACE, see `pullback.subspaces.erase`) is fitted to the training rows.

        Args:
            Z: codes ``(n, d)``.
            names: quantities.

        Raises:
            ValueError: the model was fitted without a `SubspacePartition`, or with other quantities.
        """
        partition = self._reserved()
        eraser = self.eraser(*names)
        table = read_input(Z, estimator=self)
        if table.n_features != partition.loss.latent_dim:
            raise ValueError(f"Z: expected (n, {partition.loss.latent_dim}), got {table.shape}")
        codes = table.rows(slice(None))
        return eraser(codes).to(codes).numpy()

    def eraser(self, *names: str) -> Eraser:
        """The map behind `erase`, with its rank and what it costs."""
        partition = self._reserved()
        if not names:
            raise ValueError(f"names: expected some of {_listed(partition)}, got none")
        for name in names:
            _check_known(partition, name)
        return erase(partition.statistics.select(names))

    def _reserved(self) -> Partition:
        check_is_fitted(self)
        if self.partition_ is None:
            raise ValueError(
                "partition: expected a model fitted with partition=pb.SubspacePartition(...), got none"
            )
        return self.partition_


def _check_known(partition: Partition, name: str) -> None:
    if not isinstance(name, str) or name not in partition.kinds:
        raise ValueError(f"{name}: expected one of {_listed(partition)}, got {name!r}")


def _listed(partition: Partition) -> str:
    return ", ".join(map(repr, partition.kinds))
