"""Value, gradient and Hessian product of a softmax entropy in few passes, outside of any graph.

Rows are worked on in blocks that stay in the cache, in place, with one exponential an entry. With x the
logits minus their maximum, over τ, and m = Σ a x: u = m - x and h = ln Σ e^x - m.
"""

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 2**15
"""Entries that are worked on at a time."""


def fused(
    logits: Float[Tensor, "n k"],
    v: Float[Tensor, "n k"] | None,
    temperature: float,
    first: float,
    second: float,
) -> tuple[float, Float[Tensor, "n k"], Float[Tensor, "n k"] | None]:
    """Σ h, first · a u, and second · (τ² Hessian of Σ h) v for finite logits (n, K).

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
