"""Value, gradient and Hessian product of the softmax entropy in one pass, outside of any graph.

The formulas are those of `pullback.penalties.softmax_rows`.
"""

from dataclasses import dataclass
from functools import lru_cache

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
    scale: float,
) -> tuple[float, Float[Tensor, "n k"], Float[Tensor, "n k"] | None]:
    """Σ h, and scale times its gradient and Hessian product, for finite logits (n, K), outside of any graph.

    Rows are worked on in blocks that stay in the cache, in place, with one exponential an entry. With x the
    logits minus their maximum, over τ, and m = Σ a x: u = m - x and h = ln Σ e^x - m. Nearly one-hot rows
    get ln Σ e^x and c at their largest atom from the other atoms.

    NaN in the sum says that a logit was not finite.
    """
    n, K = logits.shape
    ones = _ones(K, logits.dtype)
    factors = temperature, scale / temperature
    rows = max(1, BLOCK // K)
    if rows >= n:
        return _block(logits, v, factors, ones, _NOWHERE)
    slope = torch.empty_like(logits)
    product = None if v is None else torch.empty_like(logits)
    x, a, scratch = logits.new_empty(3, rows, K).unbind()
    total = 0.0
    for begin in range(0, n, rows):
        at, size = slice(begin, begin + rows), min(rows, n - begin)
        vector, out = (None, None) if v is None or product is None else (v[at], product[at])
        places = x[:size], a[:size], scratch[:size], slope[at], out
        total += _block(logits[at], vector, factors, ones, places)[0]
    return total, slope, product


@lru_cache(maxsize=16)
def _ones(K: int, dtype: torch.dtype) -> Tensor:
    return torch.ones(K, 1, dtype=dtype)


Places = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]
_NOWHERE: Places = (None, None, None, None, None)


def _block(
    z: Tensor, v: Tensor | None, factors: tuple[float, float], ones: Tensor, places: Places
) -> tuple[float, Tensor, Tensor | None]:
    """Σ h of rows, gradient and product.

    Args:
        ones: (K, 1): a product with it sums rows in half of the time of ``sum``, where they are short.
        places: where x, a, a scratch, the gradient and the product are written to; None for new memory.
    """
    temperature, first = factors
    at_x, at_a, scratch, at_slope, at_product = places
    x = torch.sub(z, z.amax(1, keepdim=True), out=at_x)
    if temperature != 1:
        x.div_(temperature)
    a = torch.exp(x, out=at_a)
    total = a.mm(ones)
    a.div_(total)
    near = _one_hot_rows(a, total)
    weighted = torch.mul(a, x, out=x)
    mean = weighted.mm(ones)
    # of the two ways to a (m - x) the one of fewer passes; its sign goes into the last factor
    slope = torch.addcmul(weighted, a, mean, value=-1, out=at_slope)
    total.log_()
    if near is not None:
        total.index_copy_(0, near.rows, near.rest.neg().log1p_().neg_())
    value = float(total.sub_(mean).sum())
    product = None
    if v is not None:
        c = torch.sub(v, torch.mul(a, v, out=scratch).mm(ones), out=x)
        if near is not None:
            near.centre(c, v)
        product = torch.mul(slope, c, out=at_product)
        # a [c (u - 1) - q], u = m - x
        product.addcmul_(a, c.sub_(product.mm(ones))).mul_(-first / temperature)
    slope.mul_(-first)
    return value, slope, product


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
