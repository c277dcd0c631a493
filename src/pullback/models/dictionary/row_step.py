"""Levenberg-Marquardt steps of all rows at once, amplitudes and coordinates, in a form that is free of p.

With C = Z Bᵀ, G = B Bᵀ, u_k = a_k Φ_k and R_k = C_k - Σ_l u_l G_lk for the active atoms of a row,

    f = ½ Σ a_k a_l Φ_k G_kl Φ_lᵀ - Σ a_k Φ_k C_k        (½|z - ẑ|² without ½|z|²)
    ∂f/∂a_k = -Φ_k R_k        ∂f/∂t_k = -a_k ∂Φ_k R_k
    J Jᵀ    = Q G Qᵀ with the rows Φ_k and a_k ∂Φ_k of Q

Rows are in units of their spread, so that damping, clips and floors are plain numbers.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullback.models.dictionary.codes import Codes, join
from pullback.models.dictionary.gram import Gram, local, rows_of
from pullback.models.dictionary.layout import Layout, Places

START, LEAST, MOST = 1e-2, 1e-6, 1e6
"""Damping of a row: at first, and its limits."""
LOWER, HIGHER = 0.25, 6.0
JITTER = 1e-9
LARGEST_STEP = 0.5
SMALLEST_WEIGHT = 1e-3
STATIONARY = 1e-6
ENTRIES = 2**22
"""Numbers of the local Gram matrices that are held at a time."""


@dataclass(frozen=True, eq=False)
class RowSteps:
    """Rows after some steps.

    Attributes:
        codes: of the rows; no row's objective is higher than before.
        damping: of the next step, (n,).
        value: the part of the objective that codes change, (n,).
        accepted: whether the last step was taken, (n,).
        slope: norm of the gradient before the last step, (n,).
    """

    codes: Codes
    damping: Float[Tensor, " n"]
    value: Float[Tensor, " n"]
    accepted: Bool[Tensor, " n"]
    slope: Float[Tensor, " n"]

    @staticmethod
    def joined(parts: "list[RowSteps]") -> "RowSteps":
        """Steps of consecutive rows."""
        if len(parts) == 1:
            return parts[0]
        names = ("damping", "value", "accepted", "slope")
        columns = [torch.cat([getattr(part, name) for part in parts]) for name in names]
        return RowSteps(join([part.codes for part in parts]), *columns)

    @property
    def converged(self) -> Bool[Tensor, " n"]:
        """Whether a row is stationary: its gradient vanishes, or no step lowers it."""
        return (self.slope <= STATIONARY) | ~self.accepted


def fresh_damping(n: int, like: Tensor) -> Float[Tensor, " n"]:
    """Damping of rows that were never stepped."""
    return torch.full((n,), START, dtype=torch.float64, device=like.device)


def step_rows(
    layout: Layout,
    correlations: Float[Tensor, "n k"],
    gram: Gram,
    codes: Codes,
    damping: Float[Tensor, " n"] | None = None,
    *,
    steps: int = 2,
    free_weights: bool = True,
    held: Bool[Tensor, "n m"] | None = None,
) -> RowSteps:
    """Damped Gauss-Newton steps on the active atoms of every row; a row takes a step only if it gains by it.

    Args:
        layout: of the atoms.
        correlations: C = Z Bᵀ, (n, M_tot), of rows in units of their spread.
        gram: G = B Bᵀ, (M_tot, M_tot), or that of every row, (n, M_tot, M_tot).
        codes: of the rows; atoms at -1 are left alone.
        damping: (n,); None for a fresh start.
        steps: how many; 0 only evaluates.
        free_weights: whether weights move too, or only coordinates.
        held: slots whose coordinates stay; None for none.
    """
    n, m = codes.atoms.shape
    damping = fresh_damping(n, gram) if damping is None else damping
    size = max(1, ENTRIES // (m * layout.widths[0]) ** 2)
    if n <= size:
        return _step_chunk(layout, correlations, gram, codes, damping, steps, free_weights, held)
    parts = [
        _step_chunk(
            layout,
            correlations[at],
            rows_of(gram, at),
            codes.rows(at),
            damping[at],
            steps,
            free_weights,
            None if held is None else held[at],
        )
        for at in (slice(begin, begin + size) for begin in range(0, n, size))
    ]
    return RowSteps.joined(parts)


@dataclass(frozen=True, eq=False)
class _Local:
    """What a chunk of rows needs of C and G, and a code of it."""

    correlations: Float[Tensor, "n m M"]
    gram: Float[Tensor, "n k k"]
    weights: Float[Tensor, "n m"]
    coords: Float[Tensor, "n m c"]
    basis: Float[Tensor, "n m e M"]
    residual: Float[Tensor, "n m M"]
    value: Float[Tensor, " n"]

    @staticmethod
    def at(places: Places, C: Tensor, G: Tensor, weights: Tensor, coords: Tensor) -> "_Local":
        basis = places.basis(coords)
        u = (weights.unsqueeze(2) * basis[:, :, 0]).flatten(1)
        fitted = (G @ u.unsqueeze(2)).squeeze(2)
        residual = C - fitted.view_as(C)
        return _Local(C, G, weights, coords, basis, residual, -0.5 * (u * (C + residual).flatten(1)).sum(1))


def _step_chunk(
    layout: Layout,
    C: Tensor,
    G: Tensor,
    codes: Codes,
    damping: Tensor,
    steps: int,
    free_weights: bool,
    held: Tensor | None,
) -> RowSteps:
    places = Places.of(layout, codes.atoms)
    columns = places.columns()
    seen = C.double().gather(1, columns).view(*codes.atoms.shape, -1)
    table = local(G.double(), columns)
    open_, moving = codes.atoms >= 0, places.moving()
    if held is not None:
        moving &= ~held.unsqueeze(2)
    free = torch.cat([(open_ & free_weights).unsqueeze(2), moving], 2)
    now = _Local.at(places, seen, table, codes.weights.double(), codes.coords.double())
    accepted, slope = torch.ones(len(codes), dtype=torch.bool, device=C.device), torch.zeros_like(damping)
    for _ in range(steps):
        move, slope = _newton(now, free, damping)
        weights, step = now.weights, move[:, :, 1:]
        if free_weights:
            raised = now.weights + move[:, :, 0].clamp(-LARGEST_STEP, LARGEST_STEP)
            weights = torch.where(open_, raised.clamp_min(SMALLEST_WEIGHT), 0.0)
        then = _Local.at(places, seen, table, weights, places.retract(now.coords, step))
        accepted = then.value <= now.value
        damping = (damping * torch.where(accepted, LOWER, HIGHER)).clamp(LEAST, MOST)
        now = _chosen(accepted, then, now)
    moved = replace(codes, weights=now.weights, coords=now.coords)
    return RowSteps(moved, damping, now.value, accepted, slope)


def _newton(now: _Local, free: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Steps (n, m, 1 + d_max) and the norm of the gradient, (n,)."""
    n, m, e, _ = now.basis.shape
    rows = now.basis.clone()
    rows[:, :, 1:] *= now.weights[:, :, None, None]
    rows *= free.unsqueeze(3)
    slope = -(rows @ now.residual.unsqueeze(3)).squeeze(3)
    H = local_products(rows, now.gram)
    diagonal = (damping + JITTER).unsqueeze(1) + (~free).flatten(1).double()
    H.diagonal(dim1=1, dim2=2).add_(diagonal)
    factor, failed = torch.linalg.cholesky_ex(H)
    move = torch.cholesky_solve(-slope.flatten(1).unsqueeze(2), factor).view(n, m, e)
    # rows whose matrix is not finite or not definite wait for more damping
    bad = (failed > 0) | ~torch.isfinite(move).flatten(1).all(1)
    return torch.where(bad[:, None, None], 0.0, move), slope.flatten(1).norm(dim=1)


