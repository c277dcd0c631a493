"""Latents of low rank."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from pullback.linalg import widened
from pullback.penalties.schedule import Number
from pullback.penalties.target import Strength, TargetPenalty
from pullback.validation import check_positive


class NuclearNormPenalty(TargetPenalty):
    """Smoothed sum of singular values.

    P = w Σ_i (sqrt(s_i² + ε²) - ε), s_i the singular values of T, from the d x d Gram matrix in float64. Mean
    subtraction is left to the caller.

    Args:
        weight: w, a number or a schedule.
        eps: ε > 0.
        dim, schedule, name: see `TargetPenalty`.
    Example:
        >>> import torch
        >>> round(NuclearNormPenalty(eps=1e-9).value(torch.diag(torch.tensor([3.0, 4.0]))).item(), 5)
        7.0
    """

    kind: ClassVar[str] = "nuclear_norm"
    convex: ClassVar[bool] = True

    def __init__(
        self,
        weight: Number = 1.0,
        *,
        eps: float | int = 1e-6,
        dim: int | None = None,
        schedule: Callable[[int], float] | None = None,
        name: str | None = None,
    ):
        super().__init__(weight, dim=dim, schedule=schedule, name=name)
        check_positive("eps", eps)
        self.eps = float(eps)

    def _spectrum(self, T: Tensor) -> tuple[Tensor, Tensor]:
        """√(s² + ε²) and the right singular vectors, in float64."""
        values, Q = torch.linalg.eigh(widened(T).mT @ widened(T))
        return torch.sqrt(values.clamp_min(0) + self.eps**2), Q

    def _inverse_root(self, T: Tensor) -> Tensor:
        f, Q = self._spectrum(T)
        return ((Q / f) @ Q.mT).to(T)

    def _value(self, T: Tensor, w: Strength) -> Tensor:
        values = torch.linalg.eigvalsh(widened(T).mT @ widened(T)).clamp_min(0)
        # s²/(f + ε) instead of f - ε, which cancels for small s
        return (w * (values / (torch.sqrt(values + self.eps**2) + self.eps)).sum()).to(T.dtype)

    def _gradient(self, T: Tensor, w: Strength) -> Tensor:
        return w * (T @ self._inverse_root(T))

    def _hessian(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        f, Q = self._spectrum(T)
        product = widened(V).mT @ widened(T)
        rotated = Q.mT @ (product + product.mT) @ Q
        divided = -1 / (f.unsqueeze(1) * f * (f.unsqueeze(1) + f))
        inner = Q @ (rotated * divided) @ Q.mT
        return (w * (widened(V) @ (Q / f) @ Q.mT + widened(T) @ inner)).to(T)

    def _majorizer(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        """w V (TᵀT + ε²)^{-1/2}: the tangent of the concave square root."""
        return w * (V @ self._inverse_root(T))
