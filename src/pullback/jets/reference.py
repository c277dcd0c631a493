"""Brute force: the same jets by nesting ``torch.func.jacfwd``; slow, and the oracle of the tests."""

from jaxtyping import Float
from torch import Tensor

from pullback.jets.checks import check_map, check_order, check_output
from pullback.jets.fallback import nested
from pullback.jets.results import Jet, PackedJet
from pullback.jets.state import start
from pullback.typing import Map


def reference_jet(f: Map, x: Float[Tensor, "n d"], order: int = 1) -> Jet:
    """Jet of ``f`` at ``x`` by nested forward mode over the whole map.

    Layer and instance normalisation are evaluated by elementary operations: their fused forward-mode formulas
    give a wrong second derivative when nested (torch 2.13).

    Args:
        f: a module, or a function of rows, (n, d) -> (n, p).
        x: points, (n, d).
        order: highest order, 0 to 3.
    Returns:
        A `Jet` with ``method="nested"``.
    Example:
        >>> import torch
        >>> cube = reference_jet(lambda z: z**3, torch.tensor([[2.0]]), order=3)
        >>> cube.jacobian.item(), cube.hessian.item(), cube.third.item()
        (12.0, 12.0, 6.0)
    """
    check_order(order)
    x = check_map(f, x)
    if order == 0:
        value = f(x)
        check_output(value, x)
        return Jet(value, None, method="nested")
    state = nested(f, start(x, order))
    check_output(state.value, x)
    return PackedJet(state.complete(), x.shape[1], order, "nested").unpack()
