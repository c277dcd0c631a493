"""Penalties that are functions of their target alone: checks, shapes and strengths in one place.

A concrete penalty gives its formulas on (n, d) for a strength w; `TargetPenalty` reads the target, folds the
strength in and returns results in the target's shape.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from pullback.penalties.errors import UnnormalisedPriorError
from pullback.penalties.options import written
from pullback.penalties.protocol import Tier
from pullback.penalties.schedule import Number, Scheduled
from pullback.penalties.strength import Rho, strength
from pullback.validation import check_finite, check_tensor, check_whole

Strength = Tensor | float


def as_rows(name: str, target: Tensor, columns: int | None) -> Tensor:
    """``target`` as (n, d): flat targets are cut into rows of ``columns``.

    Raises:
        TypeError: not a tensor. ValueError: not floating point, or another shape.
    """
    check_tensor(name, target)
    if not target.is_floating_point() or target.ndim not in (1, 2):
        kind = str(target.dtype).removeprefix("torch.")
        raise ValueError(
            f"{name}: expected (n, d) or (n·d,) floating point, got {tuple(target.shape)} {kind}"
        )
    if target.ndim == 1:
        if columns is None:
            raise ValueError(
                f"{name}: expected (n, d), got flat {tuple(target.shape)} and no number of columns; "
                "reshape it to (n, d) or give the penalty its dimension"
            )
        if columns == 0 or target.numel() % columns:
            raise ValueError(f"{name}: expected rows of {columns}, got {target.numel()} entries")
        return target.reshape(-1, columns)
    if columns is not None and target.shape[1] != columns:
        raise ValueError(f"{name}: expected (n, {columns}), got {tuple(target.shape)}")
    return target


def double_backward(function: Callable[[Tensor], Tensor], T: Tensor, V: Tensor) -> Tensor:
    """Hessian of a scalar function times V, by two reverse sweeps; differentiable where grad mode is on."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        at = T.view_as(T) if keep and T.requires_grad else T.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(at), at, create_graph=True)
        if not slope.requires_grad:
            return torch.zeros_like(T)
        (product,) = torch.autograd.grad(slope, at, V, create_graph=keep, materialize_grads=True)
    return product if keep else product.detach()


