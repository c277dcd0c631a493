"""Features that are counted together: the columns of a one-hot code, the channels of a pixel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class FeatureGroups:
    """A partition of p features into groups.

    Attributes:
        index: group of each feature, (p,).
        names: of the groups.
    """

    index: Int[Tensor, " p"]
    names: tuple[str, ...]

    def sum(self, rows: Float[Tensor, "*shape p"]) -> Float[Tensor, "*shape g"]:
        """Contributions added up within the groups."""
        result = rows.new_zeros(*rows.shape[:-1], len(self.names))
        return result.index_add_(-1, self.index.to(rows.device), rows)


def read_groups(given: Any, width: int, names: Sequence[str] | None = None) -> FeatureGroups | None:
    """Groups from {name: columns}, columns by number or name, or from a label for each feature.

    Features that no group of a mapping holds stay by themselves, so that sums still hold.

    Raises:
        ValueError: unknown columns, a column in two groups, or another number of labels than features.
    Example:
        >>> read_groups({"colour": [0, 2]}, 3, ["red", "size", "blue"]).names
        ('colour', 'size')
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        labels = [str(label) for label in np.asarray(given).tolist()] if np.ndim(given) == 1 else []
        if len(labels) != width:
            raise ValueError(
                f"feature_groups: expected {{name: columns}} or {width} labels, got {len(labels)} labels"
            )
        found = list(dict.fromkeys(labels))
        place = {label: k for k, label in enumerate(found)}
        return FeatureGroups(torch.tensor([place[label] for label in labels]), tuple(found))
    index = torch.full((width,), -1, dtype=torch.long)
    places = {} if names is None else {name: k for k, name in enumerate(names)}
    for k, (group, columns) in enumerate(given.items()):
        for column in np.atleast_1d(np.asarray(columns, dtype=object)).tolist():
            at = places.get(column, -1) if isinstance(column, str) else int(column)
            if not 0 <= at < width:
                raise ValueError(f"feature_groups[{group!r}]: expected columns of {width}, got {column!r}")
            if index[at] >= 0:
                raise ValueError(f"feature_groups[{group!r}]: column {column!r} is in another group too")
            index[at] = k
    titles = [str(group) for group in given]
    for at in (index < 0).nonzero().flatten().tolist():
        index[at] = len(titles)
        titles.append(str(at if names is None else names[at]))
    return FeatureGroups(index, tuple(titles))
