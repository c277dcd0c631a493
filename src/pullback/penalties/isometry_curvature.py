"""Curvature of the isometry penalty as block-diagonal plus low rank: exact, with ḡ shared by all rows.

With D_n = ∂g_n/∂t_n, w = [Σ_a ∂_c g_aa]/ν, b = Dᵀ vec g, h = Dᵀ vec Gref, a = Σ ‖g‖², e = Σ g:Gref and
X_n = D_nᵀD_n/ḡ² + Σ_ab A_ab ∂∂g_ab, all times μ:

    Gauss-Newton   blocks D_nᵀD_n/ḡ², core on (w, b): [[a/ḡ⁴, -1/ḡ³], [-1/ḡ³, 0]]
    Hessian        blocks X_n, core on (w, b, h): ww 3a/ḡ⁴ - 2e/ḡ³, wb -2/ḡ³, wh 1/ḡ², the rest 0
    Loewner        positive part of X_n, and of the core in an orthonormal basis of the factors
"""

from typing import Literal

import torch
from torch import Tensor

from pullback.linalg import positive_part
from pullback.penalties.block_low_rank import BlockPlusLowRank
from pullback.penalties.evidence import Evidence
from pullback.penalties.gauge import Gauge, changed_residual, changed_sensitivity
from pullback.penalties.jet_supply import explain_not_finite

CurvatureKind = Literal["gauss_newton", "hessian", "loewner"]


def hessian_product(at: Gauge, known: Evidence, v: Tensor) -> Tensor:
    """Exact Hessian of P/μ times v (n, d): Σ_ab ∂_c g_ab δA_ab + Σ_ab A_ab ∂_c ∂_e g_ab v_e."""
    D = known.derivative().to(at.metric)
    change = torch.einsum("nabc,nc->nab", D, v.to(D))
    turned = torch.einsum("nabc,nab->nc", D, changed_sensitivity(at, change))
    return turned.to(v) + known.along(at.sensitivity, v)


def gauss_newton_product(at: Gauge, known: Evidence, v: Tensor) -> Tensor:
    """DRᵀ DR v, the derivative of ḡ included."""
    D = known.derivative().to(at.metric)
    change = torch.einsum("nabc,nc->nab", D, v.to(D))
    residual = changed_residual(at, change)
    own = torch.einsum("nabc,nab->nc", D, residual) / at.mean
    shared = D.diagonal(dim1=1, dim2=2).sum(-1) / at.count
    return (own - shared * (at.metric * residual).sum() / at.mean.square()).to(v)


def assemble(
    at: Gauge, known: Evidence, reference: Tensor | None, strength: Tensor | float, kind: CurvatureKind
) -> BlockPlusLowRank:
    """The curvature of μ · (P/μ)."""
    D = known.derivative().to(at.metric)
    n, d = D.shape[:2]
    flat = D.reshape(n, d * d, d)
    blocks = flat.mT @ flat / at.mean.square()
    if kind != "gauss_newton":
        blocks = blocks + known.curvature(at.sensitivity).to(blocks)
        blocks = (blocks + blocks.mT) / 2
    if not bool(torch.isfinite(blocks.detach()).all()):
        explain_not_finite(None, known)
    factors, core = _low_rank(at, D, reference, kind == "gauss_newton")
    blocks, core = strength * blocks, strength * core
    if kind == "loewner":
        blocks = positive_part(blocks)
        factors, R = torch.linalg.qr(factors)
        core = positive_part(R @ core @ R.mT)
    parts = (part.to(known.metric.dtype) for part in (blocks, factors, core))
    return BlockPlusLowRank(*parts, definite=kind != "hessian")


def _low_rank(at: Gauge, D: Tensor, reference: Tensor | None, gauss_newton: bool) -> tuple[Tensor, Tensor]:
    """Factors and core in units where ḡ = 1, which keeps their sizes apart from the decoder's scale."""
    unit, mean = at.metric / at.mean, at.mean
    D = D / mean
    trace = D.diagonal(dim1=1, dim2=2).sum(-1).reshape(-1) / at.count
    radial = torch.einsum("nabc,nab->nc", D, unit).reshape(-1)
    square = unit.square().sum()
    if gauss_newton:
        return torch.stack([trace, radial], 1), _symmetric(2, {(0, 0): square, (0, 1): -1.0}, unit)
    if reference is None:
        return torch.stack([trace, radial], 1), _symmetric(2, {(0, 0): 3 * square, (0, 1): -2.0}, unit)
    wanted = reference.to(unit).expand_as(unit)
    towards = torch.einsum("nabc,nab->nc", D, wanted).reshape(-1)
    entries = {(0, 0): 3 * square - 2 * (unit * wanted).sum(), (0, 1): -2.0, (0, 2): 1.0}
    return torch.stack([trace, radial, towards], 1), _symmetric(3, entries, unit)


def _symmetric(k: int, entries: dict[tuple[int, int], Tensor | float], like: Tensor) -> Tensor:
    zero = like.new_zeros(())
    rows = [
        [torch.as_tensor(entries.get((min(i, j), max(i, j)), zero)).to(like) for j in range(k)]
        for i in range(k)
    ]
    return torch.stack([torch.stack(row) for row in rows])
