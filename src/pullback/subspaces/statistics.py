"""Everything that solvers need to know of the data, from sums that merge exactly."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
import torch.distributed as distributed
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import widened
from pullback.subspaces.arguments import (
    check_codes,
    check_names,
    check_quantities,
    result_dtype,
)
from pullback.subspaces.moments import Moments
from pullback.subspaces.scatter import Codes, add_upper, chunks, mirrored, sums_on, wide_chunks
from pullback.validation import check_choice, check_positive, check_shape, check_tensor

CODES = "z"


@dataclass(frozen=True, eq=False)
class SufficientStatistics:
    """Count, mean and scatter of x = [z, y_1, ..., y_Q] in float64: the one input of all solvers.

    A batch is centred by its own mean before products are formed, and two sets are joined by

        S = S_1 + S_2 + (n_1 n_2/n) d dᵀ,   d = mean_2 - mean_1

    (Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances"),
    so that minibatches, shards and ranks add up to what one pass gives, whatever the offset of the columns.
    Nothing here carries gradients.

    Attributes:
        n, n2: sum of the weights and of their squares.
        mean: (p,), p = D + Σ m.
        scatter: S = Σ w (x - mean)(x - mean)ᵀ, (p, p).
        eps: of the precision of z and of every quantity as they came, (1 + Q,).
        names, sizes: the quantities, and the widths of z and of every quantity.
        dtype: of the results of solvers.
        parts: with missing="drop" the statistics of z with each quantity over the rows where it is finite;
            the attributes above then hold z alone.
    Example:
        >>> import torch
        >>> z, y = torch.randn(100, 3), {"mass": torch.randn(100)}
        >>> halves = [SufficientStatistics.from_tensors(z[i::2], {"mass": y["mass"][i::2]}) for i in (0, 1)]
        >>> whole = SufficientStatistics.from_tensors(z, y)
        >>> torch.allclose(halves[0].merge(halves[1]).scatter, whole.scatter)
        True
    """

    n: Float[Tensor, ""]
    n2: Float[Tensor, ""]
    mean: Float[Tensor, " p"]
    scatter: Float[Tensor, "p p"]
    eps: Float[Tensor, " q"]
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    dtype: torch.dtype = torch.float64
    parts: dict[str, "SufficientStatistics"] | None = field(default=None, repr=False)

    @staticmethod
    def empty() -> "SufficientStatistics":
        """No rows: the identity of `merge`."""
        zero = torch.zeros((), dtype=torch.float64)
        none = zero.new_zeros(0)
        return SufficientStatistics(zero, zero, none, zero.new_zeros(0, 0), none, (), (0,), torch.float16)

    @staticmethod
    def from_tensors(
        Z: Float[Tensor, "b d"],
        Y: Mapping[str, Tensor],
        *,
        weights: Float[Tensor, " b"] | None = None,
        missing: Literal["raise", "drop"] = "raise",
    ) -> "SufficientStatistics":
        """Statistics of one batch.

        Args:
            Z: codes, (B, D); any floating dtype.
            Y: quantities, name -> (B, ...); any floating dtype.
            weights: (B,), not negative.
            missing: "raise" refuses NaN and infinity in Y; "drop" leaves such rows out of their quantity
                alone, at D² numbers a quantity and without products between quantities.
        Raises:
            TypeError, ValueError: an argument of the wrong kind, shape or value.
        """
        check_choice("missing", missing, ("raise", "drop"))
        codes = check_codes(Z)
        targets = check_quantities(Y, len(codes), finite=missing == "raise")
        w = _checked_weights(weights, codes)
        with torch.no_grad():
            if missing == "raise":
                return _joint(codes, targets, w)
            parts = {}
            for q, y in targets.items():
                kept = torch.isfinite(y).all(1)
                parts[q] = _joint(codes[kept], {q: y[kept]}, None if w is None else w[kept])
            alone = _joint(codes, {}, w)
        sizes = (codes.shape[1], *(y.shape[1] for y in targets.values()))
        return SufficientStatistics(
            alone.n,
            alone.n2,
            alone.mean,
            alone.scatter,
            alone.eps,
            tuple(targets),
            sizes,
            alone.dtype,
            parts,
        )

    def update(
        self, Z: Float[Tensor, "b d"], Y: Mapping[str, Tensor], *, weights: Tensor | None = None
    ) -> "SufficientStatistics":
        """These statistics and those of one more batch; they themselves stay as they are."""
        missing = "raise" if self.parts is None else "drop"
        return self.merge(SufficientStatistics.from_tensors(Z, Y, weights=weights, missing=missing))

    def merge(self, other: "SufficientStatistics") -> "SufficientStatistics":
        """Statistics of both sets of rows, exact up to rounding in any order.

        Raises:
            ValueError: other names or widths.
        """
        if not self.names or not other.names:
            return other if not self.names else self
        other._check_alike(self)
        other = other._in_order(self.names)
        dtype = torch.promote_types(self.dtype, other.dtype)
        parts = None
        if self.parts is not None and other.parts is not None:
            parts = {q: part.merge(other.parts[q]) for q, part in self.parts.items()}
        n = self.n + other.n
        safe = torch.where(n > 0, n, 1)
        d = other.mean - self.mean
        scatter = self.scatter + other.scatter
        scatter.addr_(d * (self.n * other.n / safe), d)
        return SufficientStatistics(
            n,
            self.n2 + other.n2,
            self.mean + d * (other.n / safe),
            scatter,
            torch.maximum(self.eps, other.eps),
            self.names,
            self.sizes,
            dtype,
            parts,
        )

    @staticmethod
    def merge_all(parts: Sequence["SufficientStatistics"]) -> "SufficientStatistics":
        """All parts merged in the given order."""
        whole = SufficientStatistics.empty()
        for part in parts:
            whole = whole.merge(part)
        return whole

    def all_gather_merge(self, group: distributed.ProcessGroup | None = None) -> "SufficientStatistics":
        """Statistics of all ranks, merged in the order of ranks, so that every rank holds the same bits."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return self
        own = self._in_order(tuple(sorted(self.names)))
        packed = own._packed()
        ranks = distributed.get_world_size(group)
        # every rank sees every label, so that all of them raise where one differs and none waits for ever
        label = zlib.crc32(repr((own.names, own.sizes, own.parts is None)).encode())
        mine = torch.tensor([label, len(packed)], device=packed.device)
        labels = [torch.empty_like(mine) for _ in range(ranks)]
        distributed.all_gather(labels, mine, group=group)
        if not self.names or any(not torch.equal(other, mine) for other in labels):
            raise ValueError("statistics: expected the same quantities and at least one row on every rank")
        gathered = [torch.empty_like(packed) for _ in range(ranks)]
        distributed.all_gather(gathered, packed, group=group)
        whole = SufficientStatistics.merge_all([own._unpacked(numbers) for numbers in gathered])
        return whole._in_order(self.names)

    def block(self, a: str, b: str) -> Float[Tensor, "i j"]:
        """Scatter of two groups of columns, each "z" or the name of a quantity.

        Raises:
            ValueError: an unknown name; two quantities after missing="drop".
        """
        first, second = self._slice(a), self._slice(b)
        if self.parts is None or (a == b == CODES):
            return self.scatter[first, second]
        quantities = {a, b} - {CODES}
        if len(quantities) > 1:
            raise ValueError(
                f"block: expected missing='raise' for products of two quantities, got {a!r}, {b!r}; rows "
                "with missing values were left out of each by itself"
            )
        return self.parts[quantities.pop()].block(a, b)

    def mean_of(self, name: str) -> Float[Tensor, " i"]:
        """Mean of "z" or of a quantity."""
        where = self._slice(name)
        if self.parts is None or name == CODES:
            return self.mean[where]
        return self.parts[name].mean_of(name)

    def moments(self, name: str) -> Moments:
        """Moments of the codes with one quantity."""
        where = self._slice(name)
        if self.parts is not None:
            return self.parts[name].moments(name)
        return Moments(
            self.n,
            self.n2,
            self._codes,
            self.mean[where],
            self.scatter[: self.sizes[0], where],
            self.scatter.diagonal()[where].clamp_min(0),
            float(self.eps[1 + self.names.index(name)]),
        )

    @cached_property
    def _codes(self) -> Codes:
        z = slice(0, self.sizes[0])
        return Codes(self.mean[z], known=self.scatter[z, z])

    def select(self, names: Sequence[str]) -> "SufficientStatistics":
        """Statistics of some of the quantities, in the given order.

        Raises:
            ValueError: an unknown name, or none.
        """
        check_names("names", {*names, *self.names}, self.names, "the quantities")
        if not names:
            raise ValueError("names: expected at least one, got none")
        return self._in_order(tuple(dict.fromkeys(names)))

    @property
    def covariance(self) -> Float[Tensor, "p p"]:
        """S/n."""
        self.check_rows()
        return self.scatter / self.n

    @property
    def n_effective(self) -> Float[Tensor, ""]:
        """n²/n2: the number of rows of equal weight that would know as much."""
        self.check_rows()
        return self.n.square() / self.n2

    def check_rows(self) -> None:
        """Raise ``ValueError`` if there are none."""
        if not bool(self.n > 0):
            raise ValueError("statistics: expected at least one row, got no rows")

    def state_dict(self) -> dict[str, Tensor]:
        """All numbers as tensors, for safetensors; the names of quantities are in the keys."""
        state = {name: getattr(self, name) for name in ("n", "n2", "mean", "scatter", "eps")}
        state["empty"] = torch.zeros(0, dtype=self.dtype)
        for index, (name, size) in enumerate(zip((CODES, *self.names), self.sizes, strict=True)):
            state[f"size/{index}/{name}"] = torch.tensor(size)
        for name, part in (self.parts or {}).items():
            state |= {f"part/{name}//{key}": value for key, value in part.state_dict().items()}
        return state

    @staticmethod
    def from_state_dict(state: Mapping[str, Tensor]) -> "SufficientStatistics":
        """Statistics from their `state_dict`."""
        listed = sorted(
            (int(index), name, int(state[key]))
            for key in state
            if key.startswith("size/")
            for _, index, name in [key.split("/", 2)]
        )
        names = tuple(name for _, name, _ in listed[1:])
        parts = {}
        for name in names:
            head = f"part/{name}//"
            own = {key.removeprefix(head): value for key, value in state.items() if key.startswith(head)}
            if own:
                parts[name] = SufficientStatistics.from_state_dict(own)
        return SufficientStatistics(
            state["n"],
            state["n2"],
            state["mean"],
            state["scatter"],
            state["eps"],
            names,
            tuple(size for *_, size in listed),
            state["empty"].dtype,
            parts or None,
        )

    def _slice(self, name: str) -> slice:
        if name != CODES and name not in self.names:
            known = ", ".join(map(repr, (CODES, *self.names)))
            raise ValueError(f"name: expected one of {known}, got {name!r}")
        index = 0 if name == CODES else 1 + self.names.index(name)
        start = sum(self.sizes[:index])
        return slice(start, start + self.sizes[index])

    def _check_alike(self, first: "SufficientStatistics") -> None:
        """Raise unless names, widths and treatment of missing values are those of other statistics."""
        check_names("statistics", self.names, first.names, "the statistics they are merged with")
        width = dict(zip((CODES, *self.names), self.sizes, strict=True))
        for name, size in zip((CODES, *first.names), first.sizes, strict=True):
            if width[name] != size:
                raise ValueError(f"statistics[{name!r}]: expected {size} columns, got {width[name]}")
        if (self.parts is None) != (first.parts is None):
            raise ValueError("statistics: expected one way to treat missing values, got 'raise' and 'drop'")

    def _in_order(self, names: tuple[str, ...]) -> "SufficientStatistics":
        """The same, or some of it, with quantities in another order."""
        if self.names == names:
            return self
        width = dict(zip((CODES, *self.names), self.sizes, strict=True))
        sizes = tuple(width[name] for name in (CODES, *names))
        numbers = self.mean, self.scatter, self.eps
        parts = None
        if self.parts is None:
            columns = torch.arange(len(self.mean), device=self.mean.device)
            order = torch.cat([columns[self._slice(name)] for name in (CODES, *names)])
            which = [0, *(1 + self.names.index(name) for name in names)]
            numbers = self.mean[order], self.scatter[order][:, order], self.eps[which]
        else:
            parts = {name: self.parts[name] for name in names}
        return SufficientStatistics(self.n, self.n2, *numbers, names, sizes, self.dtype, parts)

    def _packed(self) -> Float[Tensor, " i"]:
        """All numbers in a row: what ranks send each other."""
        own = [self.n, self.n2, self.mean, self.scatter, self.eps]
        rest = [part._packed() for part in (self.parts or {}).values()]
        return torch.cat([*(number.reshape(-1) for number in own), *rest])

    def _unpacked(self, numbers: Float[Tensor, " i"]) -> "SufficientStatistics":
        """Statistics of this shape from packed numbers."""
        p = len(self.mean)
        lengths = [1, 1, p, p * p, len(self.eps)]
        n, n2, mean, scatter, eps, rest = numbers.split([*lengths, len(numbers) - sum(lengths)])
        parts = None
        if self.parts is not None:
            lengths = [len(part._packed()) for part in self.parts.values()]
            pieces = rest.split(lengths)
            parts = {
                name: part._unpacked(piece)
                for (name, part), piece in zip(self.parts.items(), pieces, strict=True)
            }
        return SufficientStatistics(
            n[0], n2[0], mean, scatter.view(p, p), eps, self.names, self.sizes, self.dtype, parts
        )


def _checked_weights(weights: Tensor | None, Z: Tensor) -> Tensor | None:
    if weights is None:
        return None
    w = check_tensor("weights", weights)
    check_shape("weights", w, (len(Z),), "one for each row of Z")
    check_positive("weights", w, zero=True)
    if not bool(w.sum() > 0):
        raise ValueError("weights: expected at least one above 0, got none")
    return widened(w)


def _joint(Z: Tensor, Y: Mapping[str, Tensor], weights: Tensor | None) -> SufficientStatistics:
    """Statistics of checked rows, a chunk at a time."""
    sizes = (Z.shape[1], *(y.shape[1] for y in Y.values()))
    blocks = [Z, *Y.values()]
    eps = torch.tensor([torch.finfo(b.dtype).eps for b in blocks], dtype=torch.float64, device=sums_on(Z))
    p = sum(sizes)
    zero = eps.new_zeros(())
    total, squares, mean = zero, zero, eps.new_zeros(p)
    scatter = eps.new_zeros(p, p)
    for rows, x in zip(chunks(len(Z)), wide_chunks(blocks), strict=True):
        w = None if weights is None else weights[rows].to(x)
        n = zero + len(x) if w is None else w.sum()
        if not bool(n > 0):
            continue
        own = x.mean(0) if w is None else (w @ x) / n
        x -= own
        both, joint = total * n / (total + n), total + n
        add_upper(scatter, x, x if w is None else x * w.unsqueeze(1))
        d = own - mean
        add_upper(scatter, (both * d).unsqueeze(0), d.unsqueeze(0))
        mean = mean + d * (n / joint)
        total, squares = joint, squares + (n if w is None else w.square().sum())
    dtype = result_dtype(Z.dtype)
    return SufficientStatistics(total, squares, mean, mirrored(scatter), eps, tuple(Y), sizes, dtype)
