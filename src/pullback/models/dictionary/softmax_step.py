"""Levenberg-Marquardt steps of all rows at once in the softmax gate: logits and all coordinates together.

With a = softmax(l/τ), r = z - ẑ and D_k the derivatives of g_k,

    f = ½|r|² + λ_H H(a)        J_l,k = (a_k/τ)(g_k - ẑ)        J_t,k = a_k D_k

J Jᵀ stands for the curvature of the first term, and the diagonal Σ_j |H_kj| (Gershgorin) for that of the
entropy, which is indefinite in half of all rows; the Fisher matrix diag(a) - aaᵀ does not bound it.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.gram import Projected
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.row_step import (
    HIGHER,
    JITTER,
    LEAST,
    LOWER,
    MOST,
    RowSteps,
    fresh_damping,
    inverse_diagonal,
)
from pullback.penalties.gershgorin import absolute_row_sums
from pullback.penalties.softmax_rows import Assignments, assign

LARGEST_STEP = 3.0
FLOOR = -30.0
ENTRIES = 2**22


def every_basis(layout: Layout, coords: Float[Tensor, "n k c"]) -> Float[Tensor, "k n e M"]:
    """Basis and derivatives of all atoms in all rows, atoms first."""
    n, K = coords.shape[:2]
    width, d, _ = layout.widths
    rows = coords.new_zeros(K, n, 1 + d, width)
    for chart, atoms in layout.kinds:
        t = coords[:, atoms, : chart.c].transpose(0, 1).flatten(0, 1)
        known = chart.jet(t, 1)
        both = torch.cat([known.value.unsqueeze(1), known.jacobian.mT], 1).unflatten(0, (len(atoms), n))
        rows[atoms, :, : 1 + chart.d, : chart.M] = both
    return rows


def step_softmax(
    layout: Layout,
    target: Projected,
    codes: Codes,
    damping: Float[Tensor, " n"] | None = None,
    *,
    steps: int = 2,
    tau: float = 1.0,
    entropy: float = 0.05,
    held: Bool[Tensor, "n k"] | None = None,
) -> RowSteps:
    """Damped steps in logits and coordinates; a row takes a step only if it gains by it.

    Args:
        layout: of the atoms.
        target: rows, in units of their spread, and decoders.
        codes: of the rows, with logits.
        damping: (n,); None for a fresh start.
        steps: how many; 0 only evaluates.
        tau: temperature.
        entropy: λ_H in the same units.
        held: atoms of each row whose coordinates stay; None for none.
    """
    n, K = codes.atoms.shape
    damping = fresh_damping(n, target.B) if damping is None else damping
    wide = layout.widths[1] + 1
    size = max(1, ENTRIES // (K * wide * max(target.B.shape[-1], layout.widths[0])))
    parts = [
        _step_chunk(
            layout,
            target.rows(at),
            codes.rows(at),
            damping[at],
            steps,
            tau,
            entropy,
            None if held is None else held[at],
        )
        for at in (slice(begin, begin + size) for begin in range(0, max(n, 1), size))
    ]
    return RowSteps.joined(parts)


@dataclass(frozen=True, eq=False)
class _State:
    logits: Tensor
    coords: Tensor
    at: Assignments
    curves: Tensor
    fitted: Tensor
    residual: Tensor
    value: Tensor

    @staticmethod
    def of(
        layout: Layout,
        target: Projected,
        B: Tensor,
        logits: Tensor,
        coords: Tensor,
        tau: float,
        entropy: float,
    ) -> "_State":
        basis = every_basis(layout, coords)
        # atoms first, then rows where each sees decoders of its own
        curves = (basis.flatten(1, 2) @ B).view(*basis.shape[:3], -1) if B.ndim == 3 else basis @ B
        at = assign(logits, tau)
        fitted = (at.a.mT.unsqueeze(2) * curves[:, :, 0]).sum(0)
        residual = target.Y - fitted
        value = residual.square().sum(1) / 2 + entropy * at.entropy
        return _State(logits, coords, at, curves, fitted, residual, value)


def _step_chunk(
    layout: Layout,
    target: Projected,
    codes: Codes,
    damping: Tensor,
    steps: int,
    tau: float,
    entropy: float,
    held: Tensor | None,
) -> RowSteps:
    assert codes.logits is not None
    B = layout.padded(target.B)
    places = _tangents(layout, B.device)
    now = _State.of(layout, target, B, codes.logits.double(), codes.coords.double(), tau, entropy)
    accepted, slope = torch.ones(len(codes), dtype=torch.bool, device=B.device), torch.zeros_like(damping)
    for _ in range(steps):
        change, slope = _newton(now, places, damping, tau, entropy, held)
        K = codes.atoms.shape[1]
        logits = now.logits + change[:, :K].clamp(-LARGEST_STEP, LARGEST_STEP)
        logits = (logits - logits.amax(1, keepdim=True)).clamp_min(FLOOR * tau)
        coords = _retracted(layout, now.coords, change[:, K:])
        then = _State.of(layout, target, B, logits, coords, tau, entropy)
        accepted = then.value <= now.value
        damping = (damping * torch.where(accepted, LOWER, HIGHER)).clamp(LEAST, MOST)
        now = _chosen(accepted, then, now)
    moved = replace(codes, weights=now.at.a, coords=now.coords, logits=now.logits)
    return RowSteps(moved, damping, now.value, accepted, slope)


def _jacobian(now: _State, places: Tensor, tau: float) -> Tensor:
    """Rows by logits, then by the tangents at ``places``, (n, q, r)."""
    a = now.at.a.mT.unsqueeze(2)
    by_logit = (a / tau) * (now.curves[:, :, 0] - now.fitted)
    by_coord = (a.unsqueeze(2) * now.curves[:, :, 1:])[places[:, 0], :, places[:, 1]]
    return torch.cat([by_logit, by_coord]).transpose(0, 1)


def _tangents(layout: Layout, device: torch.device) -> Tensor:
    """Atom and number of every tangent, (Σ d_k, 2)."""
    pairs = [(k, j) for k, chart in enumerate(layout.charts) for j in range(chart.d)]
    return torch.tensor(pairs, dtype=torch.long, device=device).reshape(-1, 2)


def softmax_deviations(
    layout: Layout, target: Projected, codes: Codes, s2: float, *, tau: float, used: float
) -> Float[Tensor, "n k d"]:
    """Standard deviations of coordinates, sqrt diag s² (J Jᵀ)⁻¹, of atoms with a share of the largest weight.

    Args:
        layout: of the atoms.
        target: rows and decoders.
        codes: of the rows.
        s2: noise variance in the same units.
        tau: temperature.
        used: share of a row's largest weight from which an atom counts; others get NaN.
    """
    assert codes.logits is not None
    (n, K), d = codes.atoms.shape, layout.widths[1]
    places = _tangents(layout, target.B.device)
    now = _State.of(
        layout, target, layout.padded(target.B), codes.logits.double(), codes.coords.double(), tau, 0.0
    )
    J = _jacobian(now, places, tau)
    counts = codes.weights > used * codes.weights.amax(1, keepdim=True)
    free = torch.cat([counts & (counts.sum(1, keepdim=True) > 1), counts[:, places[:, 0]]], 1)
    H = J @ J.mT * (free.unsqueeze(1) & free.unsqueeze(2))
    H[:, :K, :K] += 1.0 / K  # all logits together change nothing
    variance = s2 * inverse_diagonal(H, free)
    result = variance.new_full((n, K, d), torch.nan)
    result[:, places[:, 0], places[:, 1]] = torch.where(free, variance.sqrt(), torch.nan)[:, K:]
    return result


def _newton(
    now: _State, places: Tensor, damping: Tensor, tau: float, entropy: float, held: Tensor | None
) -> tuple[Tensor, Tensor]:
    J = _jacobian(now, places, tau)
    if held is not None:
        J[:, held.shape[1] :] *= ~held[:, places[:, 0]].unsqueeze(2)
    slope = -(J @ now.residual.unsqueeze(2)).squeeze(2)
    H = J @ J.mT
    diagonal = (damping + JITTER).unsqueeze(1).expand_as(slope)
    if entropy:
        K = now.at.a.shape[1]
        slope[:, :K] += (entropy / tau) * now.at.a * now.at.u
        bound = absolute_row_sums(now.at, entropy / tau**2)
        diagonal = torch.cat([diagonal[:, :K] + bound, diagonal[:, K:]], 1)
    H.diagonal(dim1=1, dim2=2).add_(diagonal)
    factor, failed = torch.linalg.cholesky_ex(H)
    change = torch.cholesky_solve(-slope.unsqueeze(2), factor).squeeze(2)
    bad = (failed > 0) | ~torch.isfinite(change).all(1)
    return torch.where(bad.unsqueeze(1), 0.0, change), slope.norm(dim=1)


def _retracted(layout: Layout, coords: Tensor, change: Tensor) -> Tensor:
    moved, n = coords.clone(), len(coords)
    first = [0]
    for chart in layout.charts:
        first.append(first[-1] + chart.d)
    for chart, atoms in layout.kinds:
        if chart.d == 0:
            continue
        columns = [first[k] + j for k in atoms for j in range(chart.d)]
        step = change[:, columns].reshape(n * len(atoms), chart.d)
        t = coords[:, atoms, : chart.c].flatten(0, 1)
        moved[:, atoms, : chart.c] = chart.retract(t, step).unflatten(0, (n, len(atoms)))
    return moved


def _chosen(taken: Tensor, then: _State, now: _State) -> _State:
    def pick(a: Tensor, b: Tensor, rows: int = 0) -> Tensor:
        shape = [1] * a.ndim
        shape[rows] = -1
        return torch.where(taken.view(shape), a, b)

    at = Assignments(
        *[pick(getattr(then.at, name), getattr(now.at, name)) for name in ("a", "u", "largest", "rest")]
    )
    return _State(
        pick(then.logits, now.logits),
        pick(then.coords, now.coords),
        at,
        pick(then.curves, now.curves, 1),
        pick(then.fitted, now.fitted),
        pick(then.residual, now.residual),
        pick(then.value, now.value),
    )
