"""Nested prefixes of coordinates, each paying for the ones it contains."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from pullback.penalties.schedule import Numbers, common_weight, shares
from pullback.penalties.strength import Rho, strengths
from pullback.penalties.target import Strength, TargetPenalty
from pullback.validation import check_positive, check_whole


class NestedPrefixPenalty(TargetPenalty):
    """Smoothed absolute values of nested prefixes: orders the coordinates by how much they are needed.

    P = Σ_k w_k e^{rho_k} Σ_n Σ_{i < m_k} sqrt(t_ni² + ε²), m_k the prefix sizes; one log-strength a prefix.

    Kusupati et al. 2022, "Matryoshka representation learning".

    Args:
        prefix_sizes: m_k >= 1, increasing.
        weight: w_k, a number or schedule for all, or one number a prefix.
        eps: ε > 0.
        dim, schedule, name: see `TargetPenalty`.
    Raises:
        ValueError: sizes that do not increase, or a target with fewer columns than the largest.
    Example:
        >>> import torch
        >>> penalty = NestedPrefixPenalty([1, 2], eps=1e-12)
        >>> penalty.value(torch.tensor([[3.0, 4.0]])).item()
        10.0
    """

    kind: ClassVar[str] = "nested_prefix"
    row_block_diagonal: ClassVar[bool] = True
    convex: ClassVar[bool] = True

    def __init__(
        self,
        prefix_sizes: Sequence[int],
        weight: Numbers = 1.0,
        *,
        eps: float | int = 1e-6,
        dim: int | None = None,
        schedule: Callable[[int], float] | None = None,
        name: str | None = None,
    ):
        for size in prefix_sizes:
            check_whole("prefix_sizes", size)
        if not prefix_sizes or any(a >= b for a, b in pairwise(prefix_sizes)):
            raise ValueError(f"prefix_sizes: expected increasing sizes, got {list(prefix_sizes)}")
        check_positive("eps", eps)
        super().__init__(common_weight(weight), dim=dim, schedule=schedule, name=name)
        self._part_weights = shares("weight", weight, len(prefix_sizes))
        self.prefix_sizes, self.eps = tuple(int(size) for size in prefix_sizes), float(eps)

    @property
    def rho_count(self) -> int:
        """One log-strength a prefix."""
        return len(self.prefix_sizes)

    def _strength(self, rho: Rho, T: Tensor) -> Strength:
        if T.shape[1] < self.prefix_sizes[-1]:
            raise ValueError(f"target: expected at least {self.prefix_sizes[-1]} columns, got {T.shape[1]}")
        return strengths((self.weight * self._part_weights).to(T.device, torch.float64), rho, T)

    def _members(self, T: Tensor) -> Tensor:
        """1 where prefix k holds column i, (k, d)."""
        sizes = torch.tensor(self.prefix_sizes, device=T.device)
        return (torch.arange(T.shape[1], device=T.device) < sizes.unsqueeze(1)).to(T)

    def _columns(self, T: Tensor, w: Strength) -> Tensor:
        """Strength of each column, (d,)."""
        return torch.as_tensor(w) @ self._members(T)

    def _smooth(self, T: Tensor) -> Tensor:
        return torch.sqrt(T * T + self.eps**2)

    def _value(self, T: Tensor, w: Strength) -> Tensor:
        return self._strength_gradient(T, w).sum()

    def _strength_gradient(self, T: Tensor, w: Strength) -> Tensor:
        return w * (self._members(T) @ self._smooth(T).sum(0))

    def _gradient(self, T: Tensor, w: Strength) -> Tensor:
        return self._columns(T, w) * T / self._smooth(T)

    def _hessian_diagonal(self, T: Tensor, w: Strength) -> Tensor:
        return self._columns(T, w) * self.eps**2 / self._smooth(T) ** 3

    def _hessian(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        return self._hessian_diagonal(T, w) * V

    def _majorizer_diagonal(self, T: Tensor, w: Strength) -> Tensor:
        return self._columns(T, w) / self._smooth(T)

    def _majorizer(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        return self._majorizer_diagonal(T, w) * V