class TargetPenalty(ABC):
    """A penalty of a target (n, d), from its formulas at a strength w.

    Args:
        weight: w, a number or a schedule.
        dim: number of columns d; needed for flat targets only.
        schedule: a function of the step that replaces ``weight``.
        name: what a history calls it; the kind if None.
    """

    kind: ClassVar[str]
    tier: ClassVar[Tier] = "psi"
    row_block_diagonal: ClassVar[bool] = False
    convex: ClassVar[bool] = False
    """Whether the Hessian is positive semi-definite, so that it serves as its own majorizer."""
    proportional: ClassVar[bool] = True
    """Whether the value is the weight times something that the weight does not enter."""

    def __init__(
        self,
        weight: Number = 1.0,
        *,
        dim: int | None = None,
        schedule: Callable[[int], float] | None = None,
        name: str | None = None,
    ):
        self._weight = Scheduled("weight", weight, schedule)
        if dim is not None:
            check_whole("dim", dim)
        self.dim = dim
        self.name = self.kind if name is None else name

    @property
    def weight(self) -> float:
        """The present weight."""
        return self._weight.now

    @property
    def rho_count(self) -> int:
        """Log-strengths that the penalty owns."""
        return 1

    @property
    def columns(self) -> int | None:
        """Columns that a target must have, or None for any."""
        return self.dim

    def value(self, target: Tensor, rho: Rho = 0.0) -> Tensor:
        """The penalty, strength included: a scalar."""
        T, w = self._read(target, rho)
        return self._value(T, w) if T.numel() else T.new_zeros(())

    def grad_target(self, target: Tensor, rho: Rho = 0.0) -> Tensor:
        """Gradient by the target, in its shape."""
        T, w = self._read(target, rho)
        return self._gradient(T, w).reshape(target.shape) if T.numel() else torch.zeros_like(target)

    def hvp(self, target: Tensor, v: Tensor, rho: Rho = 0.0) -> Tensor:
        """Exact Hessian times ``v``, in the target's shape."""
        T, w = self._read(target, rho)
        V = self._vector(v, target, T)
        return self._hessian(T, V, w).reshape(target.shape) if T.numel() else torch.zeros_like(target)

    def grad_rho(self, target: Tensor, rho: Rho = 0.0) -> Tensor:
        """Gradient by the log-strengths, (rho_count,)."""
        T, w = self._read(target, rho)
        return self._strength_gradient(T, w) if T.numel() else T.new_zeros(self.rho_count)

    def hessian_diag(self, target: Tensor, rho: Rho = 0.0) -> Tensor | None:
        """Exact diagonal of the Hessian, in the target's shape; None where there is no closed form."""
        T, w = self._read(target, rho)
        diagonal = self._hessian_diagonal(T, w) if T.numel() else torch.zeros_like(T)
        return None if diagonal is None else diagonal.reshape(target.shape)

    def psd_majorizer_diag(self, target: Tensor, rho: Rho = 0.0) -> Tensor | None:
        """The operator of `psd_majorizer_hvp` where it is diagonal, else None."""
        T, w = self._read(target, rho)
        self._check_sign(w)
        diagonal = self._majorizer_diagonal(T, w) if T.numel() else torch.zeros_like(T)
        return None if diagonal is None else diagonal.reshape(target.shape)

    def psd_majorizer_hvp(self, target: Tensor, v: Tensor, rho: Rho = 0.0) -> Tensor:
        """A positive semi-definite operator in place of the Hessian, times ``v``.

        Raises:
            ValueError: the strength is negative.
        """
        T, w = self._read(target, rho)
        V = self._vector(v, target, T)
        self._check_sign(w)
        return self._majorizer(T, V, w).reshape(target.shape) if T.numel() else torch.zeros_like(target)

    def apply_schedule(self, step: int) -> None:
        """Take the weight that the schedule has at ``step``; without a schedule nothing changes."""
        self._weight.advance(step)

    def log_normalizer(self, rho: Rho, n: int) -> Tensor:
        """ln of the integral of exp(-value), up to a constant, for n rows.

        Raises:
            UnnormalisedPriorError: it is not known.
        """
        raise UnnormalisedPriorError(
            f"{self.kind}: the value falls with its log-strength for want of a normaliser, so an optimiser "
            "would send the strength to 0; use a schedule, a validation grid or a bound on the penalty"
        )

    def neg_log_prior(self, target: Tensor, rho: Rho = 0.0) -> Tensor:
        """value + log_normalizer: what to minimise over a log-strength."""
        T, _ = self._read(target, rho)
        return self.value(target, rho) + self.log_normalizer(rho, T.shape[0])

    def _read(self, target: Tensor, rho: Rho) -> tuple[Tensor, Strength]:
        T = as_rows("target", target, self.columns)
        self._check_entries(T)
        return T, self._strength(rho, T)

    def _vector(self, v: Tensor, target: Tensor, T: Tensor) -> Tensor:
        if not isinstance(v, Tensor) or v.shape != target.shape:
            got = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
            raise ValueError(f"v: expected the target's shape {tuple(target.shape)}, got {got}")
        return v.to(T.dtype).reshape(T.shape)

    def _check_entries(self, T: Tensor) -> None:
        check_finite("target", T)

    def _strength(self, rho: Rho, T: Tensor) -> Strength:
        return strength(self.weight, rho, T.dtype)

    def _check_sign(self, w: Strength) -> None:
        least = float(torch.as_tensor(w).detach().min())
        if least < 0:
            raise ValueError(
                "weight: expected a strength >= 0 for a positive semi-definite majorizer, got "
                f"{least:g}; use hvp"
            )

    @abstractmethod
    def _value(self, T: Tensor, w: Strength) -> Tensor:
        """The value on (n, d), n d > 0."""

    @abstractmethod
    def _gradient(self, T: Tensor, w: Strength) -> Tensor:
        """Its gradient."""

    def _hessian(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        return double_backward(lambda at: self._value(at, w), T, V)

    def _majorizer(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        """The positive semi-definite operator, w >= 0; where the Hessian is not, each penalty has its own."""
        if not self.convex:
            raise NotImplementedError(f"{self.kind}: neither convex nor with a majorizer of its own")
        return self._hessian(T, V, w)

    def _hessian_diagonal(self, T: Tensor, w: Strength) -> Tensor | None:
        return None

    def _majorizer_diagonal(self, T: Tensor, w: Strength) -> Tensor | None:
        return None

    def _strength_gradient(self, T: Tensor, w: Strength) -> Tensor:
        return self._value(T, w).reshape(1)

    def __repr__(self) -> str:
        return written(self)
