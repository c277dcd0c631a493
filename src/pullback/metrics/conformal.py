"""A metric rescaled from point to point."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.jets.jet import derivatives
from pullback.metrics.base import BaseMetric, Points, Tensors, as_metric
from pullback.metrics.decoders import check_eval, coupled_layers
from pullback.typing import Map


class ConformalMetric(BaseMetric):
    """e^{2s(z)} g(z): lengths of a metric g times e^s, angles unchanged.

    With a factor that is large where there are no data, geodesics keep to the data.

    Args:
        base: g, any object with ``tensor``.
        log_factor: s, a map (n, d) -> (n,) or (n, 1); a module of known layers is differentiated layer by
            layer.
    Raises:
        TypeError: ``base`` has no ``tensor`` or ``log_factor`` is not callable; ValueError: s of other shape,
        or ``log_factor`` in train mode.
    Example:
        >>> import torch
        >>> from pullback.metrics import EuclideanMetric
        >>> metric = ConformalMetric(EuclideanMetric(2), lambda z: z.square().sum(-1))
        >>> metric.logdet(torch.tensor([[1.0, 1.0]]))
        tensor([8.])
    """

    def __init__(self, base: Any, log_factor: Map):
        if not callable(log_factor):
            raise TypeError(
                f"log_factor: expected a map (n, d) -> (n,) or (n, 1), got {type(log_factor).__name__}"
            )
        self.base, self.log_factor = as_metric(base), log_factor
        self.dim = self.base.dim
        self._coupled = coupled_layers(log_factor)

    def _value(self, z: Tensor) -> Float[Tensor, " n"]:
        check_eval("log_factor", self._coupled)
        s = self.log_factor(z)
        if s.shape not in ((len(z),), (len(z), 1)):
            n, got = len(z), tuple(s.shape)
            raise ValueError(f"log_factor: expected ({n},) or ({n}, 1) for z {tuple(z.shape)}, got {got}")
        return s.reshape(len(z))

    def _derivatives(self, z: Tensor, order: int) -> list[Tensor]:
        """s (n,), ∂s (n, d) and so on."""
        column = self._value(z[:1]).shape != self.log_factor(z[:1]).shape
        layered = column and isinstance(self.log_factor, nn.Module)
        field: Map = self.log_factor if layered else lambda z: self._value(z).unsqueeze(1)
        return [part.squeeze(1) for part in derivatives(field, z, order)]

    def tensor(self, z: Points) -> Tensors:
        """e^{2s} g."""
        return torch.exp(2 * self._value(z))[:, None, None] * self.base.tensor(z)

    def _check(self, z: Tensor, *, rank: bool = True) -> None:
        self.base._check(z, rank=rank)

    def _gram(self, z: Tensor) -> Tensor:
        return torch.exp(2 * self._value(z))[:, None, None] * self.base._gram(z)

    def _factors(self, z: Tensor) -> list[tuple[int, int]] | None:
        return self.base._factors(z)

    def inverse(self, z: Points) -> Tensors:
        """e^{-2s} g⁻¹."""
        return torch.exp(-2 * self._value(z))[:, None, None] * self.base.inverse(z)

    def logdet(self, z: Points) -> Float[Tensor, " n"]:
        """log det g + 2 d s."""
        return self.base.logdet(z) + 2 * z.shape[1] * self._value(z)

    def derivative(self, z: Points) -> Float[Tensor, "n d d d"]:
        """e^{2s} (∂_c g_ab + 2 s_c g_ab) as [n, a, b, c]."""
        s, slope = self._derivatives(z, 1)
        g, first = self.base.tensor(z), self.base.derivative(z)
        inner = first + 2 * torch.einsum("nab,nc->nabc", g, slope)
        return torch.exp(2 * s)[:, None, None, None] * inner

    def second_derivative(self, z: Points) -> Float[Tensor, "n d d d d"]:
        """e^{2s} (∂_c∂_e g + 2 s_c ∂_e g + 2 s_e ∂_c g + (4 s_c s_e + 2 s_ce) g) as [n, a, b, c, e]."""
        s, slope, bend = self._derivatives(z, 2)
        g, first, second = self.base.tensor(z), self.base.derivative(z), self.base.second_derivative(z)
        steep = 2 * torch.einsum("nabe,nc->nabce", first, slope)
        curved = 4 * torch.einsum("nc,ne->nce", slope, slope) + 2 * bend
        inner = second + steep + steep.transpose(3, 4) + torch.einsum("nab,nce->nabce", g, curved)
        return torch.exp(2 * s)[:, None, None, None, None] * inner

    def __repr__(self) -> str:
        return f"ConformalMetric({self.base!r}, {type(self.log_factor).__name__})"
