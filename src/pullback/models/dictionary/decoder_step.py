"""The best decoders for given codes: one ridge regression for all outputs.

X (n, M_tot) has the block a_k Φ_k(t_k) for every atom. A = XᵀX + blockdiag(λ_k S_k) + ρ I and B = A⁻¹ XᵀZ, in
float64, from moments that add up over batches.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.layout import Layout, Places

DENSE_UP_TO = 512
"""Basis functions up to which rows of X are laid out in full."""
ENTRIES = 2**23
"""Numbers that a chunk of rows may hold."""
RETRIES = 3
USED = 0.05
"""Share of a row's largest weight above which an atom counts as used in the softmax gate."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over rows that decoders are solved from.

    Attributes:
        XX: Σ w x xᵀ, (M_tot, M_tot).
        XZ: Σ w x zᵀ, (M_tot, p).
        ZZ: Σ w |z|².
        rows: Σ w.
        latents: Σ w over active atoms of d_k, and of 1 more where the weight is free.
    """

    XX: Float[Tensor, "k k"]
    XZ: Float[Tensor, "k p"]
    ZZ: Float[Tensor, ""]
    rows: float
    latents: float

    def plus(self, other: "Moments", keep: float = 1.0) -> "Moments":
        """These sums times ``keep``, and the others."""
        return Moments(
            keep * self.XX + other.XX,
            keep * self.XZ + other.XZ,
            keep * self.ZZ + other.ZZ,
            keep * self.rows + other.rows,
            keep * self.latents + other.latents,
        )


def gather(
    layout: Layout,
    codes: Codes,
    Z: Float[Tensor, "n p"],
    row_weights: Float[Tensor, " n"] | None = None,
    *,
    free_weights: bool = True,
) -> Moments:
    """Moments of rows, some of them at a time.

    Args:
        layout: of the atoms.
        codes: of the rows.
        Z: rows, (n, p).
        row_weights: w, (n,); None for 1.
        free_weights: whether weights were estimated and count as latents.
    """
    total, m = layout.total, codes.atoms.shape[1]
    dense = total <= DENSE_UP_TO
    wide = total if dense else (m * layout.widths[0]) ** 2
    size = max(1, ENTRIES // max(wide, Z.shape[1]))
    XX = torch.zeros(total, total, dtype=torch.float64, device=Z.device)
    XZ = XX.new_zeros(total, Z.shape[1])
    ZZ, rows, latents = XX.new_zeros(()), 0.0, 0.0
    for begin in range(0, len(Z), size):
        at = slice(begin, begin + size)
        part, z = codes.rows(at), Z[at].double()
        w = None if row_weights is None else row_weights[at].double()
        X = design(layout, part) if dense else _sparse_design(layout, part)
        wz = z if w is None else w.unsqueeze(1) * z
        XZ += X.mT @ wz
        if dense:
            XX.addmm_(X.mT, X if w is None else w.unsqueeze(1) * X)
        else:
            _add_products(XX, layout, part, w)
        ZZ += (wz * z).sum()
        count = _latents(layout, part, free_weights)
        rows += float(len(z) if w is None else w.sum())
        latents += float(count.sum() if w is None else count @ w)
    return Moments(XX, XZ, ZZ, rows, latents)


def _latents(layout: Layout, codes: Codes, free_weights: bool) -> Tensor:
    dims = layout.dims.to(codes.atoms.device).double()[codes.atoms.clamp_min(0)]
    if codes.logits is not None:
        # weights add up to 1; atoms of no weight have coordinates that the data do not see
        used = codes.weights > USED * codes.weights.amax(1, keepdim=True)
        return ((dims + 1) * used).sum(1) - 1
    return ((dims + float(free_weights)) * (codes.atoms >= 0)).sum(1)


def design(layout: Layout, codes: Codes) -> Float[Tensor, "n k"]:
    """X, (n, M_tot)."""
    value = _weighted_basis(layout, codes)
    if codes.logits is not None:
        return value.flatten(1)[:, layout.real.to(value.device).flatten()]
    columns = Places.of(layout, codes.atoms).columns()
    X = value.new_zeros(len(codes), layout.total)
    # padding adds zeros to column 0
    return X.scatter_add_(1, columns, value.flatten(1))


def _weighted_basis(layout: Layout, codes: Codes) -> Tensor:
    value = Places.of(layout, codes.atoms).values(codes.coords.double())
    return value * codes.weights.double().unsqueeze(2)


def _sparse_design(layout: Layout, codes: Codes) -> Tensor:
    value = _weighted_basis(layout, codes).flatten(1)
    columns = Places.of(layout, codes.atoms).columns()
    rows = torch.arange(len(codes), device=columns.device).unsqueeze(1).expand_as(columns)
    kept = value != 0
    places = torch.stack([rows[kept], columns[kept]])
    return torch.sparse_coo_tensor(places, value[kept], (len(codes), layout.total), check_invariants=False)


def _add_products(XX: Tensor, layout: Layout, codes: Codes, w: Tensor | None) -> None:
    value = _weighted_basis(layout, codes).flatten(1)
    columns = Places.of(layout, codes.atoms).columns()
    left = value if w is None else w.unsqueeze(1) * value
    places = columns.unsqueeze(2) * layout.total + columns.unsqueeze(1)
    XX.view(-1).index_add_(0, places.flatten(), (left.unsqueeze(2) * value.unsqueeze(1)).flatten())


@dataclass(frozen=True, eq=False)
class DecoderFit:
    """Decoders and what their regression says.

    Attributes:
        B: (M_tot, p).
        A: XᵀX + blockdiag(λ_k S_k) + ρ I.
        factor: lower Cholesky factor of A.
        lam: λ, (K,).
        rho: ρ, larger than asked where A needed it.
        edf: tr(A⁻¹ XᵀX).
        rss: Σ w |z - ẑ|².
        s2: rss / (n p - p edf - latents).
        rough: tr(B_kᵀ S_k B_k) of every atom, (K,).
        retries: how often ρ was raised.
    """

    B: Float[Tensor, "k p"]
    A: Float[Tensor, "k k"]
    factor: Float[Tensor, "k k"]
    lam: Float[Tensor, " a"]
    rho: float
    edf: float
    rss: float
    s2: float
    rough: Float[Tensor, " a"]
    retries: int

    @cached_property
    def inverse(self) -> Float[Tensor, "k k"]:
        """A⁻¹."""
        return torch.cholesky_inverse(self.factor)

    def holding(self, layout: Layout, B: Float[Tensor, "k p"], moments: "Moments") -> "DecoderFit":
        """The same regression with other decoders: their misfit and noise level."""
        rss = _misfit(moments, B)
        s2 = self.s2 * rss / self.rss if self.rss > 0 else 0.0
        return replace(self, B=B, rss=rss, s2=s2, rough=rough_sums(layout, B))

    @property
    def penalty(self) -> float:
        """½ [Σ λ_k tr(B_kᵀ S_k B_k) + ρ |B|²]."""
        return float(self.lam @ self.rough + self.rho * self.B.square().sum()) / 2


class NotDefiniteError(ArithmeticError):
    """A has no Cholesky factor, whatever ridge was tried."""


def solve(layout: Layout, moments: Moments, lam: Float[Tensor, " k"], rho: float) -> DecoderFit:
    """Decoders from moments, and the noise level.

    Args:
        layout: of the atoms.
        moments: of the rows.
        lam: smoothing strength of every atom, (K,).
        rho: ridge; times 10 up to three times if A has no Cholesky factor.
    Raises:
        NotDefiniteError: none of these helped.
    """
    p = moments.XZ.shape[1]
    smooth = layout.roughness(lam)
    eye = torch.eye(layout.total, dtype=smooth.dtype, device=smooth.device)
    for retries in range(RETRIES + 1):
        ridge = rho * 10**retries
        A = moments.XX + smooth + ridge * eye
        factor, failed = torch.linalg.cholesky_ex(A)
        if int(failed) == 0 and bool(torch.isfinite(factor).all()):
            break
    else:
        raise NotDefiniteError(f"no Cholesky factor with a ridge up to {ridge:.3g}")
    B = torch.cholesky_solve(moments.XZ, factor)
    trace = (torch.cholesky_inverse(factor) * moments.XX).sum() if layout.total else moments.ZZ.new_zeros(())
    rss = _misfit(moments, B)
    left = moments.rows * p - p * float(trace) - moments.latents
    rough = rough_sums(layout, B)
    return DecoderFit(B, A, factor, lam, ridge, float(trace), rss, rss / max(left, 1.0), rough, retries)


def _misfit(moments: Moments, B: Tensor) -> float:
    """Σ w |z - X B|² from moments, never below their rounding."""
    rss = moments.ZZ - 2 * (B * moments.XZ).sum() + (B * (moments.XX @ B)).sum()
    return max(float(rss), torch.finfo(torch.float64).eps * float(moments.ZZ))


def rough_sums(layout: Layout, B: Tensor) -> Tensor:
    """tr(B_kᵀ S_k B_k) of every atom."""
    blocks = ((B[layout.block(k)], chart.roughness.to(B)) for k, chart in enumerate(layout.charts))
    return torch.stack([(block * (S @ block)).sum() for block, S in blocks])


def unit_atoms(layout: Layout, B: Float[Tensor, "k p"]) -> Float[Tensor, " a"]:
    """Root mean square of |g_k| over the grid of every atom, (K,); 1 where an atom is zero."""
    gram = B @ B.mT
    sizes = B.new_ones(layout.K)
    for (_, basis), (_, atoms) in zip(layout.grids(B), layout.kinds, strict=True):
        second = basis.mT @ basis / len(basis)
        for k in atoms:
            at = layout.block(k)
            square = (gram[at, at] * second).sum()
            sizes[k] = torch.where(square > 0, square, 1.0).sqrt()
    return sizes
