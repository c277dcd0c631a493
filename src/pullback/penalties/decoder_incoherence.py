"""Decoder blocks that write into different directions of data space."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pullback.penalties.protocol import Tier
from pullback.penalties.schedule import Number
from pullback.penalties.strength import Rho
from pullback.penalties.target import Strength, TargetPenalty
from pullback.validation import check_choice, check_finite, check_whole


class DecoderIncoherencePenalty(TargetPenalty):
    """Overlap of blocks of decoder rows, without regard to their sizes.

    P = ½ w Σ_{j<k} co_jk ‖B_j B_kᵀ‖² / (‖B_j‖² ‖B_k‖²), B_j the (size_j, p) block. The target is the matrix
    of all blocks, (Σ size_j, p).

    Args:
        block_sizes: rows of each block.
        weight: w, a number or a schedule.
        cooccurrence: co, (blocks, blocks), >= 0 and symmetric; None is 1 for each pair.
        normalize: "blocks" divides as above; "grams" by ‖B_jB_jᵀ‖ ‖B_kB_kᵀ‖ (the alignment of two linear
            kernels, 1 for blocks that span the same); "none" does not divide.
        dim, schedule, name: see `TargetPenalty`.
    Raises:
        ValueError: sizes that do not fit the target, or a block of zeros, which has no direction.
    Example:
        >>> import torch
        >>> penalty = DecoderIncoherencePenalty([1, 1])
        >>> penalty.value(torch.tensor([[2.0, 0.0], [3.0, 0.0]])).item()
        0.5
    """

    kind: ClassVar[str] = "decoder_incoherence"
    tier: ClassVar[Tier] = "beta"

    def __init__(
        self,
        block_sizes: Sequence[int],
        weight: Number = 1.0,
        *,
        cooccurrence: Tensor | None = None,
        normalize: Literal["blocks", "grams", "none"] = "blocks",
        dim: int | None = None,
        schedule: Callable[[int], float] | None = None,
        name: str | None = None,
    ):
        super().__init__(weight, dim=dim, schedule=schedule, name=name)
        for size in block_sizes:
            check_whole("block_sizes", size)
        check_choice("normalize", normalize, ("blocks", "grams", "none"))
        m = len(block_sizes)
        if m == 0:
            raise ValueError("block_sizes: expected at least one block, got none")
        if cooccurrence is not None:
            if cooccurrence.shape != (m, m) or not torch.equal(cooccurrence, cooccurrence.mT):
                raise ValueError(
                    f"cooccurrence: expected a symmetric ({m}, {m}), got {tuple(cooccurrence.shape)}"
                )
            check_finite("cooccurrence", cooccurrence)
            if bool((cooccurrence < 0).any()):
                raise ValueError("cooccurrence: expected weights >= 0, got a negative one")
        self.block_sizes, self.normalize = tuple(int(size) for size in block_sizes), normalize
        self.cooccurrence = cooccurrence

    def _strength(self, rho: Rho, T: Tensor) -> Strength:
        if T.shape[0] != sum(self.block_sizes):
            raise ValueError(f"target: expected {sum(self.block_sizes)} rows of blocks, got {T.shape[0]}")
        if self.normalize != "none" and T.numel():
            zero = (self._norms(T) == 0).nonzero()
            if len(zero):
                raise ValueError(
                    f"target: expected blocks with a direction, got zeros in block {int(zero[0])}"
                )
        return super()._strength(rho, T)

    def _membership(self, T: Tensor) -> Tensor:
        """1 where row i belongs to block j, (rows, blocks)."""
        sizes = torch.tensor(self.block_sizes, device=T.device)
        owner = torch.repeat_interleave(torch.arange(len(sizes), device=T.device), sizes)
        return torch.nn.functional.one_hot(owner, len(sizes)).to(T)

    def _norms(self, T: Tensor) -> Tensor:
        return T.square().sum(1) @ self._membership(T)

    def _shares(self, T: Tensor) -> Tensor:
        """co_jk for j ≠ k, (blocks, blocks)."""
        m = len(self.block_sizes)
        shares = 1 - torch.eye(m, dtype=T.dtype, device=T.device)
        return shares if self.cooccurrence is None else shares * self.cooccurrence.to(T)

    def _grams(self, T: Tensor) -> Tensor:
        """B_jB_jᵀ on the diagonal, zeros elsewhere, (rows, rows)."""
        Z = self._membership(T)
        return (T @ T.mT) * (Z @ Z.mT)

    def _inverse_norms(self, T: Tensor) -> Tensor:
        """What a block is divided by, inverted: ‖B_j‖², ‖B_jB_jᵀ‖ or 1."""
        norms = self._norms(T)
        if self.normalize == "grams":
            return (self._grams(T).square().sum(1) @ self._membership(T)).rsqrt()
        return torch.ones_like(norms) if self.normalize == "none" else 1 / norms

    def _pairs(self, T: Tensor) -> Tensor:
        """co_jk / (n_j n_k) for j ≠ k, (blocks, blocks)."""
        inverse = self._inverse_norms(T)
        return self._shares(T) * inverse.unsqueeze(1) * inverse

    def _value(self, T: Tensor, w: Strength) -> Tensor:
        Z = self._membership(T)
        return w * (self._pairs(T) * (Z.mT @ (T @ T.mT).square() @ Z)).sum() / 4

    def _gradient(self, T: Tensor, w: Strength) -> Tensor:
        Z, pairs, S = self._membership(T), self._pairs(T), T @ T.mT
        slope = (S * (Z @ pairs @ Z.mT)) @ T
        if self.normalize != "none":
            share = (pairs * (Z.mT @ S.square() @ Z)).sum(1) * self._inverse_norms(T)
            if self.normalize == "blocks":
                slope = slope - (Z @ share).unsqueeze(1) * T
            else:
                share = share * self._inverse_norms(T)
                slope = slope - (Z @ share).unsqueeze(1) * (self._grams(T) @ T)
        return w * slope

    def _residual(self, T: Tensor) -> Tensor:
        """Entries whose squares sum to twice the value at w = 1."""
        Z = self._membership(T)
        root = self._inverse_norms(T).sqrt()
        weights = self._shares(T).sqrt() * root.unsqueeze(1) * root
        return (T @ T.mT) * (Z @ weights @ Z.mT) / 2**0.5

    def _majorizer(self, T: Tensor, V: Tensor, w: Strength) -> Tensor:
        """Gauss-Newton of S/√(n_j n_k): positive semi-definite, no bound of the Hessian."""
        change = torch.func.jvp(self._residual, (T,), (V,))[1]
        pull = torch.func.vjp(self._residual, T)[1]
        return w * pull(change)[0]
