"""Value, gradient and Hessian product of the softmax entropy in one pass, outside of any graph.

The formulas are those of `pullback.penalties.softmax_rows`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 2**15
"""Entries that are worked on at a time."""
NEARLY_ONE_HOT = 1.1
"""Σ e^x below which a row counts as nearly one-hot: above, no more than a digit is lost."""


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
