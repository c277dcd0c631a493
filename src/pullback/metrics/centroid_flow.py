"""The steps of a Hamiltonian flow on a centroid metric, each as one node of the graph.

A flow of three steps takes some hundred small operations, and automatic differentiation would record every
one. Here the derivatives are written out: with S = s Σ w_i M_i, u_i = z - c_i,

    T_c = s Σ w_i u_ic M_i,   g = (S + λI)⁻¹,   ∂_c κ = (<T_c, g> - pᵀ T_c p) / τ²,   τ the temperature.

Few dimensions hold T_c; with many, contractions <T_c, A> = Σ (w_i <M_i, A>) u_ic are made without it. The
nodes can be differentiated once; torch says so where more is asked.
"""

import math
from typing import Any

import torch
from torch import Tensor

from pullback.jets.once import differentiable_once


def weights(z: Tensor, c: Tensor, square: float) -> Tensor:
    """exp(-|z - c|²/τ²); by differences, because |z|² + |c|² - 2 z·c would cancel."""
    distance = torch.cdist(z, c, compute_mode="donot_use_mm_for_euclid_dist")
    # exp2 takes a fraction of the time of exp
    return distance.square_().mul_(-1 / (square * math.log(2))).exp2_()


def weights_back(g: Tensor, w: Tensor, z: Tensor, c: Tensor, square: float) -> tuple[Tensor, Tensor]:
    """Gradients to z and c."""
    h = (g * w).mul_(-2 / square)
    to_z = torch.addmm(h.sum(1, keepdim=True) * z, h, c, alpha=-1)
    return to_z, torch.addmm(h.sum(0).unsqueeze(1) * c, h.mT, z, alpha=-1)


def outer(a: Tensor, b: Tensor) -> Tensor:
    """a bᵀ of each row, flat."""
    return (a.unsqueeze(2) * b.unsqueeze(1)).flatten(1)


def inverted(S: Tensor) -> tuple[Tensor, Tensor]:
    """S⁻¹ and -log det S of symmetric matrices, NaN where they are not positive definite."""
    if S.shape[1] == 2:
        a, b, _, c = S.flatten(1).unbind(1)
        det = torch.addcmul(a * c, b, b, value=-1)
        det = torch.where(det > 0, det, torch.nan)
        off = -b
        return (torch.stack([c, off, off, a], dim=1) / det.unsqueeze(1)).view_as(S), -det.log()
    C, info = torch.linalg.cholesky_ex(S)
    C = torch.where((info != 0)[:, None, None], torch.nan, C)
    return torch.cholesky_inverse(C), -2 * C.diagonal(dim1=-2, dim2=-1).log().sum(-1)


