"""Log densities as pure functions: one entry in, one number out, every constant included.

The functions broadcast their arguments and do not sum. Counts are computed in double precision, because
x log μ and lgΓ(x + 1) are large and nearly cancel; the caller rounds the sum.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
LOG_SCALE_LIMIT = 7.0
"""Learned log σ stays within ± this: the likelihood of a feature that is fitted exactly has no maximum."""
DISPERSION_RANGE = (1e-4, 1e5)
"""Inverse dispersion θ of the negative binomial; the upper end is a Poisson to 1e-5."""


def wide(tensor: Tensor) -> Tensor:
    """In double precision where the device has it (Apple's GPUs do not)."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


def normal(x: Tensor, mean: Tensor, log_scale: Tensor | float) -> Tensor:
    """log N(x; mean, σ²) = -½((x - mean)/σ)² - log σ - ½ log 2π."""
    inverse = torch.exp(-log_scale) if isinstance(log_scale, Tensor) else math.exp(-log_scale)
    return -0.5 * ((x - mean) * inverse).square() - log_scale - HALF_LOG_TWO_PI


def bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    """x log σ(l) + (1 - x) log σ(-l), to a rounding of l."""
    x, logits = torch.broadcast_tensors(x, logits)
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none")


def poisson(x: Tensor, log_rate: Tensor) -> Tensor:
    """x log μ - μ - lgΓ(x + 1), in double precision."""
    x, log_rate = wide(x), wide(log_rate)
    return x * log_rate - torch.exp(log_rate) - torch.lgamma(x + 1)


def negative_binomial(x: Tensor, log_mean: Tensor, log_dispersion: Tensor) -> Tensor:
    """lgΓ(x+θ) - lgΓ(θ) - lgΓ(x+1) + x log σ(a) + θ log σ(-a), a = log μ - log θ, in double precision.

    The variance is μ + μ²/θ. In single precision lgΓ(x+θ) - lgΓ(θ) has no digit left for θ > 1e5.
    """
    x, log_mean, log_dispersion = wide(x), wide(log_mean), wide(log_dispersion)
    low, high = DISPERSION_RANGE
    log_dispersion = log_dispersion.clamp(math.log(low), math.log(high))
    theta = torch.exp(log_dispersion)
    ratio = log_mean - log_dispersion
    constant = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
    return constant + x * F.logsigmoid(ratio) + theta * F.logsigmoid(-ratio)


def categorical(index: Tensor, logits: Tensor) -> Tensor:
    """log softmax of ``logits`` (..., classes) at the class ``index`` (...)."""
    shape = torch.broadcast_shapes(index.shape, logits.shape[:-1])
    table = torch.log_softmax(logits, dim=-1).expand(*shape, logits.shape[-1])
    return table.gather(-1, index.long().expand(shape).unsqueeze(-1)).squeeze(-1)


def standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I) of each row, ``(..., d) -> (...)``."""
    return -0.5 * z.square().sum(-1) - z.shape[-1] * HALF_LOG_TWO_PI
