"""Entropy of softmax assignments, row by row, in centred form.

With ln a = log_softmax(z/τ), h = -Σ a ln a and u_k = -(ln a_k + h), so that Σ a u = 0:

    ∂h/∂z_k = a_k u_k / τ
    H_kj = ∂²h/∂z_k∂z_j = a_k [δ_kj (u_k - 1) + a_j (1 - u_k - u_j)] / τ²

u is the mean of the shifted logits minus the logits, which keeps its digits on nearly one-hot rows. There all
derivatives are as small as the probability ρ of all atoms but the largest, so 1 - a never appears for that
atom (it is ρ, a sum), nor ln of a number near 1 (ln Σ e^x is log1p), and directions are taken relative to it
(H · 1 = 0). Functions here take ``scale`` = λ/τ², already divided.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 2**15
"""Entries that are worked on at a time."""
NEARLY_ONE_HOT = 1.1
"""Σ e^x below which a row counts as nearly one-hot: above, no more than a digit is lost."""


@dataclass(frozen=True, eq=False)
class Assignments:
    """Rows of assignments.

    Attributes:
        a: probabilities, (..., K).
        u: centred surprise -(ln a + h), (..., K); 0 where a = 0.
        largest: index of the largest atom, (..., 1).
        rest: ρ, the sum of the other probabilities, (..., 1).
    """

    a: Float[Tensor, "*n k"]
    u: Float[Tensor, "*n k"]
    largest: Int[Tensor, "*n 1"]
    rest: Float[Tensor, "*n 1"]

    @property
    def entropy(self) -> Float[Tensor, "*n"]:
        """h = -ln a - u of the largest atom, (...)."""
        odds = self.rest / self.a.gather(-1, self.largest)
        return (torch.log1p(odds) - self.u.gather(-1, self.largest)).squeeze(-1)

    @property
    def complement(self) -> Float[Tensor, "*n k"]:
        """1 - a, (..., K)."""
        return (1 - self.a).scatter(-1, self.largest, self.rest)


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
    largest = a.argmax(-1, keepdim=True)
    rest = a.scatter(-1, largest, 0.0).sum(-1, keepdim=True)
    return Assignments(a, torch.where(masked, 0.0, u) if shifted is not x else u, largest, rest)


def diagonal(at: Assignments) -> Float[Tensor, "*n k"]:
    """H_kk / scale = a_k [(1 - 2a_k) u_k - (1 - a_k)], (..., K)."""
    rest = at.complement
    return at.a * ((rest - at.a) * at.u - rest)


def dense_hessian(at: Assignments, scale: Tensor | float) -> Float[Tensor, "*n k k"]:
    """H, (..., K, K)."""
    u, a = at.u, at.a
    outer = a.unsqueeze(-1) * a.unsqueeze(-2) * (1 - u.unsqueeze(-1) - u.unsqueeze(-2))
    return scale * _with_diagonal(outer, diagonal(at))


def hessian_product(
    at: Assignments, v: Float[Tensor, "*n k"], scale: Tensor | float
) -> Float[Tensor, "*n k"]:
    """H v in O(K): scale · a [c (u - 1) + q] with c = v - a·v, q = -Σ a c u.

    v counts from its entry at the largest atom, so that c is -Σ a v over the others there.
    """
    v = v - v.gather(-1, at.largest)
    c = v - (at.a * v).sum(-1, keepdim=True)
    q = -(at.a * at.u * c).sum(-1, keepdim=True)
    return scale * at.a * (c * (at.u - 1) + q)


def low_rank_form(
    at: Assignments,
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k r"], Float[Tensor, "n r r"]]:
    """H / scale as diag(entries) + factors · core · factorsᵀ, O(K) a row.

    In exact arithmetic diag(a (u - 1)) + F [[1, -1], [-1, 0]] Fᵀ, F = [a, a⊙u], is the same with one factor
    less. On nearly one-hot rows that adds -1 and 1 at the largest atom t, where H_tt is of the size of
    ρ = Σ_{k≠t} a_k. So t stands apart, with H_tt itself among the entries, and e_t as a third factor carries
    its coupling H_tk = a_t a_k (1 - u_t - u_k) to the others: with b = a but 0 at t,

        F = [b/ρ, b⊙u/ρ, e_t]        core = [[ρ², -ρ², ρ a_t (1 - u_t)], [-ρ², 0, -ρ a_t], [.., .., 0]]
    """
    t, rest = at.largest, at.rest
    others = at.a.scatter(-1, t, 0.0)
    size = torch.where(rest > 0, rest, 1.0)
    share = others / size
    factors = torch.stack([share, share * at.u, torch.zeros_like(share).scatter(-1, t, 1.0)], -1)
    entries = (others * (at.u - 1)).scatter(-1, t, diagonal(at).gather(-1, t))
    square, zero, second = rest * rest, torch.zeros_like(rest), -rest * at.a.gather(-1, t)
    first = second * (at.u.gather(-1, t) - 1)
    rows = [square, -square, first, -square, zero, second, first, second, zero]
    return entries, factors, torch.cat(rows, -1).unflatten(-1, (3, 3))


def margin(at: Assignments) -> Float[Tensor, "*n k"]:
    """1 - 2a_k, with the digits of the two largest atoms where they are nearly alike."""
    if at.a.shape[-1] == 1:
        return -at.a
    pair = at.a.topk(2).indices
    top, second = at.u.gather(-1, pair).split(1, -1)
    lead = -at.a.gather(-1, pair[..., :1]) * torch.expm1(top - second)
    rest = at.a.scatter(-1, pair, 0.0).sum(-1, keepdim=True)
    return (1 - 2 * at.a).scatter(-1, pair, torch.cat([rest - lead, rest + lead], -1))


def _gaps(at: Assignments, w: int) -> tuple[Tensor, Tensor, Tensor]:
    """g_k = δ_kw - a_w, which is τ ∂ln a_k, (..., K); its sums over pairs k ≠ j, (..., K, K); 1 - 2a."""
    spread = margin(at)
    g = (-at.a[..., w : w + 1]).expand_as(at.a).clone()
    pairs = g.unsqueeze(-1) + g.unsqueeze(-2)
    pairs[..., w, :] = pairs[..., :, w] = spread[..., w : w + 1]
    g[..., w] = at.complement[..., w]
    return g, pairs, spread


def hessian_logit_derivative(at: Assignments, w: int, temperature: float, scale: Tensor | float) -> Tensor:
    """∂H/∂z_w, (..., K, K), with s = a_w u_w: the change of u is -(g + s)/τ, so that, times τ / scale,

    a_k a_j [(g_k + g_j)(2 - u_k - u_j) + 2s]                        for k ≠ j,
    a_k {g_k [(1 - 4a_k) u_k - 2 (1 - 2a_k)] - (1 - 2a_k) s}         on the diagonal.
    """
    a, u = at.a, at.u
    g, pairs, spread = _gaps(at, w)
    s = (a * u)[..., w : w + 1]
    outer = pairs * (2 - u.unsqueeze(-1) - u.unsqueeze(-2)) + 2 * s.unsqueeze(-1)
    own = a * (g * ((spread - 2 * a) * u - 2 * spread) - spread * s)
    return scale / temperature * _with_diagonal(a.unsqueeze(-1) * a.unsqueeze(-2) * outer, own)


def _with_diagonal(matrices: Float[Tensor, "*n k k"], diagonal: Float[Tensor, "*n k"]) -> Tensor:
    """Fresh matrices with another diagonal."""
    matrices.diagonal(dim1=-2, dim2=-1).copy_(diagonal)
    return matrices


def fisher_metric(at: Assignments, scale: Tensor | float) -> Float[Tensor, "*n k k"]:
    """G = scale (diag a - a aᵀ): positive semi-definite and smooth, but no majorizer of H."""
    a = at.a
    return scale * _with_diagonal(-a.unsqueeze(-1) * a.unsqueeze(-2), a * at.complement)


def fisher_logit_derivative(at: Assignments, w: int, temperature: float, scale: Tensor | float) -> Tensor:
    """∂G/∂z_w: times τ / scale, -a_k a_j (g_k + g_j), and a_k g_k (1 - 2a_k) on the diagonal."""
    a = at.a
    g, pairs, spread = _gaps(at, w)
    return scale / temperature * _with_diagonal(-a.unsqueeze(-1) * a.unsqueeze(-2) * pairs, a * g * spread)


def fused(
    logits: Float[Tensor, "n k"],
    v: Float[Tensor, "n k"] | None,
    temperature: float,
    first: float,
    second: float,
) -> tuple[float, Float[Tensor, "n k"], Float[Tensor, "n k"] | None]:
    """Σ h, first · a u, and second · (τ² Hessian of Σ h) v for finite logits (n, K), outside of any graph.

    Rows are worked on in blocks that stay in the cache, in place, with one exponential an entry. With x the
    logits minus their maximum, over τ, and m = Σ a x: u = m - x and h = ln Σ e^x - m. Nearly one-hot rows
    get ln Σ e^x and c at their largest atom from the other atoms.

    NaN in the sum says that a logit was not finite.
    """
    n, K = logits.shape
    rows = max(1, min(n, BLOCK // K))
    slope = torch.empty_like(logits)
    product = None if v is None else torch.empty_like(logits)
    work = logits.new_empty(3, rows, K)
    factors = temperature, first, second
    if rows == n:
        return _block(logits, v, factors, work, slope, product), slope, product
    total = 0.0
    for begin in range(0, n, rows):
        at = slice(begin, begin + rows)
        vector, out = (None, None) if v is None or product is None else (v[at], product[at])
        total += _block(logits[at], vector, factors, work[:, : n - begin], slope[at], out)
    return total, slope, product


def _block(
    z: Tensor,
    v: Tensor | None,
    factors: tuple[float, float, float],
    work: Tensor,
    slope: Tensor,
    product: Tensor | None,
) -> float:
    """Σ h of rows; gradient and product are written to where they belong."""
    temperature, first, second = factors
    x, a, scratch = work.unbind()
    torch.sub(z, z.amax(1, keepdim=True), out=x)
    if temperature != 1:
        x.div_(temperature)
    torch.exp(x, out=a)
    total = a.sum(1, keepdim=True)
    a.mul_(total.reciprocal())
    near = _one_hot_rows(a, total)
    mean = torch.mul(a, x, out=scratch).sum(1, keepdim=True)
    total.log_()
    if near is not None:
        total.index_copy_(0, near.rows, near.rest.neg().log1p_().neg_())
    value = float(total.sub_(mean).sum())
    u = torch.sub(mean, x, out=x)
    torch.mul(a, u, out=slope)
    if v is not None and product is not None:
        c = torch.sub(v, torch.mul(a, v, out=scratch).sum(1, keepdim=True), out=u)
        if near is not None:
            near.centre(c, v)
        q = torch.mul(slope, c, out=product).sum(1, keepdim=True)
        # a [c (u - 1) - q]
        product.addcmul_(a, c.add_(q), value=-1)
        if second != 1:
            product.mul_(second)
    if first != 1:
        slope.mul_(first)
    return value


@dataclass(frozen=True, eq=False)
class _OneHotRows:
    """Rows of a block whose largest probability is near 1.

    Attributes:
        rows: their numbers.
        largest: their largest atom, (m, 1).
        others: their probabilities, 0 at the largest atom.
        rest: Σ of these, (m, 1).
    """

    rows: Tensor
    largest: Tensor
    others: Tensor
    rest: Tensor

    def centre(self, c: Tensor, v: Tensor) -> None:
        """Set c = v - a·v at the largest atom."""
        own = v.index_select(0, self.rows)
        ahead = (own.gather(1, self.largest) - own).mul_(self.others).sum(1)
        c.view(-1).index_copy_(0, self.largest.squeeze(1) + self.rows * c.shape[1], ahead)


def _one_hot_rows(a: Tensor, total: Tensor) -> _OneHotRows | None:
    if float(total.amin()) >= NEARLY_ONE_HOT:
        return None
    rows = (total.squeeze(1) < NEARLY_ONE_HOT).nonzero().squeeze(1)
    others = a.index_select(0, rows)
    largest = others.max(1, keepdim=True).indices
    others.scatter_(1, largest, 0.0)
    return _OneHotRows(rows, largest, others, others.sum(1, keepdim=True))