class Place(torch.autograd.Function):
    """(z, c, [M, c_1 M, ..]) -> S + λI, log det g, <T, g>/τ², T."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, c: Tensor, moments: Tensor, ridge: Tensor, square: float) -> Any:  # type: ignore[override]
        d = z.shape[1]
        w = weights(z, c, square)
        S, R = (w @ moments).split([d * d, d**3], dim=1)
        T = torch.addcmul(-R.unflatten(1, (d, d * d)), z.unsqueeze(2), S.unsqueeze(1))
        inverse = S.unflatten(1, (d, d)) + ridge
        g, logdet = inverted(inverse)
        ctx.square = square
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z, c, moments, w, S, T, g)
        return inverse, logdet, (T @ g.flatten(1).unsqueeze(2)).squeeze(2) / square, T

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, to_inverse: Any, to_logdet: Any, to_k: Any, to_T: Any) -> Any:  # type: ignore[override]
        z, c, moments, w, S, T, g = ctx.saved_tensors
        n, d = z.shape
        to_T = torch.zeros_like(T) if to_T is None else to_T
        if to_k is not None:
            k = to_k / ctx.square
            to_T = torch.addcmul(to_T, k.unsqueeze(2), g.flatten(1).unsqueeze(1))
            to_inverse = _less(to_inverse, g @ (k.unsqueeze(1) @ T).view(n, d, d), g)
        to_S = _with_logdet(to_inverse, to_logdet, g).flatten(1) + (z.unsqueeze(1) @ to_T).squeeze(1)
        both = torch.cat([to_S, -to_T.flatten(1)], dim=1)
        to_z, to_c = weights_back(both @ moments.mT, w, z, c, ctx.square)
        return to_z + (to_T @ S.unsqueeze(2)).squeeze(2), to_c, w.mT @ both, None, None


def _less(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """total - a b."""
    return -(a @ b) if total is None else torch.baddbmm(total, a, b, alpha=-1)


def _with_logdet(to_inverse: Tensor | None, to_logdet: Tensor | None, g: Tensor) -> Tensor:
    """The gradient to S: that of S itself and that of -log det S."""
    if to_logdet is None:
        return torch.zeros_like(g) if to_inverse is None else to_inverse
    part = to_logdet.view(-1, 1, 1) * g
    return -part if to_inverse is None else to_inverse - part


class WidePlace(torch.autograd.Function):
    """(z, c, M) -> S + λI, log det g, <T, g>/τ², w."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, c: Tensor, M: Tensor, ridge: Tensor, square: float) -> Any:  # type: ignore[override]
        w = weights(z, c, square)
        inverse = (w @ M).unflatten(1, ridge.shape) + ridge
        g, logdet = inverted(inverse)
        pulled = g.flatten(1) @ M.mT
        ctx.square = square
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z, c, M, w, g, pulled)
        return inverse, logdet, _about(w * pulled, z, c) / square, w

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, to_inverse: Any, to_logdet: Any, to_k: Any, to_w: Any) -> Any:  # type: ignore[override]
        z, c, M, w, g, pulled = ctx.saved_tensors
        to_w = torch.zeros_like(w) if to_w is None else to_w
        to_z, to_c, to_M = torch.zeros_like(z), torch.zeros_like(c), torch.zeros_like(M)
        if to_k is not None:
            to_a, to_z, to_c = _about_back(to_k / ctx.square, w * pulled, z, c)
            spread = to_a * w
            to_w = torch.addcmul(to_w, to_a, pulled)
            to_M = spread.mT @ g.flatten(1)
            to_inverse = _less(to_inverse, g @ (spread @ M).view(g.shape), g)
        to_S = _with_logdet(to_inverse, to_logdet, g).flatten(1)
        to_M = torch.addmm(to_M, w.mT, to_S)
        from_z, from_c = weights_back(torch.addmm(to_w, to_S, M.mT), w, z, c, ctx.square)
        return to_z + from_z, to_c + from_c, to_M, None, None


def _about(a: Tensor, z: Tensor, c: Tensor) -> Tensor:
    """Σ a_i (z - c_i)."""
    return torch.addmm(a.sum(1, keepdim=True) * z, a, c, alpha=-1)


def _about_back(g: Tensor, a: Tensor, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `_about` to a, z and c."""
    to_a = torch.addmm((g * z).sum(1, keepdim=True), g, c.mT, alpha=-1)
    return to_a, a.sum(1, keepdim=True) * g, -(a.mT @ g)


class Momentum(torch.autograd.Function):
    """r <- base + e pᵀ T_c p at p = r, so many times from ``start``; the last two iterates."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, base: Tensor, T: Tensor, e: float, count: int) -> Any:  # type: ignore[override]
        n, d = start.shape
        shaped, column = T.reshape(n, d * d, d), base.unsqueeze(2)
        p, passed, halves = start, [], []
        for _ in range(count):
            half = (shaped @ p.unsqueeze(2)).view(n, d, d)
            passed.append(p)
            halves.append(half)
            p = torch.baddbmm(column, half, p.unsqueeze(2), alpha=e).squeeze(2)
        ctx.e, ctx.count = e, count
        ctx.save_for_backward(*passed, *halves)
        ctx.mark_non_differentiable(passed[-1])
        return p, passed[-1].clone() if count == 1 else passed[-1]

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, g: Tensor, _: Tensor) -> Any:  # type: ignore[override]
        passed, halves = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        to_base = to_T = None
        for p, half in zip(reversed(passed), reversed(halves), strict=True):
            to_base = g if to_base is None else to_base + g
            pulled = ctx.e * g
            square = outer(p, p).unsqueeze(1)
            to_T = (
                pulled.unsqueeze(2) * square
                if to_T is None
                else torch.addcmul(to_T, pulled.unsqueeze(2), square)
            )
            g = 2 * (pulled.unsqueeze(1) @ half).squeeze(1)
        return g, to_base, to_T, None, None


