"""How well each subspace predicts its quantity."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pullback.subspaces.arguments import check_enough_rows, check_mapping, check_names, check_tensor
from pullback.subspaces.loo import loo_scores
from pullback.subspaces.projection import Projection, aligned_targets, project
from pullback.subspaces.statistics import CODES, SufficientStatistics
from pullback.validation import check_choice, check_shape

Normalize = Literal["variance", "none"]
ROUNDING = 8


def alignment_loss(
    Z: Float[Tensor, "b d"],
    W: Mapping[str, Tensor],
    A: Mapping[str, Tensor] | None,
    Y: Mapping[str, Tensor],
    *,
    normalize: Normalize = "variance",
    center: SufficientStatistics | None = None,
) -> Float[Tensor, ""]:
    """Share of the variance of each quantity that its subspace leaves unexplained, mean over quantities.

        mean_q ‖Z_c W_qᵀ A_q - Y_q,c‖²/‖Y_q,c‖²

    A quantity that is constant in the batch counts 1, and has no gradient.

    Args:
        Z: codes, (B, D).
        W: name -> orthonormal rows (k, D).
        A: name -> decoder (k, m); None solves the best one inside, and the loss is mean_q (1 - `loo_r2`).
        Y: name -> (B, ...).
        normalize: "none" takes the mean square over rows and columns in the quantities' own units instead.
        center: statistics whose means are subtracted, instead of those of the batch, which shrink the
            expected loss by (B - 1)/B.
    Returns: a scalar in the dtype of Z (float32 for half precision).
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; names or dtypes that differ; a
            batch too small.
    Example:
        >>> import torch
        >>> z = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> W, A = {"mass": torch.eye(3)[:1]}, {"mass": torch.tensor([[2.0]])}
        >>> alignment_loss(z, W, A, {"mass": 2 * z[:, 0]}).item() < 1e-10
        True
    """
    check_choice("normalize", normalize, ("variance", "none"))
    mean = None if center is None else _checked_center(center, Y, Z)
    projection = project(Z, W, mean)
    targets = aligned_targets(Y, projection)
    if A is None:
        return unexplained(projection, targets)
    decoders = aligned_decoders(A, projection, targets)
    means = {} if center is None else {q: center.mean_of(q).to(projection.codes) for q in targets}
    return alignment(projection, decoders, targets, normalize=normalize, means=means)


def alignment(
    projection: Projection,
    A: Mapping[str, Tensor],
    Y: Mapping[str, Tensor],
    *,
    normalize: Normalize = "variance",
    means: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """`alignment_loss` of checked arguments."""
    if not means and projection.rows < 2:
        raise ValueError(
            f"Z: alignment needs at least 2 rows, or center=statistics, got {projection.rows}: a single row "
            "has no deviation from its own mean"
        )
    left, sizes, offsets, numbers = [], [], [], []
    for q, S in projection.blocks().items():
        mean = means[q] if means else Y[q].mean(0)
        y = Y[q] - mean
        left.append(functional.mse_loss(S @ A[q], y, reduction="sum"))
        if normalize == "none":
            numbers.append(y.numel())
        else:
            sizes.append(y.square().sum())
            offsets.append(mean.square().sum())
    parts = torch.stack(left)
    if normalize == "none":
        return (parts / parts.new_tensor(numbers)).mean()
    size = torch.stack(sizes)
    constant = _constant(size, torch.stack(offsets), projection.rows)
    return (parts / size.masked_fill(constant, torch.inf) + constant).mean()


def _constant(size: Tensor, offset: Tensor, rows: int) -> Tensor:
    """Whether sums of squares about means of squared norm ``offset`` are no more than rounding."""
    return size <= (ROUNDING * torch.finfo(size.dtype).eps) ** 2 * rows * offset


def unexplained(projection: Projection, Y: Mapping[str, Tensor]) -> Tensor:
    """mean_q (1 - `loo_r2`)."""
    check_enough_rows(projection.rows, max(projection.sizes), "alignment with A=None")
    scores, sizes, offsets = [], [], []
    for q, S in projection.blocks().items():
        mean = Y[q].mean(0)
        scores.append(loo_scores(S, [Y[q]])[0])
        sizes.append((Y[q] - mean).square().sum())
        offsets.append(mean.square().sum())
    constant = _constant(torch.stack(sizes), torch.stack(offsets), projection.rows)
    return 1 - torch.stack(scores).masked_fill(constant, 0).mean()


def aligned_decoders(
    A: Mapping[str, Tensor], projection: Projection, Y: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Checked decoders in the order of the subspaces."""
    check_names("A", check_mapping("A", A), projection.names, "W")
    found = {}
    for q, size in zip(projection.names, projection.sizes, strict=True):
        label = f"A[{q!r}]"
        decoder = check_tensor(label, A[q])
        check_shape(label, decoder, (size, Y[q].shape[1]), "(k, m)")
        if decoder.dtype in (torch.float16, torch.bfloat16):
            decoder = decoder.float()
        if decoder.dtype != projection.codes.dtype:
            raise TypeError(
                f"{label}: expected {projection.codes.dtype} like Z, got {decoder.dtype}; convert one"
            )
        found[q] = decoder
    return found


def _checked_center(center: object, Y: Mapping[str, Tensor], Z: Tensor) -> Tensor:
    if not isinstance(center, SufficientStatistics):
        raise TypeError(f"center: expected SufficientStatistics or None, got {type(center).__name__}")
    center.check_rows()
    check_names("center", center.names, check_mapping("Y", Y), "Y")
    return center.mean_of(CODES).to(check_tensor("Z", Z))
