"""What a subspace tells of quantities that are not its own."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.subspaces.arguments import check_enough_rows, check_names
from pullback.subspaces.bases import complement
from pullback.subspaces.loo import loo_scores
from pullback.subspaces.projection import Projection, aligned_targets, project
from pullback.subspaces.statistics import SufficientStatistics

IMPLIED_RIDGE = 1e-6
IMPLIED = 1e-4
"""Share of the variance of a quantity below which another one implies it."""


def conditional_leak(
    Z: Float[Tensor, "b d"],
    W: Mapping[str, Tensor],
    Y: Mapping[str, Tensor],
    *,
    statistics: SufficientStatistics,
) -> Float[Tensor, ""]:
    """What subspace r tells of quantity q beyond what quantity r implies, mean over ordered pairs.

        mean_{q ≠ r} max(0, loo_r2(Z W_rᵀ, y_q - E[y_q | y_r]))

    with E linear. Pairs whose residual holds less than 1e-4 of the variance of y_q are left out.

    Args:
        Z: codes, (B, D), B >= max k + 2.
        W: name -> orthonormal rows (k, D).
        Y: name -> (B, ...).
        statistics: of all data; regressions among quantities of one batch would follow its noise.
    Returns: a scalar in the dtype of Z (float32 for half precision), 0 for a single quantity.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; a batch too small.
    Example:
        >>> import torch
        >>> z = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> Y = {"a": z[:, 0], "b": z[:, 0] + z[:, 1]}
        >>> W = {"a": torch.eye(2)[:1], "b": torch.ones(1, 2) / 2**0.5}
        >>> all_data = SufficientStatistics.from_tensors(z, Y)
        >>> bool(conditional_leak(z, W, Y, statistics=all_data) < 1e-3)
        True
    """
    leaks = [
        value for value in conditional_leaks(Z, W, Y, statistics=statistics).values() if value is not None
    ]
    if not leaks:
        return (Z[:1] * 0).sum()
    return torch.stack(leaks).mean()


def conditional_leaks(
    Z: Float[Tensor, "b d"],
    W: Mapping[str, Tensor],
    Y: Mapping[str, Tensor],
    *,
    statistics: SufficientStatistics,
) -> dict[tuple[str, str], Tensor | None]:
    """The terms of `conditional_leak`: (q, r) -> scalar, or None where quantity r implies q.

    All quantities are read from one subspace with one Cholesky factor.

    Args:
        Z, W, Y, statistics: see `conditional_leak`.
    """
    projection = project(Z, W)
    targets = aligned_targets(Y, projection)
    check_enough_rows(projection.rows, max(projection.sizes), "conditional_leak")
    if not isinstance(statistics, SufficientStatistics):
        raise TypeError(f"statistics: expected SufficientStatistics, got {type(statistics).__name__}")
    statistics.check_rows()
    check_names("statistics", statistics.names, targets, "Y")
    found: dict[tuple[str, str], Tensor | None] = {}
    for r, S in projection.blocks().items():
        others = [q for q in targets if q != r]
        residuals = {q: implied_residual(targets[q], targets[r], statistics, q, r) for q in others}
        told = [q for q in others if residuals[q] is not None]
        scores = loo_scores(S, [residuals[q] for q in told]) if told else []  # type: ignore[misc]
        found |= dict.fromkeys((q, r) for q in others)
        found |= {(q, r): score.clamp_min(0) for q, score in zip(told, scores, strict=True)}
    return found


def free_leak(Z: Float[Tensor, "b d"], W: Mapping[str, Tensor], Y: Mapping[str, Tensor]) -> Float[Tensor, ""]:
    """What the free dimensions, orthogonal to all subspaces, tell of the quantities.

        mean_q max(0, loo_r2(Z N, y_q)),   N an orthonormal basis of the complement

    Args:
        Z: codes, (B, D), B >= f + 2 with f free dimensions.
        W: name -> orthonormal rows (k, D).
        Y: name -> (B, ...).
    Returns: a scalar in the dtype of Z (float32 for half precision); 0 without gradient where f = 0.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; a batch too small.
    Example:
        >>> import torch
        >>> z = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
        >>> W = {"a": torch.eye(3)[:1]}
        >>> bool(free_leak(z, W, {"a": z[:, 0]}) < 0.01), bool(free_leak(z, W, {"a": z[:, 1]}) > 0.99)
        (True, True)
    """
    projection = project(Z, W)
    return free_part_leak(projection, aligned_targets(Y, projection))


def free_part_leak(projection: Projection, Y: Mapping[str, Tensor]) -> Tensor:
    """`free_leak` of checked arguments."""
    N = complement(projection.stack)
    if N.shape[1] == 0:
        return projection.codes.new_zeros(())
    check_enough_rows(projection.rows, N.shape[1], "free_leak")
    scores = loo_scores(projection.codes @ N, list(Y.values()))
    return torch.stack(scores).clamp_min(0).mean()


def implied_residual(
    y: Float[Tensor, "b m"], given: Float[Tensor, "b l"], statistics: SufficientStatistics, q: str, r: str
) -> Tensor | None:
    """y_q - E[y_q | y_r] of a batch with the linear E of all data; None where r implies q."""
    C = implied_map(statistics.block(r, r), statistics.block(r, q), statistics.block(q, q))
    if C is None:
        return None
    away = y - statistics.mean_of(q).to(y)
    return away - (given - statistics.mean_of(r).to(y)) @ C.to(y)


def implied_map(
    S_rr: Float[Tensor, "l l"], S_rq: Float[Tensor, "l m"], S_qq: Float[Tensor, "m m"]
) -> Float[Tensor, "l m"] | None:
    """C with E[y_q | y_r] = y_r C, both centred, from their scatter; None where r implies q."""
    t = S_rr.diagonal().mean()
    if bool(t > 0):
        eye = torch.eye(len(S_rr), dtype=S_rr.dtype, device=S_rr.device)
        C = torch.linalg.solve(S_rr + IMPLIED_RIDGE * t * eye, S_rq)
    else:
        C = torch.zeros_like(S_rq)
    left = (S_qq - 2 * C.mT @ S_rq + C.mT @ S_rr @ C).diagonal().sum()
    return None if bool(left <= IMPLIED * S_qq.diagonal().sum()) else C
