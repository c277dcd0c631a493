"""Why two groups lie apart: mean contributions of groups of rows, no array of all of them on the way."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pullback.attribution.assemble import checked, power_of
from pullback.attribution.collecting import Collector
from pullback.attribution.local import local_parts
from pullback.attribution.network import quiet
from pullback.attribution.paths import path_parts
from pullback.attribution.pointwise import read_baseline, refuse_jump
from pullback.attribution.question import Question, choose_method, read_question, read_rows
from pullback.attribution.result import AffineMap, Method, Separation
from pullback.jets import JacobianVerification
from pullback.jets.affine import choose_map


@dataclass(frozen=True, eq=False)
class GroupContributions:
    """Mean contributions of groups: Σ_j values_gij + offset_gi = centroid_gi.

    Attributes:
        groups: their labels.
        counts: rows of each, (g,).
        values: signed means, (g, d, p).
        offset, centroid: means of the rows' offsets and images, (g, d).
        baseline: x0, (p,).
        map, method, homogeneity: as in `Attribution`.
        verification: of all rows.
        residual: |centroid_i - Σ_j values_ij - offset_i| / (Σ_j |values_ij| + |offset_i|), largest, (g,).
        feature_names, output_names: or None.
    """

    groups: tuple[Any, ...]
    counts: Int[Tensor, " g"]
    values: Float[Tensor, "g d p"]
    offset: Float[Tensor, "g d"]
    centroid: Float[Tensor, "g d"]
    baseline: Float[Tensor, " p0"]
    map: AffineMap
    method: str
    homogeneity: int | None
    verification: JacobianVerification
    residual: Float[Tensor, " g"]
    feature_names: tuple[str, ...] | None = None
    output_names: tuple[str, ...] | None = None

    def separation(self, a: Hashable, b: Hashable) -> Float[Tensor, " p"]:
        """Contributions to the distance between the centroids of two groups; see `between`."""
        return self.between(a, b).values

    def between(self, a: Hashable, b: Hashable) -> Separation:
        """Contributions to f̄_a - f̄_b, and, projected on its direction u, to the distance |f̄_a - f̄_b|.

        Σ_j values_j + offset = distance. By the path method the offset is 0.
        """
        i, j = self._place("a", a), self._place("b", b)
        vector, rest = self.values[i] - self.values[j], self.offset[i] - self.offset[j]
        difference = self.centroid[i] - self.centroid[j]
        distance = difference.norm()
        u = difference / distance if distance > 0 else torch.zeros_like(difference)
        return Separation(
            (a, b), u @ vector, u @ rest, distance, vector, rest, feature_names=self.feature_names
        )

    def _place(self, name: str, label: Hashable) -> int:
        if label not in self.groups:
            raise ValueError(f"{name}: expected one of {shown(self.groups)}, got {label!r}")
        return self.groups.index(label)


def shown(labels: tuple[Any, ...], most: int = 12) -> str:
    """Labels for a message."""
    listed = ", ".join(repr(label) for label in labels[:most])
    return listed + (", ..." if len(labels) > most else "")


def group_contributions(
    net: nn.Module,
    x: Float[Tensor, "n p"],
    groups: Any,
    *,
    method: Method = "local",
    baseline: Tensor | None = None,
    map: AffineMap | None = None,
    preprocessing: Any = None,
    feature_groups: Any = None,
    tol: float = 1e-6,
    max_pieces: int = 10_000,
    strict: bool = False,
    chunk_size: int | None = None,
) -> GroupContributions:
    """Mean contributions of the rows of each group.

    Args:
        groups: (n,) label of each row; rows whose label is missing (None, NaN) are left out.
        method: "local", or "path" from one baseline for all groups, whose offsets cancel between groups.
        baseline: x0, (p,). None: as in `contributions` for "local", the mean of the rows for "path".
        net, x, map, preprocessing, feature_groups, tol, max_pieces, strict, chunk_size: as in
            `contributions`.
    Returns:
        `GroupContributions`; its `separation` says which features hold two groups apart.
    Raises:
        ValueError: another number of labels than rows, and as `contributions`.
    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).double()
        >>> x = torch.linspace(-1, 1, 12).double().view(4, 3)
        >>> means = group_contributions(net, x, ["low", "low", "high", "high"], method="path")
        >>> apart = means.between("high", "low")
        >>> torch.allclose(apart.values.sum(), apart.distance)
        True
    """
    x = read_rows("x", x)
    question = read_question(
        net,
        x,
        reduction=None,
        preprocessing=preprocessing,
        feature_groups=feature_groups,
        tol=tol,
        max_pieces=max_pieces,
        strict=strict,
        chunk_size=chunk_size,
    )
    labels, index = read_labels("groups", groups, len(x))
    return attribute_groups(question, x, labels, index, baseline=baseline, map=map, method=method)


def attribute_groups(
    question: Question,
    x: Float[Tensor, "n p"],
    labels: tuple[Any, ...],
    index: Int[Tensor, " n"],
    *,
    baseline: Tensor | None,
    map: AffineMap | None,
    method: Method,
) -> GroupContributions:
    """`group_contributions` of a checked question; ``index`` is the group of each row, -1 for none."""
    chosen = choose_method(question.network, method)
    x, index = x[index >= 0], index[index >= 0]
    counts = torch.bincount(index, minlength=len(labels))
    shares = x.new_zeros(len(labels), len(x))
    shares[index, torch.arange(len(x), device=x.device)] = 1 / counts[index].to(x.dtype)
    width = x.shape[1] if question.groups is None else len(question.groups.names)
    values = x.new_zeros(len(labels), question.outputs, width)
    collector = Collector(None, question.groups, values, shares)
    with quiet(x):
        power = power_of(question, x)
        if chosen == "local":
            map = choose_map(question.network.steps, map)
            x0 = read_baseline(baseline, question, x)
            parts = local_parts(question, x, x0, map)
        else:
            map = "derivative"
            mean = x.mean(0) if baseline is None and len(x) else baseline
            x0 = read_baseline(mean, question, x)
            refuse_jump(question, x, x0, power)
            parts = path_parts(question, x, x0.expand_as(x), pairs=False)
        for part in parts:
            collector.add(part)
        verification, _ = checked(question, collector, x.dtype, power)
    empty = x.new_zeros(len(x), question.outputs)
    offset, value = (shares @ _or(collector.column(name), empty) for name in ("offset", "value"))
    size = values.abs().sum(-1) + offset.abs() + torch.finfo(x.dtype).tiny
    residual = ((value - values.sum(-1) - offset).abs() / size).amax(1)
    return GroupContributions(
        groups=labels,
        counts=counts,
        values=values,
        offset=offset,
        centroid=value,
        baseline=x0,
        map=map,
        method=chosen,
        homogeneity=power,
        verification=verification,
        residual=residual,
        feature_names=question.feature_names,
        output_names=question.output_names,
    )


def _or(column: Tensor | None, empty: Tensor) -> Tensor:
    return empty if column is None else column


def read_labels(name: str, labels: Any, n: int) -> tuple[tuple[Any, ...], Int[Tensor, " n"]]:
    """The labels that occur, sorted where they can be, and the place of each row's among them (-1: missing).

    Raises:
        ValueError: another number of labels than rows, or none at all.
    """
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1 or len(array) != n:
        raise ValueError(f"{name}: expected ({n},) labels, one a row, got shape {array.shape}")
    rows = array.tolist()
    missing = [label is None or label != label for label in rows]
    found = list(dict.fromkeys(label for label, gone in zip(rows, missing, strict=True) if not gone))
    if not found:
        raise ValueError(f"{name}: expected at least one label, got none")
    try:
        found.sort()
    except TypeError:
        found.sort(key=str)
    place = {label: k for k, label in enumerate(found)}
    index = [-1 if gone else place[label] for label, gone in zip(rows, missing, strict=True)]
    return tuple(found), torch.tensor(index)
