"""Coordinates in which an atom is passed at constant speed.

The image of g = Φ B is what the data determine; t is free up to reparametrisation. Closed curves are
parametrised by arc length, other charts are pulled towards G = gbar I by the isometry penalty.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from pullback.jets import Jet
from pullback.models.dictionary.parametrization import coords_of, raw_of
from pullback.penalties import IsometryPenalty
from pullback.typing import Chart

STEPS = 2000
"""Pieces of a curve whose lengths are summed."""
LBFGS_STEPS = 100
JITTER = 1e-9
WIDTH = 3
"""Data dimensions kept for the gauge, in units of M: decoders stay in the span of their rows."""


def has_arc_length(chart: Chart) -> bool:
    """Whether coordinates are one number between two known ends."""
    return chart.d == 1 and chart.c == 1 and hasattr(chart, "span")


def speeds(chart: Chart, B: Float[Tensor, "k p"], steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """steps + 1 coordinates from end to end, and |g'| at each."""
    low, high = chart.span  # type: ignore[attr-defined]
    t = torch.linspace(low, high, steps + 1, dtype=B.dtype, device=B.device)
    slope = chart.jet(t.unsqueeze(1), 1).jacobian[:, :, 0]
    return t, ((slope @ (B @ B.mT)) * slope).sum(1).clamp_min(0).sqrt()


def speed_variation(chart: Chart, B: Float[Tensor, "k p"], t: Float[Tensor, "n c"] | None = None) -> float:
    """Standard deviation over mean of sqrt(det G)^(1/d), over the chart or at given points; 0 for d = 0.

    Args:
        chart: of the atom.
        B: its decoder, (M, p).
        t: points; None for a grid that covers the chart.
    """
    if chart.d == 0:
        return 0.0
    points = chart.grid(400).to(B) if t is None else t.to(B)
    G = metric(chart, B, points)
    speed = torch.linalg.det(G).clamp_min(0) ** (0.5 / chart.d)
    mean = float(speed.mean())
    return float(speed.std(correction=0)) / mean if mean > 0 else float("inf")


def metric(chart: Chart, B: Float[Tensor, "k p"], t: Float[Tensor, "n c"]) -> Float[Tensor, "n d d"]:
    """G = D Dᵀ of the atom at its coordinates, (n, d, d)."""
    D = chart.jet(t, 1).jacobian.mT
    return D @ (B @ B.mT) @ D.mT


def isometry_residual(chart: Chart, B: Float[Tensor, "k p"], t: Float[Tensor, "n c"]) -> float:
    """Mean |G/gbar - I|² over points, gbar the mean of tr G/d."""
    G = metric(chart, B, t.to(B))
    mean = G.diagonal(dim1=1, dim2=2).mean()
    if chart.d == 0 or not mean > 0:
        return 0.0
    eye = torch.eye(chart.d, dtype=G.dtype, device=G.device)
    return float((G / mean - eye).square().sum((1, 2)).mean())


def arc_length(chart: Chart, B: Float[Tensor, "k p"], t: Float[Tensor, "n 1"]) -> Float[Tensor, "n 1"]:
    """Coordinates proportional to the length of the curve up to each point.

    Args:
        chart: circle or interval.
        B: decoder, (M, p).
        t: coordinates, (n, 1).
    Returns: lo + (hi - lo) s(t)/s(hi), s the cumulative trapezoid of |g'|; t where the curve has no length.
    """
    nodes, speed = speeds(chart, B.double())
    s = torch.cat([speed.new_zeros(1), torch.cumulative_trapezoid(speed, nodes)])
    if not s[-1] > 0:
        return t
    low, high = chart.span  # type: ignore[attr-defined]
    place = ((t.double() - low) / (high - low)).clamp(0, 1) * (len(nodes) - 1)
    below = place.floor().long().clamp(0, len(nodes) - 2)
    share = place - below
    length = s[below] * (1 - share) + s[below + 1] * share
    return (low + (high - low) * length / s[-1]).to(t)


