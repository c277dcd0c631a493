"""The rows behind an attribution, for questions about pairs and groups of them."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.attribution.grouped import attribute_groups, read_labels, shown
from pullback.attribution.pairs import attribute_pairs
from pullback.attribution.question import REDUCTIONS, Question
from pullback.attribution.result import AffineMap, Attribution, Method, Reduction, Separation
from pullback.validation import check_choice

OTHERS = "all others"


@dataclass(frozen=True, eq=False)
class ExplainedRows:
    """A network, the rows that were explained, and how.

    Attributes:
        question: the network and the options.
        x: rows, (n, p).
        baseline, map, method: as asked for.
    """

    question: Question
    x: Float[Tensor, "n p"]
    baseline: Tensor | None
    map: AffineMap | None
    method: Method

    def between(self, i: Any, j: Any, method: Method, reduction: Reduction | None) -> Attribution:
        """See `Attribution.between`."""
        check_choice("reduction", reduction, REDUCTIONS)
        a, b = self._rows("i", i), self._rows("j", j)
        if len(a) != len(b):
            a, b = (a.expand_as(b), b) if len(a) == 1 else (a, b.expand_as(a) if len(b) == 1 else b)
        if len(a) != len(b):
            raise ValueError(f"j: expected {len(a)} rows as i, got {len(b)}")
        asked = self.question.asked(reduction=reduction, out=None, kink_margin=None)
        return attribute_pairs(asked, a, b, baseline=self.baseline, map=self.map, method=method)

    def separation(self, labels: Any, a: Hashable | None, b: Hashable | None) -> Separation:
        """See `Attribution.separation`."""
        known, index = read_labels("labels", labels, len(self.x))
        first, second = self._two(known, a, b)
        one = known.index(first)
        if second is None:
            index = torch.where(index >= 0, (index != one).long(), -1)
            second, place = OTHERS, 1
        else:
            place = known.index(second)
            index = torch.where(index == one, 0, torch.where(index == place, 1, -1))
        if not bool((index == 1).any()):
            raise ValueError(f"b: expected rows outside of {first!r}, got none")
        asked = self.question.asked(reduction=None, out=None, kink_margin=None)
        names = (first, second)
        means = attribute_groups(
            asked, self.x, names, index.to(self.x.device),
            baseline=self.baseline, map=self.map, method=self.method,
        )  # fmt: skip
        return means.between(*names)

    def _two(self, known: tuple[Any, ...], a: Any, b: Any) -> tuple[Any, Any]:
        if a is None:
            if b is not None or len(known) != 2:
                raise ValueError(
                    f"a: expected one of {shown(known)} (None only where there are two labels), got None"
                )
            return known
        for name, label in (("a", a), ("b", b)):
            if label not in known and not (name == "b" and label is None):
                raise ValueError(f"{name}: expected one of {shown(known)}, got {label!r}")
        if a == b:
            raise ValueError(f"b: expected another label than a, got {b!r}")
        return a, b

    def _rows(self, name: str, index: Any) -> Tensor:
        n = len(self.x)
        at = torch.arange(n)[index] if isinstance(index, slice) else torch.as_tensor(index).cpu()
        if at.dtype == torch.bool:
            at = at.nonzero().flatten()
        at = at.reshape(-1)
        if at.is_floating_point() or bool(((at < -n) | (at >= n)).any()):
            raise ValueError(f"{name}: expected row numbers from 0 to {n - 1}, got {at.tolist()[:6]}")
        return self.x[at.to(self.x.device)]
