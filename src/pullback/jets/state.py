"""The state that travels through the layers: a value and its packed derivative rows, index axis first."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.graph import transforms_active
from pullback.jets.gemm import joined
from pullback.jets.indices import count


@dataclass(frozen=True, eq=False)
class JetState:
    """Value and derivatives of a batch of points in front of a layer.

    The rows are J_a, then H_ab (a <= b), then K_abc (a <= b <= c). Orders above ``level`` are zero and not
    stored; a Jacobian that is the same for all points is stored once, with a point axis of length 1.

    Attributes:
        value: (n, *shape).
        rows: (m, n, *shape) or (m, 1, *shape), m = count(dim, level).
        dim: number d of variables that derivatives are taken in.
        order: highest order asked for.
        level: highest order stored, between 1 and ``order``.
        owned: whether a rule may overwrite ``rows`` and ``value``.
    """

    value: Float[Tensor, "n *shape"]
    rows: Float[Tensor, "m _ *shape"]
    dim: int
    order: int
    level: int = 1
    owned: bool = False

    @property
    def first(self) -> Tensor:
        """Rows J, (d, n or 1, *shape)."""
        return self.rows if self.level == 1 else self.rows[: self.dim]

    @property
    def second(self) -> Tensor | None:
        """Rows H, (d2, n, *shape), or None where they are zero."""
        if self.level < 2:
            return None
        return self.rows[self.dim : count(self.dim, 2)]

    @property
    def third(self) -> Tensor | None:
        """Rows K, (d3, n, *shape), or None where they are zero."""
        return self.rows[count(self.dim, 2) :] if self.level > 2 else None

    def shared(self) -> "JetState":
        """The same state, not to be overwritten: somebody else still reads it."""
        return replace(self, owned=False)

    def expanded(self) -> "JetState":
        """The state with one Jacobian a point, as a view."""
        n = self.value.shape[0]
        if self.rows.shape[1] == n:
            return self
        rows = self.rows.expand(-1, n, *self.rows.shape[2:])
        return replace(self, rows=rows, owned=False)

    def raised(self, level: int) -> "JetState":
        """The state with zero rows stored up to ``level``."""
        if self.level >= level:
            return self
        rows = self.expanded().rows
        zeros = rows.new_zeros(count(self.dim, level) - rows.shape[0], *rows.shape[1:])
        return replace(self, rows=torch.cat([rows, zeros]), level=level, owned=False)

    def joined(self) -> Float[Tensor, "_ n *shape"] | None:
        """Value and rows as one tensor if they lie one behind the other in memory, else None."""
        value, rows = self.value, self.rows
        if value.requires_grad or rows.requires_grad or transforms_active(value, rows):
            return None
        return joined(value, rows)

    def complete(self) -> Float[Tensor, "m n *shape"]:
        """Value and all rows up to ``order`` in one tensor."""
        state = self.raised(self.order).expanded()
        stack = state.joined()
        return stack if stack is not None else torch.cat([state.value.unsqueeze(0), state.rows])


def start(x: Float[Tensor, "n d"], order: int) -> JetState:
    """The state of the identity map at ``x``: J = I, stored once for all points."""
    seeds = torch.eye(x.shape[1], dtype=x.dtype, device=x.device).unsqueeze(1)
    return JetState(x, seeds, x.shape[1], order)