class WideMomentum(torch.autograd.Function):
    """As `Momentum`, from weights and matrices instead of T."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        start: Tensor,
        base: Tensor,
        w: Tensor,
        z: Tensor,
        c: Tensor,
        M: Tensor,
        e: float,
        count: int,
    ) -> Any:
        p, passed, products = start, [], []
        for _ in range(count):
            product = outer(p, p) @ M.mT
            passed.append(p)
            products.append(product)
            p = torch.add(base, _about(w * product, z, c), alpha=e)
        ctx.e, ctx.count = e, count
        ctx.save_for_backward(w, z, c, M, *passed, *products)
        ctx.mark_non_differentiable(passed[-1])
        return p, passed[-1].clone() if count == 1 else passed[-1]

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, g: Tensor, _: Tensor) -> Any:  # type: ignore[override]
        w, z, c, M, *rest = ctx.saved_tensors
        passed, products = rest[: ctx.count], rest[ctx.count :]
        to_base, to_w, to_z, to_c, to_M = (torch.zeros_like(tensor) for tensor in (g, w, z, c, M))
        for p, product in zip(reversed(passed), reversed(products), strict=True):
            to_base = to_base + g
            to_a, from_z, from_c = _about_back(ctx.e * g, w * product, z, c)
            to_z, to_c = to_z + from_z, to_c + from_c
            to_w = torch.addcmul(to_w, to_a, product)
            spread = to_a * w
            to_M = torch.addmm(to_M, spread.mT, outer(p, p))
            g = 2 * ((spread @ M).view(*p.shape, p.shape[1]) @ p.unsqueeze(2)).squeeze(2)
        return g, to_base, to_w, to_z, to_c, to_M, None, None


class Position(torch.autograd.Function):
    """y <- z + h ((S(z) + λI) p + (S(y) + λI) p) from z, the first matrix given; the last two iterates."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        z: Tensor,
        p: Tensor,
        inverse: Tensor,
        c: Tensor,
        M: Tensor,
        ridge: Tensor,
        square: float,
        h: float,
        count: int,
    ) -> Any:
        n, d = z.shape
        arrow = p.unsqueeze(2)
        v = inverse @ arrow
        column = torch.add(z.unsqueeze(2), v, alpha=h)
        before, y = z, torch.add(column, v, alpha=h).squeeze(2)
        passed, sums, held = [], [inverse], []
        for _ in range(count - 1):
            w = weights(y, c, square)
            inverse = torch.addmm(ridge.view(1, -1), w, M).view(n, d, d)
            passed.append(y)
            sums.append(inverse)
            held.append(w)
            before, y = y, torch.baddbmm(column, inverse, arrow, alpha=h).squeeze(2)
        ctx.square, ctx.h, ctx.count = square, h, count - 1
        ctx.save_for_backward(p, c, M, *sums, *passed, *held)
        before = before.clone() if count == 1 else before
        ctx.mark_non_differentiable(before)
        return y, before

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, g: Tensor, _: Tensor) -> Any:  # type: ignore[override]
        p, c, M, first, *rest = ctx.saved_tensors
        k, h = ctx.count, ctx.h
        to_z, to_p = torch.zeros_like(g), torch.zeros_like(g).unsqueeze(2)
        to_c, to_M = torch.zeros_like(c), torch.zeros_like(M)
        for inverse, y, w in zip(*(reversed(rest[i * k : (i + 1) * k]) for i in range(3)), strict=True):
            pulled = h * g
            to_z = to_z + g
            to_p = torch.baddbmm(to_p, inverse, pulled.unsqueeze(2))
            to_S = outer(pulled, p)
            to_M = torch.addmm(to_M, w.mT, to_S)
            g, from_c = weights_back(to_S @ M.mT, w, y, c, ctx.square)
            to_c = to_c + from_c
        to_v = torch.add(to_z, g, alpha=2).mul_(h).unsqueeze(2)
        to_p = torch.baddbmm(to_p, first, to_v).squeeze(2)
        return to_z + g, to_p, to_v * p.unsqueeze(1), to_c, to_M, None, None, None, None
