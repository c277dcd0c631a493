"""All losses of free subspaces, named and added up."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.subspaces.alignment import aligned_decoders, alignment, unexplained
from pullback.subspaces.bases import complement
from pullback.subspaces.disentanglement import disentanglement
from pullback.subspaces.drift import stability
from pullback.subspaces.isotropy import isotropy
from pullback.subspaces.projection import Projection, aligned_targets, project
from pullback.typing import Schedule
from pullback.validation import check_positive

WEIGHTS = {"alignment": 1.0, "disentanglement": 1.0, "isotropy": 1.0, "stability": 0.0}


@dataclass(frozen=True, eq=False)
class CombinedLoss:
    """Terms without their weights, and the weighted sum.

    Attributes:
        total: Σ weight x term.
        alignment, disentanglement, isotropy, stability: the terms; None where its weight is 0 and nothing had
            to be computed, stability also where there is no previous basis.
    """

    total: Float[Tensor, ""]
    alignment: Float[Tensor, ""] | None
    disentanglement: Float[Tensor, ""] | None
    isotropy: Float[Tensor, ""] | None
    stability: Float[Tensor, ""] | None


def combined_loss(
    Z: Float[Tensor, "b d"],
    W: Mapping[str, Tensor],
    A: Mapping[str, Tensor] | None,
    Y: Mapping[str, Tensor],
    W_prev: Mapping[str, Tensor] | None = None,
    *,
    weights: Mapping[str, float | int | Schedule] | None = None,
    n_dir: int | None = None,
    step: int = 0,
) -> CombinedLoss:
    """Alignment, disentanglement, isotropy and stability from one projection of the codes.

    Args:
        Z: codes, (B, D).
        W: name -> orthonormal rows (k, D).
        A: name -> decoder (k, m), or None, see `alignment_loss`.
        Y: name -> (B, ...).
        W_prev: previous bases, for stability.
        weights: of the terms by name, numbers or functions of ``step``; 1, 1, 1 and 0 where not given, and 0
            for isotropy where there are no free dimensions.
        n_dir: see `isotropy_loss`.
        step: where schedules stand.
    Returns: a `CombinedLoss`; ``.total`` is the loss.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; a weight on a term that is
            constant.
    Example:
        >>> import torch
        >>> z = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
        >>> W = {"a": torch.eye(4)[:1], "b": torch.eye(4)[1:2]}
        >>> Y = {"a": torch.randn(50), "b": torch.randn(50)}
        >>> loss = combined_loss(z, W, None, Y, weights={"isotropy": lambda step: step / 10}, step=5)
        >>> loss.total.backward()
        >>> z.grad.shape
        torch.Size([50, 4])
    """
    given = _checked_weights(weights, step)
    projection = project(Z, W)
    targets = aligned_targets(Y, projection)
    decoders = None if A is None else aligned_decoders(A, projection, targets)
    w = WEIGHTS | given
    N = complement(projection.stack) if w["isotropy"] else None
    if N is not None and N.shape[1] == 0 and "isotropy" not in given:
        w["isotropy"] = 0.0
    _check_stability(w["stability"], projection, W_prev)
    terms: dict[str, Tensor | None] = dict.fromkeys(WEIGHTS)
    if w["alignment"]:
        terms["alignment"] = (
            unexplained(projection, targets) if decoders is None else alignment(projection, decoders, targets)
        )
    if w["disentanglement"]:
        terms["disentanglement"] = disentanglement(projection)
    if w["isotropy"]:
        terms["isotropy"] = isotropy(projection, n_dir=n_dir, basis=N)
    if W_prev is not None:
        terms["stability"] = stability(projection, W_prev)
    weighted = [w[name] * term for name, term in terms.items() if term is not None and w[name]]
    total = torch.stack(weighted).sum() if weighted else projection.codes.new_zeros(())
    return CombinedLoss(total, **terms)


def _checked_weights(weights: Mapping[str, float | int | Schedule] | None, step: int) -> dict[str, float]:
    if weights is None:
        return {}
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights: expected a dict of name -> number, got {type(weights).__name__}")
    unknown = sorted(set(weights) - set(WEIGHTS))
    if unknown:
        raise ValueError(f"weights: expected some of {', '.join(map(repr, WEIGHTS))}, got {unknown[0]!r}")
    found = {name: float(w(step)) if callable(w) else w for name, w in weights.items()}
    for name, value in found.items():
        check_positive(f"weights[{name!r}]", value, zero=True)
    return {name: float(value) for name, value in found.items()}


def _check_stability(weight: float, projection: Projection, W_prev: object) -> None:
    if not weight:
        return
    if W_prev is None:
        raise ValueError("W_prev: expected the previous bases where stability has a weight, got None")
    if not projection.stack.requires_grad:
        raise ValueError(
            "weights['stability']: expected 0 where W carries no gradient, got a constant term; use "
            "subspace_change to log drift"
        )
