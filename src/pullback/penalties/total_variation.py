"""Latents that change seldom along a path or graph."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from pullback.penalties.schedule import Number
from pullback.penalties.strength import Rho
from pullback.penalties.target import Strength, TargetPenalty
from pullback.validation import check_positive, check_tensor


class TotalVariationPenalty(TargetPenalty):
    """Smoothed absolute differences along edges.

    P = w Σ_edges Σ_a (sqrt(Δ² + ε²) - ε), Δ the difference of the two rows.

    Args:
        weight: w, a number or a schedule.
        edges: pairs of rows, (edges, 2); None joins consecutive rows.
        eps: ε > 0.
        dim, schedule, name: see `TargetPenalty`.
    Raises:
        ValueError: edges of another shape, or to rows that the target lacks.
    Example:
        >>> import torch
        >>> round(TotalVariationPenalty().value(torch.tensor([[0.0], [2.0], [1.0]])).item(), 4)
        3.0
    """

    kind: ClassVar[str] = "total_variation"
    convex: ClassVar[bool] = True

    def __init__(
        self,
        weight: Number = 1.0,
        *,
        edges: Tensor | None = None,
        eps: float | int = 1e-6,
        dim: int | None = None,
        schedule: Callable[[int], float] | None = None,
        name: str | None = None,
    ):
        super().__init__(weight, dim=dim, schedule=schedule, name=name)
        check_positive("eps", eps)
        if edges is not None:
            check_tensor("edges", edges)
        if edges is not None and (edges.ndim != 2 or edges.shape[1] != 2 or edges.is_floating_point()):
            raise ValueError(
                f"edges: expected whole numbers (edges, 2), got {tuple(edges.shape)} {edges.dtype}"
            )
        if edges is not None and edges.numel() and int(edges.min()) < 0:
            raise ValueError(f"edges: expected rows >= 0, got {int(edges.min())}")
        self.edges, self.eps = edges, float(eps)

    def _strength(self, rho: Rho, T: Tensor) -> Strength:
        if self.edges is not None and self.edges.numel() and int(self.edges.max()) >= T.shape[0]:
            raise ValueError(f"edges: expected rows below n={T.shape[0]}, got {int(self.edges.max())}")
        return super()._strength(rho, T)

    def _difference(self, T: Tensor) -> Tensor:
        """D T, one row an edge."""
        if self.edges is None:
            return T[1:] - T[:-1]
        first, second = self.edges.to(T.device).unbind(1)
        return T[second] - T[first]

    def _transpose(self, rows: Tensor, n: int) -> Tensor:
        """Dᵀ of rows, one an edge."""
        if self.edges is None:
            pad = torch.nn.functional.pad
            return pad(rows, (0, 0, 1, 0)) - pad(rows, (0, 0, 0, 1))
        first, second = self.edges.to(rows.device).unbind(1)
        return rows.new_zeros(n, rows.shape[1]).index_add(0, second, rows).index_add(0, first, -rows)

    def _incident(self, rows: Tensor, n: int) -> Tensor:
        """Diagonal of Dᵀ diag(rows) D: the sum over a row's edges."""
        if self.edges is None:
            pad = torch.nn.functional.pad
            return pad(rows, (0, 0, 1, 0)) + pad(rows, (0, 0, 0, 1))
        loops = (self.edges[:, 0] != self.edges[:, 1]).to(rows).unsqueeze(1)
        first, second = self.edges.to(rows.device).unbind(1)
        empty = rows.new_zeros(n, rows.shape[1])
        return empty.index_add(0, second, loops * rows).index_add(0, first, loops * rows)

    def _smooth(self, T: Tensor) -> tuple[Tensor, Tensor]:
        """Δ and √(Δ² + ε²)."""
        delta = self._difference(T)
        return delta, torch.sqrt(delta * delta + self.eps**2)

    def _value(self, T: Tensor, w: Strength) -> Tensor:
        delta, f = self._smooth(T)
        return w * (delta * delta / (f + self.eps)).sum()

    def _gradient(self, T: Tensor, w: Strength) -> Tensor:
        delta, f = self._smooth(T)
        return w * self._transpose(delta / f, T.shape[0])

    def _curvature(self, T: Tensor) -> Tensor:
        return self.eps**2 / self._smooth(T)[1] ** 3

    def _hessian(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        return w * self._transpose(self._curvature(T) * self._difference(V), T.shape[0])

    def _hessian_diagonal(self, T: Tensor, w: Strength) -> Tensor:
        return w * self._incident(self._curvature(T), T.shape[0])

    def _majorizer(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        return w * self._transpose(self._difference(V) / self._smooth(T)[1], T.shape[0])
