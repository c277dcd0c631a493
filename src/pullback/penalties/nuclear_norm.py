"""Latents of low rank."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from pullback.linalg import widened
from pullback.penalties.schedule import Number
from pullback.penalties.target import Strength, TargetPenalty
from pullback.validation import check_positive, check_whole


class NuclearNormPenalty(TargetPenalty):
    """Smoothed sum of singular values.

    P = w Σ_i (sqrt(s_i² + ε²) - ε), s_i the singular values of T, from the d x d Gram matrix in float64. Mean
    subtraction is left to the caller.

    Args:
        weight: w, a number or a schedule.
        eps: ε > 0.
        max_rank: only so many of the largest singular values count (Ky Fan's norm); None is all.
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
        max_rank: int | None = None,
        dim: int | None = None,
        schedule: Callable[[int], float] | None = None,
        name: str | None = None,
    ):
        super().__init__(weight, dim=dim, schedule=schedule, name=name)
        check_positive("eps", eps)
        if max_rank is not None:
            check_whole("max_rank", max_rank)
        self.eps, self.max_rank = float(eps), max_rank

    def _left_out(self, T: Tensor) -> int:
        """How many of the smallest singular values do not count."""
        return 0 if self.max_rank is None else max(0, T.shape[1] - self.max_rank)

    def _spectrum(self, T: Tensor) -> tuple[Tensor, Tensor]:
        """√(s² + ε²), ascending, and the right singular vectors, in float64."""
        values, Q = torch.linalg.eigh(widened(T).mT @ widened(T))
        return torch.sqrt(values.clamp_min(0) + self.eps**2), Q

    def _inverse_root(self, T: Tensor) -> Tensor:
        f, Q = self._spectrum(T)
        out = self._left_out(T)
        return ((Q[:, out:] / f[out:]) @ Q[:, out:].mT).to(T)

    def _value(self, T: Tensor, w: Strength) -> Tensor:
        values = torch.linalg.eigvalsh(widened(T).mT @ widened(T)).clamp_min(0)[self._left_out(T) :]
        # s²/(f + ε) instead of f - ε, which cancels for small s
        return (w * (values / (torch.sqrt(values + self.eps**2) + self.eps)).sum()).to(T.dtype)

    def _gradient(self, T: Tensor, w: Strength) -> Tensor:
        return w * (T @ self._inverse_root(T))

    def _divided(self, f: Tensor, out: int) -> Tensor:
        """Divided differences of 1/f by f², 1/f being 0 where a value does not count, (d, d)."""
        inside = torch.arange(len(f), device=f.device) >= out
        both = inside.unsqueeze(1) & inside
        product = -1 / (f.unsqueeze(1) * f * (f.unsqueeze(1) + f))
        if out == 0:
            return product
        kept = torch.where(inside, 1 / f, 0.0)
        gap = torch.where(inside.unsqueeze(1) == inside, 1.0, f.square().unsqueeze(1) - f.square())
        mixed = (kept.unsqueeze(1) - kept) / gap
        return torch.where(both, product, torch.where(inside.unsqueeze(1) == inside, 0.0, mixed))

    def _hessian(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        f, Q = self._spectrum(T)
        out = self._left_out(T)
        product = widened(V).mT @ widened(T)
        rotated = Q.mT @ (product + product.mT) @ Q
        inner = Q @ (rotated * self._divided(f, out)) @ Q.mT
        straight = widened(V) @ ((Q[:, out:] / f[out:]) @ Q[:, out:].mT)
        return (w * (straight + widened(T) @ inner)).to(T)

    def _majorizer(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        """w V (TᵀT + ε²)^{-1/2}: the tangent of the concave square root. The Hessian itself where singular
        values are left out: what moves between the two kinds has no bound."""
        if self._left_out(T):
            return self._hessian(T, V, w)
        return w * (V @ self._inverse_root(T))
