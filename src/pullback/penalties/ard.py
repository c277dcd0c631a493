"""Automatic relevance determination: one precision a coordinate."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from pullback.penalties.schedule import Numbers, common_weight, shares
from pullback.penalties.strength import Rho, strengths
from pullback.penalties.target import Strength, TargetPenalty
from pullback.validation import check_positive, check_whole


class ARDPenalty(TargetPenalty):
    """Normal prior of each coordinate with its own precision, normaliser included.

    P = Σ_a [½ α_a ‖T_a‖² - ½ n ln α_a], α_a = w e^{rho_a}; one log-strength a coordinate. Minimised over
    rho, precisions of coordinates that are not needed grow and switch them off.

    MacKay 1994, "Bayesian nonlinear modeling for the prediction competition".

    Args:
        latent_dim: d, the number of coordinates.
        weight: w > 0, a number or schedule for all, or one number a coordinate.
        schedule, name: see `TargetPenalty`.
    Gotchas: for a periodic coordinate a normal prior has no meaning.
    Raises:
        ValueError: a weight that is not positive.
    Example:
        >>> import torch
        >>> ARDPenalty(latent_dim=2).value(torch.ones(3, 2)).item()
        3.0
    """

    kind: ClassVar[str] = "ard"
    row_block_diagonal: ClassVar[bool] = True
    convex: ClassVar[bool] = True
    proportional: ClassVar[bool] = False

    def __init__(
        self,
        latent_dim: int,
        weight: Numbers = 1.0,
        *,
        schedule: Callable[[int], float] | None = None,
        name: str | None = None,
    ):
        check_whole("latent_dim", latent_dim)
        super().__init__(common_weight(weight), dim=int(latent_dim), schedule=schedule, name=name)
        self._part_weights = shares("weight", weight, int(latent_dim))
        check_positive("weight", self.weight * self._part_weights)

    def apply_schedule(self, step: int) -> None:
        """Take the weight that the schedule has at ``step``.

        Raises:
            ValueError: it is not positive there: a prior without precision has no density.
        """
        super().apply_schedule(step)
        check_positive("weight", self.weight)

    @property
    def latent_dim(self) -> int | None:
        """d."""
        return self.dim

    @property
    def rho_count(self) -> int:
        """One log-strength a coordinate."""
        assert self.dim is not None
        return self.dim

    def _strength(self, rho: Rho, T: Tensor) -> Strength:
        return strengths((self.weight * self._part_weights).to(T.device, torch.float64), rho, T)

    def _halves(self, T: Tensor, w: Strength) -> Tensor:
        return w * T.square().sum(0) / 2

    def _value(self, T: Tensor, w: Strength) -> Tensor:
        return (self._halves(T, w) - T.shape[0] / 2 * torch.as_tensor(w).log()).sum()

    def _strength_gradient(self, T: Tensor, w: Strength) -> Tensor:
        return self._halves(T, w) - T.shape[0] / 2

    def _gradient(self, T: Tensor, w: Strength) -> Tensor:
        return w * T

    def _hessian_diagonal(self, T: Tensor, w: Strength) -> Tensor:
        return torch.as_tensor(w).expand_as(T)

    def _hessian(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        return w * V

    def _majorizer_diagonal(self, T: Tensor, w: Strength) -> Tensor:
        return self._hessian_diagonal(T, w)

    def log_normalizer(self, rho: Rho, n: int) -> Tensor:
        """0: the value holds it."""
        return torch.zeros((), dtype=torch.float64)
