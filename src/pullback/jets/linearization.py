"""Value and first derivatives of a map, with the reverse sweep kept ready for its second derivative.

A covector that depends on the value (a residual, a second difference along a curve) is known only after the
forward sweep; contracting the Hessian with it then costs one reverse sweep and no second forward one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.jets.checks import check_map, check_output
from pullback.jets.indices import indices
from pullback.jets.reverse import Contraction, Tape, record
from pullback.jets.state import start
from pullback.jets.taylor import layers_of
from pullback.typing import Map


@dataclass(frozen=True, eq=False)
class Linearization:
    """A map at n points to first order, and its second order on demand.

    Attributes:
        value: f, (n, p).
        rows: ∂f_i/∂z_a as [a, n, i], (d, n, p): the layout in which jets travel.
    """

    value: Float[Tensor, "n p"]
    rows: Float[Tensor, "d n p"]
    _tape: Tape

    def contract_hessian(self, covectors: Float[Tensor, "n p"]) -> Float[Tensor, "n d d"]:
        """Σ_i λ_i ∂²f_i/∂z_a∂z_b for one covector λ a point, by one reverse sweep."""
        sums = self._tape.sums
        sums.total = None
        with torch.autocast(covectors.device.type, enabled=False):
            self._tape.pull(covectors.unsqueeze(0))
        d, n = self.rows.shape[:2]
        if sums.total is None:
            return covectors.new_zeros(n, d, d)
        return sums.total[:, 0, indices(d, covectors.device).full2].unflatten(-1, (d, d))


def linearize(f: Map, x: Float[Tensor, "n d"]) -> Linearization:
    """One forward sweep that keeps what a reverse sweep for the second derivative needs.

    Args:
        f: a module, or a function of rows, (n, d) -> (n, p).
        x: points, (n, d); all at once, so the caller bounds n.
    Returns:
        A `Linearization`; it holds every layer's state, about (2 + d) n values a hidden unit.
    Example:
        >>> import torch
        >>> from torch import nn
        >>> f = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5))
        >>> at = linearize(f, torch.zeros(4, 2))
        >>> at.contract_hessian(at.value).shape
        torch.Size([4, 2, 2])
    """
    x = check_map(f, x)
    tape = Tape(Contraction(2))
    with torch.autocast(x.device.type, enabled=False):
        state = record(layers_of(f), start(x, 1), tape)
    check_output(state.value, x)
    return Linearization(state.value, state.expanded().first, tape)
