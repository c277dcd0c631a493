"""How much each atom is smoothed: the Fellner-Schall step towards the largest restricted likelihood."""

from jaxtyping import Float
from torch import Tensor

from pullback.models.dictionary.decoder_step import DecoderFit
from pullback.models.dictionary.layout import Layout

LOWEST, HIGHEST = 1e-8, 1e8


def fellner_schall(layout: Layout, fit: DecoderFit) -> Float[Tensor, " k"]:
    """λ_k <- s² p (r_k - λ_k tr([A⁻¹]_kk S_k)) / tr(B_kᵀ S_k B_k), r_k the rank of S_k; charts without stay.

    Wood and Fasiolo 2017, "A generalized Fellner-Schall method for smoothing parameter optimization".

    Args:
        layout: of the atoms.
        fit: decoders of the present λ.
    Returns: new λ, (K,), within [1e-8, 1e8].
    """
    p = fit.B.shape[1]
    lam = fit.lam.clone()
    for k, (chart, rank) in enumerate(zip(layout.charts, layout.ranks, strict=True)):
        if rank == 0:
            continue
        at = layout.block(k)
        spent = fit.lam[k] * (fit.inverse[at, at] * chart.roughness.to(lam)).sum()
        wanted = fit.s2 * p * (rank - spent)
        lam[k] = wanted.clamp_min(1e-8) / fit.rough[k].clamp_min(1e-12)
    return lam.clamp(LOWEST, HIGHEST)


def settled(before: Tensor, after: Tensor, tolerance: float = 1e-2) -> bool:
    """Whether no strength moved by more than a share."""
    return bool(((after - before).abs() <= tolerance * before).all())
