"""What is known of a map at points: value and derivatives, full, packed, along a direction, of its metric."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from pullback.graph import transforms_active
from pullback.jets.graph import spread
from pullback.jets.indices import count, indices

Method = Literal["layerwise", "mixed", "nested"]


@dataclass(frozen=True, eq=False)
class Jet:
    """What is known of a map f: R^d -> R^p at n points. Orders that were not asked for are None.

    Attributes:
        value: f, (n, p); None where only derivatives are known.
        jacobian: ∂f_i/∂z_a, (n, p, d).
        hessian: ∂²f_i/∂z_a∂z_b, (n, p, d, d).
        third: ∂³f_i/∂z_a∂z_b∂z_c, (n, p, d, d, d).
        method: how it was computed: "layerwise", "nested" or "mixed".
    """

    value: Float[Tensor, "n p"] | None
    jacobian: Float[Tensor, "n p d"] | None
    hessian: Float[Tensor, "n p d d"] | None = None
    third: Float[Tensor, "n p d d d"] | None = None
    method: Method | None = None


@dataclass(frozen=True, eq=False)
class PackedJet:
    """A jet that stores every symmetric derivative once.

    Attributes:
        rows: (m, n, p): the value, then J_a, H_ab (a <= b), K_abc (a <= b <= c), multi-indices in the order
            of ``itertools.combinations_with_replacement``; from order ``lowest`` on.
        d: number of variables.
        order: highest order stored.
        method: how it was computed.
        lowest: lowest order stored.
    """

    rows: Float[Tensor, "m n p"]
    d: int
    order: int
    method: Method | None = None
    lowest: int = 0

    def unpack(self) -> Jet:
        """The same jet with full derivative arrays."""
        value, rows = (None, self.rows) if self.lowest else (self.rows[0], self.rows[1:])
        return unpack(Known(value, rows, self.d, self.lowest, self.order, self.method))


@dataclass(frozen=True, eq=False)
class DirectionalJet:
    """Derivatives of t -> f(z + t v) at t = 0: f, J v, H[v, v], K[v, v, v], each (n, p)."""

    value: Float[Tensor, "n p"]
    first: Float[Tensor, "n p"]
    second: Float[Tensor, "n p"] | None = None
    third: Float[Tensor, "n p"] | None = None


@dataclass(frozen=True, eq=False)
class MetricJet:
    """A pullback metric and its Christoffel symbols of the first kind.

    Attributes:
        metric: g_ab = <J_a, W J_b>, (n, d, d).
        christoffel_first: Γ_{c,ab} = <J_c, W H_ab>, (n, d, d, d), index c first.
    """

    metric: Float[Tensor, "n d d"]
    christoffel_first: Float[Tensor, "n d d d"]


@dataclass(frozen=True, eq=False)
class Known:
    """What was computed: the value (None if ``lowest`` > 0) and the rows from order max(lowest, 1) on."""

    value: Tensor | None
    rows: Tensor
    d: int
    lowest: int
    order: int
    method: Method | None


def unpack(known: Known) -> Jet:
    """The jet with full derivative arrays."""
    d = known.d
    at = indices(d, known.rows.device)
    orders = range(max(known.lowest, 1), known.order + 1)
    sizes = [count(d, k) - count(d, k - 1) for k in orders]
    pieces = list(known.rows.split(sizes)) if len(sizes) > 1 else [known.rows]
    of = dict(zip(orders, pieces, strict=False))
    jacobian = of[1].permute(1, 2, 0) if 1 in of else None
    hessian = _full(of[2], at.full2, d, 2) if 2 in of else None
    third = _full(of[3], at.full3, d, 3) if 3 in of else None
    return Jet(known.value, jacobian, hessian, third, known.method)


def _full(rows: Tensor, positions: Tensor, d: int, k: int) -> Tensor:
    """Packed rows (m, n, p) to (n, p, d, .., d)."""
    if d > 1:
        graph = rows.requires_grad and not transforms_active(rows)
        rows = spread(rows, positions) if graph else rows.index_select(0, positions)
    return rows.permute(1, 2, 0).unflatten(2, (d,) * k)
