"""Codes that carry the derivative of the encoder, by the implicit function theorem.

At a stationary code c of a row, ∂F/∂c = 0 holds along every change of z and B, so that

    dc = -(∂²F/∂c²)⁻¹ d(∂F/∂c)        ∂²F/∂c² = J Jᵀ - Σ r ∂²ẑ/∂c² (+ that of the entropy), undamped.

The code that is returned is c moved by -(∂²F/∂c²)⁻¹ ∂F/∂c with the matrix held: nothing at a stationary code,
but with exactly that derivative.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.layout import Layout, Places
from pullback.models.dictionary.row_step import local_products
from pullback.penalties.softmax_rows import assign, dense_hessian

JITTER = 1e-10
END = 1 - 1e-9
"""|t| from which a coordinate of an interval or plane rests on its end and has no derivative."""


def _resting(layout: Layout, codes: Codes, moving: Tensor) -> Tensor:
    """Which tangents are held at an end."""
    held = torch.zeros_like(moving)
    for k, chart in enumerate(layout.charts):
        if chart.name in ("interval", "plane"):
            row, slot = (codes.atoms == k).nonzero(as_tuple=True)
            held[row, slot, : chart.d] = codes.coords[row, slot, : chart.d].abs() >= END
    return held


def _solved(H: Tensor, slope: Tensor, free: Tensor) -> Tensor:
    """-H⁻¹ slope on the free variables, H held."""
    both = free.unsqueeze(2) & free.unsqueeze(1)
    H = torch.where(both, H.detach(), 0.0)
    size = H.diagonal(dim1=1, dim2=2).abs().amax(1, keepdim=True).clamp_min(1e-300)
    H.diagonal(dim1=1, dim2=2).add_(torch.where(free, JITTER * size, 1.0))
    return -torch.linalg.solve(H, torch.where(free, slope, 0.0).unsqueeze(2)).squeeze(2)


def implicit_amplitudes(
    layout: Layout, Z: Float[Tensor, "n p"], B: Float[Tensor, "k p"], codes: Codes
) -> Codes:
    """Amplitude codes, differentiable in Z and B; which atoms are open is held.

    Args:
        layout: of the atoms.
        Z: rows, (n, p).
        B: decoders, (M_tot, p).
        codes: stationary codes of the rows.
    """
    places = Places.of(layout, codes.atoms)
    (n, m), (_, d, _) = codes.atoms.shape, layout.widths
    columns = places.columns()
    C, G = Z @ B.mT, B @ B.mT
    local = C.gather(1, columns).view(n, m, -1)
    table = G[columns.unsqueeze(2), columns.unsqueeze(1)]
    a, t = codes.weights.detach().to(B), codes.coords.detach().to(B)
    rows = places.basis(t)
    u = (a.unsqueeze(2) * rows[:, :, 0]).flatten(1)
    residual = local - (table @ u.unsqueeze(2)).view_as(local)
    tangents = torch.cat([rows[:, :, :1], rows[:, :, 1:] * a[:, :, None, None]], 2)
    slope = -(tangents @ residual.unsqueeze(3)).squeeze(3)
    with torch.no_grad():
        H = local_products(tangents, table).view(n, m, 1 + d, m, 1 + d)
        own = H.diagonal(dim1=1, dim2=3)  # (n, 1 + d, 1 + d, m)
        cross = (rows[:, :, 1:] @ residual.unsqueeze(3)).squeeze(3).transpose(1, 2)
        own[:, 0, 1:] -= cross
        own[:, 1:, 0] -= cross
        own[:, 1:, 1:] -= _bends(layout, codes, t, residual, a).permute(0, 2, 3, 1)
        moving = places.moving()
        free = torch.cat([(codes.atoms >= 0).unsqueeze(2), moving & ~_resting(layout, codes, moving)], 2)
    move = _solved(H.reshape(n, m * (1 + d), -1), slope.flatten(1), free.flatten(1)).view(n, m, 1 + d)
    return Codes(codes.atoms, a + move[:, :, 0], places.retract(t, move[:, :, 1:]))


def _bends(layout: Layout, codes: Codes, t: Tensor, residual: Tensor, a: Tensor) -> Tensor:
    """a r·∂²g of every slot, (n, m, d_max, d_max), from residual correlations with the basis."""
    n, m = codes.atoms.shape
    d = layout.widths[1]
    bends = t.new_zeros(n, m, d, d)
    for chart, atoms in layout.kinds:
        if chart.d == 0:
            continue
        row, slot = torch.isin(codes.atoms, torch.tensor(atoms, device=t.device)).nonzero(as_tuple=True)
        known = chart.jet(t[row, slot, : chart.c], 2).hessian
        bent = torch.einsum("nkab,nk->nab", known, residual[row, slot, : chart.M])
        bends[row, slot, : chart.d, : chart.d] = a[row, slot, None, None] * bent
    return bends


def implicit_softmax(
    layout: Layout,
    Z: Float[Tensor, "n p"],
    B: Float[Tensor, "k p"],
    codes: Codes,
    *,
    tau: float,
    entropy: float,
) -> Codes:
    """Softmax codes, differentiable in Z and B.

    Args:
        layout: of the atoms.
        Z: rows, (n, p).
        B: decoders, (M_tot, p).
        codes: stationary codes of the rows.
        tau: temperature.
        entropy: λ_H.
    """
    assert codes.logits is not None
    places = Places.of(layout, codes.atoms)
    n, K = codes.atoms.shape
    d = layout.widths[1]
    t, logits = codes.coords.detach().to(B), codes.logits.detach().to(B)
    basis = places.basis(t)
    curves = torch.einsum("nkem,kmp->nkep", basis, layout.padded(B))
    at = assign(logits, tau)
    g, D = curves[:, :, 0], curves[:, :, 1:]
    fitted = (at.a.unsqueeze(2) * g).sum(1)
    r = Z - fitted
    apart = g - fitted.unsqueeze(1)
    J = torch.cat([(at.a / tau).unsqueeze(2) * apart, (at.a[:, :, None, None] * D).flatten(1, 2)], 1)
    slope = -(J @ r.unsqueeze(2)).squeeze(2)
    slope = torch.cat([slope[:, :K] + (entropy / tau) * at.a * at.u, slope[:, K:]], 1)
    with torch.no_grad():
        H = J @ J.mT
        a = at.a
        along = (apart @ r.unsqueeze(2)).squeeze(2)
        pairs = -a.unsqueeze(2) * a.unsqueeze(1) * (along.unsqueeze(2) + along.unsqueeze(1))
        H[:, :K, :K] -= (torch.diag_embed(a * along) + pairs) / tau**2
        H[:, :K, :K] += dense_hessian(at, entropy / tau**2)
        # all logits together change nothing
        H[:, :K, :K] += 1.0 / K
        slide = (D @ r[:, None, :, None]).squeeze(3) * a.unsqueeze(2)
        share = torch.eye(K, dtype=a.dtype, device=a.device) - a.unsqueeze(2)
        cross = (share.unsqueeze(3) * slide.unsqueeze(1) / tau).flatten(2)
        H[:, :K, K:] -= cross
        H[:, K:, :K] -= cross.mT
        padded = layout.padded(B) @ r.mT  # (K, M, n)
        bends = _bends(layout, codes, t, padded.permute(2, 0, 1), a)
        H[:, K:, K:].view(n, K, d, K, d).diagonal(dim1=1, dim2=3).sub_(bends.permute(0, 2, 3, 1))
        moving = places.moving()
        moving = moving & ~_resting(layout, codes, moving) & (a > 1e-12).unsqueeze(2)
        free = torch.cat([torch.ones(n, K, dtype=torch.bool, device=B.device), moving.flatten(1)], 1)
    move = _solved(H, slope, free)
    coords = places.retract(t, move[:, K:].view(n, K, d))
    return Codes.softmax(logits + move[:, :K], coords, tau)