def local_products(rows: Float[Tensor, "n m e M"], gram: Float[Tensor, "n k k"]) -> Float[Tensor, "n q q"]:
    """Q G Qᵀ for Q with a block of rows in each slot, (n, m e, m e)."""
    n, m, e, M = rows.shape
    half = rows.flatten(0, 1) @ gram.view(n * m, M, m * M)
    half = half.view(n, m * e, m, M).transpose(1, 2)
    full = half.flatten(0, 1) @ rows.flatten(0, 1).mT
    return full.view(n, m, m * e, e).transpose(1, 2).reshape(n, m * e, m * e)


def coordinate_deviations(layout: Layout, gram: Gram, codes: Codes, s2: float) -> Float[Tensor, "n m d"]:
    """Standard deviations of coordinates, sqrt diag s² (J Jᵀ)⁻¹ of the open atoms, undamped; NaN where none.

    Args:
        layout: of the atoms.
        gram: G, (M_tot, M_tot), or that of every row.
        codes: of the rows.
        s2: noise variance in the same units.
    """
    places = Places.of(layout, codes.atoms)
    columns, moving = places.columns(), places.moving()
    rows = places.basis(codes.coords.double())
    rows[:, :, 1:] *= codes.weights.double()[:, :, None, None]
    table = local(gram.double(), columns)
    free = torch.cat([(codes.atoms >= 0).unsqueeze(2), moving], 2)
    variance = s2 * inverse_diagonal(local_products(rows, table), free.flatten(1)).view_as(free)
    return torch.where(moving, variance[:, :, 1:].sqrt(), torch.nan)


def inverse_diagonal(H: Float[Tensor, "n q q"], free: Bool[Tensor, "n q"]) -> Float[Tensor, "n q"]:
    """Diagonal of H⁻¹ over the free variables of each row."""
    size = H.diagonal(dim1=1, dim2=2).amax(1, keepdim=True).clamp_min(1e-300)
    eye = torch.eye(H.shape[1], dtype=H.dtype, device=H.device)
    H = torch.where(free.unsqueeze(1) & free.unsqueeze(2), H, 0.0)
    H = H + torch.diag_embed(torch.where(free, 1e-12 * size, 1.0))
    factor, _ = torch.linalg.cholesky_ex(H)
    return torch.linalg.solve_triangular(factor, eye.expand_as(H), upper=False).square().sum(1)


def _chosen(taken: Tensor, then: _Local, now: _Local) -> _Local:
    def pick(name: str) -> Tensor:
        a, b = getattr(then, name), getattr(now, name)
        return torch.where(taken.view(-1, *[1] * (a.ndim - 1)), a, b)

    names = ("weights", "coords", "basis", "residual", "value")
    return replace(now, **{name: pick(name) for name in names})
