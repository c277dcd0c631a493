"""Coefficients of harmonics that pay for how fast they oscillate."""

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from pullback.penalties.schedule import Number
from pullback.penalties.strength import Rho, log_strength
from pullback.penalties.target import Strength, TargetPenalty
from pullback.validation import check_positive, check_tensor


class HarmonicRoughnessPenalty(TargetPenalty):
    """Squared coefficients of a harmonic series, weighted by the fourth power of the frequency.

    P = ½ w Σ_n ω_n ‖t_n‖², ω = h⁴ for the row of harmonic h: the integral of the squared second derivative.

    Args:
        harmonics: h of each row, (n,); or
        row_weights: ω of each row, (n,), >= 0. Exactly one of the two.
        weight: w, a number or a schedule.
        dim, schedule, name: see `TargetPenalty`.
    Raises:
        ValueError: both or neither given, a negative entry, or a target with another number of rows.
    Example:
        >>> import torch
        >>> HarmonicRoughnessPenalty(torch.tensor([1, 2])).value(torch.ones(2, 1)).item()
        8.5
    """

    kind: ClassVar[str] = "harmonic_roughness"
    row_block_diagonal: ClassVar[bool] = True
    convex: ClassVar[bool] = True

    def __init__(
        self,
        harmonics: Tensor | None = None,
        weight: Number = 1.0,
        *,
        row_weights: Tensor | None = None,
        dim: int | None = None,
        schedule: Callable[[int], float] | None = None,
        name: str | None = None,
    ):
        super().__init__(weight, dim=dim, schedule=schedule, name=name)
        given = harmonics if row_weights is None else row_weights
        if given is not None:
            check_tensor("harmonics" if row_weights is None else "row_weights", given)
        if given is None or (harmonics is not None and row_weights is not None) or given.ndim != 1:
            raise ValueError("harmonics: expected either harmonics (n,) or row_weights (n,)")
        check_positive("harmonics" if row_weights is None else "row_weights", given, zero=True)
        self.harmonics = None
        self.row_weights = given.double() ** 4 if row_weights is None else given

    def _strength(self, rho: Rho, T: Tensor) -> Strength:
        if T.shape[0] != self.row_weights.shape[0]:
            raise ValueError(f"target: expected n={self.row_weights.shape[0]} rows, got {T.shape[0]}")
        return super()._strength(rho, T)

    def _value(self, T: Tensor, w: Strength) -> Tensor:
        return w * (self.row_weights.to(T) @ T.square().sum(1)) / 2

    def _gradient(self, T: Tensor, w: Strength) -> Tensor:
        return self._hessian_diagonal(T, w) * T

    def _hessian_diagonal(self, T: Tensor, w: Strength) -> Tensor:
        return (w * self.row_weights.to(T)).unsqueeze(1).expand_as(T)

    def _hessian(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        return self._hessian_diagonal(T, w) * V

    def _majorizer_diagonal(self, T: Tensor, w: Strength) -> Tensor:
        return self._hessian_diagonal(T, w)

    def log_normalizer(self, rho: Rho, n: int) -> Tensor:
        """-½ rank · ln μ, rank = d · (rows with ω > 0).

        Raises:
            ValueError: the penalty has no ``dim``, so that d is not known.
        """
        if self.dim is None:
            raise ValueError("dim: expected the number of columns, which the normaliser needs, got None")
        rank = self.dim * int((self.row_weights > 0).sum())
        return -rank / 2 * log_strength(self.weight, rho)
