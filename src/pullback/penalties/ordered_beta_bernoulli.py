"""Sparse binary assignments whose atoms come in order of use."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from pullback.penalties.schedule import Number, Scheduled
from pullback.penalties.target import Strength, TargetPenalty
from pullback.validation import check_positive


class OrderedBetaBernoulliPenalty(TargetPenalty):
    """Collapsed beta-Bernoulli prior of soft assignments, with stick-breaking means.

    z = σ(T/τ), M_k = Σ_n z_nk, π_k = (α/(α+1))^{k+1} (k from 0), c_k = π_k/(1-π_k),
    P = w Σ_k [-ln c_k - lnΓ(M_k+c_k) - lnΓ(n-M_k+1) + lnΓ(n+c_k+1)].

    Griffiths, Ghahramani 2011, "The Indian buffet process: an introduction and review".

    Args:
        alpha: α > 0; large α uses many atoms.
        temperature: τ > 0, a number or a schedule.
        weight: w, a number or a schedule.
        dim, schedule, name: see `TargetPenalty`.
    Raises:
        ValueError: see the message.
    Example:
        >>> import torch
        >>> round(OrderedBetaBernoulliPenalty(alpha=1.0).value(torch.zeros(2, 1)).item(), 6)
        1.791759
    """

    kind: ClassVar[str] = "ordered_beta_bernoulli"

    def __init__(
        self,
        alpha: float | int = 1.0,
        temperature: Number = 1.0,
        weight: Number = 1.0,
        *,
        dim: int | None = None,
        schedule: Callable[[int], float] | None = None,
        name: str | None = None,
    ):
        super().__init__(weight, dim=dim, schedule=schedule, name=name)
        check_positive("alpha", alpha)
        self.alpha = float(alpha)
        self._temperature = Scheduled("temperature", temperature)
        check_positive("temperature", self._temperature.now)

    @property
    def temperature(self) -> float:
        """The present temperature."""
        return self._temperature.now

    def apply_schedule(self, step: int) -> None:
        """Take weight and temperature that their schedules have at ``step``."""
        super().apply_schedule(step)
        self._temperature.advance(step)
        check_positive("temperature", self.temperature)

    def _assignments(self, T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z, its column sums M, and c."""
        z = torch.sigmoid(T / self.temperature)
        order = torch.arange(1, T.shape[1] + 1, dtype=torch.float64, device=T.device)
        log_pi = -order * torch.log1p(torch.tensor(1 / self.alpha, dtype=torch.float64))
        return z, z.sum(0), (log_pi.exp() / -torch.expm1(log_pi)).to(T)

    def _derivatives(self, T: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """∂P/∂M and ∂²P/∂M² for each column, z' and z'' for each entry."""
        z, M, c = self._assignments(T)
        n = T.shape[0]
        slope = torch.digamma(n - M + 1) - torch.digamma(M + c)
        curvature = -torch.polygamma(1, M + c) - torch.polygamma(1, n - M + 1)
        first = z * torch.sigmoid(-T / self.temperature) / self.temperature
        return slope, curvature, first, first * (1 - 2 * z) / self.temperature

    def _value(self, T: Tensor, w: Strength) -> Tensor:
        _, M, c = self._assignments(T)
        n = T.shape[0]
        parts = torch.lgamma(n + c + 1) - torch.lgamma(M + c) - torch.lgamma(n - M + 1) - torch.log(c)
        return w * parts.sum()

    def _gradient(self, T: Tensor, w: Strength) -> Tensor:
        slope, _, first, _ = self._derivatives(T)
        return w * slope * first

    def _hessian(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        slope, curvature, first, second = self._derivatives(T)
        return w * (slope * second * V + curvature * (first * V).sum(0) * first)

    def _hessian_diagonal(self, T: Tensor, w: Strength) -> Tensor:
        slope, curvature, first, second = self._derivatives(T)
        return w * (slope * second + curvature * first.square())

    def _majorizer_diagonal(self, T: Tensor, w: Strength) -> Tensor:
        slope, _, _, second = self._derivatives(T)
        return w * (slope * second).clamp_min(0)

    def _majorizer(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        return self._majorizer_diagonal(T, w) * V
