"""Derivatives of g = Jᵀ W J where W is diagonal and changes with the decoder's output, pair by pair.

With weights w_i(z) = w_i(f(z)), S_abc = Σ_i w_i H_iac J_ib and the index i left out,

    ∂_c g_ab    = S_abc + S_bac + w_c J_a J_b
    ∂_c∂_e g_ab = w (K_ace J_b + J_a K_bce + H_ac H_be + H_ae H_bc)
                + w_e (H_ac J_b + J_a H_bc) + w_c (H_ae J_b + J_a H_be) + w_ce J_a J_b
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.ambient import Paired
from pullback.ambient.learned import Partials
from pullback.jets.jet import derivatives
from pullback.metrics.chunks import by_chunks
from pullback.metrics.embedded import Points, points_at_once
from pullback.typing import Map


def first_derivative(decoder: Map, ambient: Paired, z: Points) -> Float[Tensor, "n d d d"]:
    """∂_c g_ab as [n, a, b, c]."""
    d = z.shape[1]
    size = points_at_once(decoder, z, 1 + d + d * d)
    return by_chunks(lambda part: _first(decoder, ambient, part), z, size, decoder)


def second_derivative(decoder: Map, ambient: Paired, z: Points) -> Float[Tensor, "n d d d d"]:
    """∂_c∂_e g_ab as [n, a, b, c, e]."""
    d = z.shape[1]
    size = points_at_once(decoder, z, 1 + d + 2 * d * d + d**3)
    return by_chunks(lambda part: _second(decoder, ambient, part), z, size, decoder)


def _first(decoder: Map, ambient: Paired, z: Tensor) -> Tensor:
    y, J, H = derivatives(decoder, z, 2)
    w, slope, _ = _weights(ambient, y, J, None)
    S = torch.einsum("ni,niac,nib->nabc", w, H, J)
    return S + S.transpose(1, 2) + torch.einsum("nic,nia,nib->nabc", slope, J, J)


def _second(decoder: Map, ambient: Paired, z: Tensor) -> Tensor:
    y, J, H, K = derivatives(decoder, z, 3)
    w, slope, bend = _weights(ambient, y, J, H)
    weighted = w.unsqueeze(-1) * J
    third = torch.einsum("niace,nib->nabce", K, weighted)
    across = torch.einsum("ni,niac,nibe->nabce", w, H, H)
    steep = torch.einsum("nie,niac,nib->nabce", slope, H, J)
    steep = steep + steep.transpose(1, 2)
    curved = torch.einsum("nice,nia,nib->nabce", bend, J, J)
    return (
        third
        + third.transpose(1, 2)
        + across
        + across.transpose(3, 4)
        + steep
        + steep.transpose(3, 4)
        + curved
    )


def _weights(ambient: Paired, y: Tensor, J: Tensor, H: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (n, p) and their latent derivatives (n, p, d), (n, p, d, d); the last zero without ``H``."""
    order = 1 if H is None else 2
    halves = ambient.weights(y, order)
    first = J.chunk(2, dim=1)
    second = (None, None) if H is None else H.chunk(2, dim=1)
    on_u, on_v = (_chain(half, first, second) for half in halves)
    w, slope, bend = (torch.cat(pair, dim=1) for pair in zip(on_u, on_v, strict=True))
    return w, slope, bend


def _chain(w: Partials, J: tuple[Tensor, ...], H: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """A function of (u, v) along the latent space, by the chain rule."""
    wide = [part.unsqueeze(-1) for part in w]
    slope = wide[1] * J[0] + wide[2] * J[1]
    if H[0] is None or H[1] is None:
        return w[0], slope, torch.zeros_like(slope)
    _, w_u, w_v, w_uu, w_uv, w_vv = (part.unsqueeze(-1) for part in wide)
    uu, uv, vv = (a.unsqueeze(-1) * b.unsqueeze(-2) for a, b in ((J[0], J[0]), (J[0], J[1]), (J[1], J[1])))
    bend = w_uu * uu + w_uv * (uv + uv.mT) + w_vv * vv + w_u * H[0] + w_v * H[1]
    return w[0], slope, bend