@dataclass(frozen=True, eq=False)
class Gauged:
    """An atom in another gauge: decoder (M, p) and the coordinates of its rows, (n, c)."""

    B: Float[Tensor, "k p"]
    t: Float[Tensor, "n c"]


def isometric(
    chart: Chart,
    B: Float[Tensor, "k p"],
    t: Float[Tensor, "n c"],
    target: Float[Tensor, "n p"],
    weights: Float[Tensor, " n"],
    *,
    strength: float,
    lam: float = 0.0,
    rho: float = 0.0,
    steps: int = LBFGS_STEPS,
) -> Gauged:
    """Decoder and coordinates of one atom together, by L-BFGS on the misfit of its rows and its isometry.

    ½ Σ |y - a Φ(t) B|² + ½ λ tr(Bᵀ S B) + ½ ρ |B|² + ½ μ Σ |G/gbar - I|², where G leaves amplitudes out.

    Args:
        chart: of the atom.
        B: decoder, (M, p).
        t: coordinates of its rows, (n, c).
        target: what the atom is to explain of them: rows less all other atoms, (n, p).
        weights: a, (n,).
        strength: μ.
        lam, rho: λ and ρ.
        steps: of L-BFGS.
    """
    if chart.d == 0 or strength == 0 or len(t) <= chart.M:
        return Gauged(B, t)
    target, weights = target.double(), weights.double().unsqueeze(1)
    # an atom that is lost in the rounding of its rows has slopes beyond the range of numbers
    if weights.abs().max() * B.abs().max() <= torch.finfo(target.dtype).eps * target.abs().max():
        return Gauged(B, t)
    Q = _span(target, B.double(), WIDTH * chart.M)
    short = target @ Q
    S = chart.roughness.to(short)
    penalty = IsometryPenalty(weight=strength, degenerate="zero")
    size = chart.M * Q.shape[1]

    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:size].view(chart.M, -1), coords_of(chart, x[size:].view(len(t), -1))

    def objective(x: Tensor) -> Tensor:
        free, at = parts(x)
        known = chart.jet(at, 1)
        missed = (short - weights * (known.value @ free)).square().sum() / 2
        smooth = (lam * (free * (S @ free)).sum() + rho * free.square().sum()) / 2
        return missed + smooth + penalty.value(Jet(None, (known.jacobian.mT @ free).mT))

    def with_slope(x: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():
            at = torch.as_tensor(x, device=short.device).requires_grad_()
            value = objective(at)
            (slope,) = torch.autograd.grad(value, at)
        return float(value.detach()), slope.cpu().numpy()

    starts = [(B.double() @ Q, t.double())]
    if has_arc_length(chart):
        # most of the way for curves, at once
        at = arc_length(chart, B, t.double())
        X = weights * chart.jet(at, 0).value
        ridge = X.mT @ X + lam * S + max(rho, JITTER) * torch.eye(chart.M, dtype=X.dtype, device=X.device)
        starts.append((torch.linalg.solve(ridge, X.mT @ short), at))
    first = [torch.cat([free.flatten(), raw_of(chart, at).flatten()]) for free, at in starts]
    start = min(first, key=lambda x: float(objective(x)))
    found = minimize(
        with_slope, start.cpu().numpy(), jac=True, method="L-BFGS-B", options={"maxiter": steps, "maxcor": 20}
    )
    if not found.fun <= float(objective(first[0])):
        return Gauged(B, t)
    free, at = parts(torch.as_tensor(found.x, device=short.device))
    return Gauged((free @ Q.mT).to(B), at.to(t))


def _span(rows: Tensor, B: Tensor, width: int) -> Tensor:
    """An orthonormal basis (p, r) of the leading directions of rows and of the decoder."""
    if rows.shape[1] <= width:
        return torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    _, vectors = torch.linalg.eigh(rows.mT @ rows)
    return torch.linalg.qr(torch.cat([B.mT, vectors[:, -(width - len(B)) :]], 1)).Q
