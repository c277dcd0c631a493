"""Diagonal and low-rank operators above the Hessian of a softmax entropy.

Gershgorin: diag(D) - H is diagonally dominant for D_k = Σ_j |H_kj|, so D ⪰ H and D ⪰ 0, with

    D_k = |scale| a_k { Σ_{j≠k} a_j |1 - u_k - u_j| + |(1 - 2a_k) u_k - (1 - a_k)| }

in O(K log K) by sorting: with β = 1 - u_k and sums over the q atoms of largest u, those above β, Σ a = 1 and
Σ a u = 0 give

    Σ_j a_j |β - u_j| = 2 F + β        F = Σ_{j<q} a_j (u_j - β)

of which the own term a_k |1 - 2u_k| is taken away. At the largest atom t that, and the sum of a dense |H|
too, would lose all digits of nearly one-hot rows. So its sum runs over the other atoms, 2 F - F', with the F
of those above β and the F' of all of them.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullback.graph import transforms_active
from pullback.penalties.softmax_rows import Assignments, dense_hessian

DENSE_UP_TO = 32
"""Atoms up to which the sum over pairs takes less time than the sort."""
BLOCK = 2**20
"""Entries of pair tables that are held at a time."""


def absolute_row_sums(at: Assignments, scale: Tensor | float) -> Float[Tensor, "*n k"]:
    """D, (..., K); differentiable almost everywhere."""
    sums = _by_rows(_pair_sums, at) if at.a.shape[-1] <= DENSE_UP_TO else _sorted_sums(at)
    return _magnitude(scale) * at.a * sums


def soft_row_sums(at: Assignments, scale: Tensor | float) -> Float[Tensor, "*n k"]:
    """D̃_k = Σ_j sqrt(H_kj² + ε² ‖H_k‖²), ε = 1e-8/K: between D and (1 + 1e-8) D, differentiable."""
    return _magnitude(scale) * _by_rows(_soft_sums, at)


def _magnitude(scale: Tensor | float) -> Tensor | float:
    return scale.abs() if isinstance(scale, Tensor) else abs(scale)


def _by_rows(function: Callable[[Assignments], Tensor], at: Assignments) -> Tensor:
    """A function of rows that needs K² entries a row, a bounded number of rows at a time."""
    K = at.a.shape[-1]
    size = max(1, BLOCK // K**2)
    fields = (part.reshape(-1, part.shape[-1]).split(size) for part in (at.a, at.u, at.largest, at.rest))
    return torch.cat([function(Assignments(*rows)) for rows in zip(*fields, strict=True)]).view_as(at.a)


def _own(a: Tensor, u: Tensor, rest: Tensor) -> Tensor:
    """|(1 - 2a_k) u_k - (1 - a_k)|."""
    return ((rest - a) * u - rest).abs()


def _pair_sums(at: Assignments) -> Tensor:
    a, u = at.a, at.u
    gaps = (1 - u.unsqueeze(-1) - u.unsqueeze(-2)).abs()
    others = 1 - torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    return ((gaps * others) @ a.unsqueeze(-1)).squeeze(-1) + _own(a, u, at.complement)


def _soft_sums(at: Assignments) -> Tensor:
    H = dense_hessian(at, 1.0)
    share = 1e-8 / H.shape[-1]
    row = H.square().sum(-1, keepdim=True)
    # a row of zeros (one atom) has no gradient of its root
    safe = torch.where(row > 0, H.square() + share**2 * row, 1.0)
    return torch.where(row > 0, safe.sqrt(), 0.0).sum(-1)


def _prefix(x: Tensor) -> Tensor:
    """Sums of the first 0 .. K entries."""
    return torch.nn.functional.pad(x.cumsum(-1), (1, 0))


def _ascending(x: Tensor) -> Tensor:
    """The order that sorts rows; NumPy's takes a quarter of the time of torch's."""
    x = x.detach()
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or transforms_active(x):
        return x.argsort(-1)
    return torch.from_numpy(np.argsort(x.numpy(), -1))


def _sorted_sums(at: Assignments) -> Tensor:
    order = _ascending(-at.u)
    u, a = at.u.gather(-1, order), at.a.gather(-1, order)
    fixed = u.detach()
    q = torch.searchsorted(-fixed, fixed - 1)
    mass, moment = _prefix(a), _prefix(a * u)
    beta = 1 - u
    above = moment.gather(-1, q).addcmul(beta, mass.gather(-1, q), value=-1)
    sums = (2 * above + beta).addcmul(a, (2 * u - 1).abs(), value=-1)
    rest = 1 - a
    # the largest atom, which is the last
    rest[..., -1:] = others = mass[..., -2:-1]
    beta, q = beta[..., -1:], q[..., -1:].clamp_max(a.shape[-1] - 1)
    above = moment.gather(-1, q) - beta * mass.gather(-1, q)
    sums[..., -1:] = 2 * above - (moment[..., -2:-1] - beta * others)
    return torch.empty_like(a).scatter(-1, order, sums + _own(a, u, rest))


def split_product(at: Assignments, v: Float[Tensor, "*n k"], scale: Tensor | float) -> Float[Tensor, "*n k"]:
    """[|scale| diag(a · positive part of ±(u - 1)) + positive part of the rank-2 term] v in O(K).

    H/scale = diag(a (u - 1)) + M with M = a aᵀ - a (a⊙u)ᵀ - (a⊙u) aᵀ, which has one eigenvalue of each sign.
    The upper signs are those of scale >= 0.
    """
    sign = torch.sign(torch.as_tensor(scale, dtype=at.a.dtype, device=at.a.device))
    a, au = at.a, at.a * at.u
    own = a * (sign * (at.u - 1)).clamp_min(0)
    # q1, q2 orthonormal, a = r q1, au = s q1 + t q2, M = [[α, β], [β, 0]] there
    r = a.norm(dim=-1, keepdim=True)
    q1 = a / r
    s = (q1 * au).sum(-1, keepdim=True)
    left = au - s * q1
    t = left.norm(dim=-1, keepdim=True)
    q2 = torch.where(t > 0, left / torch.where(t > 0, t, 1.0), 0.0)
    alpha, beta = sign * (r * r - 2 * r * s), -sign * r * t
    root = torch.hypot(alpha / 2, beta)
    top = torch.where(alpha > 0, alpha / 2 + root, beta**2 / (root - alpha / 2).clamp_min(_tiny(a)))
    length = torch.hypot(top, beta)
    safe = torch.where(length > 0, length, 1.0)
    vector = (top * q1 + beta * q2) / safe
    low = top * vector * (vector * v).sum(-1, keepdim=True)
    return _magnitude(scale) * (own * v + low)


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
