"""Value and both gradients of the isometry penalty in one pass."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.penalties.evidence import GivenJet
from pullback.penalties.gauge import euclidean_shape
from pullback.penalties.kernels import gram, times_and_contract


@dataclass(frozen=True, eq=False)
class IsometryEvaluation:
    """Value and both gradients.

    Attributes:
        value: the penalty.
        grad_target: gradient by the points, in their shape.
        grad_jacobian: gradient by the Jacobians, (n, p, d); None where there is no Jacobian.
        mean: ḡ, the scale that the residual is free of.
    """

    value: Tensor
    grad_target: Tensor
    grad_jacobian: Tensor | None
    mean: float


def is_plain(J: Tensor, H: Tensor) -> bool:
    """Whether numbers on a CPU outside of any graph are asked for."""
    if torch.is_grad_enabled() and (J.requires_grad or H.requires_grad):
        return False
    return J.dtype == H.dtype == torch.float64 and J.device.type == "cpu" and J.shape[0] > 0


def quick_evaluation(at: GivenJet, strength: float) -> IsometryEvaluation | None:
    """For the Euclidean reference and float64, in few calls; None where a number leaves its range."""
    mean, half, A = euclidean_shape(gram(at.short))
    if not 1e-140 < mean < 1e140:
        return None
    assert at.hessian is not None
    slope, change = times_and_contract(at.weighted, A.mul_(2 * strength), at.hessian)
    if not math.isfinite(float(change.sum())):
        return None
    return IsometryEvaluation(at.jacobian.new_tensor(strength * half), change, slope, mean)
