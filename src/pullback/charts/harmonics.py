"""Fourier series and Legendre polynomials with their derivatives, and products of two such bases."""

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.jets import Jet


def harmonics(t: Float[Tensor, " n"], H: int, order: int) -> list[Float[Tensor, "n k"]]:
    """1, cos t, sin t, .., cos Ht, sin Ht, and their derivatives up to ``order``: each (n, 2H + 1)."""
    h = torch.arange(1, H + 1, dtype=t.dtype, device=t.device)
    angle = t.unsqueeze(1) * h
    c, s = angle.cos(), angle.sin()
    pairs = [(c, s), (-h * s, h * c), (-h * h * c, -h * h * s)][: order + 1]
    found = []
    for k, (even, odd) in enumerate(pairs):
        waves = torch.stack([even, odd], 2).flatten(1)
        constant = torch.ones_like(t) if k == 0 else torch.zeros_like(t)
        found.append(torch.cat([constant.unsqueeze(1), waves], 1))
    return found


def legendre(t: Float[Tensor, " n"], degree: int, order: int) -> list[Float[Tensor, "n k"]]:
    """P_0 .. P_degree with P_n(1) = 1, and their derivatives up to ``order``: each (n, degree + 1).

    (n + 1) P_{n+1} = (2n + 1) t P_n - n P_{n-1}, and for both derivatives P'_{n+1} = P'_{n-1} + (2n + 1) P_n.
    """
    one, zero = torch.ones_like(t), torch.zeros_like(t)
    values = [one, t]
    for n in range(1, degree):
        values.append(((2 * n + 1) * t * values[n] - n * values[n - 1]) / (n + 1))
    found = [values[: degree + 1]]
    for start in ([zero, one], [zero, zero])[:order]:
        below, rows = found[-1], list(start)
        for n in range(1, degree):
            rows.append(rows[n - 1] + (2 * n + 1) * below[n])
        found.append(rows[: degree + 1])
    return [torch.stack(rows, 1) for rows in found]


def along_one(parts: list[Tensor]) -> Jet:
    """A basis of one coordinate as a jet."""
    J = parts[1].unsqueeze(2) if len(parts) > 1 else None
    return Jet(parts[0], J, parts[2].reshape(*parts[2].shape, 1, 1) if len(parts) > 2 else None)


def product(first: list[Tensor], second: list[Tensor], kept: Tensor | None = None) -> Jet:
    """All products of two bases, row-major, as a jet of two coordinates.

    Args:
        first, second: derivatives of both, as many orders as are wanted of the product.
        kept: which of the products to keep; None for all.
    """

    def outer(i: int, j: int) -> Tensor:
        table = (first[i].unsqueeze(2) * second[j].unsqueeze(1)).flatten(1)
        return table if kept is None else table[:, kept.to(table.device)]

    J = torch.stack([outer(1, 0), outer(0, 1)], 2) if len(first) > 1 else None
    if len(first) < 3:
        return Jet(outer(0, 0), J)
    mixed = outer(1, 1)
    rows = torch.stack([outer(2, 0), mixed, mixed, outer(0, 2)], 2)
    return Jet(outer(0, 0), J, rows.unflatten(2, (2, 2)))
