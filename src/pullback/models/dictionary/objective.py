"""F = Σ w [½|z - ẑ|² + λ_H H(a)] + ½ Σ_k [λ_k tr(B_kᵀ S_k B_k) + ρ |B_k|²], in full and differentiable."""

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.models.dictionary.codes import Codes, decode
from pullback.models.dictionary.layout import Layout
from pullback.penalties.softmax_rows import assign


def row_entropy(codes: Codes, tau: float) -> Float[Tensor, " n"]:
    """H(a) of every row, from logits so that nearly one-hot rows keep their digits; 0 in the other gate."""
    if codes.logits is None:
        return codes.weights.new_zeros(len(codes))
    return assign(codes.logits, tau).entropy


def roughness(layout: Layout, B: Float[Tensor, "k p"], lam: Float[Tensor, " a"]) -> Float[Tensor, ""]:
    """½ Σ_k λ_k tr(B_kᵀ S_k B_k)."""
    return (B * (layout.roughness(lam.to(B)) @ B)).sum() / 2


def objective(
    layout: Layout,
    Z: Float[Tensor, "n p"],
    B: Float[Tensor, "k p"],
    codes: Codes,
    *,
    lam: Float[Tensor, " a"],
    rho: float,
    entropy: float = 0.0,
    tau: float = 1.0,
    row_weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """F of decoders and codes, a scalar.

    Args:
        layout: of the atoms.
        Z: rows, (n, p).
        B: decoders, (M_tot, p); the result is differentiable in them and in the codes.
        codes: of the rows.
        lam, rho: λ (K,) and ρ.
        entropy, tau: λ_H and temperature of the softmax gate.
        row_weights: w, (n,).
    """
    rows = (Z.to(B) - decode(layout, B, codes)).square().sum(1) / 2
    if entropy:
        rows = rows + entropy * row_entropy(codes, tau)
    total = rows.sum() if row_weights is None else rows @ row_weights.to(rows)
    return total + roughness(layout, B, lam) + torch.as_tensor(rho).to(B) * B.square().sum() / 2
