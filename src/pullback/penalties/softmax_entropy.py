"""Sparse assignments: the entropy of a softmax over atoms."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pullback.penalties.block_low_rank import DiagonalPlusLowRank
from pullback.penalties.gershgorin import absolute_row_sums, soft_row_sums, split_product
from pullback.penalties.normalizer import log_partition
from pullback.penalties.schedule import Number, Scheduled
from pullback.penalties.softmax_pass import fused
from pullback.penalties.softmax_rows import (
    Assignments,
    assign,
    check_logits,
    dense_hessian,
    diagonal,
    fisher_logit_derivative,
    fisher_metric,
    hessian_logit_derivative,
    hessian_product,
    low_rank_form,
)
from pullback.penalties.strength import Rho, strength
from pullback.penalties.target import Strength, TargetPenalty
from pullback.validation import check_choice, check_positive, check_tensor, check_whole

Scale = Tensor | float | int


@dataclass(frozen=True, eq=False)
class EntropyEvaluation:
    """Value, gradient and Hessian product from one pass.

    Attributes:
        value: the penalty.
        gradient: by the logits, in their shape.
        product: Hessian times v; None where no v was given.
    """

    value: Tensor
    gradient: Tensor
    product: Tensor | None


class SoftmaxAssignmentSparsityPenalty(TargetPenalty):
    """Entropy of softmax assignments, summed over rows.

    P = λ Σ_n h(a_n), a = softmax(z/τ), h = -Σ_k a_k ln a_k; derivatives: `pullback.penalties.softmax_rows`.
    Rows are independent. The target holds logits (n, K); an atom at -inf is masked and contributes nothing.

    Args:
        temperature: τ > 0, a number or a schedule.
        weight: w of λ = sign(w) exp(ln|w| + rho), a number or a schedule.
        k_atoms: K; None reads it from the logits. Flat logits need it.
        row_weights: factor of each row, (n,), >= 0.
        schedule: a function of the step that replaces ``weight``.
        majorizer: "gershgorin" (diagonal, O(K log K)), "soft" (the same to 1e-8, differentiable
            everywhere) or "split" (diagonal plus rank 1, O(K)).
        reduction: "sum" over rows, or "mean".
        name: what a history calls it.
    Gotchas: H · 1 = 0, so the Hessian alone is singular; add the data's block before solving. The Fisher
        metric is a smooth positive semi-definite conditioner and no majorizer of the Hessian.
    Raises:
        ValueError: see the messages.
    Example:
        >>> import torch
        >>> penalty = SoftmaxAssignmentSparsityPenalty()
        >>> round(penalty.value(torch.zeros(1, 2)).item(), 6), penalty.grad_target(torch.zeros(1, 2))
        (0.693147, tensor([[0., 0.]]))
    """

    kind: ClassVar[str] = "softmax_assignment_sparsity"
    row_block_diagonal: ClassVar[bool] = True

    def __init__(
        self,
        temperature: Number = 1.0,
        weight: Number = 1.0,
        *,
        k_atoms: int | None = None,
        row_weights: Tensor | None = None,
        schedule: Callable[[int], float] | None = None,
        majorizer: Literal["gershgorin", "soft", "split"] = "gershgorin",
        reduction: Literal["sum", "mean"] = "sum",
        name: str | None = None,
    ):
        if k_atoms is not None:
            check_whole("k_atoms", k_atoms)
        super().__init__(weight, dim=k_atoms, schedule=schedule, name=name)
        self._temperature = Scheduled("temperature", temperature)
        check_positive("temperature", self.temperature)
        check_choice("majorizer", majorizer, ("gershgorin", "soft", "split"))
        check_choice("reduction", reduction, ("sum", "mean"))
        if row_weights is not None:
            check_tensor("row_weights", row_weights)
            check_positive("row_weights", row_weights, zero=True)
        self.row_weights, self.majorizer, self.reduction = row_weights, majorizer, reduction

    @property
    def temperature(self) -> float:
        """The present temperature."""
        return self._temperature.now

    @property
    def k_atoms(self) -> int | None:
        """K, or None where the logits say it."""
        return self.dim

    def apply_schedule(self, step: int) -> None:
        """Take weight and temperature that their schedules have at ``step``."""
        super().apply_schedule(step)
        self._temperature.advance(step)
        check_positive("temperature", self.temperature)

    def evaluate(self, logits: Tensor, v: Tensor | None = None, rho: Rho = 0.0) -> EntropyEvaluation:
        """Value, gradient and, with ``v``, the Hessian product, at the cost of one pass."""
        check_tensor("target", logits)
        if not self._is_plain(logits, v, rho):
            product = None if v is None else self.hvp(logits, v, rho)
            return EntropyEvaluation(self.value(logits, rho), self.grad_target(logits, rho), product)
        self._check_width(logits)
        same = isinstance(v, Tensor) and v.dtype == logits.dtype and v.shape == logits.shape
        if v is not None and not same:
            v = self._vector(v, logits, logits)
        lam = float(strength(self.weight, rho, logits.dtype))
        lam = lam if self.reduction == "sum" else lam / logits.shape[0]
        total, slope, product = fused(logits, v, self.temperature, lam)
        if math.isnan(total):
            check_logits(logits)
            product = None if v is None else self.hvp(logits, v, rho)
            return EntropyEvaluation(self.value(logits, rho), self.grad_target(logits, rho), product)
        return EntropyEvaluation(torch.scalar_tensor(lam * total, dtype=logits.dtype), slope, product)

    def curvature(self, logits: Tensor, rho: Rho = 0.0) -> DiagonalPlusLowRank:
        """The Hessian as a diagonal plus a few factors a row: solves and determinants in O(K).

        See `pullback.penalties.softmax_rows.low_rank_form`. It is singular on its own: ``add_diagonal`` the
        data's part first.
        """
        T, lam = self._read(logits, rho)
        scale = self._scale(lam, T)
        entries, factors, core = low_rank_form(assign(T, self.temperature))
        return DiagonalPlusLowRank(scale * entries, factors, scale.unsqueeze(-1) * core)

    # one row, or any batch of them: ``scale`` is λ/τ² already

    def row_dense_hessian(self, row_logits: Tensor, scale: Scale) -> Tensor:
        """H, (..., K, K)."""
        return dense_hessian(self._rows(row_logits, scale), scale)

    def row_dense_hessian_logit_derivative(self, row_logits: Tensor, scale: Scale, w: int) -> Tensor:
        """∂H/∂z_w, (..., K, K)."""
        at = self._rows(row_logits, scale, w)
        return hessian_logit_derivative(at, w, self.temperature, scale)

    def psd_majorizer_abs_row_sums(self, row_logits: Tensor, scale: Scale) -> Tensor:
        """D_k = Σ_j |H_kj|, (..., K)."""
        return absolute_row_sums(self._rows(row_logits, scale), scale)

    def row_psd_majorizer(self, row_logits: Tensor, scale: Scale) -> Tensor:
        """diag(D), (..., K, K)."""
        return torch.diag_embed(self.psd_majorizer_abs_row_sums(row_logits, scale))

    def row_psd_majorizer_logit_derivative(self, row_logits: Tensor, scale: Scale, w: int) -> Tensor:
        """diag(Σ_j sign(H_kj) ∂H_kj/∂z_w), sign(0) = 0."""
        at = self._rows(row_logits, scale, w)
        change = hessian_logit_derivative(at, w, self.temperature, scale)
        return torch.diag_embed((torch.sign(dense_hessian(at, scale)) * change).sum(-1))

    def row_fisher_metric(self, row_logits: Tensor, scale: Scale) -> Tensor:
        """G = scale (diag a - a aᵀ): a conditioner, not a majorizer."""
        return fisher_metric(self._rows(row_logits, scale), scale)

    def row_fisher_metric_logit_derivative(self, row_logits: Tensor, scale: Scale, w: int) -> Tensor:
        """∂G/∂z_w, (..., K, K)."""
        return fisher_logit_derivative(self._rows(row_logits, scale, w), w, self.temperature, scale)

    def log_normalizer(self, rho: Rho, n: int) -> Tensor:
        """Σ_i ln Z_K(w_i λ) over n rows, with respect to da on the simplex; float64, differentiable in rho.

        Raises:
            ValueError: K is not known (``k_atoms``), or λ outside of [0, 50].
        """
        if self.k_atoms is None:
            raise ValueError("k_atoms: expected the number of atoms, which the normaliser needs, got None")
        lam = torch.as_tensor(strength(self.weight, rho, torch.float64), dtype=torch.float64)
        if self.reduction == "mean":
            lam = lam / max(n, 1)
        if self.row_weights is None:
            return n * log_partition(lam, self.k_atoms)
        self._check_rows(n)
        return log_partition(lam * self.row_weights.to(lam), self.k_atoms).sum()

    def _is_plain(self, logits: Tensor, v: Tensor | None, rho: Rho) -> bool:
        """Whether one pass over rows outside of any graph gives all."""
        if self.row_weights is not None or logits.ndim != 2 or isinstance(rho, Tensor):
            return False
        if torch.is_grad_enabled() and (logits.requires_grad or (v is not None and v.requires_grad)):
            return False
        return logits.is_cpu and logits.is_floating_point() and logits.numel() > 0

    # formulas for the template

    def _check_width(self, logits: Tensor) -> None:
        if self.dim is not None and logits.shape[-1] != self.dim:
            raise ValueError(f"target: expected K={self.dim} atoms, got shape {tuple(logits.shape)}")

    def _check_rows(self, n: int) -> None:
        if self.row_weights is not None and self.row_weights.shape != (n,):
            raise ValueError(f"row_weights: expected ({n},), got {tuple(self.row_weights.shape)}")

    def _check_entries(self, T: Tensor) -> None:
        if T.numel():
            check_logits(T)
        self._check_rows(T.shape[0])

    def _rows(self, row_logits: Tensor, scale: Scale, w: int | None = None) -> Assignments:
        if not isinstance(row_logits, Tensor) or not row_logits.is_floating_point() or row_logits.ndim == 0:
            raise ValueError(f"row_logits: expected floating point (..., K), got {row_logits!r}")
        self._check_width(row_logits)
        K = row_logits.shape[-1]
        if not isinstance(scale, int | float | Tensor) or torch.as_tensor(scale).numel() != 1:
            raise ValueError(f"scale: expected one number λ/τ² for all rows, got {scale!r}")
        if not math.isfinite(float(scale)):
            raise ValueError(f"scale: expected a finite number, got {scale}")
        if w is not None:
            check_whole("w", w, minimum=-(2**63))
            if not 0 <= w < K:
                raise IndexError(f"w: expected an atom in 0 .. {K - 1}, got {w}")
        check_logits(row_logits)
        return assign(row_logits, self.temperature)

    def _per_row(self, lam: Strength, T: Tensor) -> Tensor:
        """λ of each row, (n,)."""
        lam = torch.as_tensor(lam, dtype=torch.float64).to(T)
        lam = lam if self.reduction == "sum" else lam / T.shape[0]
        return lam.expand(T.shape[0]) if self.row_weights is None else lam * self.row_weights.to(T)

    def _scale(self, lam: Strength, T: Tensor) -> Tensor:
        """λ/τ² of each row, (n, 1)."""
        return self._per_row(lam, T).unsqueeze(1) / self.temperature**2

    def _value(self, T: Tensor, w: Strength) -> Tensor:
        return self._per_row(w, T) @ assign(T, self.temperature).entropy

    def _gradient(self, T: Tensor, w: Strength) -> Tensor:
        at = assign(T, self.temperature)
        return self._per_row(w, T).unsqueeze(1) / self.temperature * at.a * at.u

    def _hessian(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        return hessian_product(assign(T, self.temperature), V, self._scale(w, T))

    def _hessian_diagonal(self, T: Tensor, w: Strength) -> Tensor:
        return self._scale(w, T) * diagonal(assign(T, self.temperature))

    def _check_sign(self, w: Strength) -> None:
        """Any sign of the strength has a majorizer here."""

    def _majorizer_diagonal(self, T: Tensor, w: Strength) -> Tensor | None:
        at, scale = assign(T, self.temperature), self._scale(w, T)
        if self.majorizer == "split":
            return None
        return (soft_row_sums if self.majorizer == "soft" else absolute_row_sums)(at, scale)

    def _majorizer(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        if self.majorizer == "split":
            return split_product(assign(T, self.temperature), V, self._scale(w, T))
        entries = self._majorizer_diagonal(T, w)
        assert entries is not None
        return entries * V
