"""R² of a ridge read-out on rows that it has not seen, in closed form and differentiable."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.subspaces.arguments import check_codes, check_enough_rows, check_quantity, check_same_dtype
from pullback.validation import check_positive

RIDGE = 1e-2
LEVERAGE = 0.9
"""Leverages are cut here, so that a batch hardly larger than k has no infinite residual."""


FLOOR = {torch.float32: 1e-30, torch.float64: 1e-290}
"""Smallest mean variance of coordinates: its ridge is still a normal number."""


def loo_r2(
    S: Float[Tensor, "b k"],
    Y: Float[Tensor, "*b m"],
    ridge: float | int = RIDGE,
    *,
    t_floor: float | int | None = None,
) -> Float[Tensor, ""]:
    """1 - Σ ‖y_i - ŷ_i‖²/Σ ‖y_i - ȳ‖², ŷ_i from the ridge regression on all rows but i.

    With S and Y centred, C = SᵀS/B and t the mean of its diagonal,

        L Lᵀ = C + ridge t I,  X = L⁻¹ Sᵀ/√B,  h_i = ‖X_i‖² + 1/B,  R = (Y - Xᵀ X Y)/(1 - h)

    The decoder is solved inside and gradients flow through it (Golub, Pereyra 1973, "The differentiation of
    pseudo-inverses and nonlinear least squares problems whose variables separate"). The ridge of all B rows
    serves every row that is left out. Rotations and a common scale of S do not matter. For S independent of Y
    the mean is slightly negative, so that max(0, R²) neither rewards nor punishes noise.

    Args:
        S: coordinates, (B, k), B >= k + 2.
        Y: (B,) or (B, m) of the same dtype.
        ridge: relative to the mean variance of the coordinates.
        t_floor: smallest t; None is 1e-30 in float32 and 1e-290 in float64.
    Returns: a scalar, at most 1; 0 for a Y that does not vary.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; too few rows.
    Example:
        >>> import torch
        >>> s = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> bool(loo_r2(s, s @ torch.ones(2, 1)) > 0.999), bool(loo_r2(s, s.flip(0)) < 0.05)
        (True, True)
    """
    check_positive("ridge", ridge)
    coordinates = check_codes(S, "S")
    target = check_quantity("Y", Y, len(coordinates))
    check_same_dtype(coordinates, {"": target}, "Y")
    check_enough_rows(len(coordinates), coordinates.shape[1], "loo_r2")
    if t_floor is not None:
        check_positive("t_floor", t_floor)
    return loo_scores(coordinates, [target], ridge, t_floor)[0]


def loo_scores(
    S: Float[Tensor, "b k"],
    targets: Sequence[Tensor],
    ridge: float | int = RIDGE,
    t_floor: Tensor | float | int | None = None,
) -> list[Tensor]:
    """`loo_r2` of several quantities from the same coordinates, with one Cholesky factor for all."""
    Y = torch.cat(list(targets), dim=1) if len(targets) > 1 else targets[0]
    Y, R = loo_residuals(S, Y, ridge, t_floor=t_floor)
    widths = [target.shape[1] for target in targets]
    return [_r2(y, r) for y, r in zip(Y.split(widths, 1), R.split(widths, 1), strict=True)]


def loo_residuals(
    S: Float[Tensor, "*p b k"],
    Y: Float[Tensor, "*p b m"],
    ridge: float | int = RIDGE,
    *,
    t_floor: Tensor | float | int | None = None,
    sizes: Float[Tensor, " p"] | None = None,
) -> tuple[Float[Tensor, "*p b m"], Float[Tensor, "*p b m"]]:
    """Centred quantities and what ridge regressions on the other rows leave of them.

    Args:
        S: coordinates of a subspace, or of several, side by side and filled up with zeros.
        Y: quantities.
        ridge, t_floor: see `loo_r2`.
        sizes: how many coordinates of each subspace are no filling.
    """
    B, k = S.shape[-2:]
    S = S - S.mean(-2, keepdim=True)
    Y = Y - Y.mean(-2, keepdim=True)
    C = S.mT @ S / B
    floor = FLOOR[S.dtype] if t_floor is None else t_floor
    diagonal = C.diagonal(dim1=-2, dim2=-1)
    t = (diagonal.mean(-1) if sizes is None else diagonal.sum(-1) / sizes).clamp_min(floor)
    eye = torch.eye(k, dtype=S.dtype, device=S.device)
    # no look at the outcome, which would wait for a GPU: what is not finite stays so and is seen in the loss
    L = torch.linalg.cholesky_ex(C + (ridge * t)[..., None, None] * eye).L
    X = torch.linalg.solve_triangular(L, S.mT, upper=False) / B**0.5
    h = X.square().sum(-2) + 1 / B
    return Y, (Y - X.mT @ (X @ Y)) / (1 - h.clamp_max(LEVERAGE)).unsqueeze(-1)


def _r2(Y: Tensor, R: Tensor) -> Tensor:
    return explained(Y.square().sum(), R.square().sum())


def explained(total: Tensor, left: Tensor) -> Tensor:
    """R² from sums of squares; a batch in which the quantity does not vary has nothing to explain: 0."""
    return (total - left) / total.clamp_min(torch.finfo(total.dtype).tiny)
