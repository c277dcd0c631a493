"""Links for two parameters a feature: the decoder's output made ready for an ambient metric of pairs."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.jets import JetState, register_jet_rule
from pullback.jets.elementwise import concatenate, scaled
from pullback.jets.taylor import layers_of, propagate


class PairLink(nn.Module):
    """(u, v) side by side -> (first(u), v kept within bounds).

    Args:
        first: link of the first half.
        low, high: bounds of the second half.
    Example:
        >>> import torch
        >>> PairLink(nn.Identity(), -7.0, 7.0)(torch.tensor([[1.0, 9.0]]))
        tensor([[1., 7.]])
    """

    def __init__(self, first: nn.Module, low: float, high: float):
        super().__init__()
        self.first, self.low, self.high = first, low, high

    def extra_repr(self) -> str:
        return f"low={self.low:g}, high={self.high:g}"

    def forward(self, y: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
        u, v = y.chunk(2, dim=-1)
        return torch.cat([self.first(u), v.clamp(self.low, self.high)], dim=-1)


def _jet(module: Any, state: JetState) -> JetState:
    values, rows = state.value.chunk(2, -1), state.rows.chunk(2, -1)
    u, v = (JetState(a, b, state.dim, state.order, state.level) for a, b in zip(values, rows, strict=True))
    inside = ((v.value >= module.low) & (v.value <= module.high)).to(v.value)
    offset = v.value.clamp(module.low, module.high) - inside * v.value
    return concatenate([propagate(layers_of(module.first), u), scaled(v, inside, offset)])


register_jet_rule(PairLink, _jet)
