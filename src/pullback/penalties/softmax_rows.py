"""Entropy of softmax assignments, row by row, in centred form.

With ln a = log_softmax(z/τ), h = -Σ a ln a and u_k = -(ln a_k + h), so that Σ a u = 0:

    ∂h/∂z_k = a_k u_k / τ
    H_kj = ∂²h/∂z_k∂z_j = a_k [δ_kj (u_k - 1) + a_j (1 - u_k - u_j)] / τ²

u is the mean of the shifted logits minus the logits, which keeps its digits on nearly one-hot rows. Functions
here take ``scale`` = λ/τ², already divided.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 2**15
"""Entries that are worked on at a time."""


@dataclass(frozen=True, eq=False)
class Assignments:
    """Rows of assignments.

    Attributes:
        a: probabilities, (..., K).
        u: centred surprise -(ln a + h), (..., K); 0 where a = 0.
        entropy: h, (...).
    """

    a: Float[Tensor, "*n k"]
    u: Float[Tensor, "*n k"]
    entropy: Float[Tensor, "*n"]


def check_logits(logits: Tensor) -> bool:
    """Whether all logits are finite; atoms at -inf are masked and allowed.

    Raises:
        ValueError: NaN or +inf, or a row of -inf only, naming the row.
    """
    if bool(torch.isfinite(logits).all()):
        return True
    rows = logits.reshape(-1, logits.shape[-1])
    bad = (torch.isnan(rows) | torch.isposinf(rows)).any(1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(f"logits: expected finite numbers or -inf, got NaN or +inf in row {row}")
    empty = torch.isneginf(rows).all(1)
    if bool(empty.any()):
        raise ValueError(
            f"logits: expected at least one atom, got -inf only in row {int(empty.nonzero()[0])}"
        )
    return False


def assign(logits: Float[Tensor, "*n k"], temperature: float) -> Assignments:
    """Assignments of checked logits (..., K), differentiable."""
    x = (logits - logits.detach().amax(-1, keepdim=True)) / temperature
    masked = torch.isneginf(x.detach())
    shifted = torch.where(masked, 0.0, x) if bool(masked.any()) else x
    a = torch.softmax(x, -1)
    mean = (a * shifted).sum(-1, keepdim=True)
    u = mean - shifted
    entropy = torch.logsumexp(x, -1) - mean.squeeze(-1)
    return Assignments(a, torch.where(masked, 0.0, u) if shifted is not x else u, entropy)


def complement(a: Float[Tensor, "*n k"]) -> Float[Tensor, "*n k"]:
    """1 - a_k as a sum of the others where a_k is near 1."""
    top = a.argmax(-1, keepdim=True)
    others = a.scatter(-1, top, 0.0).sum(-1, keepdim=True)
    return (1 - a).scatter(-1, top, others)


def diagonal(at: Assignments) -> Float[Tensor, "*n k"]:
    """H_kk / scale = a_k [(1 - 2a_k) u_k - (1 - a_k)], (..., K)."""
    rest = complement(at.a)
    return at.a * ((rest - at.a) * at.u - rest)


def dense_hessian(at: Assignments, scale: Tensor | float) -> Float[Tensor, "*n k k"]:
    """H, (..., K, K)."""
    u, a = at.u, at.a
    outer = a.unsqueeze(-1) * a.unsqueeze(-2) * (1 - u.unsqueeze(-1) - u.unsqueeze(-2))
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    return scale * (outer * (1 - eye) + torch.diag_embed(diagonal(at)))


def hessian_product(
    at: Assignments, v: Float[Tensor, "*n k"], scale: Tensor | float
) -> Float[Tensor, "*n k"]:
    """H v in O(K): scale · a [c (u - 1) + q] with c = v - a·v, q = -Σ a c u."""
    c = v - (at.a * v).sum(-1, keepdim=True)
    q = -(at.a * at.u * c).sum(-1, keepdim=True)
    return scale * at.a * (c * (at.u - 1) + q)


def logit_derivatives(at: Assignments, w: int, temperature: float) -> tuple[Tensor, Tensor]:
    """∂a and ∂u by the logit z_w."""
    aw, uw = at.a[..., w : w + 1], at.u[..., w : w + 1]
    gap = (-aw).expand_as(at.a).clone()
    gap[..., w] = complement(at.a)[..., w]
    return at.a * gap / temperature, -(gap + aw * uw) / temperature


def hessian_logit_derivative(at: Assignments, w: int, temperature: float, scale: Tensor | float) -> Tensor:
    """∂H/∂z_w, (..., K, K)."""
    da, du = logit_derivatives(at, w, temperature)
    a, u = at.a, at.u
    pair = 1 - u.unsqueeze(-1) - u.unsqueeze(-2)
    change = da.unsqueeze(-1) * a.unsqueeze(-2) + a.unsqueeze(-1) * da.unsqueeze(-2)
    outer = change * pair - a.unsqueeze(-1) * a.unsqueeze(-2) * (du.unsqueeze(-1) + du.unsqueeze(-2))
    return scale * (outer + torch.diag_embed(da * (u - 1) + a * du))


def fisher_metric(at: Assignments, scale: Tensor | float) -> Float[Tensor, "*n k k"]:
    """G = scale (diag a - a aᵀ): positive semi-definite and smooth, but no majorizer of H."""
    return scale * (torch.diag_embed(at.a) - at.a.unsqueeze(-1) * at.a.unsqueeze(-2))


def fisher_logit_derivative(at: Assignments, w: int, temperature: float, scale: Tensor | float) -> Tensor:
    """∂G/∂z_w."""
    da, _ = logit_derivatives(at, w, temperature)
    a = at.a
    change = da.unsqueeze(-1) * a.unsqueeze(-2) + a.unsqueeze(-1) * da.unsqueeze(-2)
    return scale * (torch.diag_embed(da) - change)


def fused(
    logits: Float[Tensor, "n k"],
    v: Float[Tensor, "n k"] | None,
    temperature: float,
    first: float,
    second: float,
) -> tuple[float, Float[Tensor, "n k"], Float[Tensor, "n k"] | None]:
    """Σ h, first · a u, and second · (τ² Hessian of Σ h) v for finite logits (n, K), outside of any graph.

    Rows are worked on in blocks that stay in the cache, in place, with one exponential an entry. With x the
    logits minus their maximum, over τ, and m = Σ a x: u = m - x and h = ln Σ e^x - m.

    NaN in the sum says that a logit was not finite.
    """
    n, K = logits.shape
    if n * K <= BLOCK:
        total, slope, product = _block(logits, v, temperature, None, None)
    else:
        slope = torch.empty_like(logits)
        product = None if v is None else torch.empty_like(logits)
        rows, total = max(1, BLOCK // K), 0.0
        for begin in range(0, n, rows):
            at = slice(begin, begin + rows)
            part = None if v is None else v[at]
            out = None if product is None else product[at]
            total += _block(logits[at], part, temperature, slope[at], out)[0]
    if first != 1:
        slope.mul_(first)
    if product is not None and second != 1:
        product.mul_(second)
    return total, slope, product


def _block(
    z: Tensor, v: Tensor | None, temperature: float, slope: Tensor | None, product: Tensor | None
) -> tuple[float, Tensor, Tensor | None]:
    x = z - z.amax(1, keepdim=True)
    if temperature != 1:
        x.mul_(1 / temperature)
    a = x.exp()
    total = a.sum(1, keepdim=True)
    a.div_(total)
    mean = torch.linalg.vecdot(a, x).unsqueeze(1)
    value = float(total.log_().sub_(mean).sum())
    u = torch.sub(mean, x, out=x)
    slope = torch.mul(a, u, out=slope)
    if v is None:
        return value, slope, None
    c = torch.sub(v, torch.linalg.vecdot(a, v).unsqueeze(1), out=u)
    q = torch.linalg.vecdot(slope, c).unsqueeze(1)
    # a [c (u - 1) + q'] with q' = -Σ a u c = -q
    product = torch.add(c, q, out=product).mul_(a).neg_()
    return value, slope, product.addcmul_(slope, c)
