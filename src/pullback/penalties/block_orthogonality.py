"""Groups of coordinates that vary independently of each other."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from pullback.linalg import positive_part
from pullback.penalties.schedule import Number
from pullback.penalties.strength import Rho
from pullback.penalties.target import Strength, TargetPenalty


class BlockOrthogonalityPenalty(TargetPenalty):
    """Inner products between the columns of different groups.

    P = ½ w Σ_{g<h} ‖T_gᵀ T_h‖², T_g the columns of group g.

    Args:
        groups: column numbers of each group, no column twice; columns in no group are left alone.
        weight: w, a number or a schedule.
        dim, schedule, name: see `TargetPenalty`.
    Raises:
        ValueError: a column in two groups, or beyond the target's last one.
    Example:
        >>> import torch
        >>> BlockOrthogonalityPenalty([[0], [1]]).value(torch.ones(2, 2)).item()
        2.0
    """

    kind: ClassVar[str] = "block_orthogonality"

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        weight: Number = 1.0,
        *,
        dim: int | None = None,
        schedule: Callable[[int], float] | None = None,
        name: str | None = None,
    ):
        super().__init__(weight, dim=dim, schedule=schedule, name=name)
        members = [int(column) for group in groups for column in group]
        if len(set(members)) != len(members) or any(column < 0 for column in members):
            raise ValueError(f"groups: expected each column at most once and >= 0, got {groups}")
        self.groups = tuple(tuple(int(column) for column in group) for group in groups)

    def _strength(self, rho: Rho, T: Tensor) -> Strength:
        last = max((column for group in self.groups for column in group), default=-1)
        if last >= T.shape[1]:
            raise ValueError(f"groups: expected columns below {T.shape[1]}, got {last}")
        return super()._strength(rho, T)

    def _across(self, T: Tensor) -> Tensor:
        """1 where two columns are in different groups, (d, d)."""
        owner = torch.full((T.shape[1],), -1, device=T.device)
        for g, group in enumerate(self.groups):
            owner[list(group)] = g
        grouped = owner >= 0
        return ((owner.unsqueeze(1) != owner) & grouped & grouped.unsqueeze(1)).to(T)

    def _value(self, T: Tensor, w: Strength) -> Tensor:
        return w * (self._across(T) * (T.mT @ T)).square().sum() / 4

    def _gradient(self, T: Tensor, w: Strength) -> Tensor:
        return w * (T @ (self._across(T) * (T.mT @ T)))

    def _hessian(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        across, product = self._across(T), V.mT @ T
        return w * (V @ (across * (T.mT @ T)) + T @ (across * (product + product.mT)))

    def _majorizer(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        across, product = self._across(T), V.mT @ T
        return w * (V @ positive_part(across * (T.mT @ T)) + T @ (across * (product + product.mT)))
