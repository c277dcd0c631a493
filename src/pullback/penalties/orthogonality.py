"""Orthonormal columns."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from pullback.linalg import positive_part
from pullback.penalties.schedule import Number
from pullback.penalties.target import Strength, TargetPenalty
from pullback.validation import check_positive


class OrthogonalityPenalty(TargetPenalty):
    """Distance of TᵀT from the identity.

    P = w / (2 n_eff) ‖TᵀT - I‖². It is TᵀT, not TᵀT/n: scale T by 1/√n for columns of unit variance.

    Args:
        weight: w, a number or a schedule.
        n_eff: effective number of rows; None is their number.
        dim, schedule, name: see `TargetPenalty`.
    Example:
        >>> import torch
        >>> OrthogonalityPenalty().value(2 * torch.eye(2)).item()
        4.5
    """

    kind: ClassVar[str] = "orthogonality"

    def __init__(
        self,
        weight: Number = 1.0,
        *,
        n_eff: float | int | None = None,
        dim: int | None = None,
        schedule: Callable[[int], float] | None = None,
        name: str | None = None,
    ):
        super().__init__(weight, dim=dim, schedule=schedule, name=name)
        if n_eff is not None:
            check_positive("n_eff", n_eff)
        self.n_eff = n_eff

    def _factor(self, T: Tensor, w: Strength) -> Strength:
        return w * (2 / (T.shape[0] if self.n_eff is None else self.n_eff))

    def _deviation(self, T: Tensor) -> Tensor:
        return T.mT @ T - torch.eye(T.shape[1], dtype=T.dtype, device=T.device)

    def _value(self, T: Tensor, w: Strength) -> Tensor:
        return self._factor(T, w) * self._deviation(T).square().sum() / 4

    def _gradient(self, T: Tensor, w: Strength) -> Tensor:
        return self._factor(T, w) * (T @ self._deviation(T))

    def _hessian(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        product = V.mT @ T
        return self._factor(T, w) * (V @ self._deviation(T) + T @ (product + product.mT))

    def _majorizer(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        product = V.mT @ T
        return self._factor(T, w) * (V @ positive_part(self._deviation(T)) + T @ (product + product.mT))
