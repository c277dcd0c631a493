"""Strength of a penalty: μ = sign(w) exp(ln|w| + rho), w its weight and rho a log-strength to be learned.

The exponent is never clamped: a clamp would make the value flat while its derivative by rho is not zero.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Rho = Tensor | float | int | Sequence[float | int] | None
"""Log-strengths: a number, ``(rho_count,)``, or None for zeros."""

BAND, NARROW_BAND = 700.0, 85.0
"""Largest |ln μ| that float64 and float32 hold with room to spare."""


def _check_band(exponent: float, dtype: torch.dtype) -> None:
    band = BAND if dtype == torch.float64 else NARROW_BAND
    if not abs(exponent) <= band:
        raise ValueError(
            f"rho: expected |ln|weight| + rho| <= {band:g} for {str(dtype).removeprefix('torch.')} targets, "
            f"got {exponent:g}; rescale the weight"
        )


def strength(weight: float, rho: Rho, dtype: torch.dtype) -> float | Tensor:
    """μ of one log-strength; a tensor, with its graph, where ``rho`` is one.

    Raises:
        ValueError: more than one log-strength, or a strength outside the range of ``dtype``.
    """
    if isinstance(rho, Sequence):
        rho = torch.tensor(rho, dtype=torch.float64)
    if isinstance(rho, Tensor):
        if rho.numel() != 1 or rho.ndim > 1:
            raise ValueError(f"rho: expected one log-strength, got shape {tuple(rho.shape)}")
        if weight == 0:
            return 0.0
        exponent = math.log(abs(weight)) + rho.reshape(()).double()
        _check_band(float(exponent.detach()), dtype)
        return math.copysign(1.0, weight) * exponent.exp()
    if weight == 0:
        return 0.0
    shift = 0.0 if rho is None else float(rho)
    exponent = math.log(abs(weight)) + shift
    _check_band(exponent, dtype)
    return weight if shift == 0 else math.copysign(math.exp(exponent), weight)


def strengths(weights: Tensor, rho: Rho, like: Tensor) -> Tensor:
    """μ of several log-strengths, (k,), in the dtype of ``like``; a single number shifts all of them.

    Raises:
        ValueError: another number of log-strengths, or a strength out of range.
    """
    shift = torch.as_tensor(0.0 if rho is None else rho, dtype=torch.float64)
    if shift.ndim > 1 or (shift.ndim == 1 and shift.shape != weights.shape):
        raise ValueError(f"rho: expected {weights.numel()} log-strengths, got shape {tuple(shift.shape)}")
    zero = weights == 0
    # where there is no weight neither a value nor a gradient comes from its logarithm
    exponent = torch.where(zero, 0.0, torch.where(zero, 1.0, weights).abs().log() + shift.to(weights.device))
    for entry in exponent.tolist():
        _check_band(entry, like.dtype)
    return (weights.sign() * exponent.exp()).to(like)


def log_strength(weight: float, rho: Rho) -> Tensor:
    """ln μ in float64, with the graph of ``rho``.

    Raises:
        ValueError: a strength that is not positive.
    """
    if weight <= 0:
        raise ValueError(f"weight: expected > 0 for a prior, got {weight}")
    return torch.as_tensor(strength(weight, rho, torch.float64), dtype=torch.float64).log()
