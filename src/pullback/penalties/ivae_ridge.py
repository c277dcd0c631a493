"""Latents that an auxiliary variable explains."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from pullback.penalties.schedule import Number
from pullback.penalties.strength import Rho, log_strength
from pullback.penalties.target import Strength, TargetPenalty
from pullback.validation import check_points, check_positive


class IvaeRidgeMeanGaugePenalty(TargetPenalty):
    """What a linear regression of the latents on auxiliary variables leaves unexplained.

    P = ½ w tr Tᵀ (I - X (XᵀX + ridge I)⁻¹ Xᵀ) T.

    Khemakhem et al. 2020, "Variational autoencoders and nonlinear ICA".

    Args:
        auxiliary: X, (n, q), one row a row of the target.
        weight: w, a number or a schedule.
        ridge: > 0.
        dim, schedule, name: see `TargetPenalty`.
    Raises:
        ValueError: a target with another number of rows.
    Example:
        >>> import torch
        >>> X = torch.tensor([[1.0], [0.0]])
        >>> round(IvaeRidgeMeanGaugePenalty(X).value(torch.tensor([[3.0], [2.0]])).item(), 4)
        2.0
    """

    kind: ClassVar[str] = "ivae_ridge_mean_gauge"
    convex: ClassVar[bool] = True

    def __init__(
        self,
        auxiliary: Tensor,
        weight: Number = 1.0,
        *,
        ridge: float | int = 1e-6,
        dim: int | None = None,
        schedule: Callable[[int], float] | None = None,
        name: str | None = None,
    ):
        super().__init__(weight, dim=dim, schedule=schedule, name=name)
        check_positive("ridge", ridge)
        self.auxiliary, self.ridge = check_points("auxiliary", auxiliary), float(ridge)

    def _strength(self, rho: Rho, T: Tensor) -> Strength:
        if T.shape[0] != self.auxiliary.shape[0]:
            raise ValueError(
                f"target: expected n={self.auxiliary.shape[0]} rows as auxiliary has, got {T.shape[0]}"
            )
        return super()._strength(rho, T)

    def _regression(self, T: Tensor) -> tuple[Tensor, Tensor]:
        """X and (XᵀX + ridge I)⁻¹ Xᵀ, (q, n)."""
        X = self.auxiliary.to(T)
        gram = X.mT @ X + self.ridge * torch.eye(X.shape[1], dtype=T.dtype, device=T.device)
        return X, torch.linalg.solve(gram, X.mT)

    def _unexplained(self, T: Tensor) -> Tensor:
        X, solved = self._regression(T)
        return T - X @ (solved @ T)

    def _value(self, T: Tensor, w: Strength) -> Tensor:
        return w * (T * self._unexplained(T)).sum() / 2

    def _gradient(self, T: Tensor, w: Strength) -> Tensor:
        return w * self._unexplained(T)

    def _hessian(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        return w * self._unexplained(V)

    def _hessian_diagonal(self, T: Tensor, w: Strength) -> Tensor:
        X, solved = self._regression(T)
        return (w * (1 - (X * solved.mT).sum(1, keepdim=True))).expand_as(T)

    def log_normalizer(self, rho: Rho, n: int) -> Tensor:
        """-½ rank · ln μ, rank = (n - rank X) d: the ridge keeps numbers finite and counts for nothing.

        Raises:
            ValueError: the penalty has no ``dim``, so that d is not known.
        """
        if self.dim is None:
            raise ValueError("dim: expected the number of columns, which the normaliser needs, got None")
        rank = (n - int(torch.linalg.matrix_rank(self.auxiliary))) * self.dim
        return -rank / 2 * log_strength(self.weight, rho)
