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
